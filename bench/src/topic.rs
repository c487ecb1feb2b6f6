//! The topic under load: created when missing, its leaders found, its offsets asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use net::error_code::ErrorCode;
use net::messages::{create_topics, init_producer_id, list_offsets, metadata};
use net::wire::Uuid;
use rt::Core;

use crate::batches::Producer;
use crate::cli::TopicShape;
use crate::link::{self, Error, Link};
use crate::progress::{Pace, Patience};
use engine::ids::ProducerId;

const CREATE_TIMEOUT_MS: i32 = 30_000;
/// How long a new topic may take until every partition has a leader, and how often that is looked at.
const LEADERS_WAIT: Duration = Duration::from_secs(30);
const LEADERS_POLL: Duration = Duration::from_millis(50);
pub const EARLIEST: i64 = -2;
pub const LATEST: i64 = -1;

pub struct Topic {
    pub name: String,
    /// Zeros from a broker that gives none.
    pub id: Uuid,
    pub was_created: bool,
    /// The leader's address of each partition.
    pub leaders: BTreeMap<i32, SocketAddr>,
}

impl Topic {
    pub fn partitions(&self) -> Vec<i32> {
        self.leaders.keys().copied().collect()
    }

    /// The partitions of each leader.
    pub fn by_leader(&self) -> BTreeMap<SocketAddr, Vec<i32>> {
        let mut by_leader: BTreeMap<SocketAddr, Vec<i32>> = BTreeMap::new();
        for (partition, leader) in &self.leaders {
            by_leader.entry(*leader).or_default().push(*partition);
        }
        by_leader
    }
}

/// Finds the topic; creates it when it is missing and a shape is given.
pub async fn find(link: &mut Link, name: &str, shape: Option<&TopicShape>) -> Result<Topic, Error> {
    let mut was_created = false;
    if let Some(shape) = shape
        && describe(link, name).await?.is_err_and(|code| code == ErrorCode::UnknownTopicOrPartition.as_i16())
    {
        was_created = create(link, name, shape).await?;
    }
    let core = link.core().clone();
    let mut patience = Patience::new(LEADERS_WAIT, core.now().as_nanos());
    loop {
        let missing = match describe(link, name).await? {
            Ok(Ok((id, leaders))) => {
                let topic = Topic { name: name.to_owned(), id, was_created, leaders };
                match if was_created { answers(&core, &topic).await } else { Ok(()) } {
                    Ok(()) => return Ok(topic),
                    Err(error) => error.to_string(),
                }
            }
            Ok(Err(leaderless)) => leaderless,
            Err(code) if was_created => describe_code(code),
            Err(code) => return Err(Error::Protocol(format!("topic {name}: {}", describe_code(code)))),
        };
        match patience.look(core.now().as_nanos(), 0) {
            Pace::Moving => {}
            Pace::Silent => eprintln!("bench: waiting for topic {name}: {missing}"),
            Pace::Over => {
                let waited = LEADERS_WAIT.as_secs();
                return Err(Error::Protocol(format!(
                    "topic {name} is not served after {waited} s: {missing}"
                )));
            }
        }
        core.sleep(LEADERS_POLL).await;
    }
}

/// Whether every leader knows that it is one: right after a creation some do not.
async fn answers(core: &Core, topic: &Topic) -> Result<(), Error> {
    for (leader, partitions) in topic.by_leader() {
        let mut link = Link::connect(core, leader).await?;
        offsets(&mut link, &topic.name, &partitions, LATEST).await?;
    }
    Ok(())
}

/// The topic's id and its leaders' addresses, or which partitions have none.
type Leaders = Result<(Uuid, BTreeMap<i32, SocketAddr>), String>;

/// The topic's error code when there is one.
async fn describe(link: &mut Link, name: &str) -> Result<Result<Leaders, i16>, Error> {
    let topic = metadata::MetadataRequestTopic { name: Some(Cow::Borrowed(name)), ..Default::default() };
    let request = metadata::MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let answer = link.call(&request).await?;
    let body = answer.body::<metadata::Api>()?;
    let mut addresses = BTreeMap::new();
    for broker in &body.brokers {
        addresses.insert(broker.node_id, link::resolve(&format!("{}:{}", broker.host, broker.port))?);
    }
    let found = body.topics.first();
    let topic =
        found.ok_or_else(|| Error::Protocol("the metadata leave out the topic asked for".to_owned()))?;
    if topic.error_code != 0 {
        return Ok(Err(topic.error_code));
    }
    let mut leaders = BTreeMap::new();
    let mut leaderless = Vec::new();
    for partition in &topic.partitions {
        match addresses.get(&partition.leader_id) {
            Some(address) => drop(leaders.insert(partition.partition_index, *address)),
            None => leaderless.push((partition.partition_index, partition.error_code)),
        }
    }
    leaderless.sort_unstable();
    Ok(Ok(match leaderless.first() {
        None if leaders.is_empty() => Err("it has no partitions".to_owned()),
        None => Ok((topic.topic_id, leaders)),
        Some((partition, code)) => {
            let others = match leaderless.len() {
                1 => String::new(),
                all => format!(", as {} others", all - 1),
            };
            Err(format!("{name}-{partition} has no leader{others} ({})", describe_code(*code)))
        }
    }))
}

/// Whether it was this call that created it.
async fn create(link: &mut Link, name: &str, shape: &TopicShape) -> Result<bool, Error> {
    let durability = shape.durability.map(|durability| ("corelog.durability", durability.name()));
    let given = shape.topic_config.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let configs = durability
        .into_iter()
        .chain(given)
        .map(|(name, value)| create_topics::CreatableTopicConfig {
            name: Cow::Borrowed(name),
            value: Some(Cow::Borrowed(value)),
        })
        .collect();
    let topic = create_topics::CreatableTopic {
        name: Cow::Borrowed(name),
        num_partitions: shape.partitions,
        replication_factor: shape.replication_factor,
        configs,
        ..Default::default()
    };
    let request = create_topics::CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: CREATE_TIMEOUT_MS,
        validate_only: false,
    };
    let answer = link.call(&request).await?;
    let body = answer.body::<create_topics::Api>()?;
    let result = body.topics.first();
    let result =
        result.ok_or_else(|| Error::Protocol("CreateTopics was answered without the topic".to_owned()))?;
    match result.error_code {
        0 => Ok(true),
        code if code == ErrorCode::TopicAlreadyExists.as_i16() => Ok(false),
        code => {
            let why = result.error_message.as_deref().unwrap_or_default();
            Err(Error::Protocol(format!("topic {name} cannot be created: {} {why}", describe_code(code))))
        }
    }
}

/// The offset of each partition at `timestamp` (`EARLIEST`, `LATEST`), from its leader.
pub async fn offsets(
    link: &mut Link,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
) -> Result<BTreeMap<i32, i64>, Error> {
    let partitions = partitions
        .iter()
        .map(|partition| list_offsets::ListOffsetsPartition {
            partition_index: *partition,
            timestamp,
            ..Default::default()
        })
        .collect();
    let topics = vec![list_offsets::ListOffsetsTopic { name: Cow::Borrowed(topic), partitions }];
    let request = list_offsets::ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let answer = link.call(&request).await?;
    let body = answer.body::<list_offsets::Api>()?;
    let mut found = BTreeMap::new();
    for partition in body.topics.iter().flat_map(|topic| &topic.partitions) {
        if partition.error_code != 0 {
            let why = describe_code(partition.error_code);
            let index = partition.partition_index;
            return Err(Error::Protocol(format!("offsets of {topic}-{index}: {why}")));
        }
        found.insert(partition.partition_index, partition.offset);
    }
    Ok(found)
}

/// A producer id for one idempotent producer.
pub async fn producer_id(link: &mut Link) -> Result<Producer, Error> {
    let request = init_producer_id::InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let core = link.core().clone();
    let give_up_at = core.now() + LEADERS_WAIT;
    loop {
        let answer = link.call(&request).await?;
        let body = answer.body::<init_producer_id::Api>()?;
        if body.error_code == 0 {
            return Ok(Producer { id: ProducerId(body.producer_id), epoch: body.producer_epoch });
        }
        let may_pass = ErrorCode::from_i16(body.error_code).is_some_and(ErrorCode::is_retriable);
        if !may_pass || core.now() >= give_up_at {
            return Err(Error::Protocol(format!("InitProducerId: {}", describe_code(body.error_code))));
        }
        core.sleep(LEADERS_POLL).await;
    }
}

pub fn describe_code(code: i16) -> String {
    match ErrorCode::from_i16(code) {
        Some(known) => known.to_string(),
        None => format!("error code {code}"),
    }
}
