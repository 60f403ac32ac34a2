//! Feeds `readers::marathon`.
#![no_main]

#[path = "../readers/marathon.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::feed(data));
