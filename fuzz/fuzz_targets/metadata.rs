//! Metadata commands and snapshots. `scripts/fuzz 60 metadata`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| coord::fuzz::metadata(bytes));
