//! CreateTopics.

use std::collections::{BTreeMap, BTreeSet};

use engine::ids::TopicId;

use super::super::command::Command;
use super::super::config::{self, Defaults, Described};
use super::super::image::{Image, NodeId};
use super::super::{placement, topic_name};
use super::{PARTITIONS_PER_REQUEST_MAX, check_assignment, duplicate_name, repeated, unplaceable};
use crate::error_code::{ErrorCode, Refusal};

/// One topic of the request. -1 stands for the broker's default, as on the wire.
#[derive(Clone, Debug)]
pub struct NewTopic<'a> {
    pub name: &'a str,
    pub num_partitions: i32,
    pub replication_factor: i16,
    pub assignments: Vec<(i32, Vec<NodeId>)>,
    pub configs: Vec<(&'a str, Option<&'a str>)>,
}

/// A topic that may be created, and what the answer says of it.
#[derive(Clone, Debug)]
pub struct PlannedTopic {
    pub command: Command,
    pub id: TopicId,
    pub num_partitions: i32,
    pub replication_factor: i16,
    pub configs: Vec<Described>,
}

/// Plans every topic of one request by itself; one answer per name, in the order of the request. `random` gives ids and
/// the place of the first replicas.
pub fn plan_create_topics<'a>(
    image: &Image,
    defaults: &Defaults,
    topics: &[NewTopic<'a>],
    mut random: impl FnMut() -> u64,
) -> Vec<(&'a str, Result<PlannedTopic, Refusal>)> {
    let excessive = partitions_asked(topics, defaults) > PARTITIONS_PER_REQUEST_MAX;
    let repeats = repeated(topics.iter().map(|topic| topic.name));
    let collisions = Collisions::new(image, topics);
    let mut answered = BTreeSet::new();
    let mut answers = Vec::new();
    for topic in topics.iter().filter(|topic| answered.insert(topic.name)) {
        let plan = if excessive {
            let message = "Excessively large number of partitions per request.";
            Err(Refusal::new(ErrorCode::PolicyViolation, message))
        } else if repeats.contains(topic.name) {
            Err(duplicate_name())
        } else {
            plan_one(image, defaults, &collisions, topic, &mut random)
        };
        answers.push((topic.name, plan));
    }
    answers
}

fn partitions_asked(topics: &[NewTopic<'_>], defaults: &Defaults) -> i64 {
    let asked = |topic: &NewTopic<'_>| match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => i64::from(defaults.num_partitions),
        (0, count) => i64::from(count.max(0)),
        (assigned, _) => i64::try_from(assigned).unwrap_or(i64::MAX),
    };
    topics.iter().map(asked).fold(0, i64::saturating_add)
}

/// Existing names by their collision key; built only when a new name can collide.
struct Collisions(BTreeMap<String, String>);

impl Collisions {
    fn new(image: &Image, topics: &[NewTopic<'_>]) -> Collisions {
        if topics.iter().all(|topic| topic_name::collision_key(topic.name).is_none()) {
            return Collisions(BTreeMap::new());
        }
        let keyed = |name: &String| topic_name::collision_key(name).map(|key| (key, name.clone()));
        // In reverse, so that the least name of several is the one that is told.
        let names: Vec<&String> = image.topics().map(|topic| &topic.name).collect();
        Collisions(names.into_iter().rev().filter_map(keyed).collect())
    }

    fn of(&self, name: &str) -> Option<&String> {
        self.0.get(&topic_name::collision_key(name)?)
    }
}

fn plan_one(
    image: &Image,
    defaults: &Defaults,
    collisions: &Collisions,
    topic: &NewTopic<'_>,
    random: &mut impl FnMut() -> u64,
) -> Result<PlannedTopic, Refusal> {
    check_name(image, collisions, topic.name)?;
    let configs = checked_configs(&topic.configs)?;
    let partitions = if topic.assignments.is_empty() {
        placed(image, defaults, topic, random())?
    } else {
        assigned(image, topic)?
    };
    let id = fresh_id(image, random);
    Ok(PlannedTopic {
        id,
        num_partitions: i32::try_from(partitions.len()).expect("at most 10,000 per request"),
        replication_factor: partitions
            .first()
            .map_or(0, |replicas| i16::try_from(replicas.len()).unwrap_or(i16::MAX)),
        configs: config::describe(&configs, defaults),
        command: Command::CreateTopic { id, name: topic.name.to_owned(), partitions, configs },
    })
}

fn check_name(image: &Image, collisions: &Collisions, name: &str) -> Result<(), Refusal> {
    if name == topic_name::CLUSTER_METADATA {
        let message = format!("Creation of internal topic {name} is prohibited.");
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    if image.topic(name).is_some() {
        return Err(Refusal::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    let illegal = |message| Refusal::new(ErrorCode::InvalidTopicException, message);
    topic_name::validate(name).map_err(illegal)?;
    match collisions.of(name) {
        Some(other) => Err(illegal(format!("Topic '{name}' collides with existing topic: {other}"))),
        None => Ok(()),
    }
}

fn checked_configs(configs: &[(&str, Option<&str>)]) -> Result<BTreeMap<String, String>, Refusal> {
    let mut nulls: Vec<&str> =
        configs.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| *key).collect();
    if !nulls.is_empty() {
        nulls.sort_unstable();
        let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(Refusal::new(ErrorCode::InvalidConfig, message));
    }
    let owned =
        |(key, value): &(&str, Option<&str>)| value.map(|value| ((*key).to_owned(), value.to_owned()));
    let configs: BTreeMap<String, String> = configs.iter().filter_map(owned).collect();
    config::validate(&configs)?;
    Ok(configs)
}

fn assigned(image: &Image, topic: &NewTopic<'_>) -> Result<Vec<Vec<NodeId>>, Refusal> {
    let both = |what: &str| {
        let message = format!("A manual partition assignment was specified, but {what} was not set to -1.");
        Err(Refusal::new(ErrorCode::InvalidRequest, message))
    };
    if topic.replication_factor != -1 {
        return both("replication factor");
    }
    if topic.num_partitions != -1 {
        return both("numPartitions");
    }
    let refuse = |message: String| Refusal::new(ErrorCode::InvalidReplicaAssignment, message);
    let mut partitions = BTreeMap::new();
    let mut expected = None;
    for (index, replicas) in &topic.assignments {
        if partitions.insert(*index, replicas.clone()).is_some() {
            return Err(refuse(format!("Found multiple manual partition assignments for partition {index}")));
        }
        check_assignment(image, *index, replicas, expected)?;
        expected = Some(replicas.len());
    }
    if !partitions.keys().copied().eq(0..i32::try_from(partitions.len()).unwrap_or(i32::MAX)) {
        return Err(refuse("partitions should be a consecutive 0-based integer sequence".to_owned()));
    }
    Ok(partitions.into_values().collect())
}

fn placed(
    image: &Image,
    defaults: &Defaults,
    topic: &NewTopic<'_>,
    random: u64,
) -> Result<Vec<Vec<NodeId>>, Refusal> {
    let replication_factor = match topic.replication_factor {
        -1 => defaults.replication_factor,
        asked => asked,
    };
    let num_partitions = match topic.num_partitions {
        -1 => defaults.num_partitions,
        asked => asked,
    };
    let replication_factor =
        usize::try_from(replication_factor).ok().filter(|factor| *factor > 0).ok_or_else(|| {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            Refusal::new(ErrorCode::InvalidReplicationFactor, message)
        })?;
    let num_partitions =
        usize::try_from(num_partitions).ok().filter(|count| *count > 0).ok_or_else(|| {
            let message = "Number of partitions was set to an invalid non-positive value.";
            Refusal::new(ErrorCode::InvalidPartitions, message)
        })?;
    placement::place(image, num_partitions, replication_factor, random)
        .map_err(|why| unplaceable(replication_factor, &why))
}

/// A random id that no topic has; the ids 0 and 1 mean something else to Kafka's clients.
fn fresh_id(image: &Image, random: &mut impl FnMut() -> u64) -> TopicId {
    loop {
        let bits = u128::from(random()) << 64 | u128::from(random());
        // Version 4 and variant bits, as in every UUID: the reserved ids cannot come out.
        let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let id = TopicId(bits.to_be_bytes());
        if image.topic_by_id(id).is_none() {
            return id;
        }
    }
}
