//! A stream of frames, arriving in pieces. `cargo +nightly fuzz run frames`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| net::fuzz::frames(bytes));
