//! Group requests, asked of one coordinator. `cargo +nightly fuzz run groups`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| coord::group::fuzz::requests(bytes));
