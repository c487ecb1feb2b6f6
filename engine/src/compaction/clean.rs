//! What a compaction does to batches: learns their keys, and writes what is to stay. Pure: bytes in, bytes out, in pieces
//! that a helper thread gets through in milliseconds.
//!
//! Kept is a record that lies beyond what was learned, or is the newest of its key; a tombstone only until its batch's
//! horizon. A batch whose records all stay is copied byte for byte. One of which none stays is left as a header if it is
//! in the window of a producer, because retries are told by it, and is gone otherwise.
//!
//! Where batches are gone a filler stands for their offsets, one for a run of neighbours of one epoch. Kafka leaves a gap
//! there. With fillers the batches of a log always follow each other: a missing segment, a lost write and a stale
//! leftover are told from compaction by every start and every reader, with no word on whether a topic was ever compacted
//! (hazard A2), and each epoch still begins where it began.
//!
//! What cannot be believed is not touched: a batch that does not unpack, or whose records claim others' offsets, stays as
//! it is, teaches no keys, and keeps the tombstones behind it. One whose checksum is wrong ends the compaction: it must not be sealed anew.

use super::keys::KeyMap;
use crate::batch::rewrite::{self, Opened};
use crate::batch::{self, Batch};
use crate::ids::{FilePos, LeaderEpoch, Offset};
use crate::index::{SealedIndex, SparseIndex};
use crate::segment::ChunkCrcs;
use std::ops::AddAssign;

/// Bytes that are no sound batch, or do not continue what came before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged(pub String);

/// The first pass: which offset is the newest of each key, from `from` on.
pub struct Learner {
    keys: KeyMap,
    /// Everything in `from..end` is in the map.
    end: Offset,
    full: bool,
    unpacked_bytes_max: usize,
}

impl Learner {
    pub fn new(keys: KeyMap, from: Offset, unpacked_bytes_max: usize) -> Learner {
        Learner { keys, end: from, full: false, unpacked_bytes_max }
    }

    /// The map has no room for another key: what lies behind is for the next compaction.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whole batches, in the order of the log; those before `from` are passed over.
    pub fn learn(&mut self, batches: &[u8]) -> Result<(), Damaged> {
        for batch in sound(batches) {
            let batch = batch?;
            if self.full {
                break;
            }
            if batch.next_offset() > self.end {
                self.learn_batch(batch);
            }
        }
        Ok(())
    }

    fn learn_batch(&mut self, batch: Batch<'_>) {
        if is_filtered(&batch)
            && let Ok(opened) = Opened::of(batch, self.unpacked_bytes_max)
        {
            for (record, _) in opened.records().filter(|(record, _)| record.offset >= self.end) {
                let taken = record.key.is_none_or(|key| self.keys.put(key, record.offset.0));
                if !taken {
                    self.full = true;
                    self.end = record.offset;
                    return;
                }
            }
        }
        self.end = batch.next_offset();
    }

    /// The map, and the offset behind the last it knows.
    pub fn finish(self) -> (KeyMap, Offset) {
        (self.keys, self.end)
    }
}

/// Which records stay.
pub struct Rules {
    pub keys: KeyMap,
    /// Behind this offset nothing was learned, and everything stays.
    pub learned_to: Offset,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
    /// The last offsets of batches that producers are known by, rising.
    pub windows: Vec<Offset>,
    pub unpacked_bytes_max: usize,
    /// A batch that could not be opened was passed: it may hold what a later tombstone deletes, so none of them goes.
    pub has_unopened: bool,
}

/// What was seen and what stayed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub records_kept: u64,
    pub records_removed: u64,
    /// Batches that could not be opened and so stay.
    pub batches_unopened: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        let Counts { records_kept, records_removed, batches_unopened } = other;
        self.records_kept += records_kept;
        self.records_removed += records_removed;
        self.batches_unopened += batches_unopened;
    }
}

/// A run of offsets whose batches are gone.
struct Gap {
    start: Offset,
    end: Offset,
    epoch: LeaderEpoch,
}

/// The second pass: one new segment out of neighbouring ones.
pub struct Cleaner {
    rules: Rules,
    base: Offset,
    next: Offset,
    gap: Option<Gap>,
    position: u64,
    index: SparseIndex,
    crcs: ChunkCrcs,
    first_timestamp: i64,
    max_timestamp: i64,
    /// Something is not as it was.
    changed: bool,
    counts: Counts,
}

impl Cleaner {
    /// For the segments from `base` on.
    pub fn new(rules: Rules, base: Offset, index_interval_bytes: u32) -> Cleaner {
        Cleaner {
            rules,
            base,
            next: base,
            gap: None,
            position: 0,
            index: SparseIndex::new(base, index_interval_bytes),
            crcs: ChunkCrcs::default(),
            first_timestamp: batch::NO_TIMESTAMP,
            max_timestamp: batch::NO_TIMESTAMP,
            changed: false,
            counts: Counts::default(),
        }
    }

    /// Whole batches, in the order of the log. What is to be written goes to `out`.
    pub fn clean(&mut self, batches: &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
        for batch in sound(batches) {
            let batch = batch?;
            if batch.base_offset() != self.next {
                let why = format!("a batch of offset {} where {} belongs", batch.base_offset(), self.next);
                return Err(Damaged(why));
            }
            self.next = batch.next_offset();
            self.clean_batch(batch, out);
        }
        Ok(())
    }

    fn clean_batch(&mut self, batch: Batch<'_>, out: &mut Vec<u8>) {
        let records = u64::try_from(batch.record_count()).unwrap_or(0);
        if batch.base_offset() >= self.rules.learned_to || !is_filtered(&batch) {
            self.counts.records_kept += records;
            return self.write(batch.bytes(), out);
        }
        let Ok(opened) = Opened::of(batch, self.rules.unpacked_bytes_max) else {
            self.counts.batches_unopened += 1;
            self.rules.has_unopened = true;
            self.counts.records_kept += records;
            return self.write(batch.bytes(), out);
        };
        let (mut kept, mut tombstones) = (0, false);
        for (record, _) in opened.records().filter(|(record, _)| self.rules.keeps(&batch, record)) {
            kept += 1;
            tombstones |= record.value.is_none() && record.offset < self.rules.learned_to;
        }
        self.counts.records_kept += kept;
        self.counts.records_removed += records - kept;
        let horizon_ms = (tombstones && !batch.has_delete_horizon())
            .then(|| self.rules.now_ms.saturating_add(self.rules.delete_retention_ms));
        if kept == 0 {
            self.drop_records(&batch, out);
        } else if kept == records && horizon_ms.is_none() {
            self.write(batch.bytes(), out);
        } else {
            self.changed = true;
            let rules = &self.rules;
            let rewritten = opened.rewritten(|record| rules.keeps(&batch, record), horizon_ms);
            self.write(&rewritten, out);
        }
    }

    fn drop_records(&mut self, batch: &Batch<'_>, out: &mut Vec<u8>) {
        let is_known = self.rules.windows.binary_search(&batch.last_offset()).is_ok();
        if !batch.producer_id().is_none() && is_known {
            self.changed |= batch.record_count() > 0;
            return self.write(&rewrite::emptied(batch), out);
        }
        let (start, end, epoch) = (batch.base_offset(), batch.next_offset(), batch.leader_epoch());
        if let Some(gap) = &mut self.gap
            && gap.epoch == epoch
            && end.0 - gap.start.0 <= i64::from(i32::MAX)
        {
            // Two that could be one are a change.
            gap.end = end;
            self.changed = true;
            return;
        }
        self.close_gap(out);
        self.changed |= !rewrite::is_filler(batch);
        self.gap = Some(Gap { start, end, epoch });
    }

    fn close_gap(&mut self, out: &mut Vec<u8>) {
        if let Some(gap) = self.gap.take() {
            self.put(&rewrite::filler(&(gap.start.0..gap.end.0), gap.epoch), out);
        }
    }

    fn write(&mut self, batch: &[u8], out: &mut Vec<u8>) {
        self.close_gap(out);
        self.put(batch, out);
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let (batch, total) = Batch::parse(bytes).expect("it was parsed or built");
        let time = batch.records_max_timestamp();
        self.index.note(batch.last_offset(), FilePos(self.position), total as u64, time);
        self.crcs.feed(bytes);
        if self.first_timestamp < 0 {
            self.first_timestamp = time;
        }
        self.max_timestamp = self.max_timestamp.max(time);
        self.position += total as u64;
        out.extend_from_slice(bytes);
    }

    /// The end of the old segments, which is `end`: the rest of the new one, and its index file.
    pub fn finish(mut self, end: Offset, out: &mut Vec<u8>) -> Result<Cleaned, Damaged> {
        if self.next != end {
            return Err(Damaged(format!("the batches end at offset {}, not at {end}", self.next)));
        }
        self.close_gap(out);
        let crcs = self.crcs.finish(Vec::new());
        let (first, max) = (self.first_timestamp, self.max_timestamp);
        let index = SealedIndex::encode(&self.index, end, self.position, first, max, &crcs);
        Ok(Cleaned {
            rules: self.rules,
            base: self.base,
            end,
            bytes: self.position,
            index,
            changed: self.changed,
            counts: self.counts,
        })
    }
}

/// A new segment, whose bytes the caller has.
pub struct Cleaned {
    /// For the next one.
    pub rules: Rules,
    pub base: Offset,
    pub end: Offset,
    pub bytes: u64,
    /// The content of its index file.
    pub index: Vec<u8>,
    pub changed: bool,
    pub counts: Counts,
}

impl Rules {
    fn keeps(&self, batch: &Batch<'_>, record: &batch::walk::Record<'_>) -> bool {
        if record.offset >= self.learned_to {
            return true;
        }
        // Nothing without a key can be asked for by its key.
        let Some(key) = record.key else { return false };
        let is_newest = self.keys.get(key).is_none_or(|newest| record.offset.0 >= newest);
        let is_over =
            batch.has_delete_horizon() && batch.base_timestamp() <= self.now_ms && !self.has_unopened;
        is_newest && (record.value.is_some() || !is_over)
    }
}

/// Markers, and batches of transactions whose end is not known here, stay as they are and teach nothing.
fn is_filtered(batch: &Batch<'_>) -> bool {
    !batch.is_control() && !batch.is_transactional()
}

/// The batches of `bytes`, each with a right checksum and offsets that rise.
fn sound(bytes: &[u8]) -> impl Iterator<Item = Result<Batch<'_>, Damaged>> {
    batch::batches(bytes).map(|found| {
        let batch = found.map_err(|error| Damaged(error.to_string()))?;
        if batch.last_offset_delta() < 0 || !batch.crc_is_valid() {
            return Err(Damaged(format!("the batch at offset {} is not sound", batch.base_offset())));
        }
        Ok(batch)
    })
}

#[cfg(test)]
mod tests;
