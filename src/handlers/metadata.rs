//! Metadata v0-v13. v1: null is all. v4: auto-creation. v7: leader epoch. v8: authorized operations. v9: flexible.
//! v10: topic ids. v12: look-up by id. v13: top-level error.

use std::collections::BTreeSet;
use std::rc::Rc;

use coord::metadata::{Partition, Topic};
use engine::ids::TopicId;
use net::error_code::ErrorCode;
use net::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};

use super::{Reply, Request, Unanswerable, operations};
use crate::controller::{ControllerRequest, NewTopic};
use crate::groups::{self, OFFSETS_TOPIC};
use crate::shard::Shard;

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: MetadataRequest = request.decode()?;
    let wanted = Wanted::of(&body, request.version);
    let mut topics: Vec<MetadataResponseTopic<'_>> = match &wanted {
        Wanted::Invalid => return request.answer(&invalid(request.shard, &body)),
        Wanted::All => {
            let metadata = request.shard.metadata.borrow();
            metadata.topics().map(|topic| known(topic)).collect()
        }
        Wanted::Ids(ids) => ids.iter().map(|id| by_id(request.shard, *id)).collect(),
        Wanted::Names(names) => {
            let missing = missing(request.shard, names);
            let create = request.shard.settings.auto_create_topics
                && (request.version < 4 || body.allow_auto_topic_creation);
            if create && !missing.is_empty() {
                create_in_background(request.shard, missing);
            }
            names.iter().map(|name| by_name(request.shard, name)).collect()
        }
    };
    if body.include_topic_authorized_operations {
        // A name says enough, an id that nobody knows does not.
        let named = topics.iter_mut().filter(|topic| topic.name.is_some());
        named.for_each(|topic| topic.topic_authorized_operations = operations::OF_TOPIC);
    }
    let mut response = MetadataResponse {
        brokers: brokers(request.shard),
        cluster_id: Some(request.shard.metadata.borrow().cluster_id().to_owned().into()),
        controller_id: request.shard.settings.node_id.0,
        topics,
        ..Default::default()
    };
    if body.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::OF_CLUSTER;
    }
    request.answer(&response)
}

enum Wanted<'a> {
    All,
    Names(BTreeSet<&'a str>),
    Ids(BTreeSet<[u8; 16]>),
    /// An id or a null name before the version that can look one up.
    Invalid,
}

impl<'a> Wanted<'a> {
    fn of(body: &'a MetadataRequest<'a>, version: i16) -> Wanted<'a> {
        let Some(topics) = &body.topics else { return Wanted::All };
        if version == 0 && topics.is_empty() {
            return Wanted::All;
        }
        let ids: BTreeSet<[u8; 16]> =
            topics.iter().map(|topic| topic.topic_id).filter(|id| *id != [0; 16]).collect();
        if version < 12 && (!ids.is_empty() || topics.iter().any(|topic| topic.name.is_none())) {
            return Wanted::Invalid;
        }
        if !ids.is_empty() {
            return Wanted::Ids(ids);
        }
        Wanted::Names(topics.iter().filter_map(|topic| topic.name.as_deref()).collect())
    }
}

/// Names no broker, as in Kafka.
fn invalid<'a>(shard: &Shard, body: &MetadataRequest<'a>) -> MetadataResponse<'a> {
    let topics = body.topics.iter().flatten();
    let refused = topics.map(|topic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest as i16,
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    });
    MetadataResponse {
        cluster_id: Some(shard.metadata.borrow().cluster_id().to_owned().into()),
        controller_id: -1,
        topics: refused.collect(),
        ..Default::default()
    }
}

fn brokers(shard: &Rc<Shard>) -> Vec<MetadataResponseBroker<'static>> {
    let metadata = shard.metadata.borrow();
    let live = metadata.brokers().filter(|broker| !broker.fenced);
    let listed = live.filter_map(|broker| {
        let listener = broker.listeners.first()?;
        Some(MetadataResponseBroker {
            node_id: broker.node.0,
            host: listener.host.clone().into(),
            port: i32::from(listener.port),
            rack: broker.rack.clone().map(Into::into),
        })
    });
    listed.collect()
}

fn by_id(shard: &Rc<Shard>, id: [u8; 16]) -> MetadataResponseTopic<'static> {
    match shard.metadata.borrow().topic_by_id(TopicId(id)) {
        Some(topic) => known(topic),
        None => MetadataResponseTopic {
            error_code: ErrorCode::UnknownTopicId as i16,
            name: None,
            topic_id: id,
            ..Default::default()
        },
    }
}

fn by_name<'a>(shard: &Rc<Shard>, name: &'a str) -> MetadataResponseTopic<'a> {
    if let Some(topic) = shard.metadata.borrow().topic(name) {
        return known(topic);
    }
    let legal = coord::metadata::is_legal_topic_name(name);
    let code = if legal { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
    MetadataResponseTopic { error_code: code as i16, name: Some(name.into()), ..Default::default() }
}

fn known<'a>(topic: &Topic) -> MetadataResponseTopic<'a> {
    MetadataResponseTopic {
        name: Some(topic.name.clone().into()),
        topic_id: topic.id.0,
        is_internal: topic.is_internal(),
        partitions: (0..)
            .zip(&topic.partitions)
            .map(|(index, partition)| partition_of(index, partition))
            .collect(),
        ..Default::default()
    }
}

fn partition_of(partition_index: i32, partition: &Partition) -> MetadataResponsePartition {
    let error = if partition.leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
    MetadataResponsePartition {
        error_code: error as i16,
        partition_index,
        leader_id: partition.leader.map_or(-1, |node| node.0),
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: partition.replicas.iter().map(|node| node.0).collect(),
        isr_nodes: partition.isr.iter().map(|node| node.0).collect(),
        ..Default::default()
    }
}

fn missing(shard: &Rc<Shard>, names: &BTreeSet<&str>) -> Vec<String> {
    let metadata = shard.metadata.borrow();
    let absent = names.iter().filter(|name| metadata.topic(name).is_none());
    absent.filter(|name| coord::metadata::is_legal_topic_name(name)).map(|&name| name.to_owned()).collect()
}

/// As in Kafka, this answer still says that the topic is unknown; the client asks again and finds it.
fn create_in_background(shard: &Rc<Shard>, names: Vec<String>) {
    // However many clients ask for it, it is created once.
    let names: Vec<String> =
        names.into_iter().filter(|name| shard.creating.borrow_mut().insert(name.clone())).collect();
    if names.is_empty() {
        return;
    }
    let shard = shard.clone();
    shard.core.clone().spawn(rt::Class::Control, async move {
        let (offsets, others): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|name| name == OFFSETS_TOPIC);
        if !offsets.is_empty() {
            groups::create_topic(&shard).await;
        }
        let topics = others.into_iter().map(NewTopic::with_defaults).collect();
        let request = ControllerRequest::CreateTopics { topics, validate_only: false };
        // Failures are the next request's to see: the topic is still not there.
        drop(shard.ask_controller(request).await);
        let mut creating = shard.creating.borrow_mut();
        names.iter().for_each(|name| {
            creating.remove(name);
        });
    });
}
