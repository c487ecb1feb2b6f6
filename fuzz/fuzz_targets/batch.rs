//! A run of record batches, as it comes from a socket or a disk. `scripts/fuzz 60 batch`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::batch(bytes));
