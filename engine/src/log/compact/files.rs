//! What a compaction reads and writes: pieces of whole batches in, one new file out. A window of memory each.

use super::super::Shared;
use super::super::scan::{Scan, Step, Window};
use super::{CompactionError, Old};
use crate::compaction::clean::Cleaned;
use crate::ids::Offset;
use crate::names;
use crate::space::{BLOCK_BYTES, block_ceil, block_floor};
use rt::{File, Open, Reservation, Slice, Sync};
use std::io;

/// How much a helper thread is given at once, but for a batch that alone is larger, and how much is read and written at
/// a time: reading, checking and copying this much keeps the core for some tens of microseconds.
pub(in crate::log) const PIECE_BYTES: usize = 64 << 10;

/// The batches of one old segment.
pub(super) struct Pieces {
    scan: Scan,
}

impl Pieces {
    /// From the batch that begins at `pos`.
    pub(super) fn new(shared: &Shared, old: &Old, pos: u64) -> Pieces {
        let window_bytes = PIECE_BYTES.min(shared.limits.scan_bytes);
        Pieces {
            scan: Scan {
                file: old.file.clone(),
                pos,
                end: old.bytes,
                window_bytes,
                window_bytes_max: window_bytes,
                reservation: Reservation::CatchUp,
                crcs: Some(old.index.clone()),
                window: Window::default(),
            },
        }
    }

    /// The next whole batches, in memory of their own; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            match self.scan.next().await? {
                Step::Batch { bytes } => piece.extend_from_slice(&bytes),
                Step::End => break,
                Step::Bad { pos, why } => {
                    let why = format!("damaged at {pos}: {why}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// The new segment's file, under a name that a start drops.
pub(super) struct Output {
    pub(super) file: File,
    base: Offset,
    position: u64,
    /// What does not fill a block yet.
    rest: Vec<u8>,
}

impl Output {
    /// Reserves `bytes` for it, if as much is left for others then.
    pub(super) async fn create(shared: &Shared, base: Offset, bytes: u64) -> Result<Output, CompactionError> {
        let free = shared.core.free_bytes(shared.dir.clone()).await?;
        if free < bytes.saturating_mul(2) {
            let dir = shared.dir.display();
            let why =
                format!("compacting {dir} needs {bytes} bytes and as much again for others, {free} are free");
            return Err(CompactionError::NoSpace(why));
        }
        discard(shared, base).await;
        let path = shared.dir.join(names::cleaned(base));
        let file = shared.core.open(path, Open::write().create().direct()).await?;
        let output = Output { file, base, position: 0, rest: Vec::new() };
        if let Err(error) = output.file.allocate(0..block_ceil(bytes.max(1))).await {
            discard(shared, base).await;
            return Err(error.into());
        }
        Ok(output)
    }

    pub(super) async fn write(&mut self, shared: &Shared, bytes: Vec<u8>) -> io::Result<()> {
        shared.count(|counters| counters.compaction_bytes_written += bytes.len() as u64);
        match self.rest.is_empty() {
            true => self.rest = bytes,
            false => self.rest.extend_from_slice(&bytes),
        }
        let whole = block_floor(self.rest.len() as u64) as usize;
        self.write_blocks(shared, whole).await?;
        self.rest.drain(..whole);
        Ok(())
    }

    /// Writes the first `bytes` of the rest, padded with zeros to a block.
    async fn write_blocks(&mut self, shared: &Shared, bytes: usize) -> io::Result<()> {
        for from in (0..bytes).step_by(PIECE_BYTES) {
            let part = &self.rest[from..bytes.min(from + PIECE_BYTES)];
            let padded = block_ceil(part.len() as u64) as usize;
            let mut buf = shared.core.buffers().take(padded, Reservation::CatchUp).await;
            buf[..part.len()].copy_from_slice(part);
            buf[part.len()..padded].fill(0);
            self.file.write_at(vec![buf.freeze(0..padded)], self.position, Sync::None).await?;
            self.position += padded as u64;
        }
        Ok(())
    }

    /// The rest, the length, the index beside it; all of it on stable media under names that are when this returns.
    pub(super) async fn finish(&mut self, shared: &Shared, cleaned: &Cleaned) -> io::Result<()> {
        let rest = self.rest.len();
        self.write_blocks(shared, rest).await?;
        assert!(self.position.checked_sub(cleaned.bytes).is_some_and(|padding| padding < BLOCK_BYTES));
        self.file.truncate(cleaned.bytes).await?;
        let path = shared.dir.join(names::cleaned_index(self.base));
        let index = shared.core.open(path, Open::write().create()).await?;
        index.write_at(vec![Slice::from(cleaned.index.clone())], 0, Sync::None).await?;
        if shared.faults.unsynced_swap {
            return Ok(());
        }
        self.file.sync_all().await?;
        index.sync_all().await?;
        if shared.faults.skip_dir_sync {
            return Ok(());
        }
        shared.core.sync_dir(shared.dir.clone()).await
    }
}

/// Drops what was written and is not needed. What stays by a failure is dropped by the next start.
pub(super) async fn discard(shared: &Shared, base: Offset) {
    for name in [names::cleaned(base), names::cleaned_index(base)] {
        let _ = shared.core.unlink(shared.dir.join(name)).await;
    }
}
