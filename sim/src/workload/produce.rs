//! Producers. An idempotent one keeps at it over connections and over lives until each batch is acknowledged, as Kafka's
//! clients do: at most five in flight, in order, again with the same sequence; a plain one sends each batch once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use corelog::shard::join::{before, join_all};
use engine::batch::Codec;
use engine::batch::build::BatchBuilder;
use engine::ids::ProducerId;
use net::client::{Client, Error, Produced};
use net::error_code::ErrorCode;
use net::messages::init_producer_id::InitProducerIdRequest;
use net::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use net::wire::Records;
use rt::Slice;

use super::{Clients, Connection, Failed, Fixed, GiveUp, TOPICS};
use crate::model::{Durability, Model};
use crate::value;

/// What Kafka's clients and brokers agree on.
const IN_FLIGHT_MAX: u64 = 5;
const RECORDS_PER_BATCH_MAX: u64 = 4;
const TRIES_MAX: u32 = 60;
const TIMEOUT_MS: i32 = 30_000;

/// An idempotent producer; outlives the broker's lives.
pub struct Producer {
    topic: &'static str,
    partition: i32,
    durability: Durability,
    id: Option<i64>,
    sequence_next: i32,
    /// Sent, or about to be, and not acknowledged.
    pending: VecDeque<Batch>,
}

struct Batch {
    numbers: Vec<u64>,
    bytes: Vec<u8>,
}

impl Batch {
    /// The first one of its producer id.
    fn is_first(&self) -> bool {
        engine::batch::Batch::parse(&self.bytes).is_ok_and(|(batch, _)| batch.base_sequence() == 0)
    }
}

impl Producer {
    /// One for each partition of the topics that stay.
    pub fn all() -> Vec<Rc<RefCell<Producer>>> {
        let of_topic = |topic: &Fixed| {
            let topic = *topic;
            (0..topic.partitions).map(move |partition| Producer {
                topic: topic.name,
                partition,
                durability: topic.durability,
                id: None,
                sequence_next: 0,
                pending: VecDeque::new(),
            })
        };
        TOPICS.iter().flat_map(of_topic).map(RefCell::new).map(Rc::new).collect()
    }

    fn what(&self) -> String {
        format!("producing to {}-{}", self.topic, self.partition)
    }

    /// Adds a batch to what is to be sent.
    fn prepare(&mut self, clients: &Clients) {
        let id = ProducerId(self.id.expect("ids are asked for first"));
        let numbers = numbers(clients, self.topic, self.partition);
        let count = i32::try_from(numbers.len()).expect("a few records");
        let codec = if clients.one_in(6) { Codec::Lz4 } else { Codec::None };
        let batch = BatchBuilder::new(codec).producer(id, 0, self.sequence_next);
        let bytes = filled(clients, batch, &numbers);
        self.sequence_next += count;
        self.pending.push_back(Batch { numbers, bytes });
    }

    /// What is pending was refused for good: it is not in the log, and this id cannot go on.
    fn begin_anew(&mut self) {
        (self.id, self.sequence_next) = (None, 0);
        self.pending.clear();
    }
}

/// Numbers of one batch's records, noted as sent.
fn numbers(clients: &Clients, topic: &str, partition: i32) -> Vec<u64> {
    let count = clients.between(1, RECORDS_PER_BATCH_MAX);
    let mut model = clients.model.borrow_mut();
    let mut number = |_| {
        let number = model.value_next();
        model.partition(topic, partition).sending(number);
        number
    };
    (0..count).map(&mut number).collect()
}

fn filled(clients: &Clients, mut batch: BatchBuilder, numbers: &[u64]) -> Vec<u8> {
    for number in numbers {
        batch.append(clients.core.wall_ms(), Some(&value::key(*number)), Some(&value::of(*number)), &[]);
    }
    batch.finish()
}

/// Gets this life's batches acknowledged, and first what an earlier life left open.
pub async fn run(clients: Rc<Clients>, producer: Rc<RefCell<Producer>>) {
    let mut connection = Connection::new(&clients);
    let mut done = 0;
    while done < clients.life.batches {
        if producer.borrow().id.is_none() && take_id(&clients, &mut connection, &producer).await.is_err() {
            return;
        }
        let more = clients.between(1, IN_FLIGHT_MAX + 1).min(clients.life.batches - done);
        if producer.borrow().pending.is_empty() {
            (0..more).for_each(|_| producer.borrow_mut().prepare(&clients));
            done += more;
        }
        if settle(&clients, &mut connection, &producer).await.is_err() {
            return;
        }
        if clients.one_in(3) {
            clients.pause(2_000).await;
        }
    }
}

async fn take_id(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    producer: &Rc<RefCell<Producer>>,
) -> Result<(), GiveUp> {
    for _ in 0..TRIES_MAX {
        let client = connection.client().await?;
        match clients.answer("asking for a producer id", ask_id(&client)).await {
            Ok(id) => {
                clients.model.borrow_mut().producer_id(id);
                producer.borrow_mut().id = Some(id);
                return Ok(());
            }
            Err(Failed::NotAnswered) => {}
            Err(Failed::Refused(_)) if clients.life.disk_may_fail() => return Err(GiveUp),
            Err(Failed::Refused(code)) => {
                clients.fail(format!("asking for a producer id is refused: {code}"));
                return Err(GiveUp);
            }
        }
    }
    Err(GiveUp)
}

async fn ask_id(client: &Client) -> Result<i64, Error> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let reply = client.call(&request).await?;
    let response = reply.decode()?;
    match ErrorCode::from_i16(response.error_code) {
        Some(ErrorCode::None) => Ok(response.producer_id),
        Some(code) => Err(Error::Broker(code)),
        None => Err(Error::Unexpected("the answer has an error code that is not known")),
    }
}

/// Sends what is pending, again and again, until all of it is acknowledged.
async fn settle(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    producer: &Rc<RefCell<Producer>>,
) -> Result<(), GiveUp> {
    for _ in 0..TRIES_MAX {
        let client = connection.client().await?;
        let sending = send(clients, &client, &producer.borrow());
        let Some(answers) = sending.await else {
            // Not waited for: the same batches go over a new connection while these are perhaps under way.
            clients.model.borrow_mut().counts.unanswered += 1;
            connection.leave();
            continue;
        };
        take_answers(clients, &mut producer.borrow_mut(), answers)?;
        if producer.borrow().pending.is_empty() {
            return Ok(());
        }
        clients.pause(3_000).await;
    }
    Err(GiveUp)
}

/// All that is pending, in order on one connection. Nothing where this client has no patience.
fn send<'a>(
    clients: &'a Rc<Clients>,
    client: &'a Client,
    producer: &Producer,
) -> impl Future<Output = Option<Vec<Result<Produced, Failed>>>> + use<'a> {
    let what = producer.what();
    let (topic, partition) = (producer.topic, producer.partition);
    let acks = if clients.one_in(2) { -1 } else { 1 };
    let batches: Vec<Slice> = producer.pending.iter().map(|batch| Slice::from(batch.bytes.clone())).collect();
    let patience = clients.one_in(4).then(|| Duration::from_micros(clients.between(1, 1_500)));
    async move {
        let calls =
            batches.into_iter().map(|batch| {
                let what = what.clone();
                async move {
                    clients.answer(&what, client.produce(topic, partition, batch, acks, TIMEOUT_MS)).await
                }
            });
        match patience {
            Some(patience) => before(join_all(calls), clients.core.sleep(patience)).await,
            None => Some(join_all(calls).await),
        }
    }
}

fn take_answers(
    clients: &Clients,
    producer: &mut Producer,
    answers: Vec<Result<Produced, Failed>>,
) -> Result<(), GiveUp> {
    let what = producer.what();
    let mut open = VecDeque::new();
    let batches: Vec<Batch> = producer.pending.drain(..).collect();
    for (batch, answer) in batches.into_iter().zip(answers) {
        match answer {
            Ok(taken) => note(&mut clients.model.borrow_mut(), producer, &batch, taken),
            // One before it was not taken.
            Err(Failed::Refused(ErrorCode::OutOfOrderSequenceNumber)) if !open.is_empty() => {
                open.push_back(batch)
            }
            Err(Failed::Refused(ErrorCode::OutOfOrderSequenceNumber))
                if producer.durability == Durability::Write =>
            {
                // What was lost with the host's power took the sequence with it.
                producer.begin_anew();
                return Ok(());
            }
            // Of a producer that the broker does not know yet it takes any first sequence (KIP-360): this one, the very first,
            // was refused or lost on its way, and the next one was taken in its place.
            Err(Failed::Refused(ErrorCode::OutOfOrderSequenceNumber)) if batch.is_first() => {
                producer.begin_anew();
                return Ok(());
            }
            Err(Failed::Refused(ErrorCode::KafkaStorageError)) | Err(Failed::NotAnswered) => {
                open.push_back(batch)
            }
            Err(Failed::Refused(code)) => {
                clients.fail(format!("{what}: refused: {code}"));
                return Err(GiveUp);
            }
        }
    }
    producer.pending = open;
    Ok(())
}

fn note(model: &mut Model, producer: &Producer, batch: &Batch, taken: Produced) {
    model.counts.acknowledged += 1;
    model.check(producer.topic, producer.partition, |partition| {
        partition.acknowledged(taken.base_offset, &batch.numbers)
    });
}

/// Without a producer id, with acks of 0 or 1: each batch goes out once.
pub async fn plain(clients: Rc<Clients>, acks: i16) {
    let mut connection = Connection::new(&clients);
    for _ in 0..clients.life.batches {
        let topic = clients.random.borrow_mut().pick(&TOPICS).name;
        let Ok(client) = connection.client().await else { return };
        let numbers = numbers(&clients, topic, 0);
        let records = Slice::from(filled(&clients, BatchBuilder::new(Codec::None), &numbers));
        if acks == 0 {
            // Whether it arrived shows when it is read.
            drop(client.post(&without_answer(topic, records), 12).await);
        } else if let Ok(taken) =
            clients.answer("producing once", client.produce(topic, 0, records, acks, TIMEOUT_MS)).await
        {
            let acknowledged = |partition: &mut crate::model::partition::Partition| {
                partition.acknowledged(taken.base_offset, &numbers)
            };
            clients.model.borrow_mut().check(topic, 0, acknowledged);
        }
        clients.pause(2_000).await;
    }
}

fn without_answer(topic: &'static str, records: Slice) -> ProduceRequest<'static> {
    let data = PartitionProduceData { index: 0, records: Records::Slices(vec![records]) };
    let topic = TopicProduceData { name: topic.into(), topic_id: [0; 16], partition_data: vec![data] };
    ProduceRequest { transactional_id: None, acks: 0, timeout_ms: TIMEOUT_MS, topic_data: vec![topic] }
}
