//! Comparison with files below `tests/golden/`.

use std::fs;
use std::path::Path;

/// Compares with a file below `tests/golden/`, or writes it when `BLESS` is set.
pub fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, actual).expect("the golden file is written");
    }
    let expect = fs::read_to_string(&path).unwrap_or_default();
    assert!(expect == actual, "differs from {}; BLESS=1 accepts this:\n{actual}", path.display());
}
