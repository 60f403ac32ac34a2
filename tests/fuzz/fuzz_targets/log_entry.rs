//! Feeds `readers::log_entry`.
#![no_main]

#[path = "../readers/log_entry.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::feed(data));
