//! What one core remembers of its logs, so that a start scans little.
//!
//! A checkpoint is a hint that must not lie: it speaks only of what is on stable media, and losing it costs a scan. It
//! lives in two fixed slots that are overwritten in turn and never renamed, because names are not durable by themselves
//! (hazard A5); a crash tears at most the slot being written. `choose` takes the newest valid one and tells of the other
//! if it was damaged. Where the slots lie is the caller's.
//!
//! A slot is a frame (see `docs/internals/disk-format.md`), magic `CLCP`, version 1; whatever an older, longer content
//! left behind it is not looked at. Little-endian.
//!
//! ```text
//!  | sequence u64 | count u32 | count times a log behind its length u32:
//!  |   topic id 16 | partition index i32 | leader epoch i32 | log start i64 | end i64
//!  |   segment base i64 | position u64 | first timestamp i64 | max timestamp i64
//!  |   flags u8: 1 clean, 4 truncated, 8 compacted | if truncated: truncations so far u32
//!  |   if compacted: segments rewritten so far u32
//!  |   index: base i64 | interval u64 | max timestamp i64 | count u32
//!  |          | count times varints, differences to the entry before: last, position, max before
//!  |   epochs: a frame behind its length u32
//!  |   producers: a frame behind its length u32
//! ```

use crate::epochs::EpochCache;
use crate::fields::{Damage, Fields, open, put_bytes, put_count, seal};
use crate::ids::{LeaderEpoch, Offset, PartitionId, TopicId};
use crate::index::SparseIndex;
use crate::producers::{ProducerStates, SnapshotError};

const MAGIC: [u8; 4] = *b"CLCP";
const VERSION: u16 = 1;
const LOG_BYTES_MIN: usize = 4 + 69;
const CLEAN: u8 = 1;
const TRUNCATED: u8 = 4;
const COMPACTED: u8 = 8;

/// One log, as it was on stable media.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saved {
    pub id: PartitionId,
    /// The leader epoch of the incarnation that says this.
    pub epoch: LeaderEpoch,
    pub log_start: Offset,
    /// The durable end: recovery searches the log's end from here.
    pub end: Offset,
    /// The base offset of the active segment, and where in it `end` lies.
    pub segment: Offset,
    pub position: u64,
    /// Written by a clean stop: the log ends exactly here.
    pub clean: bool,
    pub index: SparseIndex,
    /// The first batch's largest time in the active segment, and the largest.
    pub first_timestamp: i64,
    pub max_timestamp: i64,
    pub epochs: EpochCache,
    pub producers: ProducerStates,
    /// How often the log had been truncated. After another time this speaks of a log that is no more (names.rs).
    pub truncations: u32,
    /// How many segments compaction had put in the place of others. After another one the active segment this speaks of
    /// may not be there any more.
    pub rewrites: u32,
}

/// One slot's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub sequence: u64,
    pub logs: Vec<Saved>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    A,
    B,
}

/// What two slots amount to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The newest valid content and where it lay; `None` on a first start, or if both slots are damaged.
    pub newest: Option<(Slot, Checkpoint)>,
    /// What is to be said about a slot that is neither valid nor empty: the newest content may be older than it was.
    pub damaged: Vec<(Slot, Damage)>,
}

impl Slot {
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

impl Chosen {
    /// Where the next checkpoint goes: never over the newest valid one.
    pub fn next_slot(&self) -> Slot {
        self.newest.as_ref().map_or(Slot::A, |(slot, _)| slot.other())
    }

    pub fn next_sequence(&self) -> u64 {
        self.newest.as_ref().map_or(1, |(_, checkpoint)| checkpoint.sequence.saturating_add(1))
    }
}

/// Chooses between the bytes of two slots. An empty slot, or one of zeros, was never written.
pub fn choose(a: &[u8], b: &[u8]) -> Chosen {
    let mut chosen = Chosen { newest: None, damaged: Vec::new() };
    for (slot, bytes) in [(Slot::A, a), (Slot::B, b)] {
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        match decode(bytes) {
            Ok(found) => {
                let newer = |(_, other): &(Slot, Checkpoint)| found.sequence > other.sequence;
                if chosen.newest.as_ref().is_none_or(newer) {
                    chosen.newest = Some((slot, found));
                }
            }
            Err(damage) => chosen.damaged.push((slot, damage)),
        }
    }
    chosen
}

/// Makes the bytes of a slot, log by log: of a thousand full indexes they are megabytes.
pub struct Encoder {
    body: Vec<u8>,
    count: usize,
    one: Vec<u8>,
}

const COUNT_AT: usize = 8;

impl Encoder {
    pub fn new(sequence: u64) -> Encoder {
        let mut body = sequence.to_le_bytes().to_vec();
        put_count(&mut body, 0);
        Encoder { body, count: 0, one: Vec::new() }
    }

    pub fn put(&mut self, log: &Saved) {
        self.one.clear();
        put_log(&mut self.one, log);
        put_bytes(&mut self.body, &self.one);
        self.count += 1;
    }

    /// Sums up all of it: work for a helper thread.
    pub fn finish(mut self) -> Vec<u8> {
        let mut count = Vec::new();
        put_count(&mut count, self.count);
        self.body[COUNT_AT..COUNT_AT + count.len()].copy_from_slice(&count);
        seal(MAGIC, VERSION, &self.body)
    }
}

/// The bytes of a slot.
pub fn encode(sequence: u64, logs: &[Saved]) -> Vec<u8> {
    let mut encoder = Encoder::new(sequence);
    logs.iter().for_each(|log| encoder.put(log));
    encoder.finish()
}

/// One slot's content. Whoever has only one slot to read, or many, chooses by sequence.
pub fn decode(bytes: &[u8]) -> Result<Checkpoint, Damage> {
    let (body, _older) = open(MAGIC, VERSION, bytes)?;
    let mut fields = Fields::new(body);
    let sequence = fields.u64()?;
    let count = fields.count(LOG_BYTES_MIN)?;
    let mut logs = Vec::new();
    for _ in 0..count {
        let mut log = Fields::new(fields.bytes()?);
        logs.push(take_log(&mut log)?);
        log.finish()?;
    }
    fields.finish()?;
    Ok(Checkpoint { sequence, logs })
}

fn put_log(out: &mut Vec<u8>, log: &Saved) {
    out.extend_from_slice(&log.id.topic.0);
    out.extend_from_slice(&log.id.index.to_le_bytes());
    out.extend_from_slice(&log.epoch.0.to_le_bytes());
    out.extend_from_slice(&log.log_start.0.to_le_bytes());
    out.extend_from_slice(&log.end.0.to_le_bytes());
    out.extend_from_slice(&log.segment.0.to_le_bytes());
    out.extend_from_slice(&log.position.to_le_bytes());
    out.extend_from_slice(&log.first_timestamp.to_le_bytes());
    out.extend_from_slice(&log.max_timestamp.to_le_bytes());
    let truncated = if log.truncations > 0 { TRUNCATED } else { 0 };
    let compacted = if log.rewrites > 0 { COMPACTED } else { 0 };
    out.push(truncated | compacted | if log.clean { CLEAN } else { 0 });
    for count in [log.truncations, log.rewrites].into_iter().filter(|count| *count > 0) {
        out.extend_from_slice(&count.to_le_bytes());
    }
    log.index.encode(out);
    put_bytes(out, &log.epochs.encode());
    put_bytes(out, &log.producers.encode());
}

fn take_log(fields: &mut Fields<'_>) -> Result<Saved, Damage> {
    let id = PartitionId::new(TopicId(fields.array()?), fields.i32()?);
    let epoch = LeaderEpoch(fields.i32()?);
    let (log_start, end) = (Offset(fields.i64()?), Offset(fields.i64()?));
    let (segment, position) = (Offset(fields.i64()?), fields.u64()?);
    let (first_timestamp, max_timestamp) = (fields.i64()?, fields.i64()?);
    let flags = fields.u8()?;
    if flags & !(CLEAN | TRUNCATED | COMPACTED) != 0 {
        return Err(Damage::Content("a flag is not known"));
    }
    let truncations = if flags & TRUNCATED == 0 { 0 } else { u32::from_le_bytes(fields.array()?) };
    let rewrites = if flags & COMPACTED == 0 { 0 } else { u32::from_le_bytes(fields.array()?) };
    let index = SparseIndex::decode(fields)?;
    let epochs = EpochCache::decode(fields.bytes()?)?;
    // A checkpoint's own end bounds what its producers may speak of (hazard A6).
    let producers = ProducerStates::decode(fields.bytes()?, end).map_err(|error| match error {
        SnapshotError::Damage(damage) => damage,
        SnapshotError::BeyondEnd { .. } => Damage::Content("the producers are ahead of the log"),
    })?;
    let clean = flags & CLEAN != 0;
    let log = Saved {
        id,
        epoch,
        log_start,
        end,
        segment,
        position,
        clean,
        index,
        first_timestamp,
        max_timestamp,
        epochs,
        producers,
        truncations,
        rewrites,
    };
    check_log(&log)?;
    Ok(log)
}

fn check_log(log: &Saved) -> Result<(), Damage> {
    if log.log_start.0 < 0 || log.end < log.log_start {
        return Err(Damage::Content("a log ends before it starts"));
    }
    if log.segment.0 < 0 || log.end < log.segment {
        return Err(Damage::Content("a log ends before its active segment"));
    }
    if log.index.base() != log.segment || !log.index.lies_within(log.end, log.position) {
        return Err(Damage::Content("an index is not that of the active segment"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
