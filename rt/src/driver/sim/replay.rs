//! A recorded run of a real driver on the simulated disk, up to any of its events. What had begun and not ended there may
//! have been done or not, which the seed decides; of a write in flight the cut that follows leaves any of its sectors.

use super::disk::{Fault, SimDisk};
use crate::core::splitmix;
use crate::record::{Event, FileNumber, FileOp, Outcome};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Does what `events` say on a fresh disk, where `root` of the recording host is `/data`.
pub fn replay(events: &[Event], root: &Path, seed: u64) -> SimDisk {
    let mut replay = Replay { disk: SimDisk::new(), root, files: BTreeMap::new(), open: BTreeMap::new() };
    for event in events {
        match event {
            Event::Begun { number, op } => replay.begin(*number, op),
            Event::Ended { number, outcome } => replay.end(*number, *outcome),
        }
    }
    replay.cut(seed);
    replay.disk
}

struct Replay<'a> {
    disk: SimDisk,
    root: &'a Path,
    files: BTreeMap<FileNumber, u64>,
    /// Begun and not ended.
    open: BTreeMap<u64, &'a FileOp>,
}

impl<'a> Replay<'a> {
    fn begin(&mut self, number: u64, op: &'a FileOp) {
        if let FileOp::Write { file, pos, bytes, .. } = op {
            self.disk.begin_write(number, self.files[file], *pos, bytes.clone());
        }
        self.open.insert(number, op);
    }

    fn end(&mut self, number: u64, outcome: Outcome) {
        let op = self.open.remove(&number).expect("it begun before it ended");
        match (op, outcome) {
            (FileOp::Write { sync, .. }, Outcome::Wrote(count)) => {
                let written = self.disk.end_write(number, *sync, Some(Fault::ShortWrite(count)));
                assert_eq!(written.ok(), Some(count), "the simulated disk takes what the real one took");
            }
            // What a failed write left is in doubt: it stays in flight.
            (FileOp::Write { .. }, Outcome::Failed | Outcome::Done | Outcome::Opened(_)) => {}
            (_, Outcome::Failed) => {}
            (op, Outcome::Done | Outcome::Opened(_) | Outcome::Wrote(_)) => self.apply(op, outcome),
        }
    }

    /// Of what is in flight, names and lengths may have changed already.
    fn cut(&mut self, seed: u64) {
        let mut random = seed;
        for op in std::mem::take(&mut self.open).into_values() {
            let is_write_or_sync =
                matches!(op, FileOp::Write { .. } | FileOp::Fsync { .. } | FileOp::SyncDir { .. });
            if !is_write_or_sync && splitmix(&mut random) & 1 == 0 {
                self.apply(op, Outcome::Done);
            }
        }
    }

    fn apply(&mut self, op: &FileOp, outcome: Outcome) {
        let disk = self.disk.clone();
        let done = match op {
            FileOp::Open { path, how } => {
                disk.open(&self.path(path), *how).map(|inode| self.opened(outcome, inode))
            }
            FileOp::Lock { path } => {
                let how = crate::file::Open::write().create();
                disk.open(&self.path(path), how).map(|inode| self.opened(outcome, inode))
            }
            FileOp::CreateDirAll { path } => disk.create_dir_all(&self.path(path)),
            FileOp::Rename { from, to } => disk.rename(&self.path(from), &self.path(to)),
            FileOp::Unlink { path } => disk.unlink(&self.path(path)),
            FileOp::RemoveDirAll { path } => disk.remove_dir_all(&self.path(path)),
            FileOp::SyncDir { path } => disk.sync_dir(&self.path(path)),
            FileOp::Write { .. } => unreachable!("writes have a way of their own"),
            FileOp::Fsync { file } => {
                disk.sync(self.files[file]);
                Ok(())
            }
            FileOp::Allocate { file, range } => disk.allocate(self.files[file], range.clone()),
            FileOp::Zero { file, range } => disk.zero(self.files[file], range.clone()),
            FileOp::Truncate { file, len } => {
                disk.truncate(self.files[file], *len);
                Ok(())
            }
        };
        // In flight at the cut, it may also have failed.
        assert!(done.is_ok() || outcome == Outcome::Done, "{op:?}: {done:?}");
    }

    fn opened(&mut self, outcome: Outcome, inode: u64) {
        if let Outcome::Opened(file) = outcome {
            self.files.insert(file, inode);
        }
    }

    fn path(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(self.root) {
            Ok(below) => Path::new("/data").join(below),
            Err(_) => panic!("{} is not below {}", path.display(), self.root.display()),
        }
    }
}
