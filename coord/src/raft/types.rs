//! Raft's data in our own words, so that the engine's log and the tests need not know raft-rs.

use protobuf::Message as _;
use raft::eraftpb::{self, ConfChangeSingle, ConfChangeV2};

use super::{Member, RestoreError};
use crate::wire::{Error, Reader, Result as WireResult, Writer};

/// Raft reserves 0; broker ids begin there.
pub fn raft_id(node: i32) -> u64 {
    u64::from(node.unsigned_abs()) + 1
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// A command, or nothing: a new leader's first entry is empty.
    Normal = 0,
    Members = 1,
    MembersV2 = 2,
}

impl EntryKind {
    pub fn from_u8(kind: u8) -> Option<EntryKind> {
        [EntryKind::Normal, EntryKind::Members, EntryKind::MembersV2].into_iter().find(|k| *k as u8 == kind)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    pub kind: EntryKind,
    pub data: Vec<u8>,
}

impl Entry {
    pub(super) fn from_raft(entry: &eraftpb::Entry) -> Entry {
        let kind = match entry.get_entry_type() {
            eraftpb::EntryType::EntryNormal => EntryKind::Normal,
            eraftpb::EntryType::EntryConfChange => EntryKind::Members,
            eraftpb::EntryType::EntryConfChangeV2 => EntryKind::MembersV2,
        };
        Entry { index: entry.index, term: entry.term, kind, data: entry.data.to_vec() }
    }

    pub(super) fn to_raft(&self) -> eraftpb::Entry {
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(match self.kind {
            EntryKind::Normal => eraftpb::EntryType::EntryNormal,
            EntryKind::Members => eraftpb::EntryType::EntryConfChange,
            EntryKind::MembersV2 => eraftpb::EntryType::EntryConfChangeV2,
        });
        entry.index = self.index;
        entry.term = self.term;
        entry.data = self.data.clone().into();
        entry
    }

    /// Whether it carries a command of the state machine.
    pub fn is_command(&self) -> bool {
        self.kind == EntryKind::Normal && !self.data.is_empty()
    }
}

/// The change of voters that an entry carries; bytes that are none change nothing.
pub(super) fn conf_change(entry: &eraftpb::Entry) -> Option<ConfChangeV2> {
    match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => None,
        eraftpb::EntryType::EntryConfChange => {
            let mut change = eraftpb::ConfChange::default();
            change.merge_from_bytes(&entry.data).ok()?;
            let mut single = ConfChangeSingle { node_id: change.node_id, ..ConfChangeSingle::default() };
            single.set_change_type(change.get_change_type());
            let mut changes = ConfChangeV2::default();
            changes.set_changes(vec![single].into());
            Some(changes)
        }
        eraftpb::EntryType::EntryConfChangeV2 => {
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).ok()?;
            Some(change)
        }
    }
}

/// Term and vote must be durable before any message of that term leaves; `commit` may lag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    pub term: u64,
    /// 0 for nobody.
    pub vote: u64,
    pub commit: u64,
}

impl HardState {
    pub(super) fn from_raft(state: &eraftpb::HardState) -> HardState {
        HardState { term: state.term, vote: state.vote, commit: state.commit }
    }

    pub(super) fn to_raft(self) -> eraftpb::HardState {
        let mut state = eraftpb::HardState::default();
        (state.term, state.vote, state.commit) = (self.term, self.vote, self.commit);
        state
    }
}

/// Who votes and who only listens. While a change is under way the old voters count, too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Voters {
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    pub voters_outgoing: Vec<u64>,
    pub learners_next: Vec<u64>,
    pub auto_leave: bool,
}

impl Voters {
    /// The first configuration of a group.
    pub fn of(voters: &[u64]) -> Voters {
        Voters { voters: voters.to_vec(), ..Voters::default() }
    }

    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    pub(super) fn is_sole(&self, id: u64) -> bool {
        self.voters == [id] && !self.is_joint()
    }

    /// Whether this change leaves a voter and names every node once.
    pub(super) fn allows(&self, members: &[Member]) -> bool {
        let node = |member: &Member| match member {
            Member::Voter(node) | Member::Learner(node) | Member::Removed(node) => *node,
        };
        let nodes: Vec<u64> = members.iter().map(node).collect();
        let once =
            nodes.iter().all(|node| *node != 0 && nodes.iter().filter(|other| *other == node).count() == 1);
        let stays = self.voters.iter().any(|voter| !nodes.contains(voter));
        let joins = members.iter().any(|member| matches!(member, Member::Voter(_)));
        once && !members.is_empty() && (stays || joins)
    }

    fn is_valid(&self) -> bool {
        let distinct =
            |list: &[u64]| list.iter().all(|id| *id != 0 && list.iter().filter(|o| *o == id).count() == 1);
        let alone =
            self.learners.iter().all(|id| !self.voters.contains(id) && !self.voters_outgoing.contains(id));
        let leaving = self.learners_next.iter().all(|id| self.voters_outgoing.contains(id));
        let next =
            self.learners_next.iter().all(|id| !self.voters.contains(id) && !self.learners.contains(id));
        let lists = [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next];
        let joint = self.is_joint() || (self.learners_next.is_empty() && !self.auto_leave);
        !self.voters.is_empty()
            && lists.iter().all(|list| distinct(list))
            && alone
            && leaving
            && next
            && joint
    }

    pub(super) fn from_raft(state: &eraftpb::ConfState) -> Voters {
        Voters {
            voters: state.get_voters().to_vec(),
            learners: state.get_learners().to_vec(),
            voters_outgoing: state.get_voters_outgoing().to_vec(),
            learners_next: state.get_learners_next().to_vec(),
            auto_leave: state.auto_leave,
        }
    }

    pub(super) fn to_raft(&self) -> eraftpb::ConfState {
        let mut state = eraftpb::ConfState::default();
        state.set_voters(self.voters.clone());
        state.set_learners(self.learners.clone());
        state.set_voters_outgoing(self.voters_outgoing.clone());
        state.set_learners_next(self.learners_next.clone());
        state.auto_leave = self.auto_leave;
        state
    }
}

/// The state machine at an index, with the voters there.
///
/// ```text
/// version i16 | index u64 | term u64 | four lists of u64 | auto leave i8 | data | tagged fields
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    pub index: u64,
    pub term: u64,
    pub voters: Voters,
    pub data: Vec<u8>,
}

const SNAPSHOT_VERSION: i16 = 0;

impl Snapshot {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.i16(SNAPSHOT_VERSION);
        w.u64(self.index);
        w.u64(self.term);
        let voters = &self.voters;
        for list in [&voters.voters, &voters.learners, &voters.voters_outgoing, &voters.learners_next] {
            w.vec(list.iter(), |w, id| w.u64(*id));
        }
        w.bool(voters.auto_leave);
        w.bytes(&self.data);
        w.no_tagged();
        w.into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> WireResult<Snapshot> {
        let mut r = Reader::new(bytes);
        let version = r.i16()?;
        if version != SNAPSHOT_VERSION {
            return Err(Error::Unsupported { kind: -1, version });
        }
        let (index, term) = (r.u64()?, r.u64()?);
        let voters = Voters {
            voters: r.vec(Reader::u64)?,
            learners: r.vec(Reader::u64)?,
            voters_outgoing: r.vec(Reader::u64)?,
            learners_next: r.vec(Reader::u64)?,
            auto_leave: r.bool()?,
        };
        let data = r.bytes()?;
        r.no_tagged()?;
        r.end()?;
        Ok(Snapshot { index, term, voters, data })
    }

    pub(super) fn from_raft(snapshot: &eraftpb::Snapshot) -> Snapshot {
        let meta = snapshot.get_metadata();
        Snapshot {
            index: meta.index,
            term: meta.term,
            voters: Voters::from_raft(meta.get_conf_state()),
            data: snapshot.data.to_vec(),
        }
    }

    pub(super) fn to_raft(&self) -> eraftpb::Snapshot {
        let mut snapshot =
            eraftpb::Snapshot { data: self.data.clone().into(), ..eraftpb::Snapshot::default() };
        let meta = snapshot.mut_metadata();
        meta.index = self.index;
        meta.term = self.term;
        meta.set_conf_state(self.voters.to_raft());
        snapshot
    }
}

/// What a node's disk holds: the newest snapshot, the entries behind it, and the last hard state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Durable {
    pub hard_state: HardState,
    pub snapshot: Snapshot,
    pub entries: Vec<Entry>,
}

impl Durable {
    /// A new group: its first snapshot names the voters and holds the first state. Every first voter must start from the
    /// same one, and it must be durable before `Node::new`.
    pub fn bootstrap(voters: &[u64], data: Vec<u8>) -> Durable {
        Durable {
            hard_state: HardState { term: 1, vote: 0, commit: 1 },
            snapshot: Snapshot { index: 1, term: 1, voters: Voters::of(voters), data },
            entries: Vec::new(),
        }
    }

    /// Drops what the snapshot covers and checks the rest.
    pub(super) fn check(&self) -> Result<(), RestoreError> {
        if !self.snapshot.voters.is_valid() || self.snapshot.index == 0 {
            return Err(RestoreError::Voters);
        }
        let (mut last, mut term) = (self.snapshot.index, self.snapshot.term);
        for entry in self.entries.iter().filter(|entry| entry.index > self.snapshot.index) {
            if entry.index != last + 1 || entry.term < term {
                return Err(RestoreError::Gap { index: entry.index });
            }
            (last, term) = (entry.index, entry.term);
        }
        let commit = self.hard_state.commit;
        if commit > last { Err(RestoreError::CommitPastEnd { commit, last }) } else { Ok(()) }
    }
}
