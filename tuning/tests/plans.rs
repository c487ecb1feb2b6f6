//! Plans as data: every file below `tests/machines/` describes a host as a folder of text files, and
//! `tests/golden/plans.txt` lists, for each, wishes and what comes of them.
//!
//! Set `BLESS=1` to write the golden file anew after a change on purpose.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tuning::plan::{Numa, Pin, Wish};
use tuning::{Machine, plan};

mod golden_file;

fn wishes() -> Vec<(&'static str, Wish)> {
    let wish = Wish::default;
    vec![
        ("defaults", wish()),
        ("count 2", Wish { count: Some(2), ..wish() }),
        ("count 6", Wish { count: Some(6), ..wish() }),
        ("spare 2", Wish { spare: 2, ..wish() }),
        ("spare 3", Wish { spare: 3, ..wish() }),
        ("spare 99", Wish { spare: 99, ..wish() }),
        ("pin off", Wish { pin: Pin::Off, ..wish() }),
        ("pin [1, 0]", Wish { pin: Pin::List(vec![1, 0]), ..wish() }),
        ("pin [1, 1]", Wish { pin: Pin::List(vec![1, 1]), ..wish() }),
        ("pin [1, 2]", Wish { pin: Pin::List(vec![1, 2]), ..wish() }),
        (
            "pin [7, 9, 0, 7, 8], count 6, spare 9",
            Wish { pin: Pin::List(vec![7, 9, 0, 7, 8]), count: Some(6), spare: 9, ..wish() },
        ),
        ("pin [7]", Wish { pin: Pin::List(vec![7]), ..wish() }),
        ("pin []", Wish { pin: Pin::List(vec![]), ..wish() }),
        ("pin [0], count 2", Wish { pin: Pin::List(vec![0]), count: Some(2), ..wish() }),
        ("numa 1", Wish { numa: Numa::Node(1), ..wish() }),
        ("numa spread, count 3", Wish { numa: Numa::Spread, count: Some(3), ..wish() }),
        ("spin 0, spare 2", Wish { spin_us: Some(0), spare: 2, ..wish() }),
        ("spin 200, pin off", Wish { spin_us: Some(200), pin: Pin::Off, ..wish() }),
        ("count 0", Wish { count: Some(0), ..wish() }),
        ("count 1000", Wish { count: Some(1000), ..wish() }),
    ]
}

#[test]
fn every_wish_on_every_machine_gives_the_golden_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("machines").map(|file| file.expect("a file").path()).collect();
    files.sort();
    let mut out = String::new();
    for file in files {
        let host = unpack(&file);
        let machine = Machine::read(host.path());
        let limits = &machine.limits;
        let name = file.file_stem().expect("a name").to_string_lossy();
        writeln!(
            out,
            "# {name}: {} allowed CPUs on {} cores, nodes {:?}, kernel {}.{}, memory {:?}, cpu quota {:?}",
            machine.allowed().count(),
            machine.core_count(),
            machine.nodes(),
            machine.kernel.major,
            machine.kernel.minor,
            machine.memory_usable_bytes(),
            limits.cpu_milli
        )
        .expect("a string grows");
        for (label, wish) in wishes() {
            match plan(&machine, &wish) {
                Ok(plan) => {
                    writeln!(out, "{label}: {plan}").expect("a string grows");
                    plan.notes
                        .iter()
                        .for_each(|note| writeln!(out, "    note: {note}").expect("a string grows"));
                }
                Err(errors) => errors.iter().for_each(|error| {
                    assert!(error.to_string().starts_with(error.key()), "{error}");
                    writeln!(out, "{label}: error: {error}").expect("a string grows");
                }),
            }
        }
        out.push('\n');
    }
    golden_file::check("plans.txt", &out);
}

/// A host described in one text file: `== path` starts a file below the root, the lines after it are its content.
fn unpack(description: &Path) -> TempDir {
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
