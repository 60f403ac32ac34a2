//! Feeds `readers::snapshot`.
#![no_main]

#[path = "../readers/snapshot.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::feed(data));
