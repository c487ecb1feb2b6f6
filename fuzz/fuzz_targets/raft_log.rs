//! The controller's log as a start finds it. `scripts/fuzz 60 raft_log`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::fuzz::raft_log(bytes));
