//! What a log knows of its idempotent producers: enough to answer a retry with the offsets of its original.
//!
//! Per producer id the last five batches, because a client has at most five requests in flight. State moves when
//! offsets are assigned, so that pipelined batches of one producer follow each other; four rules make that safe
//! (hazard A6):
//!
//! 1. A duplicate is answered under its original's condition: the caller waits until its last offset is committed.
//! 2. After an append that failed, and after a truncation that touched a producer, the caller rebuilds the state from a
//!    snapshot and the log.
//! 3. A snapshot names the offset it covers and is loaded only if that is not beyond the recovered end. It may be taken
//!    at any time, and is written only when what it covers is durable.
//! 4. Checks are for batches of clients. Followers and recovery apply without them.
//!
//! Snapshot: a frame (see `docs/internals/disk-format.md`), magic `CLPS`, version 1, producers by rising id:
//!
//! ```text
//!  | covered end i64 | count u32 | count times:
//!  |   id i64 | epoch i16 | coordinator epoch i32 | last timestamp i64 | last offset i64 | transaction start i64 (-1)
//!  |   batches u8 (<= 5) | each, oldest first: first sequence i32 | last sequence i32 | base offset i64
//!  |                       | last offset i64 | timestamp i64
//! ```

use crate::batch::walk::Records;
use crate::batch::{Batch, NO_TIMESTAMP};
use crate::fields::Damage;
use crate::ids::Offset;
use std::collections::HashMap;
use std::fmt;

mod snapshot;

/// Kafka's `max.in.flight.requests.per.connection` for an idempotent producer.
pub const WINDOW_BATCHES: usize = 5;
/// How many producers one log remembers. Beyond it the longest silent ones are forgotten, which Kafka's clients survive
/// (KIP-360) but for the deduplication of their oldest retries.
pub const PRODUCERS_MAX: usize = 65_536;
/// How many go at once, so that forgetting is cheap on average.
const FORGET_AT_ONCE: usize = PRODUCERS_MAX / 16;

/// One batch of a producer, as its window remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchSeen {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// The batch's `max_timestamp`: what a duplicate is answered with as `log_append_time`.
    pub timestamp: i64,
}

/// One producer's state.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Producer {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: i64,
    /// Of its last batch or transaction marker.
    last_offset: Offset,
    transaction_start: Option<Offset>,
    /// Oldest first, at most `WINDOW_BATCHES`.
    batches: Vec<BatchSeen>,
}

/// The producers of one log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProducerStates {
    producers: HashMap<i64, Producer, ahash::RandomState>,
    covered_end: Offset,
}

/// What a client's batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// Append it. Batches without a producer id always are.
    InSequence,
    /// A retry of this one: answer its offsets once it is committed, append nothing.
    Duplicate(BatchSeen),
}

/// Why a client's batch is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SequenceError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER: a gap, an overlap, or a retry that is older than the window.
    OutOfOrder { expected: i32, found: i32 },
    /// INVALID_PRODUCER_EPOCH: a newer incarnation of the producer has written.
    InvalidEpoch { current: i16, found: i16 },
    /// INVALID_TXN_STATE: a batch outside the transaction that its producer has open.
    OpenTransaction,
}

/// Why a snapshot is not loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotError {
    Damage(Damage),
    /// It speaks for offsets that the log does not have.
    BeyondEnd {
        covered_end: Offset,
        recovered_end: Offset,
    },
}

impl ProducerStates {
    pub fn new() -> ProducerStates {
        ProducerStates::default()
    }

    /// The state speaks for the batches below this offset.
    pub fn covered_end(&self) -> Offset {
        self.covered_end
    }

    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// Where the oldest open transaction begins: consumers that read committed records stop there.
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.producers.values().filter_map(|producer| producer.transaction_start).min()
    }

    /// Kafka's checks of a client's batch, whose header was checked before (`Batch::check_client_header`).
    pub fn check(&self, batch: &Batch<'_>) -> Result<Check, SequenceError> {
        let Some(producer) = self.known(batch) else { return Ok(Check::InSequence) };
        let (epoch, first) = (batch.producer_epoch(), batch.base_sequence());
        if let Some(original) = producer.duplicate_of(epoch, first, batch.last_sequence()) {
            return Ok(Check::Duplicate(original));
        }
        if epoch < producer.epoch {
            return Err(SequenceError::InvalidEpoch { current: producer.epoch, found: epoch });
        }
        let expected = if epoch == producer.epoch { producer.next_sequence() } else { 0 };
        if first != expected {
            return Err(SequenceError::OutOfOrder { expected, found: first });
        }
        if producer.transaction_start.is_some() && !batch.is_transactional() {
            return Err(SequenceError::OpenTransaction);
        }
        Ok(Check::InSequence)
    }

    /// Takes up a batch that offsets were assigned to, that a follower received or that recovery read: any batch, in the
    /// order of the log. Those without a producer only move the covered end.
    pub fn apply(&mut self, batch: &Batch<'_>) {
        self.covered_end = self.covered_end.max(batch.next_offset());
        if batch.producer_id().is_none() {
            return;
        }
        if batch.is_control() {
            return self.apply_marker(batch);
        }
        if batch.base_sequence() < 0 {
            return; // No client's batch gets here so, and what a disk holds besides is not idempotent.
        }
        let producer = self.producer_for(batch);
        producer.enter_epoch(batch.producer_epoch());
        if producer.batches.len() == WINDOW_BATCHES {
            producer.batches.remove(0);
        }
        producer.batches.push(BatchSeen {
            first_sequence: batch.base_sequence(),
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset(),
            timestamp: batch.max_timestamp(),
        });
        producer.last_timestamp = batch.max_timestamp();
        producer.last_offset = batch.last_offset();
        if batch.is_transactional() {
            producer.transaction_start.get_or_insert(batch.base_offset());
        }
    }

    /// The last offsets of the batches that producers are known by: what a log is compacted to must still say them.
    pub fn window_offsets(&self) -> Vec<Offset> {
        let windows = self.producers.values().flat_map(|producer| &producer.batches);
        windows.map(|batch| batch.last_offset).collect()
    }

    /// Says that the log has nothing of interest before `offset`: after recovery skipped what a snapshot covers.
    pub fn advance_to(&mut self, offset: Offset) {
        self.covered_end = self.covered_end.max(offset);
    }

    /// Forgets producers that have been silent for `expiration_ms` by the time in their own last batch, as Kafka does:
    /// backfilled times expire at once. Returns how many went.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.transaction_start.is_some()
                || now_ms.saturating_sub(producer.last_timestamp) < expiration_ms
        });
        before - self.producers.len()
    }

    /// The log now ends at `end`. Says whether the state is what it was when the log ended there; where it is not, a
    /// producer has lost batches, what its window held before them is gone, and the caller rebuilds from a snapshot.
    #[must_use = "a state that is not exact must be rebuilt"]
    pub fn truncate(&mut self, end: Offset) -> bool {
        let mut exact = true;
        self.producers.retain(|_, producer| {
            if producer.last_offset < end {
                return true;
            }
            exact = false;
            producer.batches.retain(|batch| batch.last_offset < end);
            producer.last_offset = producer.batches.last().map_or(Offset::UNKNOWN, |batch| batch.last_offset);
            producer.transaction_start = producer.transaction_start.filter(|start| *start < end);
            !producer.batches.is_empty()
        });
        self.covered_end = self.covered_end.min(end);
        exact
    }

    /// The whole state in Corelog's own format.
    pub fn encode(&self) -> Vec<u8> {
        snapshot::encode(self)
    }

    /// A snapshot for a log that was found to end at `recovered_end`.
    pub fn decode(bytes: &[u8], recovered_end: Offset) -> Result<ProducerStates, SnapshotError> {
        let states = snapshot::decode(bytes).map_err(SnapshotError::Damage)?;
        if states.covered_end > recovered_end {
            return Err(SnapshotError::BeyondEnd { covered_end: states.covered_end, recovered_end });
        }
        Ok(states)
    }

    fn known(&self, batch: &Batch<'_>) -> Option<&Producer> {
        if batch.producer_id().is_none() { None } else { self.producers.get(&batch.producer_id().0) }
    }

    fn producer_for(&mut self, batch: &Batch<'_>) -> &mut Producer {
        let id = batch.producer_id().0;
        if self.producers.len() >= PRODUCERS_MAX && !self.producers.contains_key(&id) {
            self.forget_silent();
        }
        self.producers.entry(id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch(),
            coordinator_epoch: -1,
            last_timestamp: NO_TIMESTAMP,
            last_offset: batch.last_offset(),
            transaction_start: None,
            batches: Vec::new(),
        })
    }

    /// A transaction's end. Under the second transaction protocol it carries the next epoch and so clears the window.
    fn apply_marker(&mut self, batch: &Batch<'_>) {
        let coordinator_epoch = coordinator_epoch(batch);
        let producer = self.producer_for(batch);
        producer.enter_epoch(batch.producer_epoch());
        producer.last_timestamp = batch.max_timestamp();
        producer.last_offset = batch.last_offset();
        producer.transaction_start = None;
        if let Some(epoch) = coordinator_epoch {
            producer.coordinator_epoch = epoch;
        }
    }

    fn forget_silent(&mut self) {
        let mut silent: Vec<_> = self
            .producers
            .iter()
            .filter(|(_, producer)| producer.transaction_start.is_none())
            .map(|(id, producer)| (producer.last_offset, *id))
            .collect();
        silent.sort_unstable();
        for (_, id) in silent.into_iter().take(FORGET_AT_ONCE) {
            self.producers.remove(&id);
        }
    }
}

impl Producer {
    fn duplicate_of(&self, epoch: i16, first_sequence: i32, last_sequence: i32) -> Option<BatchSeen> {
        if epoch != self.epoch {
            return None;
        }
        let same = |batch: &&BatchSeen| {
            (batch.first_sequence, batch.last_sequence) == (first_sequence, last_sequence)
        };
        self.batches.iter().find(same).copied()
    }

    fn next_sequence(&self) -> i32 {
        match self.batches.last() {
            Some(last) if last.last_sequence < i32::MAX => last.last_sequence + 1,
            Some(_) | None => 0,
        }
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }
}

/// What the marker's record says: its value is `version i16, coordinator epoch i32`.
fn coordinator_epoch(batch: &Batch<'_>) -> Option<i32> {
    let record = Records::new(batch, batch.records_bytes()).next()?.ok()?;
    record.value?.get(2..6)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

impl fmt::Display for SequenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SequenceError::OutOfOrder { expected, found } => {
                write!(f, "sequence {found} does not follow: {expected} was expected")
            }
            SequenceError::InvalidEpoch { current, found } => {
                write!(f, "producer epoch {found} is older than the current one, {current}")
            }
            SequenceError::OpenTransaction => write!(f, "the producer has a transaction open"),
        }
    }
}

impl std::error::Error for SequenceError {}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Damage(damage) => write!(f, "the producer snapshot is damaged: {damage}"),
            SnapshotError::BeyondEnd { covered_end, recovered_end } => {
                write!(
                    f,
                    "the producer snapshot covers offsets to {covered_end}, the log ends at {recovered_end}"
                )
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

#[cfg(test)]
mod tests;
