//! What a driver was asked to do with files, in order, for a test that replays it: what was begun, what was completed, and
//! how it ended. Off unless a `Config` holds a [`Recorder`]; then each core's driver is wrapped, and only then does it cost
//! anything.
//!
//! An operation is noted before the driver gets it and after the driver gave it back: at any point of the record, what has
//! ended was done, and what has only begun may have been done, or a part of it.

use crate::core::CoreId;
use crate::file::{Open, Sync};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// A file of the record, whatever its descriptor was.
pub type FileNumber = u64;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileOp {
    Open { path: PathBuf, how: Open },
    Lock { path: PathBuf },
    CreateDirAll { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    RemoveDirAll { path: PathBuf },
    SyncDir { path: PathBuf },
    Write { file: FileNumber, pos: u64, bytes: Vec<u8>, sync: Sync },
    Fsync { file: FileNumber },
    Allocate { file: FileNumber, range: Range<u64> },
    Zero { file: FileNumber, range: Range<u64> },
    Truncate { file: FileNumber, len: u64 },
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    Opened(FileNumber),
    /// So many bytes were written.
    Wrote(usize),
    Failed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An operation, under a number of its own.
    Begun {
        number: u64,
        op: FileOp,
    },
    Ended {
        number: u64,
        outcome: Outcome,
    },
}

/// One record of all cores of a runtime, in one order. Clone is a counter.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Record>>);

#[derive(Default)]
pub(crate) struct Record {
    events: Vec<Event>,
    number_next: u64,
    /// Which file a descriptor stands for now.
    files: HashMap<i32, FileNumber>,
    /// Numbers of operations in flight, by core and the core's own key.
    in_flight: HashMap<(CoreId, u64), u64>,
}

impl Recorder {
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// How many events there are. What a caller was told before it asked rests on these.
    pub fn position(&self) -> usize {
        self.lock().events.len()
    }

    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("no code that can panic runs under this lock")
    }
}

impl Record {
    pub(crate) fn file_of(&self, descriptor: i32) -> Option<FileNumber> {
        self.files.get(&descriptor).copied()
    }

    pub(crate) fn begin(&mut self, core: CoreId, key: u64, op: FileOp) {
        let number = self.number();
        self.in_flight.insert((core, key), number);
        self.events.push(Event::Begun { number, op });
    }

    pub(crate) fn is_in_flight(&self, core: CoreId, key: u64) -> bool {
        self.in_flight.contains_key(&(core, key))
    }

    /// A descriptor was opened: it stands for a new file of the record.
    pub(crate) fn opened(&mut self, descriptor: i32) -> FileNumber {
        let number = self.number();
        self.files.insert(descriptor, number);
        number
    }

    pub(crate) fn end(&mut self, core: CoreId, key: u64, outcome: Outcome) {
        if let Some(number) = self.in_flight.remove(&(core, key)) {
            self.events.push(Event::Ended { number, outcome });
        }
    }

    fn number(&mut self) -> u64 {
        self.number_next += 1;
        self.number_next
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({} events)", self.position())
    }
}

impl PartialEq for Recorder {
    fn eq(&self, other: &Recorder) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Recorder {}
