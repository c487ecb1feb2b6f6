//! A checkpoint slot, and the frames inside one. `scripts/fuzz 60 checkpoint`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::checkpoint(bytes));
