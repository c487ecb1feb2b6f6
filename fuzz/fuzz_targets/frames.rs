//! A stream of frames, arriving in pieces. `scripts/fuzz 60 frames`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| net::fuzz::frames(bytes));
