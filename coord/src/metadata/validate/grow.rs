//! CreatePartitions.

use std::collections::BTreeSet;

use super::super::command::Command;
use super::super::image::{Image, NodeId, Topic};
use super::super::placement;
use super::{PARTITIONS_PER_REQUEST_MAX, check_assignment, duplicate_name, repeated, unplaceable};
use crate::error_code::{ErrorCode, Refusal};

/// One topic of the request: `count` is what it shall have in all.
#[derive(Clone, Debug)]
pub struct MorePartitions<'a> {
    pub name: &'a str,
    pub count: i32,
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// What a topic's growth is carried out by.
pub type PlannedPartitions = Result<Command, Refusal>;

/// Plans every topic of one request by itself; one answer per name, in the order of the request.
pub fn plan_create_partitions<'a>(
    image: &Image,
    topics: &[MorePartitions<'a>],
    mut random: impl FnMut() -> u64,
) -> Vec<(&'a str, PlannedPartitions)> {
    let repeats = repeated(topics.iter().map(|topic| topic.name));
    let mut answered = BTreeSet::new();
    let mut left = PARTITIONS_PER_REQUEST_MAX;
    let mut answers = Vec::new();
    for topic in topics.iter().filter(|topic| answered.insert(topic.name)) {
        let plan = if repeats.contains(topic.name) {
            Err(duplicate_name())
        } else {
            plan_one(image, topic, &mut left, &mut random)
        };
        answers.push((topic.name, plan));
    }
    answers
}

fn plan_one(
    image: &Image,
    asked: &MorePartitions<'_>,
    left: &mut i64,
    random: &mut impl FnMut() -> u64,
) -> PlannedPartitions {
    let topic = image.topic(asked.name).ok_or_else(|| {
        let message = "This server does not host this topic-partition.";
        Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
    })?;
    let added = added(topic, asked)?;
    *left -= i64::try_from(added).unwrap_or(i64::MAX);
    if *left < 0 {
        let message = "Excessively large number of partitions per request.";
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    let existing = i32::try_from(topic.partitions.len()).expect("a topic's partitions are bounded");
    let partitions = match &asked.assignments {
        Some(assignments) => assigned(image, topic, existing, added, assignments)?,
        None => {
            let factor = topic.replication_factor();
            placement::place(image, added, factor, random()).map_err(|why| unplaceable(factor, &why))?
        }
    };
    Ok(Command::CreatePartitions { id: topic.id, existing, partitions })
}

/// How many partitions are to be added.
fn added(topic: &Topic, asked: &MorePartitions<'_>) -> Result<usize, Refusal> {
    let current = topic.partitions.len();
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    match usize::try_from(asked.count) {
        Ok(count) if count > current => Ok(count - current),
        Ok(count) if count == current => refuse(format!("Topic already has {current} partition(s).")),
        Ok(_) | Err(_) => refuse(format!(
            "The topic {} currently has {current} partition(s); {} would not be an increase.",
            asked.name, asked.count
        )),
    }
}

fn assigned(
    image: &Image,
    topic: &Topic,
    existing: i32,
    added: usize,
    assignments: &[Vec<NodeId>],
) -> Result<Vec<Vec<NodeId>>, Refusal> {
    if assignments.len() != added {
        let message = format!(
            "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        );
        return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    for (index, replicas) in (existing..).zip(assignments) {
        check_assignment(image, index, replicas, Some(topic.replication_factor()))?;
    }
    Ok(assignments.to_vec())
}
