//! Replays the committed corpus of every fuzz target on any toolchain.

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 5, "{} has {count} inputs", folder.display());
}

#[test]
fn batches() {
    replay("batch", engine::fuzz::batch);
}

#[test]
fn indexes() {
    replay("index", engine::fuzz::index);
}

#[test]
fn journals() {
    replay("journal", engine::fuzz::journal);
}

#[test]
fn checkpoints() {
    replay("checkpoint", engine::fuzz::checkpoint);
}

#[test]
fn recoveries() {
    replay("recovery", engine::fuzz::recovery);
}

#[test]
fn raft_logs() {
    replay("raft_log", engine::fuzz::raft_log);
}
