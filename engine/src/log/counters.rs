//! What a log counts, for the metrics and for tests.

use std::ops::AddAssign;

/// What a log has done since it was opened.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    pub batches: u64,
    pub bytes: u64,
    /// Bytes copied into flush buffers: the one copy of a batch.
    pub bytes_copied: u64,
    /// Bytes of tail blocks copied out of a flush and into the one that follows, so that blocks under DMA never change.
    pub tail_bytes_copied: u64,
    pub flushes: u64,
    pub flushed_bytes: u64,
    /// Flushes that went to the journal first.
    pub journaled: u64,
    pub zeros_ahead_bytes: u64,
    pub reads_from_tail: u64,
    /// Chunks read, for those who wait and ahead of them.
    pub reads_from_disk: u64,
    pub bytes_from_disk: u64,
    pub duplicates: u64,
    /// Batches read to find the end of the log, or to rebuild what is known of it: no checkpoint covers them yet.
    pub bytes_searched: u64,
    pub rolls: u64,
    /// Compactions that ran to their end, and those that gave up.
    pub compactions: u64,
    pub compactions_failed: u64,
    pub compaction_bytes_read: u64,
    pub compaction_bytes_written: u64,
    pub compaction_records_kept: u64,
    pub compaction_records_removed: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        // Taken apart, so that a counter added above is added here too.
        let Counters {
            batches,
            bytes,
            bytes_copied,
            tail_bytes_copied,
            flushes,
            flushed_bytes,
            journaled,
            zeros_ahead_bytes,
            reads_from_tail,
            reads_from_disk,
            bytes_from_disk,
            duplicates,
            rolls,
            bytes_searched,
            compactions,
            compactions_failed,
            compaction_bytes_read,
            compaction_bytes_written,
            compaction_records_kept,
            compaction_records_removed,
        } = other;
        self.batches += batches;
        self.bytes += bytes;
        self.bytes_copied += bytes_copied;
        self.tail_bytes_copied += tail_bytes_copied;
        self.flushes += flushes;
        self.flushed_bytes += flushed_bytes;
        self.journaled += journaled;
        self.zeros_ahead_bytes += zeros_ahead_bytes;
        self.reads_from_tail += reads_from_tail;
        self.reads_from_disk += reads_from_disk;
        self.bytes_from_disk += bytes_from_disk;
        self.duplicates += duplicates;
        self.rolls += rolls;
        self.bytes_searched += bytes_searched;
        self.compactions += compactions;
        self.compactions_failed += compactions_failed;
        self.compaction_bytes_read += compaction_bytes_read;
        self.compaction_bytes_written += compaction_bytes_written;
        self.compaction_records_kept += compaction_records_kept;
        self.compaction_records_removed += compaction_records_removed;
    }
}
