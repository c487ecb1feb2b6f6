//! What the fuzz target for the config file does with bytes, as a function, so that a test replays its corpus on any
//! toolchain.

use super::Config;
use crate::settings::Settings;

const CPUS: usize = 4;
const MEMORY_BYTES: u64 = 8 << 30;

/// A file is taken or refused with a reason, and what is taken makes a broker's settings or is refused with a reason.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse("fuzzed", text, &[]) {
        Ok(_) => drop(Settings::simulated(text, CPUS, MEMORY_BYTES)),
        Err(problems) => assert!(!problems.0.is_empty() && !problems.to_string().is_empty()),
    }
}
