//! Topics: those that stay are created when they are missing; one comes and goes, and is empty whenever it comes.

use std::rc::Rc;

use engine::batch::Codec;
use engine::batch::build::BatchBuilder;
use net::client::{Client, Error};
use net::error_code::ErrorCode;
use net::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use net::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use rt::Slice;

use super::verify::{LATEST, offset_at};
use super::{Clients, Connection, Failed, Fixed, GiveUp, TOPICS};
use crate::model::{Durability, TopicId};
use crate::value;

const CHURNED: &str = "churned";
const TRIES_MAX: u32 = 200;
const TIMEOUT_MS: i32 = 30_000;

/// Creates what is missing of the topics that stay.
pub async fn fixed_topics(clients: &Rc<Clients>) -> Result<(), GiveUp> {
    let mut connection = Connection::new(clients);
    for topic in TOPICS {
        create(clients, &mut connection, &topic).await?;
    }
    Ok(())
}

/// Creates, fills and deletes one topic again and again.
pub async fn churn(clients: Rc<Clients>) {
    let mut connection = Connection::new(&clients);
    for _ in 0..clients.life.batches / 8 {
        if one_round(&clients, &mut connection).await.is_err() {
            return;
        }
        clients.pause(3_000).await;
    }
}

async fn one_round(clients: &Rc<Clients>, connection: &mut Connection) -> Result<(), GiveUp> {
    if clients.model.borrow().may_be_there(CHURNED) {
        return delete(clients, connection, CHURNED).await;
    }
    let topic = Fixed { name: CHURNED, durability: Durability::Fsync, partitions: 1, configs: &[] };
    create(clients, connection, &topic).await?;
    let client = connection.client().await?;
    match clients.answer("the end of a new topic", offset_at(&client, CHURNED, 0, LATEST)).await {
        Ok(0) | Err(_) => {}
        Ok(end) => clients.fail(format!("a new topic ends at {end}")),
    }
    let number = {
        let mut model = clients.model.borrow_mut();
        let number = model.value_next();
        model.partition(CHURNED, 0).sending(number);
        number
    };
    let mut batch = BatchBuilder::new(Codec::None);
    batch.append(clients.core.wall_ms(), Some(&value::key(number)), Some(&value::of(number)), &[]);
    let records = Slice::from(batch.finish());
    if let Ok(taken) =
        clients.answer("producing to a new topic", client.produce(CHURNED, 0, records, -1, TIMEOUT_MS)).await
    {
        let acknowledged = |partition: &mut crate::model::partition::Partition| {
            partition.acknowledged(taken.base_offset, &[number])
        };
        clients.model.borrow_mut().check(CHURNED, 0, acknowledged);
    }
    Ok(())
}

async fn create(clients: &Rc<Clients>, connection: &mut Connection, topic: &Fixed) -> Result<(), GiveUp> {
    let name = topic.name;
    let compacted = topic.is_compacted();
    clients.model.borrow_mut().creating(name, topic.durability, topic.partitions, compacted);
    for _ in 0..TRIES_MAX {
        let client = connection.client().await?;
        let created = clients.answer("creating", ask_create(&client, topic)).await;
        match created {
            Ok(id) => {
                clients.model.borrow_mut().is_there(name, id);
                return Ok(());
            }
            Err(Failed::Refused(ErrorCode::TopicAlreadyExists)) => {
                clients.model.borrow_mut().is_there(name, None);
                return Ok(());
            }
            Err(Failed::NotAnswered) => {}
            Err(Failed::Refused(_)) if clients.life.disk_may_fail() => return Err(GiveUp),
            Err(Failed::Refused(code)) => {
                clients.fail(format!("creating {name} is refused: {code}"));
                return Err(GiveUp);
            }
        }
    }
    Err(GiveUp)
}

async fn delete(clients: &Rc<Clients>, connection: &mut Connection, name: &str) -> Result<(), GiveUp> {
    clients.model.borrow_mut().deleting(name);
    for _ in 0..TRIES_MAX {
        let client = connection.client().await?;
        match clients.answer("deleting", ask_delete(&client, name)).await {
            Ok(()) | Err(Failed::Refused(ErrorCode::UnknownTopicOrPartition)) => {
                clients.model.borrow_mut().is_gone(name);
                return Ok(());
            }
            Err(Failed::NotAnswered) => {}
            Err(Failed::Refused(_)) if clients.life.disk_may_fail() => return Err(GiveUp),
            Err(Failed::Refused(code)) => {
                clients.fail(format!("deleting {name} is refused: {code}"));
                return Err(GiveUp);
            }
        }
    }
    Err(GiveUp)
}

pub(crate) async fn ask_create(client: &Client, topic: &Fixed) -> Result<Option<TopicId>, Error> {
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).to_owned().into(),
        value: Some((*value).to_owned().into()),
    };
    let topic = CreatableTopic {
        name: topic.name.into(),
        num_partitions: topic.partitions,
        replication_factor: 1,
        configs: topic.configs.iter().map(config).collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
    let reply = client.call(&request).await?;
    let response = reply.decode()?;
    let answer = response.topics.first().ok_or(Error::Unexpected("the answer names no topic"))?;
    checked(answer.error_code)?;
    Ok(Some(answer.topic_id))
}

async fn ask_delete(client: &Client, name: &str) -> Result<(), Error> {
    let topic = DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() };
    let reply = client.call(&request).await?;
    let response = reply.decode()?;
    let answer = response.responses.first().ok_or(Error::Unexpected("the answer names no topic"))?;
    checked(answer.error_code)
}

pub(crate) fn checked(code: i16) -> Result<(), Error> {
    match ErrorCode::from_i16(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => Err(Error::Broker(code)),
        None => Err(Error::Unexpected("the answer has an error code that is not known")),
    }
}
