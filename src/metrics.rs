//! What one core records of its own work, and what is told of all cores together.
//!
//! [`Metrics`] is where the parts of a shard record: plain numbers and histograms of this core, so recording takes no
//! lock and no atomic. [`CoreMetrics`] is a copy of all that a core knows of itself; copies of several cores merge. The
//! one list of what is told, under which name and in which unit, is [`list`]; [`text`] writes it down.

use std::cell::RefCell;
use std::collections::BTreeMap;

use engine::log::Counters;
use net::api::ApiKey;
use rt::{Instant, Reservation};

use crate::groups;
use crate::shard::Shard;

pub mod durations;
pub mod list;
pub mod text;

use durations::Durations;

/// Where the time of a request goes. A stage of one request may be recorded several times (one for each partition or
/// core that it is for) or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    ProduceParse,
    ProduceHop,
    ProduceQueue,
    ProduceDisk,
    ProduceReply,
    ProduceWhole,
    FetchParse,
    FetchHop,
    FetchRead,
    FetchWait,
    FetchReply,
    FetchWhole,
}

impl Stage {
    pub const PRODUCE: [Stage; 6] = [
        Stage::ProduceParse,
        Stage::ProduceHop,
        Stage::ProduceQueue,
        Stage::ProduceDisk,
        Stage::ProduceReply,
        Stage::ProduceWhole,
    ];
    pub const FETCH: [Stage; 6] = [
        Stage::FetchParse,
        Stage::FetchHop,
        Stage::FetchRead,
        Stage::FetchWait,
        Stage::FetchReply,
        Stage::FetchWhole,
    ];
    const COUNT: usize = Stage::PRODUCE.len() + Stage::FETCH.len();

    pub fn name(self) -> &'static str {
        match self {
            Stage::ProduceParse | Stage::FetchParse => "parse",
            Stage::ProduceHop | Stage::FetchHop => "hop",
            Stage::ProduceQueue => "queue",
            Stage::ProduceDisk => "disk",
            Stage::FetchRead => "read",
            Stage::FetchWait => "wait",
            Stage::ProduceReply | Stage::FetchReply => "reply",
            Stage::ProduceWhole | Stage::FetchWhole => "whole",
        }
    }
}

/// What a core has recorded since it started.
#[derive(Clone, Default)]
pub struct Recorded {
    stages: [Durations; Stage::COUNT],
    /// Requests taken up, by API key.
    pub requests: BTreeMap<i16, u64>,
    /// Error codes told to clients, by API key and code.
    pub errors: BTreeMap<(i16, i16), u64>,
    /// Requests that got no answer but the end of their connection.
    pub unanswerable: u64,
    pub connections_accepted: u64,
    pub connections_refused: u64,
    /// Bytes copied because a request's head had arrived in another buffer than the rest of it.
    pub head_bytes_moved: u64,
    /// Bytes of record batches in answers to fetches, and those of them that are not where disk or producer put them.
    pub fetched_bytes: u64,
    pub fetched_bytes_copied: u64,
}

impl Recorded {
    pub fn stage(&self, stage: Stage) -> &Durations {
        &self.stages[stage as usize]
    }
}

/// One core's records. Every method is a few tens of nanoseconds.
#[derive(Default)]
pub struct Metrics(RefCell<Recorded>);

impl Metrics {
    pub fn stage(&self, stage: Stage, from: Instant, until: Instant) {
        self.0.borrow_mut().stages[stage as usize].record(until - from);
    }

    pub fn request(&self, key: ApiKey) {
        *self.0.borrow_mut().requests.entry(key.as_i16()).or_default() += 1;
    }

    pub fn errors(&self, key: ApiKey, codes: &[i16]) {
        for code in codes {
            *self.0.borrow_mut().errors.entry((key.as_i16(), *code)).or_default() += 1;
        }
    }

    pub fn unanswerable(&self) {
        self.0.borrow_mut().unanswerable += 1;
    }

    pub fn connection_accepted(&self) {
        self.0.borrow_mut().connections_accepted += 1;
    }

    pub fn connection_refused(&self) {
        self.0.borrow_mut().connections_refused += 1;
    }

    pub fn head_moved(&self, bytes: usize) {
        self.0.borrow_mut().head_bytes_moved += bytes as u64;
    }

    /// An answer with so many bytes of records, of which `referenced` leave from the very buffers they were put into by
    /// the disk or the append.
    pub fn fetched(&self, bytes: usize, referenced: usize) {
        let mut recorded = self.0.borrow_mut();
        recorded.fetched_bytes += bytes as u64;
        recorded.fetched_bytes_copied += bytes.saturating_sub(referenced) as u64;
    }

    /// An answer left: `received` and `ready` are when the request was whole, and when its answer was.
    pub fn answered(&self, key: ApiKey, received: Instant, ready: Instant, sent: Instant) {
        let (reply, whole) = match key {
            ApiKey::Produce => (Stage::ProduceReply, Stage::ProduceWhole),
            ApiKey::Fetch => (Stage::FetchReply, Stage::FetchWhole),
            _ => return,
        };
        self.stage(reply, ready, sent);
        self.stage(whole, received, sent);
    }
}

/// How many partitions a core owns, by what becomes of requests for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partitions {
    pub open: u64,
    pub opening: u64,
    /// Poisoned, or never opened: KAFKA_STORAGE_ERROR.
    pub offline: u64,
}

/// All that one core knows of itself.
#[derive(Clone, Default)]
pub struct CoreMetrics {
    pub core: u16,
    pub recorded: Recorded,
    pub logs: Counters,
    pub journal: engine::journal::Counters,
    pub runtime: rt::Stats,
    pub partitions: Partitions,
    pub groups: groups::Counts,
    pub connections_open: u64,
    /// By [`Reservation`], in the order of `Reservation::ALL`.
    pub memory_bytes: Vec<u64>,
    pub memory_budget_bytes: u64,
    pub tail_bytes: u64,
    pub chunk_bytes: u64,
    pub journal_kept_bytes: u64,
}

impl CoreMetrics {
    pub fn of(shard: &Shard) -> CoreMetrics {
        let memory = shard.core.buffers();
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        CoreMetrics {
            core: shard.core.id().0,
            recorded: shard.metrics.0.borrow().clone(),
            logs: shard.store.counters(),
            journal: shard.store.journal(),
            runtime: shard.core.stats(),
            partitions: partitions(shard),
            groups: groups::counts(shard),
            connections_open: number(shard.connections.count()),
            memory_bytes: Reservation::ALL.iter().map(|r| number(memory.used_by(*r))).collect(),
            memory_budget_bytes: number(memory.budget()),
            tail_bytes: number(shard.store.tail_bytes()),
            chunk_bytes: number(shard.store.chunk_bytes()),
            journal_kept_bytes: number(shard.store.journal_kept_bytes()),
        }
    }
}

fn partitions(shard: &Shard) -> Partitions {
    let mut counts = Partitions::default();
    for hosted in shard.all_hosted() {
        match (hosted.open_log(), hosted.failure()) {
            (Some(log), _) if !log.is_poisoned() => counts.open += 1,
            (Some(_), _) | (None, Some(_)) => counts.offline += 1,
            (None, None) => counts.opening += 1,
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1_000)
    }

    #[test]
    fn every_stage_has_a_place_of_its_own() {
        let mut places: Vec<usize> =
            Stage::PRODUCE.into_iter().chain(Stage::FETCH).map(|stage| stage as usize).collect();
        places.sort_unstable();
        assert_eq!(places, (0..Stage::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn an_answer_counts_for_its_own_kind_only() {
        let metrics = Metrics::default();
        metrics.answered(ApiKey::Produce, at(1), at(5), at(7));
        metrics.answered(ApiKey::Metadata, at(1), at(5), at(7));
        let recorded = metrics.0.borrow();
        assert_eq!(recorded.stage(Stage::ProduceReply).nanos(), 2_000);
        assert_eq!(recorded.stage(Stage::ProduceWhole).nanos(), 6_000);
        assert_eq!(recorded.stage(Stage::FetchWhole).count(), 0);
    }

    #[test]
    fn what_does_not_leave_by_reference_was_copied() {
        let metrics = Metrics::default();
        metrics.fetched(100, 100);
        metrics.fetched(100, 30);
        let recorded = metrics.0.borrow();
        assert_eq!((recorded.fetched_bytes, recorded.fetched_bytes_copied), (200, 70));
    }
}
