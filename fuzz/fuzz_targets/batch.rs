//! A run of record batches, as it comes from a socket or a disk. `cargo +nightly fuzz run batch`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::batch(bytes));
