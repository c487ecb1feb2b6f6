//! What the other cores ask of the controller. Owned data: it crosses from core to core.

use std::ops::Range;

use coord::metadata::NodeId;
use engine::ids::{PartitionId, TopicId};

use super::configs::AlterResource;

/// A topic to create; -1 stands for the broker's default, as on the wire.
#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    pub num_partitions: i32,
    pub replication_factor: i16,
    pub assignments: Vec<(i32, Vec<NodeId>)>,
    pub configs: Vec<(String, Option<String>)>,
}

impl NewTopic {
    /// With the broker's counts and no configs of its own.
    pub fn with_defaults(name: String) -> NewTopic {
        NewTopic {
            name,
            num_partitions: -1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct OldTopic {
    pub name: Option<String>,
    pub id: TopicId,
}

#[derive(Clone, Debug)]
pub struct MorePartitions {
    pub name: String,
    pub count: i32,
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

#[derive(Debug)]
pub enum ControllerRequest {
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<OldTopic>,
    },
    CreatePartitions {
        topics: Vec<MorePartitions>,
        validate_only: bool,
    },
    AlterConfigs {
        resources: Vec<AlterResource>,
        validate_only: bool,
    },
    /// The topic that groups live in. Answered with `Noted`, also where it is there already.
    CreateOffsetsTopic,
    AllocateProducerIds,
    /// Logs of this broker failed: those that are offline now, and those that are recovered in a new epoch.
    LogsFailed {
        offline: Vec<PartitionId>,
        recovering: Vec<PartitionId>,
    },
}

/// Why something was refused, as the client is told.
#[derive(Clone, Debug)]
pub struct Refused {
    pub code: i16,
    pub message: String,
}

#[derive(Debug)]
pub struct CreatedTopic {
    pub id: TopicId,
    pub num_partitions: i32,
    pub replication_factor: i16,
    pub configs: Vec<CreatedConfig>,
}

#[derive(Debug)]
pub struct CreatedConfig {
    pub name: String,
    pub value: String,
    pub source: i8,
}

#[derive(Debug)]
pub enum ControllerAnswer {
    /// One for each different name, in the order of the request.
    CreatedTopics(Vec<(String, Result<CreatedTopic, Refused>)>),
    /// One for each entry of the request; the deleted topic's name and id.
    DeletedTopics(Vec<Result<(String, TopicId), Refused>>),
    CreatedPartitions(Vec<(String, Result<(), Refused>)>),
    /// One for each resource of the request.
    AlteredConfigs(Vec<Result<(), Refused>>),
    ProducerIds(Range<i64>),
    Noted,
    /// The metadata log cannot be written to.
    Unavailable,
}
