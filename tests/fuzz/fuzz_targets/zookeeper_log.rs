//! Feeds `readers::zookeeper_log`.
#![no_main]

#[path = "../readers/zookeeper_log.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::feed(data));
