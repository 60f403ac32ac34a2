//! Feeds `readers::job_file`.
#![no_main]

#[path = "../readers/job_file.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::feed(data));
