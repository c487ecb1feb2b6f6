//! Replays the committed corpus of the fuzz target for metadata on any toolchain.

use std::fs;
use std::path::Path;

#[test]
fn metadata() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/metadata");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        coord::fuzz::metadata(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 5, "{} has {count} inputs", folder.display());
}
