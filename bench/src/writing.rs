//! Writing under load: one sender and one receiver for each connection, a bounded number of requests between them.
//!
//! A request carries one batch of one partition; partitions take turns. In the closed loop batches are full and leave as
//! fast as answers come back. In the open loop a batch is a run of consecutive ticks of the schedule, so the due time of each of
//! its records is known without keeping a list, and a late answer counts from then.
//!
//! Nothing is retried: a batch that was refused or lost with its connection is counted, and its sequences stay missing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use net::api::ApiKey;
use net::error_code::ErrorCode;
use net::header::ResponseHeader;
use net::messages::produce;
use net::wire::{Decode, Reader, Records};
use rt::sync::Event;
use rt::{Class, Core, Instant, Slice, Stream};

use crate::batches::{Contents, Maker, Producer};
use crate::cli::{Acks, Load};
use crate::histogram::Latencies;
use crate::ledger::{self, Acked};
use crate::link::{Error, Frames, Link, Sender};
use crate::payload;
use crate::schedule::{Plan, Schedule, Window, partitions_of, share_of};
use crate::topic::{self, Topic};

const REQUEST_TIMEOUT_MS: i32 = 30_000;
/// How long unanswered requests are waited for at the end.
const DRAIN_WAIT: Duration = Duration::from_secs(30);
/// How long a run goes on without any answer while some are due: Kafka's `delivery.timeout.ms`.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// How many partitions a message names.
const NAMED_MAX: usize = 3;
const DRAIN_POLL: Duration = Duration::from_millis(20);
const NANOS_PER_MS: f64 = 1e6;

/// What a run is to do.
#[derive(Clone)]
pub struct Plans {
    pub run: u32,
    pub load: Load,
    pub rate: Option<u64>,
}

/// Counted while a run goes on. Only the window is measured; `total_*` are from start to end.
#[derive(Default)]
pub struct Counts {
    pub total_sent: Cell<u64>,
    pub total_acked: Cell<u64>,
    pub total_failed: Cell<u64>,
    /// Of the batches acknowledged.
    pub total_bytes: Cell<u64>,
    pub acked_in_window: Cell<u64>,
    pub batches_in_window: Cell<u64>,
    pub bytes_in_window: Cell<u64>,
    pub last_ack: Cell<u64>,
    pub latencies: RefCell<Latencies>,
    /// Since the progress line was last written.
    pub latencies_lately: RefCell<Latencies>,
    pub errors: RefCell<BTreeMap<String, u64>>,
}

impl Counts {
    pub fn error(&self, what: String) {
        *self.errors.borrow_mut().entry(what).or_default() += 1;
    }
}

/// One run under way.
pub struct Run {
    core: Core,
    plans: Plans,
    topic: String,
    start: u64,
    pub window: Window,
    pub counts: Counts,
    ledger: RefCell<Option<ledger::Writer>>,
    maker: RefCell<Maker>,
    batch_records: u64,
    pipes: RefCell<Vec<Rc<Pipe>>>,
    running: Cell<usize>,
    /// Why no batch of this run can ever be taken.
    hopeless: RefCell<Option<String>>,
}

/// Between the sender and the receiver of one connection.
struct Pipe {
    stream: Stream,
    unanswered: RefCell<VecDeque<Sent>>,
    changed: Event,
    broken: Cell<bool>,
    sending_ended: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Sent {
    correlation: i32,
    partition: i32,
    first_sequence: u64,
    count: u64,
    first_tick: u64,
    bytes: u64,
    at: u64,
}

/// One producer's share on one leader.
struct Lane {
    run: Rc<Run>,
    pipe: Rc<Pipe>,
    writer: u16,
    partitions: Vec<i32>,
    schedule: Option<Schedule>,
    records: u64,
    producer: Option<Producer>,
}

impl Run {
    /// Connects everything, then starts the clock.
    pub async fn start(
        core: &Core,
        plans: Plans,
        topic: &Topic,
        ledger: Option<ledger::Writer>,
    ) -> Result<Rc<Run>, Error> {
        let lanes = connect(core, &plans, topic).await?;
        let maker = Maker::new(plans.run, plans.load.record_size, plans.load.compression);
        let batch_records = maker.records_per_batch(plans.load.batch_bytes);
        let start = core.now().as_nanos();
        let measured_from = start + nanos(plans.load.warmup());
        let end = match plans.load.records {
            Some(_) => u64::MAX,
            None => measured_from + nanos(plans.load.duration()),
        };
        let run = Rc::new(Run {
            core: core.clone(),
            topic: topic.name.clone(),
            start,
            window: Window(measured_from..end),
            counts: Counts::default(),
            ledger: RefCell::new(ledger),
            maker: RefCell::new(maker),
            batch_records,
            pipes: RefCell::default(),
            running: Cell::new(0),
            hopeless: RefCell::new(None),
            plans,
        });
        run.counts.last_ack.set(start);
        let total = run.total_records();
        let count = lanes.len() as u64;
        for (index, place) in (0..).zip(lanes) {
            let version = place.link.version::<produce::Api>()?;
            let schedule = run.plans.rate.map(|rate| Schedule::new(rate, count, index, start, total));
            let records = share_of(total, count, index);
            run.clone().spawn(place, schedule, records, version);
        }
        Ok(run)
    }

    /// All records to send: as given, or as many as the rate makes in the time; without either there is no end but time.
    fn total_records(&self) -> u64 {
        let load = &self.plans.load;
        let seconds = (load.warmup() + load.duration()).as_secs_f64();
        match (load.records, self.plans.rate) {
            (Some(records), _) => records,
            (None, Some(rate)) => (rate as f64 * seconds).round() as u64,
            (None, None) => u64::MAX,
        }
    }

    fn spawn(self: Rc<Run>, place: Place, schedule: Option<Schedule>, records: u64, version: i16) {
        let Place { link, writer, partitions, producer } = place;
        let (sender, frames, stream) = link.split();
        let pipe = Rc::new(Pipe {
            stream,
            unanswered: RefCell::default(),
            changed: Event::new(),
            broken: Cell::new(false),
            sending_ended: Cell::new(false),
        });
        self.pipes.borrow_mut().push(pipe.clone());
        let lane =
            Lane { run: self.clone(), pipe: pipe.clone(), writer, partitions, schedule, records, producer };
        self.running.set(self.running.get() + 1);
        let run = self.clone();
        self.core.spawn(Class::Produce, async move {
            if let Err(error) = lane.send_all(&sender, version).await {
                lane.run.counts.error(format!("sending: {error}"));
                lane.pipe.broken.set(true);
                lane.pipe.stream.shutdown();
            }
            lane.pipe.sending_ended.set(true);
            lane.run.running.set(lane.run.running.get() - 1);
        });
        self.core.spawn(Class::Produce, async move {
            if let Err(error) = run.receive_all(&pipe, writer, schedule, version, frames).await {
                if !pipe.sending_ended.get() || !pipe.unanswered.borrow().is_empty() {
                    run.counts.error(format!("receiving: {error}"));
                }
                pipe.broken.set(true);
                pipe.changed.notify_all();
            }
        });
    }

    /// Waits until everything was sent and answered, or given up.
    pub async fn finish(&self) {
        let mut give_up_at = None;
        while !self.is_over() {
            if self.running.get() == 0 {
                let deadline = *give_up_at.get_or_insert(self.core.now() + DRAIN_WAIT);
                if self.core.now() >= deadline {
                    let waited = DRAIN_WAIT.as_secs();
                    self.counts.error(format!("no answer within {waited} s: {}", self.waits_for()));
                    break;
                }
            }
            self.core.sleep(DRAIN_POLL).await;
        }
        for pipe in self.pipes.borrow_mut().drain(..) {
            let lost: u64 = pipe.unanswered.borrow_mut().drain(..).map(|sent| sent.count).sum();
            self.counts.total_failed.set(self.counts.total_failed.get() + lost);
            pipe.stream.shutdown();
        }
        if let Some(ledger) = self.ledger.borrow_mut().take()
            && let Err(error) = ledger.end()
        {
            self.counts.error(format!("the ledger: {error}"));
        }
    }

    pub fn is_over(&self) -> bool {
        let idle = |pipe: &Rc<Pipe>| pipe.broken.get() || pipe.unanswered.borrow().is_empty();
        self.running.get() == 0 && self.pipes.borrow().iter().all(idle)
    }

    pub fn has_sent_all(&self) -> bool {
        self.running.get() == 0
    }

    /// Ends the run where it is: what is unanswered is lost.
    pub fn give_up(&self) {
        for pipe in self.pipes.borrow().iter() {
            pipe.broken.set(true);
            pipe.stream.shutdown();
            pipe.changed.notify_all();
        }
    }

    /// Answers so far, of either kind, in records.
    pub fn answered(&self) -> u64 {
        self.counts.total_acked.get() + self.counts.total_failed.get()
    }

    /// Why the run cannot succeed, if that is known.
    pub fn hopeless(&self) -> Option<String> {
        self.hopeless.borrow().clone()
    }

    /// Which partitions' answers are outstanding, in words.
    pub fn waits_for(&self) -> String {
        let mut partitions = BTreeSet::new();
        for pipe in self.pipes.borrow().iter() {
            partitions.extend(pipe.unanswered.borrow().iter().map(|sent| sent.partition));
        }
        let named = partitions.iter().take(NAMED_MAX).map(|index| format!("{}-{index}", self.topic));
        let named = named.collect::<Vec<_>>().join(", ");
        match partitions.len().saturating_sub(NAMED_MAX) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }

    pub fn start_ns(&self) -> u64 {
        self.start
    }

    pub fn in_flight(&self) -> u64 {
        self.counts.total_sent.get() - self.counts.total_acked.get() - self.counts.total_failed.get()
    }

    /// Hands the ledger so far to the system.
    pub fn flush_ledger(&self) {
        if let Some(ledger) = self.ledger.borrow_mut().as_mut()
            && let Err(error) = ledger.flush()
        {
            self.counts.error(format!("the ledger: {error}"));
        }
    }

    async fn receive_all(
        &self,
        pipe: &Pipe,
        writer: u16,
        schedule: Option<Schedule>,
        version: i16,
        mut frames: Frames,
    ) -> Result<(), Error> {
        loop {
            let frame = frames.next().await?;
            let now = self.core.now().as_nanos();
            let sent = pipe.unanswered.borrow_mut().pop_front();
            let sent = sent.ok_or_else(|| Error::Protocol("an answer to no request".to_owned()))?;
            pipe.changed.notify_all();
            match read_answer(frame, version, &sent, &self.topic)? {
                Answered::Stored { base_offset } => {
                    self.acked(&sent, schedule, now);
                    self.note_in_ledger(&sent, writer, base_offset);
                }
                Answered::Refused { code, why } => {
                    self.counts.total_failed.set(self.counts.total_failed.get() + sent.count);
                    if is_too_large(code) && self.counts.total_acked.get() == 0 {
                        let (bytes, size) = (sent.bytes, self.plans.load.record_size);
                        self.hopeless.replace(Some(format!(
                            "{why}: a batch of {bytes} bytes, with records of {size}, is more than the topic takes; \
                             lower --record-size or --batch-bytes, or raise max.message.bytes (for a new topic, \
                             --topic-config max.message.bytes={bytes})"
                        )));
                    }
                    self.counts.error(why);
                }
            }
        }
    }

    fn acked(&self, sent: &Sent, schedule: Option<Schedule>, now: u64) {
        let counts = &self.counts;
        counts.total_acked.set(counts.total_acked.get() + sent.count);
        counts.total_bytes.set(counts.total_bytes.get() + sent.bytes);
        counts.last_ack.set(now);
        if self.window.contains(now) {
            counts.acked_in_window.set(counts.acked_in_window.get() + sent.count);
            counts.batches_in_window.set(counts.batches_in_window.get() + 1);
            counts.bytes_in_window.set(counts.bytes_in_window.get() + sent.bytes);
        }
        let (mut all, mut lately) = (counts.latencies.borrow_mut(), counts.latencies_lately.borrow_mut());
        match schedule {
            // The records that were due within the window count, however late their answer is.
            Some(schedule) => {
                for tick in sent.first_tick..sent.first_tick + sent.count {
                    let due = schedule.due_at(tick);
                    let latency = now.saturating_sub(due);
                    lately.record(latency);
                    if self.window.contains(due) {
                        all.record(latency);
                    }
                }
            }
            None => {
                let latency = now.saturating_sub(sent.at);
                lately.record_many(latency, sent.count);
                if self.window.contains(now) {
                    all.record_many(latency, sent.count);
                }
            }
        }
    }

    fn note_in_ledger(&self, sent: &Sent, writer: u16, base_offset: i64) {
        let mut ledger = self.ledger.borrow_mut();
        let Some(ledger) = ledger.as_mut() else { return };
        let count = u32::try_from(sent.count).expect("a batch has fewer records");
        let acked = Acked {
            partition: sent.partition,
            writer,
            first_sequence: sent.first_sequence,
            count,
            base_offset,
        };
        if let Err(error) = ledger.acked(acked) {
            self.counts.error(format!("the ledger: {error}"));
        }
    }
}

impl Lane {
    async fn send_all(&self, sender: &Sender, version: i16) -> Result<(), Error> {
        let run = &*self.run;
        let room = usize::from(run.plans.load.in_flight);
        let linger = (run.plans.load.linger_ms * NANOS_PER_MS) as u64;
        let mut sequences = vec![0u64; self.partitions.len()];
        let (mut turn, mut next) = (0, 0);
        loop {
            self.wait_for_room(room).await;
            if self.pipe.broken.get() {
                return Ok(());
            }
            let now = run.core.now().as_nanos();
            match self.plan(next, now, linger) {
                Plan::Done => return Ok(()),
                Plan::Wait { until } => run.core.sleep_until(Instant::from_nanos(until)).await,
                Plan::Send { first, count } => {
                    let sequence = &mut sequences[turn];
                    let batch = self.batch(self.partitions[turn], *sequence, first, count, now);
                    let sent = Sent {
                        correlation: 0,
                        partition: self.partitions[turn],
                        first_sequence: *sequence,
                        count,
                        first_tick: first,
                        bytes: batch.len() as u64,
                        at: now,
                    };
                    *sequence += count;
                    turn = (turn + 1) % self.partitions.len();
                    next = first + count;
                    self.send(sender, version, sent, batch).await?;
                }
            }
        }
    }

    fn plan(&self, next: u64, now: u64, linger: u64) -> Plan {
        let batch_records = self.run.batch_records;
        match &self.schedule {
            Some(schedule) => schedule.plan(next, now, linger, batch_records),
            None if next >= self.records || now >= self.run.window.0.end => Plan::Done,
            None => Plan::Send { first: next, count: batch_records.min(self.records - next) },
        }
    }

    async fn wait_for_room(&self, room: usize) {
        loop {
            let changed = self.pipe.changed.listen();
            if self.pipe.broken.get() || self.pipe.unanswered.borrow().len() < room {
                return;
            }
            changed.await;
        }
    }

    fn batch(&self, partition: i32, first_sequence: u64, first_tick: u64, count: u64, now: u64) -> Vec<u8> {
        let due = |index| self.schedule.map_or(now, |schedule| schedule.due_at(first_tick + index));
        self.run.maker.borrow_mut().make(&Contents {
            stream: payload::Stream { run: self.run.plans.run, partition, writer: self.writer },
            first_sequence,
            count,
            now_ms: self.run.core.wall_ms(),
            due,
            producer: self.producer,
        })
    }

    async fn send(&self, sender: &Sender, version: i16, mut sent: Sent, batch: Vec<u8>) -> Result<(), Error> {
        let run = &*self.run;
        let acks = run.plans.load.acks;
        let (correlation, data) =
            sender.encode(&request(&run.topic, sent.partition, acks, batch), version)?;
        sent.correlation = correlation;
        run.counts.total_sent.set(run.counts.total_sent.get() + sent.count);
        if acks != Acks::None {
            self.pipe.unanswered.borrow_mut().push_back(sent);
        }
        sender.send_encoded(data).await?;
        if acks == Acks::None {
            run.acked(&sent, self.schedule, run.core.now().as_nanos());
            // A full socket makes the send wait; an empty one must not keep the other tasks waiting.
            run.core.yield_now().await;
        }
        Ok(())
    }
}

/// One producer's connection to one leader, and its partitions there.
struct Place {
    link: Link,
    writer: u16,
    partitions: Vec<i32>,
    producer: Option<Producer>,
}

/// Every producer's connection to every leader it needs.
async fn connect(core: &Core, plans: &Plans, topic: &Topic) -> Result<Vec<Place>, Error> {
    let mut lanes = Vec::new();
    for writer in 0..plans.load.connections {
        for (leader, partitions) in shares(topic, plans.load.connections, writer) {
            let mut link = Link::connect(core, leader).await?;
            let producer = match plans.load.idempotent {
                true => Some(topic::producer_id(&mut link).await?),
                false => None,
            };
            lanes.push(Place { link, writer, partitions, producer });
        }
    }
    Ok(lanes)
}

fn shares(topic: &Topic, connections: u16, connection: u16) -> Vec<(SocketAddr, Vec<i32>)> {
    let share = |(leader, partitions): (SocketAddr, Vec<i32>)| {
        (leader, partitions_of(&partitions, usize::from(connections), usize::from(connection)))
    };
    topic.by_leader().into_iter().map(share).collect()
}

fn request(topic: &str, partition: i32, acks: Acks, batch: Vec<u8>) -> produce::ProduceRequest<'_> {
    let records = Records::Slices(vec![Slice::from(batch)]);
    let partition = produce::PartitionProduceData { index: partition, records };
    let topic = produce::TopicProduceData {
        name: topic.into(),
        partition_data: vec![partition],
        ..Default::default()
    };
    produce::ProduceRequest {
        transactional_id: None,
        acks: acks.on_wire(),
        timeout_ms: REQUEST_TIMEOUT_MS,
        topic_data: vec![topic],
    }
}

enum Answered {
    Stored { base_offset: i64 },
    Refused { code: i16, why: String },
}

fn is_too_large(code: i16) -> bool {
    matches!(ErrorCode::from_i16(code), Some(ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge))
}

fn read_answer(frame: &[u8], version: i16, sent: &Sent, topic: &str) -> Result<Answered, Error> {
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::decode(&mut reader, ApiKey::Produce, version)?;
    if header.correlation_id != sent.correlation {
        return Err(Error::Protocol("an answer out of order".to_owned()));
    }
    let body = produce::ProduceResponse::decode(&mut reader, version)?;
    let answered = body.responses.first().and_then(|topic| topic.partition_responses.first());
    let partition = answered.ok_or_else(|| Error::Protocol("an answer without the partition".to_owned()))?;
    if partition.error_code != 0 {
        let code = partition.error_code;
        let said = partition.error_message.as_deref().map(|said| format!(" ({said})")).unwrap_or_default();
        let why = format!("{topic}-{}: {}{said}", sent.partition, topic::describe_code(code));
        return Ok(Answered::Refused { code, why });
    }
    Ok(Answered::Stored { base_offset: partition.base_offset })
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
