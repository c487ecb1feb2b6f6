//! What classic consumers say and are told inside of group requests. `scripts/fuzz 60 embedded`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| coord::group::fuzz::embedded(bytes));
