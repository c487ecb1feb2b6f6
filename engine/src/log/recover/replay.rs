//! What the journals have behind a segment's end goes into the segment, durably, before the end is judged.
//!
//! A flush is taken only where it continues the log: what the segment has already is passed over, what a truncation took
//! away is not looked at, and what lies further on means that something in between is lost.

use super::{OpenError, Progress, Recovery};
use crate::batch::Batch;
use crate::ids::Offset;
use crate::journal::{self, Journaled};
use crate::log::Faults;
use crate::names::Partition;
use crate::segment::Segment;
use crate::space::{BLOCK_BYTES, block_ceil, block_floor};
use rt::{Reservation, Slice, Sync};
use std::path::Path;

const WRITE_BYTES: usize = 128 << 10;

impl Recovery<'_> {
    /// The flushes that speak of the log as it is now, in order.
    pub(super) fn left(&self, partition: &Partition) -> Vec<Journaled> {
        match self.faults() {
            Faults { forgotten_journal: true, .. } => Vec::new(),
            Faults { stale_journal: true, .. } => journal::of_log(&self.how.left, None),
            _ => journal::of_log(&self.how.left, Some(partition.truncations)),
        }
    }

    /// Writes what `left` has behind the segment's end. Gives the length of the file.
    pub(super) async fn replay(
        &self,
        segment: &mut Segment,
        progress: &mut Progress,
        (path, length): (&Path, u64),
        left: &[Journaled],
    ) -> Result<u64, OpenError> {
        let (base_offset, end) = (segment.base, segment.position);
        let mut bytes = Vec::new();
        for found in left.iter().filter(|found| found.place.segment == base_offset) {
            let batches = Slice::from(found.batches.clone());
            let (mut at, mut rest) = (found.place.position, batches);
            while let Ok((batch, total)) = Batch::parse(&rest) {
                let base = batch.base_offset();
                let one = rest.slice(0..total);
                let is_missing = base >= progress.end;
                if is_missing && (at != segment.position || !self.accept(&one, segment, progress)) {
                    return Err(self.out_of_place(path, at, base, progress.end));
                }
                if is_missing {
                    bytes.extend_from_slice(&one);
                }
                at += total as u64;
                rest = rest.slice(total..rest.len());
            }
        }
        if bytes.is_empty() {
            return Ok(length);
        }
        let written = self.write_behind(segment, end, bytes).await;
        let reached = written.map_err(|error| OpenError::Io { path: path.to_path_buf(), error })?;
        segment.durable = segment.position;
        segment.allocated = segment.allocated.max(reached);
        Ok(length.max(reached))
    }

    /// Puts `bytes` behind position `end`, durably; gives where the last block ends.
    async fn write_behind(&self, segment: &Segment, end: u64, bytes: Vec<u8>) -> std::io::Result<u64> {
        let start = block_floor(end);
        let filled = usize::try_from(end - start).expect("part of a block");
        let mut blocks = Vec::new();
        if filled > 0 {
            let block = segment.file.read_exactly(start, BLOCK_BYTES as usize, Reservation::CatchUp).await?;
            blocks.extend_from_slice(block.get(..filled).ok_or(std::io::ErrorKind::UnexpectedEof)?);
        }
        blocks.extend(bytes);
        blocks.resize(blocks.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        let mut at = start;
        for part in blocks.chunks(WRITE_BYTES) {
            let mut buf = self.core.buffers().take(part.len(), Reservation::CatchUp).await;
            buf.copy_from_slice(part);
            segment.file.write_at(vec![buf.freeze(0..part.len())], at, Sync::Data).await?;
            at += part.len() as u64;
        }
        segment.file.sync_data().await?;
        Ok(block_ceil(at))
    }

    fn out_of_place(&self, path: &Path, position: u64, base: Offset, end: Offset) -> OpenError {
        OpenError::Damaged {
            path: path.to_path_buf(),
            position,
            why: format!(
                "the journal has offset {base} for this place, but the log's good batches end at offset {end}"
            ),
        }
    }

    /// Nothing that a journal has of this log may lie behind its end: told before anything is taken away there.
    pub(super) fn check_left(&self, left: &[Journaled], end: Offset) -> Result<(), OpenError> {
        match left.last().filter(|last| last.end > end) {
            Some(last) => Err(self.missing_end(end, last.end, "the journal")),
            None => Ok(()),
        }
    }
}
