//! What a node refuses, and why.

use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProposeError {
    /// Another node leads, if it is known.
    NotLeader {
        leader: Option<u64>,
    },
    /// This leader has not committed in its own term yet: its state may lack what is already decided.
    NotReady,
    TooLarge,
    /// Too much is uncommitted: wait.
    Busy,
    /// A change of the voters is under way.
    ChangePending,
    /// The change would leave no voter, or names a node twice.
    InvalidChange,
}

/// A message that no correct peer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepError {
    NotForUs,
    Forwarded,
    Local,
    /// It contradicts what is committed here.
    Contradiction,
    UnknownPeer,
}

/// What was read from disk cannot be the state of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RestoreError {
    /// The log does not begin right behind the snapshot, or has a hole or a term that falls.
    Gap {
        index: u64,
    },
    /// More was committed than the log holds: acknowledged decisions are missing.
    CommitPastEnd {
        commit: u64,
        last: u64,
    },
    /// The snapshot names no voters, or impossible ones.
    Voters,
    Raft(String),
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::NotLeader { leader: Some(leader) } => write!(f, "node {leader} leads the metadata"),
            ProposeError::NotLeader { leader: None } => f.write_str("no leader of the metadata is known"),
            ProposeError::NotReady => f.write_str("the leader of the metadata has just been elected"),
            ProposeError::TooLarge => f.write_str("the command is larger than an entry may be"),
            ProposeError::Busy => f.write_str("too many commands are not committed yet"),
            ProposeError::ChangePending => f.write_str("another change of the voters is under way"),
            ProposeError::InvalidChange => {
                f.write_str("the change would leave no voter, or names a node twice")
            }
        }
    }
}

impl std::error::Error for ProposeError {}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StepError::NotForUs => "the message is for another node",
            StepError::Forwarded => "proposals and reads are not forwarded",
            StepError::Local => "the message is one that never leaves a node",
            StepError::Contradiction => "the message contradicts what is committed",
            StepError::UnknownPeer => "the sender is not a member",
        })
    }
}

impl std::error::Error for StepError {}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Gap { index } => write!(f, "entry {index} does not continue the log"),
            RestoreError::CommitPastEnd { commit, last } => {
                write!(f, "entries up to {commit} were committed, and the log ends at {last}")
            }
            RestoreError::Voters => f.write_str("the snapshot names no voters, or impossible ones"),
            RestoreError::Raft(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RestoreError {}
