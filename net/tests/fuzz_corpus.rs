//! Replays the committed corpus of the wire's fuzz targets on any toolchain.

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
fn frames() {
    replay("frames", net::fuzz::frames);
}

#[test]
fn requests() {
    replay("requests", net::fuzz::requests);
}

#[test]
fn formats() {
    replay("formats", net::fuzz::formats);
}
