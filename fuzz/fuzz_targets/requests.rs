//! The content of a frame: a request header and a body. `scripts/fuzz 60 requests`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| net::fuzz::requests(bytes));
