//! Subscriptions, assignments and the records of the offsets topic. `scripts/fuzz 60 formats`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| net::fuzz::formats(bytes));
