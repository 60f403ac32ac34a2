//! Feeds `readers::message`.
#![no_main]

#[path = "../readers/message.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::feed(data));
