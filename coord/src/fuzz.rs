//! What the fuzz target for metadata does with bytes, as a function, so that a test replays its corpus on any toolchain.

use crate::metadata::{Command, Metadata};

/// Commands a run applies at most.
const COMMANDS_MAX: u64 = 64;

/// A run of commands, each after its length in two bytes, and the whole as a snapshot: what can be read is written back the
/// same, applying it panics nowhere, and a snapshot of the outcome is the outcome.
pub fn metadata(bytes: &[u8]) {
    let mut metadata = Metadata::new("fuzzed".to_owned());
    let mut rest = bytes;
    for index in 1..=COMMANDS_MAX {
        let Some((length, behind)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (one, later) = behind.split_at(length);
        rest = later;
        let Ok(command) = Command::decode(one) else { continue };
        assert_eq!(Command::decode(&command.encode()).as_ref().ok(), Some(&command));
        metadata.apply(index, &command);
    }
    settles(&metadata);
    if let Ok(snapshot) = Metadata::decode(bytes) {
        settles(&snapshot);
    }
}

fn settles(metadata: &Metadata) {
    let encoded = metadata.encode();
    let again = Metadata::decode(&encoded).expect("what was written can be read");
    assert_eq!(again.encode(), encoded);
}
