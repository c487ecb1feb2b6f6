//! The whole metadata as bytes, so that the log before it can go.
//!
//! ```text
//! version i16 | cluster id | applied u64 | next producer id i64 | brokers | topics | features | configs | tagged fields
//! ```
//! Maps are written in key order: equal states give equal bytes. The file around it carries the checksum (the Raft
//! log's), so what is read here is checked for meaning only.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::ids::{LeaderEpoch, TopicId};

use super::command::{read_listener, read_map, read_nodes, write_listener, write_map, write_nodes};
use super::image::{Broker, Image, NodeId, Partition, Topic};
use super::resource::ConfigResource;
use super::{Change, Metadata};
use crate::producer_ids::Allocator;
use crate::wire::{Error, Reader, Result, Writer};

/// Version 0 had no configs but the topics'.
const VERSION: i16 = 1;

/// The kind that an unsupported version is reported under: snapshots have no number among the commands.
const KIND: i16 = -1;

impl Metadata {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.i16(VERSION);
        w.string(self.image.cluster_id());
        w.u64(self.applied);
        w.i64(self.producer_ids.next());
        w.vec(self.image.brokers(), |w, broker| write_broker(w, broker));
        w.vec(self.image.topics(), |w, topic| write_topic(w, topic));
        w.vec(self.image.features().iter(), |w, (name, level)| {
            w.string(name);
            w.i16(*level);
        });
        w.vec(self.image.all_configs(), |w, (resource, configs)| {
            resource.write(w);
            write_map(w, configs);
        });
        w.no_tagged();
        w.into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> Result<Metadata> {
        let mut r = Reader::new(bytes);
        let version = r.i16()?;
        if !(0..=VERSION).contains(&version) {
            return Err(Error::Unsupported { kind: KIND, version });
        }
        let mut image = Image::new(r.string()?);
        let applied = r.u64()?;
        let producer_ids = Allocator::starting_at(r.i64()?).ok_or(Error::Value)?;
        for broker in r.vec(read_broker)? {
            if image.broker(broker.node).is_some() {
                return Err(Error::Value);
            }
            image.absorb(&Change::Broker(Arc::new(broker)));
        }
        for topic in r.vec(read_topic)? {
            if image.topic(&topic.name).is_some() || image.topic_by_id(topic.id).is_some() {
                return Err(Error::Value);
            }
            image.absorb(&Change::TopicCreated(Arc::new(topic)));
        }
        for (name, level) in r.vec(|r| Ok((r.string()?, r.i16()?)))? {
            image.absorb(&Change::Feature { name, level });
        }
        if version > 0 {
            for (resource, configs) in r.vec(|r| Ok((ConfigResource::read(r)?, read_map(r)?)))? {
                if image.configs(&resource).is_some() || configs.is_empty() {
                    return Err(Error::Value);
                }
                image.absorb(&Change::Configs { resource, configs: Arc::new(configs) });
            }
        }
        r.no_tagged()?;
        r.end()?;
        Ok(Metadata { image, producer_ids, applied })
    }
}

fn write_broker(w: &mut Writer, broker: &Broker) {
    w.i32(broker.node.0);
    w.uuid(&broker.storage);
    w.uuid(&broker.incarnation);
    w.i64(broker.epoch);
    w.vec(broker.listeners.iter(), write_listener);
    w.nullable_string(broker.rack.as_deref());
    w.bool(broker.fenced);
    w.no_tagged();
}

fn read_broker(r: &mut Reader<'_>) -> Result<Broker> {
    let broker = Broker {
        node: NodeId(r.i32()?),
        storage: r.uuid()?,
        incarnation: r.uuid()?,
        epoch: r.i64()?,
        listeners: r.vec(read_listener)?,
        rack: r.nullable_string()?,
        fenced: r.bool()?,
    };
    r.no_tagged()?;
    Ok(broker)
}

fn write_topic(w: &mut Writer, topic: &Topic) {
    w.uuid(&topic.id.0);
    w.string(&topic.name);
    write_map(w, &topic.configs);
    w.vec(topic.partitions.iter(), write_partition);
    w.no_tagged();
}

fn read_topic(r: &mut Reader<'_>) -> Result<Topic> {
    let id = TopicId(r.uuid()?);
    let name = r.string()?;
    let configs: BTreeMap<String, String> = read_map(r)?;
    let partitions = r.vec(read_partition)?;
    r.no_tagged()?;
    Ok(Topic { id, name, configs, partitions })
}

/// A leader is written as its node id, nobody as -1.
fn write_partition(w: &mut Writer, partition: &Partition) {
    write_nodes(w, &partition.replicas);
    write_nodes(w, &partition.isr);
    w.i32(partition.leader.map_or(-1, |leader| leader.0));
    w.i32(partition.leader_epoch.0);
    w.i32(partition.partition_epoch);
    w.no_tagged();
}

fn read_partition(r: &mut Reader<'_>) -> Result<Partition> {
    let replicas = read_nodes(r)?;
    let isr = read_nodes(r)?;
    let leader = r.i32()?;
    let partition = Partition {
        replicas,
        isr,
        leader: (leader >= 0).then_some(NodeId(leader)),
        leader_epoch: LeaderEpoch(r.i32()?),
        partition_epoch: r.i32()?,
    };
    r.no_tagged()?;
    let in_sync =
        !partition.isr.is_empty() && partition.isr.iter().all(|node| partition.replicas.contains(node));
    let led = partition.leader.is_none_or(|leader| partition.isr.contains(&leader));
    if in_sync && led { Ok(partition) } else { Err(Error::Value) }
}
