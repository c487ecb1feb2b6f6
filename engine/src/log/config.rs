//! What a topic's settings mean to its logs, the limits of one core, and the faults that tests ask for.

use crate::batch::{Codec, TimestampType};
use crate::checkpoint::Saved;
use crate::compaction::{Policy, keys};
use crate::ids::{LeaderEpoch, Offset, PartitionId};
use crate::journal::{self, Journal, Journaled};
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

/// When an append counts as acknowledged by this disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// On stable media: survives the host.
    Fsync,
    /// The direct write has completed: survives every process, not the host. A device flush follows after so many
    /// messages or milliseconds; 0 means that only rolling, checkpoints and closing flush.
    Write { flush_messages: u64, flush_ms: u64 },
}

/// Far above Kafka's 4 KiB: a cold read takes this much from the disk anyway, and what a log keeps of its active segment
/// is held in memory and written with every checkpoint, for each of thousands of partitions.
pub const INDEX_INTERVAL_BYTES: u32 = 64 << 10;

/// A topic's settings, replaceable at run time. Negative retention means unlimited, as in Kafka.
#[derive(Clone, PartialEq, Debug)]
pub struct LogConfig {
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub retention_ms: i64,
    pub retention_bytes: i64,
    /// `cleanup.policy` holds `delete`.
    pub deletes: bool,
    /// `cleanup.policy` holds `compact`: keys are required, and of each key the newest record is kept.
    pub compacted: bool,
    /// `min.cleanable.dirty.ratio`, `min.compaction.lag.ms`, `max.compaction.lag.ms`.
    pub compaction: Policy,
    /// For how long a tombstone is kept once it is the only record of its key.
    pub delete_retention_ms: i64,
    pub durability: Durability,
    pub max_message_bytes: u32,
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms` and `.after.max.ms`.
    pub before_max_ms: i64,
    pub after_max_ms: i64,
    /// `compression.type`; `None` keeps the producer's.
    pub compression: Option<Codec>,
    /// `corelog.validation=strict`: compressed batches are opened and counted.
    pub strict: bool,
    pub index_interval_bytes: u32,
    pub producer_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            retention_ms: 7 * 24 * 3600 * 1000,
            retention_bytes: -1,
            deletes: true,
            compacted: false,
            compaction: Policy { min_dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX },
            delete_retention_ms: 24 * 3600 * 1000,
            durability: Durability::Fsync,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            compression: None,
            strict: false,
            index_interval_bytes: INDEX_INTERVAL_BYTES,
            producer_expiration_ms: 86_400_000,
        }
    }
}

impl LogConfig {
    /// After how long an append begins a new segment. What is active is not compacted, so that a topic which bounds how
    /// late compaction may be bounds this too.
    pub fn segment_ms_max(&self) -> i64 {
        if self.compacted { self.segment_ms.min(self.compaction.max_lag_ms) } else { self.segment_ms }
    }
}

/// Limits that every log of a core shares.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most that one flush holds, and so the most that a crash may tear.
    pub flush_bytes_max: usize,
    /// The most that one cold read takes from the disk.
    pub read_bytes_max: usize,
    /// How much is looked at together while an end is searched.
    pub scan_bytes: usize,
    /// What a compressed batch may unpack to.
    pub decompressed_bytes_max: usize,
    /// Places in the table of keys of a compaction.
    pub key_places_max: usize,
    pub journal: journal::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            flush_bytes_max: 1 << 20,
            read_bytes_max: 256 << 10,
            scan_bytes: 1 << 20,
            decompressed_bytes_max: 64 << 20,
            key_places_max: keys::PLACES_MAX,
            journal: journal::Limits::default(),
        }
    }
}

/// Broken variants, so that tests can show that they notice. Never set outside tests.
#[doc(hidden)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// Flushes do not reach stable media.
    pub skip_flush: bool,
    /// Directories are not synced.
    pub skip_dir_sync: bool,
    /// Recovery believes a batch whose CRC is wrong.
    pub skip_crc: bool,
    /// A start goes on in the epoch of the last one.
    pub resume_old_epoch: bool,
    /// Recovery leaves the bytes behind the end as they are.
    pub no_zeroing: bool,
    /// A torn tail and damage are treated alike: the log is cut.
    pub cut_damage: bool,
    /// A truncation begins before its intent is durable.
    pub no_intent: bool,
    /// A compacted segment takes its place before it is on stable media.
    pub unsynced_swap: bool,
    /// Segments are swapped before that is durably intended.
    pub no_swap_intent: bool,
    /// A checkpoint is believed although the segment it knows was rewritten since.
    pub stale_checkpoints: bool,
    /// Recovery takes what it can read for durable.
    pub trusting_reads: bool,
    /// Recovery does not look into journals.
    pub forgotten_journal: bool,
    /// A journal's file is written over while logs hold it.
    pub reused_journal: bool,
    /// What a journal has of a log is believed although the log was truncated since.
    pub stale_journal: bool,
    /// A duplicate is answered at once.
    pub hasty_duplicates: bool,
    /// A flush does not wait for the zeros that are being written where it goes.
    pub racing_zeros: bool,
    /// An append panics half-way, in the log of this epoch and at this offset.
    pub panic_at: Option<(LeaderEpoch, Offset)>,
}

/// How to open a log.
pub struct OpenLog {
    pub dir: PathBuf,
    pub id: PartitionId,
    pub topic_name: String,
    pub config: LogConfig,
    /// This incarnation's epoch: higher than any before it.
    pub epoch: LeaderEpoch,
    /// What the newest checkpoint says of this partition.
    pub checkpoint: Option<Saved>,
    pub limits: Limits,
    pub tails: crate::cache::Tails,
    pub chunks: crate::chunks::Chunks,
    /// Where small flushes may go first; without one all go to segments.
    pub journal: Option<Journal>,
    /// What journals have of this partition, in the order of writing, that its segments may not have.
    pub left: Vec<Journaled>,
    /// How many partitions share the free space of this disk, as of now.
    pub partitions: Rc<Cell<u64>>,
    #[doc(hidden)]
    pub faults: Faults,
}
