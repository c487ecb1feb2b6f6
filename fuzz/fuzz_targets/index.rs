//! A sealed segment's index file, and the body of one. `scripts/fuzz 60 index`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::index(bytes));
