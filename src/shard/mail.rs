//! What cores say to each other: questions to the owner of something, and their answers.
//!
//! A question is data, so the same question asked of one's own core is a function call. Nothing in it refers to the
//! state of the core that asked.

use std::sync::Arc;
use std::time::Duration;

use coord::metadata::Change;
use engine::ids::PartitionId;
use net::error_code::ErrorCode;
use rt::{Instant, Slice};

use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::groups::{GroupAsk, GroupFound};
use crate::metrics::{CoreMetrics, Stage};
use crate::shard::{Beginning, Opened};

/// One message on a core's mailbox. `id` is the asking core's own number for the question.
pub enum Mail {
    Ask {
        id: u64,
        ask: Ask,
        sent: Instant,
    },
    /// The asker no longer waits for the answer.
    Forget {
        id: u64,
    },
    Answer {
        id: u64,
        answer: Answer,
        sent: Instant,
    },
    /// Somebody is short of memory: end a connection that holds some and does not move.
    Squeeze,
    /// From core 0: the broker is over, return from the main task.
    End,
}

pub enum Ask {
    Produce(ProduceAsk),
    Fetch(FetchAsk),
    /// Answered with `Ready` as soon as one of the partitions has moved past what the asker knows, or at the timeout.
    Watch(WatchAsk),
    Offsets(Vec<OffsetAsk>),
    EpochEnds(Vec<EpochEndAsk>),
    DeleteRecords(Vec<DeleteAsk>),
    Group(Box<GroupAsk>),
    /// To core 0 only.
    Control(ControllerRequest),
    /// From core 0: what a committed command changed. Answered when this core has taken it up and opened what it now
    /// owns.
    Apply(Arc<[Change]>),
    /// From core 0, before anything else: make the shard and open what it owns.
    Begin(Box<Beginning>),
    /// The broker stops: close what this core owns.
    Stop,
    /// What the core knows of itself.
    Metrics,
}

impl Ask {
    /// The stage that the way to the owner is part of.
    pub fn hop(&self) -> Option<Stage> {
        match self {
            Ask::Produce(_) => Some(Stage::ProduceHop),
            Ask::Fetch(_) => Some(Stage::FetchHop),
            _ => None,
        }
    }
}

pub enum Answer {
    Produce(Vec<Produced>),
    Fetch(Vec<Fetched>),
    Ready,
    Offsets(Vec<OffsetFound>),
    EpochEnds(Vec<EpochEndFound>),
    DeletedRecords(Vec<Deleted>),
    Group(Vec<GroupFound>),
    Control(ControllerAnswer),
    Applied,
    /// How many partitions, and what went wrong with which.
    Begun(Opened),
    Stopped {
        clean: bool,
    },
    Metrics(Box<CoreMetrics>),
    /// The task that worked on the question panicked.
    Failed,
}

impl Answer {
    /// The stage that the way back is part of.
    pub fn hop(&self) -> Option<Stage> {
        match self {
            Answer::Produce(_) => Some(Stage::ProduceHop),
            Answer::Fetch(_) => Some(Stage::FetchHop),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub struct ProduceAsk {
    pub wait: Wait,
    pub parts: Vec<ProducePart>,
}

/// How long a produce waits until its records are committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// acks=0.
    Not,
    /// acks=1: Kafka applies no timeout to the leader's own write.
    UntilDurable,
    /// acks=all.
    AtMost(Duration),
}

#[derive(Debug)]
pub struct ProducePart {
    /// Where the answer goes in the asker's own list.
    pub place: usize,
    pub partition: PartitionId,
    pub records: Slice,
}

#[derive(Debug)]
pub struct Produced {
    pub place: usize,
    pub error: ErrorCode,
    pub base_offset: i64,
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    pub message: Option<String>,
    /// (index in the batch, why)
    pub record_errors: Vec<(i32, String)>,
}

impl Produced {
    /// A partition that was not appended to.
    pub fn failed(place: usize, error: ErrorCode, message: Option<String>) -> Produced {
        Produced {
            place,
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            message,
            record_errors: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub struct FetchAsk {
    pub max_bytes: usize,
    /// The first partition that has data gives a batch however large it is (KIP-74).
    pub min_one: bool,
    pub parts: Vec<FetchPart>,
}

#[derive(Clone, Debug)]
pub struct FetchPart {
    pub place: usize,
    pub partition: PartitionId,
    pub fetch_offset: i64,
    pub partition_max_bytes: usize,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

#[derive(Debug)]
pub struct Fetched {
    pub place: usize,
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    /// (epoch, end offset) where the client's log and ours part.
    pub diverging: Option<(i32, i64)>,
    pub records: Vec<Slice>,
    pub bytes: usize,
    /// About how much the partition could have given, were this all that was asked for: what `min_bytes` counts.
    pub available: usize,
}

impl Fetched {
    pub fn failed(place: usize, error: ErrorCode) -> Fetched {
        Fetched {
            place,
            error,
            high_watermark: -1,
            log_start_offset: -1,
            diverging: None,
            records: Vec::new(),
            bytes: 0,
            available: 0,
        }
    }
}

#[derive(Debug)]
pub struct WatchAsk {
    pub timeout: Duration,
    /// (partition, the high watermark that the asker has seen)
    pub seen: Vec<(PartitionId, i64)>,
}

#[derive(Debug)]
pub struct OffsetAsk {
    pub place: usize,
    pub partition: PartitionId,
    pub current_leader_epoch: i32,
    pub wanted: WantedOffset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedOffset {
    Latest,
    Earliest,
    MaxTimestamp,
    /// Kafka's answer without tiered storage: nothing.
    Tiered,
    AtTimestamp(i64),
}

#[derive(Debug)]
pub struct OffsetFound {
    pub place: usize,
    pub error: ErrorCode,
    pub timestamp: i64,
    pub offset: i64,
    pub leader_epoch: i32,
}

#[derive(Debug)]
pub struct EpochEndAsk {
    pub place: usize,
    pub partition: PartitionId,
    pub current_leader_epoch: i32,
    pub epoch: i32,
}

#[derive(Debug)]
pub struct EpochEndFound {
    pub place: usize,
    pub error: ErrorCode,
    pub epoch: i32,
    pub end_offset: i64,
}

#[derive(Debug)]
pub struct DeleteAsk {
    pub place: usize,
    pub partition: PartitionId,
    /// Everything below goes; -1 is the high watermark.
    pub offset: i64,
}

#[derive(Debug)]
pub struct Deleted {
    pub place: usize,
    /// The log start, once it is durable.
    pub outcome: Result<i64, ErrorCode>,
}
