//! One node of the metadata's Raft group: raft-rs 0.7 behind effects.
//!
//! The caller owns time, disk and network. It asks `ready` for work, makes the write durable, and only then, through
//! `persisted`, gets the messages that speak of it; entries come out once they are committed, which for this node's own
//! share also means durable. One write is in flight at a time, so what is proposed meanwhile shares the next one.
//!
//! What 0.7.0 does that this module keeps away from its callers:
//! - a leader's messages are handed out before its term is durable (a sole voter leads in the very Ready that raises its
//!   term): here every message waits for its write;
//! - `read_index` before an own-term commit is dropped silently: refused (`NotReady`);
//! - a conf change proposed while one is pending turns into an empty entry: refused (`ChangePending`);
//! - followers forward proposals: refused on both sides;
//! - a cached snapshot without the peer that asks leaves a learner stuck: not offered, and `snapshot_due` asks for one;
//! - sizes are unlimited by default: every one is set below;
//! - impossible input (a commit index past the log, a message from itself) panics inside: checked in `step` and `new`;
//! - election timeouts come from a thread's random generator: fixed here, the jitter is an argument of `tick`.

mod error;
mod proposals;
mod storage;
mod types;

use std::time::Duration;

use raft::eraftpb::{
    self, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, MessageType,
};
use raft::{Config, RawNode, ReadOnlyOption, StateRole};

pub use error::{ProposeError, RestoreError, StepError};
pub use proposals::{Outcome, Proposals};
pub use raft::eraftpb::Message;
pub use types::{Durable, Entry, EntryKind, HardState, Snapshot, Voters, raft_id};

use storage::MirrorStorage;

/// How often the caller ticks.
pub const TICK: Duration = Duration::from_millis(100);

const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 15;

/// The largest command. A topic of 10,000 partitions with five replicas takes a quarter of a megabyte.
pub const ENTRY_BYTES_MAX: usize = 8 << 20;
/// One append message carries no more, but for a single larger entry.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const MESSAGES_IN_FLIGHT_MAX: usize = 64;
/// Proposals that are not committed yet.
const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;
/// What one `ready` hands out for applying.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;

/// A snapshot is due after so many applied entries, or so many bytes of them.
pub const SNAPSHOT_ENTRIES: u64 = 10_000;
pub const SNAPSHOT_BYTES: u64 = 64 << 20;

/// What must be on stable media before `persisted` is called: a snapshot replaces everything before it, then entries
/// replace those from their first index on. One after the other or all at once, never in another order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Write {
    pub hard_state: Option<HardState>,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
}

impl Write {
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none() && self.snapshot.is_none() && self.entries.is_empty()
    }
}

/// The work of one round.
#[derive(Debug, Default)]
pub struct Effects {
    /// Present: make it durable, then call `persisted` with `number`. Nothing else comes out before.
    pub write: Option<Write>,
    pub number: u64,
    /// A leader's snapshot: the state machine is replaced by its data.
    pub restore: Option<Snapshot>,
    /// To be applied in order, then reported by `applied`.
    pub committed: Vec<Entry>,
    /// To be sent now. Those that speak of `write` come out of `persisted`.
    pub messages: Vec<Message>,
    /// Reads that `read_index` began: once this index is applied, they may be answered.
    pub reads: Vec<Read>,
}

/// A read that may be answered when `index` is applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    pub index: u64,
    pub context: Vec<u8>,
}

/// Where a proposal will be if it is committed. Another entry there means that it was lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProposalId {
    pub index: u64,
    pub term: u64,
}

/// A change of who votes. Several at once go through a joint configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Member {
    Voter(u64),
    Learner(u64),
    Removed(u64),
}

pub struct Node {
    raw: RawNode<MirrorStorage>,
    /// The write that is out, with the messages that wait for it.
    writing: Option<(u64, Vec<Message>)>,
    durable: HardState,
    /// The last entry that `ready` handed out, and the last that the caller applied.
    handed_out: u64,
    applied: u64,
    applied_bytes: u64,
}

impl Node {
    /// A node with what its disk held. A sole voter leads at once.
    pub fn new(id: u64, durable: Durable) -> Result<Node, RestoreError> {
        durable.check()?;
        let (snapshot, hard_state) = (durable.snapshot.index, durable.hard_state);
        let sole = durable.snapshot.voters.is_sole(id);
        let store = MirrorStorage::new(durable);
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config(id, snapshot), store, &log)
            .map_err(|e| RestoreError::Raft(e.to_string()))?;
        let mut node = Node {
            raw,
            writing: None,
            durable: hard_state,
            handed_out: snapshot,
            applied: snapshot,
            applied_bytes: 0,
        };
        if sole {
            node.raw.campaign().map_err(|e| RestoreError::Raft(e.to_string()))?;
        }
        Ok(node)
    }

    pub fn id(&self) -> u64 {
        self.raw.raft.id
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != 0)
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Leads, and has applied everything that was decided before its term: only then its state may be planned on.
    pub fn is_settled(&self) -> bool {
        self.is_leader() && self.raw.raft.apply_to_current_term()
    }

    pub fn voters(&self) -> Voters {
        self.raw.store().voters().clone()
    }

    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// One `TICK` has passed. A follower leaves out every fourth on average, by the caller's `random`: two nodes do not
    /// campaign in step for ever. A node whose disk is stalled does not campaign.
    pub fn tick(&mut self, random: u64) {
        if self.is_leader() || (self.writing.is_none() && !random.is_multiple_of(4)) {
            self.raw.tick();
        }
    }

    /// Proposes a command; only a leader takes one.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<ProposalId, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if data.len() > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge);
        }
        self.raw.propose(Vec::new(), data).map_err(|_| ProposeError::Busy)?;
        Ok(ProposalId { index: self.raw.raft.raft_log.last_index(), term: self.term() })
    }

    /// Proposes other voters and learners, all of these changes or none.
    pub fn propose_members(&mut self, members: &[Member]) -> Result<ProposalId, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if !self.raw.raft.commit_to_current_term() {
            return Err(ProposeError::NotReady);
        }
        if self.raw.raft.has_pending_conf() || self.voters().is_joint() {
            return Err(ProposeError::ChangePending);
        }
        if !self.voters().allows(members) {
            return Err(ProposeError::InvalidChange);
        }
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        change.set_changes(members.iter().map(|member| member.to_raft()).collect());
        self.raw.propose_conf_change(Vec::new(), change).map_err(|_| ProposeError::Busy)?;
        Ok(ProposalId { index: self.raw.raft.raft_log.last_index(), term: self.term() })
    }

    /// Begins a linearizable read; it comes out of `ready` with the index to wait for.
    pub fn read_index(&mut self, context: Vec<u8>) -> Result<(), ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if !self.raw.raft.commit_to_current_term() {
            return Err(ProposeError::NotReady);
        }
        self.raw.read_index(context);
        Ok(())
    }

    /// Takes a peer's message. The link has authenticated `message.from`.
    pub fn step(&mut self, message: Message) -> Result<(), StepError> {
        self.check(&message)?;
        self.raw.step(message).map_err(|_| StepError::UnknownPeer)
    }

    fn check(&self, message: &Message) -> Result<(), StepError> {
        if message.to != self.id() || message.from == self.id() || message.from == 0 {
            return Err(StepError::NotForUs);
        }
        let kind = message.get_msg_type();
        if matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex) {
            return Err(StepError::Forwarded);
        }
        if raft::raw_node::is_local_msg(kind) {
            return Err(StepError::Local);
        }
        let log = &self.raw.raft.raft_log;
        if kind == MessageType::MsgHeartbeat && message.commit > log.last_index() {
            return Err(StepError::Contradiction);
        }
        let agrees = |entry: &eraftpb::Entry| match log.term(entry.index) {
            Ok(term) => entry.index > log.committed || term == entry.term,
            Err(_) => true,
        };
        let follow_each_other =
            message.get_entries().iter().zip(message.index + 1..).all(|(entry, index)| entry.index == index);
        let named = kind != MessageType::MsgSnapshot
            || !message.get_snapshot().get_metadata().get_conf_state().voters.is_empty();
        if message.get_entries().iter().all(agrees) && follow_each_other && named {
            Ok(())
        } else {
            Err(StepError::Contradiction)
        }
    }

    /// A message to that peer was lost: its link is down.
    pub fn report_unreachable(&mut self, peer: u64) {
        self.raw.report_unreachable(peer);
    }

    /// A snapshot has been sent to that peer, or could not be.
    pub fn report_snapshot(&mut self, peer: u64, sent: bool) {
        let status = if sent { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raw.report_snapshot(peer, status);
    }

    /// The next work, unless there is none or a write is still out.
    pub fn ready(&mut self) -> Option<Effects> {
        if self.writing.is_some() || !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let number = ready.number();
        let mut messages = ready.take_messages();
        messages.extend(ready.take_persisted_messages());
        let restore = (!ready.snapshot().is_empty()).then(|| Snapshot::from_raft(ready.snapshot()));
        let entries = ready.take_entries();
        let committed = ready.take_committed_entries();
        let reads = ready.take_read_states().into_iter();
        let reads = reads.map(|read| Read { index: read.index, context: read.request_ctx }).collect();
        let write = self.mirror(&restore, &entries, ready.hs());
        self.raw.advance_append_async(ready);
        if let Some(snapshot) = &restore {
            self.handed_out = snapshot.index;
            self.applied = snapshot.index;
            self.applied_bytes = 0;
        }
        let committed = self.hand_out(committed);
        let write = (!write.is_empty()).then_some(write);
        if write.is_some() {
            self.writing = Some((number, std::mem::take(&mut messages)));
        } else {
            self.raw.on_persist_ready(number);
        }
        Some(Effects { write, number, restore, committed, messages, reads })
    }

    /// What raft-rs must be able to read from now on, and the same as a write. The commit index that is written never
    /// exceeds what was durable before: a crash inside the write leaves a state that `new` accepts.
    fn mirror(
        &mut self,
        restore: &Option<Snapshot>,
        entries: &[eraftpb::Entry],
        now: Option<&eraftpb::HardState>,
    ) -> Write {
        let last = self.raw.store().last();
        let store = self.raw.mut_store();
        if let Some(snapshot) = restore {
            store.install(snapshot.clone());
        }
        store.append(entries);
        if let Some(now) = now {
            store.set_hard_state(now.clone());
        }
        let now = HardState::from_raft(store.hard_state());
        let commit = restore.as_ref().map_or(now.commit.min(last), |snapshot| snapshot.index);
        let voted = (now.term, now.vote) != (self.durable.term, self.durable.vote);
        let commit = commit.max(self.durable.commit);
        let must = voted || !entries.is_empty() || restore.is_some();
        let hard_state = HardState { commit, ..now };
        let changed = must && hard_state != self.durable;
        if changed {
            self.durable = hard_state;
        }
        Write {
            hard_state: changed.then_some(hard_state),
            snapshot: restore.clone(),
            entries: entries.iter().map(Entry::from_raft).collect(),
        }
    }

    /// Changes of the voters take effect where they are handed out.
    fn hand_out(&mut self, committed: Vec<eraftpb::Entry>) -> Vec<Entry> {
        for entry in &committed {
            assert!(entry.index == self.handed_out + 1, "committed entries come in order");
            self.handed_out = entry.index;
            self.applied_bytes += entry.data.len() as u64;
            if let Some(change) = types::conf_change(entry) {
                // One that does not fit (it was checked before it was proposed) is a no-op on every node alike.
                if let Ok(state) = self.raw.apply_conf_change(&change) {
                    self.raw.mut_store().set_voters(Voters::from_raft(&state), entry.index);
                }
            }
        }
        committed.iter().map(Entry::from_raft).collect()
    }

    /// The write of that number is on stable media. Returns the messages that may leave now. Effects without a write
    /// need no call; it does nothing then.
    pub fn persisted(&mut self, number: u64) -> Vec<Message> {
        let Some((out, messages)) = self.writing.take() else { return Vec::new() };
        assert!(out == number, "writes are persisted in order");
        self.raw.on_persist_ready(number);
        messages
    }

    /// The state machine reflects everything up to `index`.
    pub fn applied(&mut self, index: u64) {
        assert!(index >= self.applied);
        assert!(index <= self.handed_out);
        self.applied = index;
        self.raw.advance_apply_to(index);
    }

    /// Whether the caller should make a snapshot now: the log is long, or a peer needs one that names it.
    pub fn snapshot_due(&self) -> bool {
        let store = self.raw.store();
        let entries = self.applied.saturating_sub(store.snapshot_index());
        let long = entries >= SNAPSHOT_ENTRIES || self.applied_bytes >= SNAPSHOT_BYTES;
        (long || store.snapshot_wanted()) && entries > 0 && self.applied >= store.voters_since()
    }

    /// The hard state that belongs beside a snapshot of the applied index.
    pub fn hard_state(&self) -> HardState {
        HardState { commit: self.durable.commit.max(self.applied), ..self.durable }
    }

    /// The entries that a snapshot of the applied index does not cover: a log that starts anew from the snapshot must
    /// hold them, too. Empty where everything proposed was applied.
    pub fn entries_after_applied(&self) -> Vec<Entry> {
        self.raw.store().entries_after(self.applied).map(Entry::from_raft).collect()
    }

    /// The snapshot of the state at the applied index. Make it durable, with `hard_state` and
    /// `entries_after_applied`, while no other write is out; then give it to `compacted`.
    pub fn snapshot(&self, data: Vec<u8>) -> Snapshot {
        let store = self.raw.store();
        assert!(
            self.applied >= store.voters_since(),
            "the voters of an earlier index are not known any more"
        );
        let term =
            self.raw.raft.raft_log.term(self.applied).expect("applied entries are kept until compacted");
        Snapshot { index: self.applied, term, voters: store.voters().clone(), data }
    }

    /// That snapshot is durable: the entries it covers may go, here and on disk.
    pub fn compacted(&mut self, snapshot: Snapshot) {
        assert!(snapshot.index <= self.applied);
        self.durable.commit = self.durable.commit.max(snapshot.index);
        self.applied_bytes = 0;
        self.raw.mut_store().compact(snapshot);
    }
}

impl Member {
    fn to_raft(self) -> ConfChangeSingle {
        let (node, kind) = match self {
            Member::Voter(node) => (node, ConfChangeType::AddNode),
            Member::Learner(node) => (node, ConfChangeType::AddLearnerNode),
            Member::Removed(node) => (node, ConfChangeType::RemoveNode),
        };
        let mut single = ConfChangeSingle { node_id: node, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        single
    }
}

fn config(id: u64, applied: u64) -> Config {
    Config {
        id,
        applied,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        min_election_tick: ELECTION_TICKS,
        max_election_tick: ELECTION_TICKS + 1,
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: COMMITTED_BYTES_MAX,
        check_quorum: true,
        pre_vote: true,
        read_only_option: ReadOnlyOption::Safe,
        ..Config::default()
    }
}

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod tests;
