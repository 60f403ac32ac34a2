//! Feeds `readers::zookeeper_message`.
#![no_main]

#[path = "../readers/zookeeper_message.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::feed(data));
