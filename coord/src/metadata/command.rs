//! What the Raft log carries: one command per entry.
//!
//! ```text
//! kind i16 | version i16 | the kind's fields | tagged fields
//! ```
//! Big endian, Kafka's compact strings and arrays. A field may be added as a tag without a new version; a version or a
//! kind that this release does not know is an error, and stops it: it cannot apply the log. Such commands are proposed
//! only once every broker's release knows them (the feature level `metadata.version`).

use std::collections::BTreeMap;

use engine::ids::{LeaderEpoch, PartitionId, TopicId};

use super::image::{Listener, NodeId};
use super::resource::ConfigResource;
use crate::wire::{Error, Reader, Result, Writer};

/// The only version of every kind, so far.
const VERSION: i16 = 0;

/// One decision about the cluster. Applying it is deterministic; what it leaves open was decided before proposing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A broker's process registers; it stays fenced until `BrokerStarted`.
    RegisterBroker {
        node: NodeId,
        storage: [u8; 16],
        incarnation: [u8; 16],
        listeners: Vec<Listener>,
        rack: Option<String>,
    },
    /// That incarnation has recovered and may lead: it is unfenced, and every partition it leads gets a new epoch, in
    /// this one command. `lost` are the partitions whose tail it cannot vouch for (an unclean stop under `write`).
    BrokerStarted {
        node: NodeId,
        incarnation: [u8; 16],
        lost: Vec<PartitionId>,
    },
    /// Its lease ran out, or it stopped. Its partitions get other leaders, or none.
    FenceBroker {
        node: NodeId,
        epoch: i64,
    },
    /// It is gone for good. Refused while it holds replicas.
    UnregisterBroker {
        node: NodeId,
    },
    /// `partitions` are the replicas of each; the first active one leads.
    CreateTopic {
        id: TopicId,
        name: String,
        partitions: Vec<Vec<NodeId>>,
        configs: BTreeMap<String, String>,
    },
    DeleteTopic {
        id: TopicId,
    },
    /// Adds partitions to a topic that has exactly `existing` ones.
    CreatePartitions {
        id: TopicId,
        existing: i32,
        partitions: Vec<Vec<NodeId>>,
    },
    /// Sets (`Some`) and resets (`None`) configs of a topic, all of them or none.
    SetTopicConfigs {
        id: TopicId,
        changes: Vec<(String, Option<String>)>,
    },
    /// The same for what is no topic.
    SetConfigs {
        resource: ConfigResource,
        changes: Vec<(String, Option<String>)>,
    },
    /// Gives `node` the next block of producer ids.
    AllocateProducerIds {
        node: NodeId,
        count: u32,
    },
    /// The leader reports who is in sync.
    AlterPartition {
        id: PartitionId,
        leader: NodeId,
        broker_epoch: i64,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: Vec<NodeId>,
    },
    /// The broker may not go on leading these (a poisoned log): another in-sync one leads, or nobody.
    ResignLeadership {
        node: NodeId,
        broker_epoch: i64,
        partitions: Vec<PartitionId>,
    },
    /// The broker has recovered these logs: where it leads, or nobody does and it is in sync, it leads in a new epoch.
    ReclaimLeadership {
        node: NodeId,
        broker_epoch: i64,
        partitions: Vec<PartitionId>,
    },
    SetFeature {
        name: String,
        level: i16,
    },
}

impl Command {
    fn kind(&self) -> i16 {
        match self {
            Command::RegisterBroker { .. } => 1,
            Command::BrokerStarted { .. } => 2,
            Command::FenceBroker { .. } => 3,
            Command::UnregisterBroker { .. } => 4,
            Command::CreateTopic { .. } => 5,
            Command::DeleteTopic { .. } => 6,
            Command::CreatePartitions { .. } => 7,
            Command::SetTopicConfigs { .. } => 8,
            Command::AllocateProducerIds { .. } => 9,
            Command::AlterPartition { .. } => 10,
            Command::ResignLeadership { .. } => 11,
            Command::ReclaimLeadership { .. } => 12,
            Command::SetFeature { .. } => 13,
            Command::SetConfigs { .. } => 14,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.i16(self.kind());
        w.i16(VERSION);
        self.write_fields(&mut w);
        w.no_tagged();
        w.into_bytes()
    }

    fn write_fields(&self, w: &mut Writer) {
        match self {
            Command::RegisterBroker { node, storage, incarnation, listeners, rack } => {
                w.i32(node.0);
                w.uuid(storage);
                w.uuid(incarnation);
                w.vec(listeners.iter(), write_listener);
                w.nullable_string(rack.as_deref());
            }
            Command::BrokerStarted { node, incarnation, lost } => {
                w.i32(node.0);
                w.uuid(incarnation);
                w.vec(lost.iter(), write_partition_id);
            }
            Command::FenceBroker { node, epoch } => {
                w.i32(node.0);
                w.i64(*epoch);
            }
            Command::UnregisterBroker { node } => w.i32(node.0),
            Command::CreateTopic { id, name, partitions, configs } => {
                w.uuid(&id.0);
                w.string(name);
                w.vec(partitions.iter(), |w, replicas| write_nodes(w, replicas));
                write_map(w, configs);
            }
            Command::DeleteTopic { id } => w.uuid(&id.0),
            Command::CreatePartitions { id, existing, partitions } => {
                w.uuid(&id.0);
                w.i32(*existing);
                w.vec(partitions.iter(), |w, replicas| write_nodes(w, replicas));
            }
            Command::SetTopicConfigs { id, changes } => {
                w.uuid(&id.0);
                write_changes(w, changes);
            }
            Command::SetConfigs { resource, changes } => {
                resource.write(w);
                write_changes(w, changes);
            }
            Command::AllocateProducerIds { node, count } => {
                w.i32(node.0);
                w.uvarint(*count);
            }
            Command::AlterPartition { id, leader, broker_epoch, leader_epoch, partition_epoch, isr } => {
                write_partition_id(w, id);
                w.i32(leader.0);
                w.i64(*broker_epoch);
                w.i32(leader_epoch.0);
                w.i32(*partition_epoch);
                write_nodes(w, isr);
            }
            Command::ResignLeadership { node, broker_epoch, partitions }
            | Command::ReclaimLeadership { node, broker_epoch, partitions } => {
                w.i32(node.0);
                w.i64(*broker_epoch);
                w.vec(partitions.iter(), write_partition_id);
            }
            Command::SetFeature { name, level } => {
                w.string(name);
                w.i16(*level);
            }
        }
    }

    /// Reads one command; hostile bytes are an error and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Command> {
        let mut r = Reader::new(bytes);
        let kind = r.i16()?;
        let version = r.i16()?;
        if version != VERSION {
            return Err(Error::Unsupported { kind, version });
        }
        let command = Command::read_fields(kind, &mut r)?;
        r.no_tagged()?;
        r.end()?;
        Ok(command)
    }

    fn read_fields(kind: i16, r: &mut Reader<'_>) -> Result<Command> {
        Ok(match kind {
            1 => Command::RegisterBroker {
                node: node(r)?,
                storage: r.uuid()?,
                incarnation: r.uuid()?,
                listeners: r.vec(read_listener)?,
                rack: r.nullable_string()?,
            },
            2 => Command::BrokerStarted {
                node: node(r)?,
                incarnation: r.uuid()?,
                lost: r.vec(read_partition_id)?,
            },
            3 => Command::FenceBroker { node: node(r)?, epoch: r.i64()? },
            4 => Command::UnregisterBroker { node: node(r)? },
            5 => Command::CreateTopic {
                id: TopicId(r.uuid()?),
                name: r.string()?,
                partitions: r.vec(read_nodes)?,
                configs: read_map(r)?,
            },
            6 => Command::DeleteTopic { id: TopicId(r.uuid()?) },
            7 => Command::CreatePartitions {
                id: TopicId(r.uuid()?),
                existing: r.i32()?,
                partitions: r.vec(read_nodes)?,
            },
            8 => Command::SetTopicConfigs { id: TopicId(r.uuid()?), changes: read_changes(r)? },
            9 => Command::AllocateProducerIds { node: node(r)?, count: r.uvarint()? },
            10 => Command::AlterPartition {
                id: read_partition_id(r)?,
                leader: node(r)?,
                broker_epoch: r.i64()?,
                leader_epoch: LeaderEpoch(r.i32()?),
                partition_epoch: r.i32()?,
                isr: read_nodes(r)?,
            },
            11 => Command::ResignLeadership {
                node: node(r)?,
                broker_epoch: r.i64()?,
                partitions: r.vec(read_partition_id)?,
            },
            12 => Command::ReclaimLeadership {
                node: node(r)?,
                broker_epoch: r.i64()?,
                partitions: r.vec(read_partition_id)?,
            },
            13 => Command::SetFeature { name: r.string()?, level: r.i16()? },
            14 => Command::SetConfigs { resource: ConfigResource::read(r)?, changes: read_changes(r)? },
            kind => return Err(Error::Unsupported { kind, version: VERSION }),
        })
    }
}

fn node(r: &mut Reader<'_>) -> Result<NodeId> {
    r.i32().map(NodeId)
}

pub(super) fn write_nodes(w: &mut Writer, nodes: &[NodeId]) {
    w.vec(nodes.iter(), |w, node| w.i32(node.0));
}

pub(super) fn read_nodes(r: &mut Reader<'_>) -> Result<Vec<NodeId>> {
    r.vec(node)
}

pub(super) fn write_map(w: &mut Writer, map: &BTreeMap<String, String>) {
    w.vec(map.iter(), |w, (key, value)| {
        w.string(key);
        w.string(value);
    });
}

pub(super) fn read_map(r: &mut Reader<'_>) -> Result<BTreeMap<String, String>> {
    Ok(r.vec(|r| Ok((r.string()?, r.string()?)))?.into_iter().collect())
}

fn write_changes(w: &mut Writer, changes: &[(String, Option<String>)]) {
    w.vec(changes.iter(), |w, (key, value)| {
        w.string(key);
        w.nullable_string(value.as_deref());
    });
}

fn read_changes(r: &mut Reader<'_>) -> Result<Vec<(String, Option<String>)>> {
    r.vec(|r| Ok((r.string()?, r.nullable_string()?)))
}

fn write_partition_id(w: &mut Writer, id: &PartitionId) {
    w.uuid(&id.topic.0);
    w.i32(id.index);
}

fn read_partition_id(r: &mut Reader<'_>) -> Result<PartitionId> {
    Ok(PartitionId { topic: TopicId(r.uuid()?), index: r.i32()? })
}

pub(super) fn write_listener(w: &mut Writer, listener: &Listener) {
    w.string(&listener.name);
    w.string(&listener.host);
    w.u16(listener.port);
    w.i16(listener.security_protocol);
    w.no_tagged();
}

pub(super) fn read_listener(r: &mut Reader<'_>) -> Result<Listener> {
    let listener =
        Listener { name: r.string()?, host: r.string()?, port: r.u16()?, security_protocol: r.i16()? };
    r.no_tagged()?;
    Ok(listener)
}
