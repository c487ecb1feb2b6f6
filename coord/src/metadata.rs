//! The cluster's metadata: a state machine over the Raft log.
//!
//! `apply` takes committed commands in order and says what changed. Two replicas that applied the same commands are
//! equal, whatever their release: nothing but the state and the command decides. A command that no longer fits the state
//! (its topic was deleted meanwhile) changes nothing and is answered with a refusal; no command, however malformed,
//! panics here.
//!
//! Invariants, of every topic that a command created:
//! - replicas are distinct and not empty; the in-sync set is a non-empty part of them; the leader is in it and active.
//! - a leader epoch is given to one incarnation of one broker: a change of leader, and every start of the leader's
//!   process, raises it.
//!
//! Validation of requests (`validate`) happens before proposing and may see an older state than `apply` does; what must
//! hold is therefore checked here again.

pub mod broker_config;
pub mod command;
pub mod config;
mod defaults;
mod election;
pub mod group_config;
pub mod image;
pub mod placement;
mod resource;
pub mod settings;
pub mod snapshot;
pub mod topic_name;
pub mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use engine::ids::{PartitionId, TopicId};

pub use command::Command;
pub use image::{Broker, Image, Listener, NodeId, Partition, Topic};
pub use resource::ConfigResource;
pub use topic_name::is_legal as is_legal_topic_name;

use crate::error_code::{ErrorCode, Refusal};
use crate::producer_ids::Allocator;

/// The most partitions a topic may have.
pub const TOPIC_PARTITIONS_MAX: usize = 200_000;

/// The most partitions the cluster may have: every one costs every broker memory.
pub const CLUSTER_PARTITIONS_MAX: usize = 1_000_000;

/// The most groups and brokers that may have configs of their own: a group need not exist for it.
pub const CONFIG_RESOURCES_MAX: usize = 100_000;

/// What a command changed, in the order it happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    Broker(Arc<Broker>),
    BrokerGone(NodeId),
    TopicCreated(Arc<Topic>),
    /// The topic as it was. A committed deletion is the only reason to remove its data.
    TopicDeleted(Arc<Topic>),
    TopicConfigs(Arc<Topic>),
    /// What is set for this now; nothing where it is empty.
    Configs {
        resource: ConfigResource,
        configs: Arc<BTreeMap<String, String>>,
    },
    /// These partitions are new or have another leader, epoch or in-sync set.
    Partitions {
        topic: Arc<Topic>,
        indexes: Vec<i32>,
    },
    /// `node` may hand out these ids.
    ProducerIds {
        node: NodeId,
        ids: Range<i64>,
    },
    Feature {
        name: String,
        level: i16,
    },
}

/// The outcome of one command.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    pub changes: Vec<Change>,
    pub refused: Option<Refusal>,
}

type Outcome = Result<Vec<Change>, Refusal>;

/// The metadata at one index of the log.
#[derive(Clone, PartialEq, Debug)]
pub struct Metadata {
    image: Image,
    producer_ids: Allocator,
    applied: u64,
}

impl Metadata {
    /// An empty cluster, before the first command.
    pub fn new(cluster_id: String) -> Metadata {
        Metadata { image: Image::new(cluster_id), producer_ids: Allocator::default(), applied: 0 }
    }

    /// The read side. A clone is cheap and can be given to every core.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The index of the last entry that this state reflects.
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// An entry without a command (a new leader's first one) was committed.
    pub fn skip(&mut self, index: u64) {
        assert!(index > self.applied, "entries are applied once and in order");
        self.applied = index;
    }

    /// Applies the command of the entry at `index`.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        self.skip(index);
        match self.decide(index, command) {
            Ok(changes) => {
                changes.iter().for_each(|change| self.image.absorb(change));
                Applied { changes, refused: None }
            }
            Err(refusal) => Applied { changes: Vec::new(), refused: Some(refusal) },
        }
    }

    /// Pure but for the producer-id allocator: `apply` takes up the changes.
    fn decide(&mut self, index: u64, command: &Command) -> Outcome {
        match command {
            Command::RegisterBroker { node, storage, incarnation, listeners, rack } => {
                let broker = Broker {
                    node: *node,
                    storage: *storage,
                    incarnation: *incarnation,
                    epoch: i64::try_from(index).map_err(|_| invalid("the log is at its end"))?,
                    listeners: listeners.clone(),
                    rack: rack.clone(),
                    fenced: true,
                };
                self.register(broker)
            }
            Command::BrokerStarted { node, incarnation, lost } => self.started(*node, incarnation, lost),
            Command::FenceBroker { node, epoch } => self.fence(*node, *epoch),
            Command::UnregisterBroker { node } => self.unregister(*node),
            Command::CreateTopic { id, name, partitions, configs } => {
                self.create_topic(*id, name, partitions, configs)
            }
            Command::DeleteTopic { id } => Ok(vec![Change::TopicDeleted(self.topic(*id)?.clone())]),
            Command::CreatePartitions { id, existing, partitions } => {
                self.create_partitions(*id, *existing, partitions)
            }
            Command::SetTopicConfigs { id, changes } => self.set_topic_configs(*id, changes),
            Command::SetConfigs { resource, changes } => self.set_configs(resource, changes),
            Command::AllocateProducerIds { node, count } => {
                self.known(*node)?;
                let ids = self.producer_ids.allocate(*count);
                let ids =
                    ids.ok_or_else(|| invalid(format!("A block of {count} producer ids cannot be given.")))?;
                Ok(vec![Change::ProducerIds { node: *node, ids }])
            }
            Command::AlterPartition { .. } => self.alter_partition(command),
            Command::ResignLeadership { node, broker_epoch, partitions } => {
                self.current(*node, *broker_epoch)?;
                election::change_listed(&self.image, partitions, |image, partition| {
                    election::resign(image, partition, *node)
                })
            }
            Command::ReclaimLeadership { node, broker_epoch, partitions } => {
                if self.current(*node, *broker_epoch)?.fenced {
                    return Err(invalid(format!("Node {node} is fenced.")));
                }
                election::change_listed(&self.image, partitions, |_, partition| {
                    election::reclaim(partition, *node)
                })
            }
            Command::SetFeature { name, level } => {
                Ok(vec![Change::Feature { name: name.clone(), level: *level }])
            }
        }
    }

    fn register(&self, broker: Broker) -> Outcome {
        if broker.node.0 < 0 {
            return Err(invalid(format!("{} is not a node id.", broker.node)));
        }
        let Some(old) = self.image.broker(broker.node) else {
            return Ok(vec![Change::Broker(Arc::new(broker))]);
        };
        if old.storage != broker.storage {
            return Err(Refusal::new(
                ErrorCode::DuplicateBrokerRegistration,
                format!(
                    "Node {} is registered with another data folder. If its disk was replaced, unregister the node first.",
                    broker.node
                ),
            ));
        }
        // What the old incarnation led is led by others, or by nobody until the new one has recovered.
        let node = broker.node;
        let mut changes = vec![Change::Broker(Arc::new(broker))];
        changes.extend(election::change_all(&self.image, |image, partition| {
            election::leave_in_sync(image, partition, node)
        })?);
        Ok(changes)
    }

    fn started(&self, node: NodeId, incarnation: &[u8; 16], lost: &[PartitionId]) -> Outcome {
        let broker = self.known(node)?;
        if broker.incarnation != *incarnation {
            return Err(Refusal::new(ErrorCode::StaleBrokerEpoch, "A later incarnation has registered."));
        }
        let lost: BTreeSet<(TopicId, i32)> = lost.iter().map(|id| (id.topic, id.index)).collect();
        let unfenced = Arc::new(Broker { fenced: false, ..(**broker).clone() });
        let mut changes = vec![Change::Broker(unfenced)];
        changes.extend(election::change_all_with_id(&self.image, |image, id, partition| {
            if lost.contains(&(id.topic, id.index)) {
                election::leave_in_sync(image, partition, node)?;
            }
            election::reclaim(partition, node)
        })?);
        Ok(changes)
    }

    fn fence(&self, node: NodeId, epoch: i64) -> Outcome {
        let broker = self.current(node, epoch)?;
        if broker.fenced {
            return Ok(Vec::new());
        }
        let fenced = Arc::new(Broker { fenced: true, ..(**broker).clone() });
        let mut changes = vec![Change::Broker(fenced)];
        changes.extend(election::change_all(&self.image, |image, partition| {
            election::leave_in_sync(image, partition, node)
        })?);
        Ok(changes)
    }

    fn unregister(&self, node: NodeId) -> Outcome {
        self.known(node)?;
        let holds = |topic: &&Arc<Topic>| topic.partitions.iter().any(|p| p.replicas.contains(&node));
        if let Some(topic) = self.image.topics().find(holds) {
            return Err(invalid(format!(
                "Node {node} still holds replicas, of topic '{}' among others.",
                topic.name
            )));
        }
        Ok(vec![Change::BrokerGone(node)])
    }

    fn create_topic(
        &self,
        id: TopicId,
        name: &str,
        partitions: &[Vec<NodeId>],
        configs: &BTreeMap<String, String>,
    ) -> Outcome {
        if let Err(message) = topic_name::validate(name) {
            return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
        }
        if self.image.topic(name).is_some() {
            let message = format!("Topic '{name}' already exists.");
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, message));
        }
        if id == TopicId::default() || self.image.topic_by_id(id).is_some() {
            return Err(invalid(format!("{id} cannot be the id of a new topic.")));
        }
        let partitions = self.new_partitions(0, partitions)?;
        let topic = Topic { id, name: name.to_owned(), configs: configs.clone(), partitions };
        Ok(vec![Change::TopicCreated(Arc::new(topic))])
    }

    fn create_partitions(&self, id: TopicId, existing: i32, added: &[Vec<NodeId>]) -> Outcome {
        let topic = self.topic(id)?;
        let count = topic.partitions.len();
        if i32::try_from(count) != Ok(existing) {
            let message = format!("Topic already has {count} partition(s).");
            return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
        }
        let mut changed = (**topic).clone();
        changed.partitions.extend(self.new_partitions(count, added)?);
        let end = i32::try_from(changed.partitions.len()).map_err(|_| too_many())?;
        Ok(vec![Change::Partitions { topic: Arc::new(changed), indexes: (existing..end).collect() }])
    }

    fn new_partitions(&self, existing: usize, replicas: &[Vec<NodeId>]) -> Result<Vec<Partition>, Refusal> {
        if replicas.is_empty() {
            return Err(Refusal::new(ErrorCode::InvalidPartitions, "There is no partition to create."));
        }
        if existing.saturating_add(replicas.len()) > TOPIC_PARTITIONS_MAX
            || self.image.partition_count().saturating_add(replicas.len()) > CLUSTER_PARTITIONS_MAX
        {
            return Err(too_many());
        }
        replicas.iter().map(|replicas| election::first(&self.image, replicas)).collect()
    }

    fn set_topic_configs(&self, id: TopicId, changes: &[(String, Option<String>)]) -> Outcome {
        let mut topic = (**self.topic(id)?).clone();
        alter(&mut topic.configs, changes);
        Ok(vec![Change::TopicConfigs(Arc::new(topic))])
    }

    fn set_configs(&self, resource: &ConfigResource, changes: &[(String, Option<String>)]) -> Outcome {
        let before = self.image.configs(resource);
        if before.is_none() && self.image.all_configs().len() >= CONFIG_RESOURCES_MAX {
            let message = format!("Configs are set for {CONFIG_RESOURCES_MAX} groups and brokers already.");
            return Err(Refusal::new(ErrorCode::PolicyViolation, message));
        }
        let mut configs = before.map_or_else(BTreeMap::new, |before| (**before).clone());
        alter(&mut configs, changes);
        Ok(vec![Change::Configs { resource: resource.clone(), configs: Arc::new(configs) }])
    }

    fn alter_partition(&self, command: &Command) -> Outcome {
        let Command::AlterPartition { id, leader, broker_epoch, leader_epoch, partition_epoch, isr } =
            command
        else {
            unreachable!("dispatched by kind")
        };
        self.current(*leader, *broker_epoch)?;
        election::change_listed(&self.image, std::slice::from_ref(id), |image, partition| {
            if partition.leader != Some(*leader) || partition.leader_epoch != *leader_epoch {
                return Err(Refusal::new(
                    ErrorCode::FencedLeaderEpoch,
                    "Another epoch leads this partition.",
                ));
            }
            if partition.partition_epoch != *partition_epoch {
                return Err(Refusal::new(
                    ErrorCode::InvalidUpdateVersion,
                    "The partition has changed meanwhile.",
                ));
            }
            election::set_in_sync(image, partition, isr)
        })
    }

    fn topic(&self, id: TopicId) -> Result<&Arc<Topic>, Refusal> {
        self.image
            .topic_by_id(id)
            .ok_or_else(|| Refusal::new(ErrorCode::UnknownTopicId, format!("There is no topic {id}.")))
    }

    fn known(&self, node: NodeId) -> Result<&Arc<Broker>, Refusal> {
        self.image.broker(node).ok_or_else(|| {
            Refusal::new(ErrorCode::BrokerIdNotRegistered, format!("Node {node} is not registered."))
        })
    }

    /// That broker, if `epoch` is its present registration.
    fn current(&self, node: NodeId, epoch: i64) -> Result<&Arc<Broker>, Refusal> {
        let broker = self.known(node)?;
        if broker.epoch == epoch {
            Ok(broker)
        } else {
            let message = format!("Node {node} has registered anew with epoch {}.", broker.epoch);
            Err(Refusal::new(ErrorCode::StaleBrokerEpoch, message))
        }
    }
}

fn alter(configs: &mut BTreeMap<String, String>, changes: &[(String, Option<String>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => configs.insert(key.clone(), value.clone()),
            None => configs.remove(key),
        };
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

fn too_many() -> Refusal {
    Refusal::new(ErrorCode::PolicyViolation, "The limit on partitions would be exceeded.")
}

#[cfg(test)]
mod tests;
