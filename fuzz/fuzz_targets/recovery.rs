//! A log's segment as a start finds it. `scripts/fuzz 60 recovery`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::recovery(bytes));
