//! Hosts described in one text file: `== path` starts a file below the root, the lines after it are its content.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

pub fn unpack(description: &Path) -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let text = fs::read_to_string(description).expect("a machine file");
    for part in text.split("== ").skip(1) {
        let (path, content) = part.split_once('\n').expect("a path and its content");
        let path = root.path().join(path.trim());
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    root
}

/// Compares with a file below `tests/golden/`, or writes it when `BLESS` is set.
pub fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, actual).expect("the golden file is written");
    }
    let expect = fs::read_to_string(&path).unwrap_or_default();
    assert!(expect == actual, "differs from {}; BLESS=1 accepts this:\n{actual}", path.display());
}
