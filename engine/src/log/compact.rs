//! Compaction of a log: reads its sealed segments, writes new ones beside them, and swaps them in, one by one.
//!
//! What is decided is pure (`crate::compaction`). Here are the reads, a window at a time; the passes over the bytes, on a
//! helper thread, a piece at a time, so that the core is never kept; the writes; and the swap (`swap`). The log goes on
//! meanwhile: appends, reads, rolls, retention and truncations need not wait, and what they change under a compaction
//! ends it without harm. Readers of a file that was swapped out keep it.
//!
//! Why no acknowledged record is lost:
//! - keys are learned from sealed segments only: what makes an older record void is on stable media before that goes;
//! - groups are swapped oldest first, and `clean_to` moves only when all are: as long as an older record of a key may be
//!   left, the newer one is learned again, so that no tombstone goes before what it deletes;
//! - a truncation while keys are learned or used ends the compaction: what was learned may be gone.

mod files;
mod swap;

use super::{AppendError, AtWork, Poisoned, Shared, State, grow, suffix};
use crate::compaction::clean::{Cleaned, Cleaner, Counts, Damaged, Learner, Rules};
use crate::compaction::keys::{KeyMap, Secret};
use crate::compaction::{self, Facts, Plan};
use crate::ids::Offset;
use crate::index::SealedIndex;
use crate::segment::{Index, Segment};
#[cfg(test)]
pub(super) use files::PIECE_BYTES;
use files::{Output, Pieces};
use rt::{File, Panicked};
use std::fmt;
use std::io;
use std::rc::Rc;

/// What a compaction did.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Everything below this is clean.
    pub clean_to: Offset,
    pub segments_before: usize,
    pub segments_after: usize,
    pub counts: Counts,
}

/// Why a compaction was not done to the end.
#[derive(Debug)]
pub enum CompactionError {
    /// There is not as much space as it needs, and as much again for everybody else.
    NoSpace(String),
    /// The log closed, failed or was truncated, or its segments went meanwhile.
    Interrupted(String),
    /// What was read is not what was written.
    Damaged(String),
    Io(io::Error),
}

/// A segment as it was when its compaction began.
#[derive(Clone)]
struct Old {
    base: Offset,
    end: Offset,
    bytes: u64,
    file: File,
    index: Rc<SealedIndex>,
}

pub(super) fn plan(shared: &Shared) -> Option<Plan> {
    let state = shared.state.borrow();
    let config = shared.config.borrow();
    if !config.compacted || state.check_open().is_err() || state.truncating || state.compacting {
        return None;
    }
    let stable = state.producers.first_open_transaction().unwrap_or(state.end);
    let reach = state.high_watermark.min(state.synced_end).min(stable);
    let now_ms = shared.core.wall_ms();
    compaction::plan(&facts(&state), state.clean_to, state.log_start, reach, &config.compaction, now_ms)
}

/// What is active is not compacted, so it must not stay so for longer than records may wait.
pub(super) async fn roll_overdue(shared: &Rc<Shared>) -> Result<bool, AppendError> {
    let is_due = |state: &mut State, now_ms: i64| {
        let config = shared.config.borrow();
        let active = state.active();
        let age_ms = now_ms.saturating_sub(active.first_timestamp);
        config.compacted && active.first_timestamp >= 0 && age_ms > config.compaction.max_lag_ms
    };
    let now_ms = shared.core.wall_ms();
    if !is_due(&mut shared.state.borrow_mut(), now_ms) {
        return Ok(false);
    }
    let ticket = shared.turns.draw();
    ticket.turn().await;
    // Whoever had the turn before may have rolled already.
    let still = {
        let mut state = shared.state.borrow_mut();
        state.check_open()?;
        is_due(&mut state, now_ms) && state.active().position > 0
    };
    if still {
        grow::roll(shared, now_ms).await?;
    }
    Ok(still)
}

pub(super) async fn compact(shared: &Rc<Shared>) -> Result<Compacted, CompactionError> {
    let _at_work = AtWork::begin(shared);
    let Some(plan) = plan(shared) else { return Ok(Compacted::default()) };
    let _running = Running::begin(shared);
    let truncations = shared.state.borrow().truncations;
    let done = match run(shared, &plan, truncations).await {
        // What was read while it went may look like anything.
        Err(CompactionError::Damaged(_)) if shared.state.borrow().truncations != truncations => {
            Err(CompactionError::Interrupted("the log was truncated".into()))
        }
        done => done,
    };
    shared.count(|counters| match &done {
        Ok(_) => counters.compactions += 1,
        Err(_) => counters.compactions_failed += 1,
    });
    done
}

async fn run(shared: &Rc<Shared>, plan: &Plan, truncations: u32) -> Result<Compacted, CompactionError> {
    let (keys, learned_to) = learn(shared, plan).await?;
    let mut rules = rules(shared, keys, learned_to).await?;
    let mut done = Compacted::default();
    for group in groups(shared, learned_to) {
        let (after, counts);
        (rules, after, counts) = clean(shared, &group, rules, truncations).await?;
        done.segments_before += group.len();
        done.segments_after += after;
        done.counts += counts;
        shared.count(|counters| {
            counters.compaction_records_kept += counts.records_kept;
            counters.compaction_records_removed += counts.records_removed;
        });
    }
    // A table of keys takes a while to give back.
    shared.core.offload(move || drop(rules)).await?;
    done.clean_to = swap::finish(shared, learned_to, truncations).await?;
    Ok(done)
}

/// The first pass, over the dirty part.
async fn learn(shared: &Rc<Shared>, plan: &Plan) -> Result<(KeyMap, Offset), CompactionError> {
    let secret = Secret(shared.core.random_u64(), shared.core.random_u64());
    let (places_max, limit) = (shared.limits.key_places_max, shared.limits.decompressed_bytes_max);
    let keys = KeyMap::new(secret, places_max);
    let mut learner = Learner::new(keys, plan.dirty.start, limit);
    let dirty = {
        let state = shared.state.borrow();
        let is_dirty =
            |(segment, end): &(&Segment, Offset)| segment.base < plan.dirty.end && *end > plan.dirty.start;
        olds(with_ends(&state).filter(is_dirty))
    };
    for segment in &dirty {
        let mut pieces = Pieces::new(shared, segment, segment.floor(plan.dirty.start));
        while let Some(piece) = pieces.next().await? {
            check_going_on(shared)?;
            shared.count(|counters| counters.compaction_bytes_read += piece.len() as u64);
            let learn = move || {
                let learned = learner.learn(&piece);
                (learner, learned)
            };
            let learned;
            (learner, learned) = shared.core.offload(learn).await?;
            learned.map_err(|damaged| segment.damaged(shared, &damaged))?;
            if learner.is_full() {
                return Ok(learner.finish());
            }
            shared.core.yield_now().await;
        }
    }
    Ok(learner.finish())
}

async fn rules(shared: &Rc<Shared>, keys: KeyMap, learned_to: Offset) -> Result<Rules, CompactionError> {
    let mut windows = shared.state.borrow().producers.window_offsets();
    windows = shared
        .core
        .offload(move || {
            windows.sort_unstable();
            windows
        })
        .await?;
    Ok(Rules {
        keys,
        learned_to,
        now_ms: shared.core.wall_ms(),
        delete_retention_ms: shared.config.borrow().delete_retention_ms,
        windows,
        unpacked_bytes_max: shared.limits.decompressed_bytes_max,
        has_unopened: false,
    })
}

/// The segments to write anew, in the runs that become one segment each.
fn groups(shared: &Shared, learned_to: Offset) -> Vec<Vec<Old>> {
    let state = shared.state.borrow();
    let facts = facts(&state);
    let groups = compaction::groups(&facts, learned_to, shared.config.borrow().segment_bytes);
    let segments: Vec<(&Segment, Offset)> = with_ends(&state).collect();
    groups.into_iter().map(|group| olds(segments[group].iter().copied())).collect()
}

/// The second pass, over one group: a segment beside the old ones, and the swap if anything changed. Gives how many
/// segments there are now.
async fn clean(
    shared: &Rc<Shared>,
    group: &[Old],
    rules: Rules,
    truncations: u32,
) -> Result<(Rules, usize, Counts), CompactionError> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Ok((rules, 0, Counts::default()));
    };
    let bytes = group.iter().map(|old| old.bytes).sum();
    let mut output = Output::create(shared, first.base, bytes).await?;
    let written = write(shared, group, rules, &mut output).await;
    let (file, cleaned, index) = match written {
        Ok((cleaned, index)) => (output.file, cleaned, Rc::new(index)),
        Err(error) => {
            files::discard(shared, first.base).await;
            return Err(error);
        }
    };
    let Cleaned { rules, bytes, changed, counts, .. } = cleaned;
    if group.len() == 1 && !changed {
        files::discard(shared, first.base).await;
        return Ok((rules, 1, counts));
    }
    let new = swap::New { base: first.base, end: last.end, bytes, file, index };
    swap::swap(shared, group, new, truncations).await?;
    Ok((rules, 1, counts))
}

async fn write(
    shared: &Rc<Shared>,
    group: &[Old],
    rules: Rules,
    output: &mut Output,
) -> Result<(Cleaned, SealedIndex), CompactionError> {
    let interval = shared.config.borrow().index_interval_bytes;
    let (base, end) = (group[0].base, group[group.len() - 1].end);
    let mut cleaner = Cleaner::new(rules, base, interval);
    for segment in group {
        let mut pieces = Pieces::new(shared, segment, 0);
        while let Some(piece) = pieces.next().await? {
            check_going_on(shared)?;
            shared.count(|counters| counters.compaction_bytes_read += piece.len() as u64);
            let clean = move || {
                let mut out = Vec::with_capacity(piece.len());
                let done = cleaner.clean(&piece, &mut out);
                (cleaner, out, done)
            };
            let (out, done);
            (cleaner, out, done) = shared.core.offload(clean).await?;
            done.map_err(|damaged| segment.damaged(shared, &damaged))?;
            output.write(shared, out).await?;
            shared.core.yield_now().await;
        }
    }
    let finish = move || {
        let mut out = Vec::new();
        let cleaned = cleaner.finish(end, &mut out)?;
        let index =
            SealedIndex::decode(&cleaned.index).map_err(|why| Damaged(format!("its new index: {why}")))?;
        Ok((cleaned, index, out))
    };
    let finished = shared.core.offload(finish).await?;
    let (cleaned, index, out) = finished.map_err(|damaged| group[0].damaged(shared, &damaged))?;
    output.write(shared, out).await?;
    output.finish(shared, &cleaned).await?;
    Ok((cleaned, index))
}

fn facts(state: &State) -> Vec<Facts> {
    let fact = |(segment, end): (&Segment, Offset)| Facts {
        base: segment.base,
        end,
        bytes: segment.position,
        first_timestamp: segment.first_timestamp,
        max_timestamp: segment.age_timestamp(),
        is_sealed: segment.is_sealed(),
    };
    with_ends(state).map(fact).collect()
}

fn with_ends(state: &State) -> impl Iterator<Item = (&Segment, Offset)> {
    let ends = state.segments.iter().skip(1).map(|next| next.base).chain([state.end]);
    state.segments.iter().zip(ends)
}

/// The sealed ones of these segments.
fn olds<'s>(segments: impl Iterator<Item = (&'s Segment, Offset)>) -> Vec<Old> {
    let old = segments.filter_map(|(segment, end)| match &segment.index {
        Index::Sealed(index) => Some(Old {
            base: segment.base,
            end,
            bytes: segment.position,
            file: segment.file.clone(),
            index: index.clone(),
        }),
        Index::Active(_) => None,
    });
    old.collect()
}

/// Whether the log still is what the compaction is for.
fn check_going_on(shared: &Shared) -> Result<(), CompactionError> {
    let state = shared.state.borrow();
    state.check_open()?;
    match state.truncating {
        true => Err(CompactionError::Interrupted("the log is being truncated".into())),
        false => Ok(()),
    }
}

impl Old {
    fn floor(&self, offset: Offset) -> u64 {
        self.index.lookup(offset).0.min(self.bytes)
    }

    fn damaged(&self, shared: &Shared, damaged: &Damaged) -> CompactionError {
        let path = shared.dir.join(crate::names::segment(self.base));
        CompactionError::Damaged(format!("{}: {}", path.display(), damaged.0))
    }
}

/// One compaction of a log at a time.
struct Running<'a>(&'a Shared);

impl Running<'_> {
    fn begin(shared: &Shared) -> Running<'_> {
        let before = std::mem::replace(&mut shared.state.borrow_mut().compacting, true);
        assert!(!before, "`plan` gives nothing while one runs");
        Running(shared)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.0.state.try_borrow_mut() {
            state.compacting = false;
        }
    }
}

impl fmt::Display for CompactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompactionError::NoSpace(why)
            | CompactionError::Interrupted(why)
            | CompactionError::Damaged(why) => write!(f, "{why}"),
            CompactionError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CompactionError {}

impl From<io::Error> for CompactionError {
    fn from(error: io::Error) -> CompactionError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                CompactionError::NoSpace(error.to_string())
            }
            io::ErrorKind::InvalidData => CompactionError::Damaged(error.to_string()),
            _ => CompactionError::Io(error),
        }
    }
}

impl From<Poisoned> for CompactionError {
    fn from(poisoned: Poisoned) -> CompactionError {
        CompactionError::Interrupted(poisoned.0)
    }
}

impl From<Panicked> for CompactionError {
    fn from(panicked: Panicked) -> CompactionError {
        CompactionError::Io(io::Error::other(panicked.message))
    }
}

impl From<AppendError> for CompactionError {
    fn from(error: AppendError) -> CompactionError {
        CompactionError::Interrupted(format!("{error:?}"))
    }
}
