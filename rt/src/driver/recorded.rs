//! A driver with a record of what it was asked to do with files. It is put around a real driver where a `Config` asks for
//! it, and nowhere else.

use crate::core::CoreId;
use crate::driver::{Driver, Wait};
use crate::op::{Done, Handle, Op, OpKey, Value};
use crate::record::{FileOp, Outcome, Record, Recorder};
use crate::stats::Stats;
use crate::time::Instant;
use std::io;
use std::os::fd::AsRawFd;

pub(crate) struct Recorded {
    inner: Box<dyn Driver>,
    recorder: Recorder,
    core: CoreId,
}

impl Recorded {
    pub(crate) fn new(inner: Box<dyn Driver>, recorder: Recorder, core: CoreId) -> Recorded {
        Recorded { inner, recorder, core }
    }
}

impl Driver for Recorded {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn wall_ms(&self) -> i64 {
        self.inner.wall_ms()
    }

    fn submit(&mut self, key: OpKey, op: Op) {
        {
            let mut record = self.recorder.lock();
            if let Some(file_op) = file_op(&record, &op) {
                record.begin(self.core, number(key), file_op);
            }
        }
        self.inner.submit(key, op);
    }

    fn cancel(&mut self, key: OpKey) {
        self.inner.cancel(key);
    }

    fn shutdown(&mut self, socket: &Handle) {
        self.inner.shutdown(socket);
    }

    fn turn(&mut self, wait: Wait, done: &mut Vec<(OpKey, Done)>) -> io::Result<()> {
        let before = done.len();
        let result = self.inner.turn(wait, done);
        let mut record = self.recorder.lock();
        for (key, done) in &done[before..] {
            let key = number(*key);
            if record.is_in_flight(self.core, key) {
                let outcome = outcome(&mut record, done);
                record.end(self.core, key, outcome);
            }
        }
        result
    }

    fn count(&self, stats: &mut Stats) {
        self.inner.count(stats);
    }

    fn describe(&self) -> String {
        format!("{}, with a record of its file operations", self.inner.describe())
    }
}

fn number(key: OpKey) -> u64 {
    u64::from(key.index) << 32 | u64::from(key.generation)
}

fn outcome(record: &mut Record, done: &Done) -> Outcome {
    match &done.result {
        Ok(Value::Handle(handle)) => Outcome::Opened(record.opened(handle.fd().as_raw_fd())),
        Ok(Value::Count(count)) => Outcome::Wrote(*count),
        Ok(Value::Unit | Value::Len(_) | Value::Listening(..) | Value::Connected(..) | Value::Entries(_)) => {
            Outcome::Done
        }
        Err(_) => Outcome::Failed,
    }
}

/// What the operation does to files, if it may change or pin any.
fn file_op(record: &Record, op: &Op) -> Option<FileOp> {
    let of = |handle: &Handle| {
        record.file_of(handle.fd().as_raw_fd()).expect("a file is used after its opening was recorded")
    };
    Some(match op {
        Op::Open { path, how } => FileOp::Open { path: path.clone(), how: *how },
        Op::Lock { path } => FileOp::Lock { path: path.clone() },
        Op::CreateDirAll { path } => FileOp::CreateDirAll { path: path.clone() },
        Op::Rename { from, to } => FileOp::Rename { from: from.clone(), to: to.clone() },
        Op::Unlink { path } => FileOp::Unlink { path: path.clone() },
        Op::RemoveDirAll { path } => FileOp::RemoveDirAll { path: path.clone() },
        Op::SyncDir { path } => FileOp::SyncDir { path: path.clone() },
        Op::Write { file, data, pos, sync } => {
            let bytes = data.iter().flat_map(|slice| slice.iter().copied()).collect();
            FileOp::Write { file: of(file), pos: *pos, bytes, sync: *sync }
        }
        Op::Fsync { file, .. } => FileOp::Fsync { file: of(file) },
        Op::Allocate { file, range } => FileOp::Allocate { file: of(file), range: range.clone() },
        Op::Zero { file, range } => FileOp::Zero { file: of(file), range: range.clone() },
        Op::Truncate { file, len } => FileOp::Truncate { file: of(file), len: *len },
        Op::Read { .. }
        | Op::ListDir { .. }
        | Op::FreeBytes { .. }
        | Op::Len { .. }
        | Op::NextData { .. }
        | Op::Listen { .. }
        | Op::Accept { .. }
        | Op::Connect { .. }
        | Op::Recv { .. }
        | Op::Send { .. }
        | Op::Offload { .. } => return None,
    })
}
