//! What raft-rs may read: the log since the last snapshot, in memory, as the disk has it or is about to.
//!
//! The metadata's log is short (a snapshot every few thousand entries), so it is kept whole. The disk is the engine's
//! Raft log; this mirrors the writes that `ready` hands out.

use std::cell::Cell;

use raft::eraftpb;
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::types::{Durable, HardState, Snapshot, Voters};

pub(super) struct MirrorStorage {
    hard_state: eraftpb::HardState,
    snapshot: Snapshot,
    /// Right behind the snapshot, without a hole.
    entries: Vec<eraftpb::Entry>,
    voters: Voters,
    /// The entry that made them the voters.
    voters_since: u64,
    /// A peer asked for a snapshot that this one is too old for.
    wanted: Cell<bool>,
}

impl MirrorStorage {
    /// `durable` was checked.
    pub fn new(durable: Durable) -> MirrorStorage {
        let Durable { hard_state, snapshot, entries } = durable;
        let commit = hard_state.commit.max(snapshot.index);
        let behind = entries.iter().filter(|entry| entry.index > snapshot.index);
        let entries: Vec<eraftpb::Entry> = behind.map(|entry| entry.to_raft()).collect();
        let last_term = entries.last().map_or(snapshot.term, |entry| entry.term);
        // A crash may have left entries of a term whose hard state was still to come.
        let hard_state = if hard_state.term < last_term {
            HardState { term: last_term, vote: 0, commit }
        } else {
            HardState { commit, ..hard_state }
        };
        MirrorStorage {
            hard_state: hard_state.to_raft(),
            voters: snapshot.voters.clone(),
            voters_since: snapshot.index,
            snapshot,
            entries,
            wanted: Cell::new(false),
        }
    }

    pub fn hard_state(&self) -> &eraftpb::HardState {
        &self.hard_state
    }

    pub fn set_hard_state(&mut self, state: eraftpb::HardState) {
        self.hard_state = state;
    }

    pub fn voters(&self) -> &Voters {
        &self.voters
    }

    pub fn voters_since(&self) -> u64 {
        self.voters_since
    }

    pub fn set_voters(&mut self, voters: Voters, since: u64) {
        self.voters = voters;
        self.voters_since = since;
    }

    pub fn snapshot_index(&self) -> u64 {
        self.snapshot.index
    }

    pub fn snapshot_wanted(&self) -> bool {
        self.wanted.get()
    }

    pub fn last(&self) -> u64 {
        self.entries.last().map_or(self.snapshot.index, |entry| entry.index)
    }

    /// A leader's snapshot replaces everything.
    pub fn install(&mut self, snapshot: Snapshot) {
        assert!(snapshot.index >= self.snapshot.index, "a snapshot never goes back");
        self.entries.clear();
        self.set_voters(snapshot.voters.clone(), snapshot.index);
        self.snapshot = snapshot;
        self.wanted.set(false);
    }

    /// Own snapshot: the entries it covers go.
    pub fn compact(&mut self, snapshot: Snapshot) {
        assert!(snapshot.index >= self.snapshot.index, "a snapshot never goes back");
        assert!(snapshot.index <= self.last());
        self.entries.retain(|entry| entry.index > snapshot.index);
        self.snapshot = snapshot;
        self.wanted.set(false);
    }

    pub fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.snapshot.index, "what a snapshot covers is never replaced");
        assert!(first.index <= self.last() + 1, "the log has no holes");
        self.entries.retain(|entry| entry.index < first.index);
        self.entries.extend_from_slice(entries);
    }

    pub fn entries_after(&self, index: u64) -> impl Iterator<Item = &eraftpb::Entry> {
        self.entries.iter().filter(move |entry| entry.index > index)
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.snapshot.index + 1)?).ok()
    }
}

impl Storage for MirrorStorage {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.voters.to_raft()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<eraftpb::Entry>> {
        let (Some(low), Some(high)) = (self.position(low), self.position(high)) else {
            return Err(Error::Store(StorageError::Compacted));
        };
        let range = self.entries.get(low..high).ok_or(Error::Store(StorageError::Unavailable))?;
        let mut range = range.to_vec();
        raft::util::limit_size(&mut range, max_size.into());
        Ok(range)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.snapshot.index {
            return Ok(self.snapshot.term);
        }
        let position = self.position(index).ok_or(Error::Store(StorageError::Compacted))?;
        self.entries.get(position).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.snapshot.index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// Only one that knows the peer it is for: a learner that is not in its own snapshot would never leave it.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<eraftpb::Snapshot> {
        let Voters { voters, learners, voters_outgoing, learners_next, auto_leave: _ } =
            &self.snapshot.voters;
        let known = [voters, learners, voters_outgoing, learners_next].iter().any(|list| list.contains(&to));
        if !known || self.snapshot.index < request_index {
            self.wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.to_raft())
    }
}
