//! The read side of the metadata: what a core needs to answer Metadata, to route, and to know what it leads.
//!
//! The controller's core applies the log to a `Metadata`, whose image this is. Every other core keeps an `Image` of its
//! own and absorbs the changes it is sent. Topics and brokers are shared between the images: a change swaps one
//! reference, and a clone of the image copies no topic.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use ahash::AHashMap;
use engine::ids::{LeaderEpoch, PartitionId, TopicId};

use super::Change;
use super::resource::ConfigResource;

/// A broker's number in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub i32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where clients reach a broker under one listener name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    pub name: String,
    pub host: String,
    pub port: u16,
    /// Kafka's number: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// A registered broker. Its identity is (node, storage); `incarnation` names one run of its process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    pub node: NodeId,
    pub storage: [u8; 16],
    pub incarnation: [u8; 16],
    /// The index of the registration: grows with every start.
    pub epoch: i64,
    pub listeners: Vec<Listener>,
    pub rack: Option<String>,
    /// A fenced broker leads nothing and is not listed to clients.
    pub fenced: bool,
}

impl Broker {
    /// The address clients of this listener are given.
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// The preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Never empty: the last member stays even when it is gone.
    pub isr: Vec<NodeId>,
    pub leader: Option<NodeId>,
    /// Belongs to one incarnation of the leader. Rises when the leader is gone, too.
    pub leader_epoch: LeaderEpoch,
    /// Counts the changes of this partition.
    pub partition_epoch: i32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    /// What was set for this topic; everything else has the broker's default.
    pub configs: BTreeMap<String, String>,
    pub partitions: Vec<Partition>,
}

impl Topic {
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    pub fn replication_factor(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.replicas.len())
    }

    /// Kafka's internal topics: clients may not produce to them.
    pub fn is_internal(&self) -> bool {
        matches!(self.name.as_str(), "__consumer_offsets" | "__transaction_state" | "__share_group_state")
    }

    /// Each partition with its id, in order.
    pub fn ids(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        let id = |index| PartitionId { topic: self.id, index };
        (0..).map(id).zip(&self.partitions)
    }
}

/// What a broker knows of its cluster.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Image {
    cluster_id: String,
    brokers: BTreeMap<NodeId, Arc<Broker>>,
    topics: BTreeMap<String, Arc<Topic>>,
    by_id: AHashMap<TopicId, Arc<Topic>>,
    features: BTreeMap<String, i16>,
    configs: BTreeMap<ConfigResource, Arc<BTreeMap<String, String>>>,
    partition_count: usize,
}

impl Image {
    pub fn new(cluster_id: String) -> Image {
        Image { cluster_id, ..Image::default() }
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, in name order.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// Topics from `name` on, in name order: what a cursor needs.
    pub fn topics_from<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Arc<Topic>> {
        self.topics.range::<str, _>((Bound::Included(name), Bound::Unbounded)).map(|(_, topic)| topic)
    }

    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.by_id.get(&id.topic)?.partition(id.index)
    }

    /// All registered brokers, fenced ones too, in node order.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    pub fn broker(&self, node: NodeId) -> Option<&Arc<Broker>> {
        self.brokers.get(&node)
    }

    /// Registered and not fenced.
    pub fn is_active(&self, node: NodeId) -> bool {
        self.brokers.get(&node).is_some_and(|broker| !broker.fenced)
    }

    /// What was set for something that is no topic.
    pub fn configs(&self, resource: &ConfigResource) -> Option<&Arc<BTreeMap<String, String>>> {
        self.configs.get(resource)
    }

    /// Everything besides topics that configs were set for, in order.
    pub fn all_configs(
        &self,
    ) -> impl ExactSizeIterator<Item = (&ConfigResource, &Arc<BTreeMap<String, String>>)> {
        self.configs.iter()
    }

    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Takes up a change that another core applied.
    pub fn absorb(&mut self, change: &Change) {
        match change {
            Change::Broker(broker) => drop(self.brokers.insert(broker.node, broker.clone())),
            Change::BrokerGone(node) => drop(self.brokers.remove(node)),
            Change::TopicCreated(topic) | Change::TopicConfigs(topic) => self.put(topic.clone()),
            Change::Partitions { topic, .. } => self.put(topic.clone()),
            Change::TopicDeleted(topic) => self.remove(topic),
            Change::Feature { name, level } => drop(self.features.insert(name.clone(), *level)),
            Change::Configs { resource, configs } if configs.is_empty() => {
                drop(self.configs.remove(resource))
            }
            Change::Configs { resource, configs } => {
                drop(self.configs.insert(resource.clone(), configs.clone()));
            }
            Change::ProducerIds { .. } => {}
        }
    }

    fn put(&mut self, topic: Arc<Topic>) {
        self.partition_count += topic.partitions.len();
        self.by_id.insert(topic.id, topic.clone());
        if let Some(old) = self.topics.insert(topic.name.clone(), topic) {
            self.partition_count -= old.partitions.len();
        }
    }

    fn remove(&mut self, topic: &Topic) {
        self.by_id.remove(&topic.id);
        if let Some(old) = self.topics.remove(&topic.name) {
            self.partition_count -= old.partitions.len();
        }
    }
}
