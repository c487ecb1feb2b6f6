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

    /// Writes what `left` has behind the segment's end, and looks for the end again behind that. Gives the length of the file.
    pub(super) async fn replay(
        &self,
        segment: &mut Segment,
        progress: &mut Progress,
        (path, mut length): (&Path, u64),
        left: &[Journaled],
    ) -> Result<u64, OpenError> {
        let base = segment.base;
        let here: Vec<&Journaled> = left.iter().filter(|found| found.place.segment == base).collect();
        loop {
            let (end, bytes) = (segment.position, self.take_next(segment, progress, &here));
            if bytes.is_empty() {
                break;
            }
            let written = self.write_behind(segment, end, bytes).await;
            length = length.max(written.map_err(|error| OpenError::Io { path: path.to_path_buf(), error })?);
            self.scan(segment, progress, (path, length), None, None).await?;
        }
        match here.iter().find(|found| found.end > progress.end) {
            Some(found) => Err(self.out_of_place(path, found, progress.end)),
            None => Ok(length),
        }
    }

    /// The batches that continue the segment where it ends, as far as they do.
    fn take_next(&self, segment: &mut Segment, progress: &mut Progress, here: &[&Journaled]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for found in here {
            let (mut at, mut rest) = (found.place.position, Slice::from(found.batches.clone()));
            while let Ok((batch, total)) = Batch::parse(&rest) {
                let one = rest.slice(0..total);
                if batch.base_offset() >= progress.end {
                    if at != segment.position || !self.accept(&one, segment, progress) {
                        return bytes;
                    }
                    bytes.extend_from_slice(&one);
                }
                at += total as u64;
                rest = rest.slice(total..rest.len());
            }
        }
        bytes
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
        let used = blocks.len() % BLOCK_BYTES as usize;
        if used > 0 {
            // What lies behind is judged later: it is not taken away here.
            let at = start + (blocks.len() - used) as u64;
            let block = segment.file.read_exactly(at, BLOCK_BYTES as usize, Reservation::CatchUp).await?;
            blocks.extend_from_slice(block.get(used..).unwrap_or_default());
        }
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

    fn out_of_place(&self, path: &Path, found: &Journaled, end: Offset) -> OpenError {
        OpenError::Damaged {
            path: path.to_path_buf(),
            position: found.place.position,
            why: format!(
                "the journal has offset {} for this place, but the log's good batches end at offset {end}",
                found.base
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
