//! A file of a core's journal, and the body of an entry. `scripts/fuzz 60 journal`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::journal(bytes));
