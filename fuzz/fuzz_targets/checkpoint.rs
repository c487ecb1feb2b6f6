//! A checkpoint slot, and the frames inside one. `cargo +nightly fuzz run checkpoint`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::checkpoint(bytes));
