//! Feeds `readers::zookeeper_snapshot`.
#![no_main]

#[path = "../readers/zookeeper_snapshot.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::feed(data));
