//! A config file. `scripts/fuzz 60 config`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corelog::config::fuzz::config(bytes));
