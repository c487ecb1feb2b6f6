//! What happens to groups, for whoever watches them: numbers, and which members are taken out. Nothing is decided by it,
//! and as in Kafka a decision counts when it is made, whatever becomes of its append.

use super::{Core, Text};

/// Why a member is no longer one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It said so, or an administrator did.
    Left,
    /// Its session timed out.
    Session,
    /// It did not rejoin, sync, or give up its partitions in time.
    Rebalance,
    /// Another process took the place of a static member.
    Replaced,
    /// It rejoined a group that has no more room.
    Full,
}

impl Reason {
    pub const ALL: [Reason; 5] =
        [Reason::Left, Reason::Session, Reason::Rebalance, Reason::Replaced, Reason::Full];

    /// As the metrics label it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Left => "left",
            Reason::Session => "session",
            Reason::Rebalance => "rebalance",
            Reason::Replaced => "replaced",
            Reason::Full => "full",
        }
    }
}

/// How often what happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Plans of leaders that took effect.
    pub rebalances_classic: u64,
    /// Targets computed.
    pub rebalances_consumer: u64,
    /// Partitions, not requests.
    pub offset_commits: u64,
    pub offset_expirations: u64,
    removed: [u64; Reason::ALL.len()],
}

impl Counted {
    /// How many members were taken out for that reason.
    pub fn removed(&self, why: Reason) -> u64 {
        self.removed[why as usize]
    }

    pub fn add(&mut self, more: &Counted) {
        self.rebalances_classic += more.rebalances_classic;
        self.rebalances_consumer += more.rebalances_consumer;
        self.offset_commits += more.offset_commits;
        self.offset_expirations += more.offset_expirations;
        self.removed.iter_mut().zip(more.removed).for_each(|(sum, more)| *sum += more);
    }
}

/// A member that did not leave by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    pub group: Text,
    pub member: Text,
    pub why: Reason,
    /// How many members the group has without it.
    pub left: usize,
}

impl Core {
    pub(super) fn removed(&mut self, group: &Text, member: &Text, why: Reason, left: usize) {
        self.counted.removed[why as usize] += 1;
        if why != Reason::Left {
            self.removed.push(Removed { group: group.clone(), member: member.clone(), why, left });
        }
    }
}
