//! A look at everything: the topics there are, and each partition from its start to its end.

use std::collections::BTreeMap;
use std::rc::Rc;

use net::client::{Client, Error};
use net::error_code::ErrorCode;
use net::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use net::messages::metadata::MetadataRequest;

use super::{Clients, Connection, Failed, GiveUp};
use crate::model::TopicId;

const FETCH_BYTES: i32 = 64 << 10;
const TRIES_MAX: u32 = 200;
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

/// Topics with their ids and their partitions' leader epochs.
type Topics = BTreeMap<String, (TopicId, Vec<i32>)>;

/// Checks all that was promised. At a life's beginning it also says where this life begins.
pub async fn everything(clients: &Rc<Clients>) -> Result<(), GiveUp> {
    let mut connection = Connection::new(clients);
    let found = topics(clients, &mut connection).await?;
    let is_first = !clients.started.replace(true);
    if is_first {
        clients.model.borrow_mut().started_with(&found);
    }
    let known = clients.model.borrow().topics();
    for (topic, partitions) in known {
        for index in 0..partitions {
            partition(clients, &mut connection, &topic, index, is_first).await?;
        }
    }
    Ok(())
}

async fn topics(clients: &Rc<Clients>, connection: &mut Connection) -> Result<Topics, GiveUp> {
    for _ in 0..TRIES_MAX {
        let client = connection.client().await?;
        if let Ok(found) = clients.answer("metadata", ask_topics(&client)).await {
            return Ok(found);
        }
    }
    Err(GiveUp)
}

async fn ask_topics(client: &Client) -> Result<Topics, Error> {
    let request = MetadataRequest { topics: None, ..Default::default() };
    let reply = client.call(&request).await?;
    let mut found = Topics::new();
    for topic in reply.decode()?.topics {
        let name = topic.name.ok_or(Error::Unexpected("a topic without a name"))?.into_owned();
        let epochs = topic.partitions.iter().map(|partition| partition.leader_epoch).collect();
        found.insert(name, (topic.topic_id, epochs));
    }
    Ok(found)
}

async fn partition(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    topic: &str,
    index: i32,
    is_first: bool,
) -> Result<(), GiveUp> {
    let what = format!("verifying {topic}-{index}");
    let Some(end) = end_of(clients, connection, topic, index, &what).await? else { return Ok(()) };
    let began = |partition: &mut crate::model::partition::Partition| match is_first {
        true => partition.started_at(end),
        false => partition.heard_of_end(end),
    };
    if clients.model.borrow_mut().check(topic, index, began).is_none() {
        return Err(GiveUp);
    }
    let (mut at, mut tries) = (0, 0);
    while at < end {
        let client = connection.client().await?;
        let fetched = clients.answer(&what, client.fetch(topic, index, at, FETCH_BYTES, 0)).await;
        match fetched {
            Ok(fetched) => {
                let read = |partition: &mut crate::model::partition::Partition| {
                    partition.read(at, fetched.high_watermark, &fetched.records)
                };
                let Some(seen) = clients.model.borrow_mut().check(topic, index, read) else {
                    return Err(GiveUp);
                };
                if seen.next == at {
                    clients.fail(format!("{what}: nothing at {at}, before the end {end}"));
                    return Err(GiveUp);
                }
                clients.model.borrow_mut().counts.read += seen.records;
                at = seen.next;
            }
            Err(Failed::Refused(ErrorCode::KafkaStorageError)) if clients.life.disk_may_fail() => {
                return Ok(());
            }
            Err(Failed::Refused(code)) => {
                clients.fail(format!("{what}: offset {at} of {end} is refused: {code}"));
                return Err(GiveUp);
            }
            Err(Failed::NotAnswered) => {
                tries += 1;
                if tries > TRIES_MAX {
                    return Err(GiveUp);
                }
            }
        }
    }
    // Later on somebody may append what this look does not see.
    let whole = |partition: &mut crate::model::partition::Partition| partition.read_to_its_end();
    if is_first && clients.model.borrow_mut().check(topic, index, whole).is_none() {
        return Err(GiveUp);
    }
    Ok(())
}

/// The end of the log; nothing where the disk keeps the broker from serving it.
async fn end_of(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    topic: &str,
    index: i32,
    what: &str,
) -> Result<Option<i64>, GiveUp> {
    for _ in 0..TRIES_MAX {
        let client = connection.client().await?;
        match clients.answer(what, offset_at(&client, topic, index, LATEST)).await {
            Ok(end) => return Ok(Some(end)),
            Err(Failed::Refused(ErrorCode::KafkaStorageError)) if clients.life.disk_may_fail() => {
                return Ok(None);
            }
            Err(Failed::Refused(code)) => {
                clients.fail(format!("{what}: its end is not told: {code}"));
                return Err(GiveUp);
            }
            Err(Failed::NotAnswered) => {}
        }
    }
    Err(GiveUp)
}

/// What ListOffsets says for a timestamp, or one of the special ones.
pub async fn offset_at(client: &Client, topic: &str, partition: i32, timestamp: i64) -> Result<i64, Error> {
    let partitions =
        vec![ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp }];
    let topics = vec![ListOffsetsTopic { name: topic.into(), partitions }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let reply = client.call(&request).await?;
    let response = reply.decode()?;
    let found = response.topics.iter().flat_map(|topic| &topic.partitions).next();
    let found = found.ok_or(Error::Unexpected("the answer names no partition"))?;
    match ErrorCode::from_i16(found.error_code) {
        Some(ErrorCode::None) => Ok(found.offset),
        Some(code) => Err(Error::Broker(code)),
        None => Err(Error::Unexpected("the answer has an error code that is not known")),
    }
}
