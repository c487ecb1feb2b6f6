//! A sealed segment's index file, and the body of one. `cargo +nightly fuzz run index`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::index(bytes));
