//! DescribeTopicPartitions v0: topics by name, page by page (KIP-966).

use std::collections::BTreeSet;

use coord::metadata::{Image, Partition, Topic};
use net::error_code::ErrorCode;
use net::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};

use super::{Reply, Request, Unanswerable, operations};

pub fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: DescribeTopicPartitionsRequest = request.decode()?;
    let metadata = request.shard.metadata.borrow();
    let named: BTreeSet<&str> = body.topics.iter().map(|topic| topic.name.as_ref()).collect();
    let all = named.is_empty();
    let from = body.cursor.as_ref().map(|cursor| (cursor.topic_name.as_ref(), cursor.partition_index));
    if let Some((topic, index)) = from
        && (index < 0 || (!all && !named.contains(topic)))
    {
        return request.answer(&refused(&named));
    }
    let start = from.map_or("", |(topic, _)| topic);
    let names: Vec<&str> = if all {
        metadata.topics_from(start).map(|topic| topic.name.as_str()).collect()
    } else {
        named.iter().copied().filter(|name| *name >= start).collect()
    };
    let asked = usize::try_from(body.response_partition_limit).unwrap_or(0);
    let limit = asked.clamp(1, request.shard.limits().describe_partitions_max);
    let page = page(&metadata, &names, from, limit);
    request.answer(&page)
}

fn refused<'a>(named: &BTreeSet<&'a str>) -> DescribeTopicPartitionsResponse<'a> {
    let topics = named.iter().map(|&name| unknown(name, ErrorCode::InvalidRequest));
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

/// As many partitions as the limit allows, and where to go on.
fn page<'a>(
    metadata: &Image,
    names: &[&'a str],
    from: Option<(&str, i32)>,
    limit: usize,
) -> DescribeTopicPartitionsResponse<'a> {
    let mut left = limit;
    let mut topics = Vec::new();
    for &name in names {
        let Some(topic) = metadata.topic(name) else {
            let legal = coord::metadata::is_legal_topic_name(name);
            let code =
                if legal { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
            topics.push(unknown(name, code));
            continue;
        };
        let first = from.filter(|(topic, _)| *topic == name).map_or(0, |(_, index)| index);
        if left == 0 {
            let next_cursor = Some(Cursor { topic_name: name.into(), partition_index: first });
            return DescribeTopicPartitionsResponse { topics, next_cursor, ..Default::default() };
        }
        let (described, next) = describe(name, topic, first, left);
        left -= described.partitions.len();
        topics.push(described);
        if let Some(partition_index) = next {
            let next_cursor = Some(Cursor { topic_name: name.into(), partition_index });
            return DescribeTopicPartitionsResponse { topics, next_cursor, ..Default::default() };
        }
    }
    DescribeTopicPartitionsResponse { topics, ..Default::default() }
}

/// Up to `limit` partitions of a topic from `first` on, and the next one's index if some are left.
fn describe<'a>(
    name: &'a str,
    topic: &Topic,
    first: i32,
    limit: usize,
) -> (DescribeTopicPartitionsResponseTopic<'a>, Option<i32>) {
    let mut rest = (0..).zip(&topic.partitions).filter(|(index, _)| *index >= first);
    let partitions =
        rest.by_ref().take(limit).map(|(index, partition)| partition_of(index, partition)).collect();
    let next = rest.next().map(|(index, _)| index);
    let described = DescribeTopicPartitionsResponseTopic {
        name: Some(name.into()),
        topic_id: topic.id.0,
        is_internal: topic.is_internal(),
        partitions,
        topic_authorized_operations: operations::OF_TOPIC,
        ..Default::default()
    };
    (described, next)
}

fn partition_of(partition_index: i32, partition: &Partition) -> DescribeTopicPartitionsResponsePartition {
    let error = if partition.leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
    DescribeTopicPartitionsResponsePartition {
        error_code: error as i16,
        partition_index,
        leader_id: partition.leader.map_or(-1, |node| node.0),
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: partition.replicas.iter().map(|node| node.0).collect(),
        isr_nodes: partition.isr.iter().map(|node| node.0).collect(),
        // Null is for versions without them; the Java client takes these lists apart unasked.
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..Default::default()
    }
}

fn unknown(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic<'_> {
    let mut topic = DescribeTopicPartitionsResponseTopic {
        error_code: code as i16,
        name: Some(name.into()),
        ..Default::default()
    };
    if code != ErrorCode::InvalidRequest {
        topic.topic_authorized_operations = operations::OF_TOPIC;
    }
    topic
}

#[cfg(test)]
mod tests {
    use super::*;
    use coord::metadata::NodeId;
    use engine::ids::LeaderEpoch;

    fn partition(leader: Option<NodeId>) -> Partition {
        let (replicas, isr) = (vec![NodeId(1)], vec![NodeId(1)]);
        Partition { replicas, isr, leader, leader_epoch: LeaderEpoch(4), partition_epoch: 2 }
    }

    #[test]
    fn lists_of_eligible_leaders_are_empty_and_never_null() {
        let described = partition_of(0, &partition(Some(NodeId(1))));
        assert_eq!(described.eligible_leader_replicas, Some(Vec::new()));
        assert_eq!(described.last_known_elr, Some(Vec::new()));
        assert_eq!((described.error_code, described.leader_id), (0, 1));
        let leaderless = partition_of(0, &partition(None));
        assert_eq!((leaderless.error_code, leaderless.leader_id), (ErrorCode::LeaderNotAvailable as i16, -1));
    }
}
