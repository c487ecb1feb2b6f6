//! Reading: one task for each consumer and leader, one fetch under way, whole batches handed to a visitor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use engine::batch::{Batch, batches};
use net::api::ApiKey;
use net::header::ResponseHeader;
use net::messages::fetch;
use net::wire::{Decode, Reader};
use rt::{Class, Core, Stream};

use crate::cli;
use crate::link::{Error, Link};
use crate::progress::{Pace, Patience, Progress};
use crate::schedule::partitions_of;
use crate::topic::{self, EARLIEST, LATEST, Topic};

const MAX_WAIT_MS: i32 = 500;
/// How long a reader waits for the next batch of what it knows to be there.
pub const READ_PATIENCE: Duration = Duration::from_secs(30);
/// How many partitions a message names.
const NAMED_MAX: usize = 3;
/// A request outside any fetch session.
const NO_SESSION_EPOCH: i32 = -1;

/// Where to begin and whether to go on at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// From the first record to the one that is last at the start.
    WholeLog,
    /// From the end at the start, until stopped.
    Tail,
}

/// One answer's worth for one partition.
pub struct Arrived<'a> {
    pub partition: i32,
    pub batch: Batch<'a>,
    /// Records of the batch below this offset were not asked for.
    pub from: i64,
    pub now: u64,
}

/// Consumers under way.
pub struct Reading {
    core: Core,
    pub counts: Counts,
    stop: Cell<bool>,
    running: Cell<usize>,
    streams: RefCell<Vec<Stream>>,
    topic: String,
    /// What is still to be read of each partition.
    ahead: RefCell<BTreeMap<i32, Position>>,
    /// First offset of each partition when reading began.
    pub log_starts: BTreeMap<i32, i64>,
    pub first_bytes_at: Cell<Option<u64>>,
    pub last_bytes_at: Cell<u64>,
}

#[derive(Default)]
pub struct Counts {
    pub fetches: Cell<u64>,
    pub batches: Cell<u64>,
    pub records: Cell<u64>,
    pub bytes: Cell<u64>,
    pub errors: RefCell<BTreeMap<String, u64>>,
}

/// One consumer's share of one leader's partitions.
struct Lane {
    link: Link,
    positions: BTreeMap<i32, Position>,
}

#[derive(Clone, Copy)]
struct Position {
    next: i64,
    end: i64,
}

impl Reading {
    /// Connects, finds the offsets, and starts. `visit` sees every batch, of each partition in order.
    pub async fn start(
        core: &Core,
        options: &cli::Fetch,
        consumers: u16,
        topic: &Topic,
        extent: Extent,
        visit: impl Fn(Arrived<'_>) + 'static,
    ) -> Result<Rc<Reading>, Error> {
        let shares = (0..consumers).map(|consumer| {
            let by_leader = topic.by_leader().into_values();
            by_leader.flat_map(|partitions| share(&partitions, consumers, consumer)).collect()
        });
        Reading::start_shared(core, options, shares.collect(), topic, extent, visit).await
    }

    /// As `start`, where it is settled already which consumer reads what.
    pub async fn start_shared(
        core: &Core,
        options: &cli::Fetch,
        shares: Vec<Vec<i32>>,
        topic: &Topic,
        extent: Extent,
        visit: impl Fn(Arrived<'_>) + 'static,
    ) -> Result<Rc<Reading>, Error> {
        let mut lanes = Vec::new();
        let mut log_starts = BTreeMap::new();
        for wanted in shares {
            for (leader, partitions) in topic.by_leader() {
                let share: Vec<i32> = partitions.into_iter().filter(|one| wanted.contains(one)).collect();
                if share.is_empty() {
                    continue;
                }
                let lane = Lane::connect(core, leader, &topic.name, &share, extent).await?;
                log_starts
                    .extend(lane.positions.iter().map(|(partition, position)| (*partition, position.next)));
                lanes.push(lane);
            }
        }
        let reading = Rc::new(Reading {
            core: core.clone(),
            counts: Counts::default(),
            stop: Cell::new(false),
            running: Cell::new(lanes.len()),
            streams: RefCell::default(),
            topic: topic.name.clone(),
            ahead: RefCell::new(lanes.iter().flat_map(|lane| lane.positions.clone()).collect()),
            log_starts,
            first_bytes_at: Cell::new(None),
            last_bytes_at: Cell::new(core.now().as_nanos()),
        });
        let visit = Rc::new(visit);
        for lane in lanes {
            let (reading, visit, options) = (reading.clone(), visit.clone(), options.clone());
            let topic = topic.name.clone();
            core.spawn(Class::Fetch, async move {
                if let Err(error) = lane.read(&reading, &options, &topic, &*visit).await
                    && !reading.stop.get()
                {
                    reading.error(format!("fetching: {error}"));
                }
                reading.running.set(reading.running.get() - 1);
            });
        }
        Ok(reading)
    }

    pub fn is_over(&self) -> bool {
        self.running.get() == 0
    }

    /// Which partitions have not been read to their end yet, in words.
    pub fn waits_for(&self) -> String {
        let ahead = self.ahead.borrow();
        let mut behind = ahead.iter().filter(|(_, position)| position.next < position.end);
        let named: Vec<String> = behind
            .by_ref()
            .take(NAMED_MAX)
            .map(|(partition, Position { next, end })| {
                format!(
                    "{}-{partition}, which gave no error and nothing at offset {next} of {end}",
                    self.topic
                )
            })
            .collect();
        match behind.count() {
            0 => named.join("; "),
            more => format!("{}; and {more} more", named.join("; ")),
        }
    }

    /// Says what is waited for when nothing comes, and gives up at the end of the patience.
    pub fn look(&self, patience: &mut Patience, progress: &Progress, now: u64) -> Result<(), Error> {
        match patience.look(now, self.counts.batches.get()) {
            Pace::Moving => Ok(()),
            Pace::Silent => {
                progress.say(&format!("nothing comes; waiting for {}", self.waits_for()));
                Ok(())
            }
            Pace::Over => {
                progress.end();
                let waited = READ_PATIENCE.as_secs();
                Err(Error::Protocol(format!("nothing came for {waited} s: {}", self.waits_for())))
            }
        }
    }

    pub fn stop(&self) {
        self.stop.set(true);
        self.streams.borrow().iter().for_each(Stream::shutdown);
    }

    fn error(&self, what: String) {
        *self.counts.errors.borrow_mut().entry(what).or_default() += 1;
    }

    fn arrived(&self, batch: &Batch<'_>, from: i64, now: u64) {
        if self.first_bytes_at.get().is_none() {
            self.first_bytes_at.set(Some(now));
        }
        self.last_bytes_at.set(now);
        let skipped = (from - batch.base_offset().0).max(0);
        let records = (i64::from(batch.record_count()) - skipped).max(0) as u64;
        self.counts.batches.set(self.counts.batches.get() + 1);
        self.counts.records.set(self.counts.records.get() + records);
        self.counts.bytes.set(self.counts.bytes.get() + batch.length_bytes() as u64);
    }
}

/// Unlike producers, consumers without a partition of their own have nothing to do.
fn share(partitions: &[i32], consumers: u16, consumer: u16) -> Vec<i32> {
    if usize::from(consumer) >= partitions.len() {
        return Vec::new();
    }
    let consumers = usize::from(consumers).min(partitions.len());
    partitions_of(partitions, consumers, usize::from(consumer))
}

impl Lane {
    async fn connect(
        core: &Core,
        leader: SocketAddr,
        topic: &str,
        partitions: &[i32],
        extent: Extent,
    ) -> Result<Lane, Error> {
        let mut link = Link::connect(core, leader).await?;
        let ends = topic::offsets(&mut link, topic, partitions, LATEST).await?;
        let starts = match extent {
            Extent::WholeLog => topic::offsets(&mut link, topic, partitions, EARLIEST).await?,
            Extent::Tail => ends.clone(),
        };
        let mut positions = BTreeMap::new();
        for partition in partitions {
            let (Some(start), Some(end)) = (starts.get(partition), ends.get(partition)) else {
                return Err(Error::Protocol(format!(
                    "the broker left out the offsets of partition {partition}"
                )));
            };
            let end = if extent == Extent::Tail { i64::MAX } else { *end };
            positions.insert(*partition, Position { next: *start, end });
        }
        Ok(Lane { link, positions })
    }

    async fn read(
        self,
        reading: &Reading,
        options: &cli::Fetch,
        topic: &str,
        visit: &impl Fn(Arrived<'_>),
    ) -> Result<(), Error> {
        let Lane { link, mut positions } = self;
        let version = link.version::<fetch::Api>()?;
        let (sender, mut frames, stream) = link.split();
        reading.streams.borrow_mut().push(stream);
        loop {
            positions.retain(|_, position| position.next < position.end);
            if positions.is_empty() || reading.stop.get() {
                return Ok(());
            }
            sender.send(&request(topic, &positions, options), version).await?;
            let frame = frames.next().await?;
            reading.counts.fetches.set(reading.counts.fetches.get() + 1);
            let mut reader = Reader::new(frame);
            ResponseHeader::decode(&mut reader, ApiKey::Fetch, version)?;
            let body = fetch::FetchResponse::decode(&mut reader, version)?;
            if body.error_code != 0 {
                return Err(Error::Protocol(topic::describe_code(body.error_code)));
            }
            for data in body.responses.iter().flat_map(|topic| &topic.partitions) {
                if let Some(position) = positions.get_mut(&data.partition_index) {
                    take(reading, data, position, visit)?;
                }
            }
        }
    }
}

/// Visits the batches of one partition's answer and moves its position.
fn take(
    reading: &Reading,
    data: &fetch::PartitionData<'_>,
    position: &mut Position,
    visit: &impl Fn(Arrived<'_>),
) -> Result<(), Error> {
    let partition = data.partition_index;
    if data.error_code != 0 {
        let why = topic::describe_code(data.error_code);
        return Err(Error::Protocol(format!("{}-{partition}: {why}", reading.topic)));
    }
    let now = reading.core.now().as_nanos();
    for bytes in data.records.chunks() {
        for batch in batches(bytes) {
            // The last batch of an answer may be cut short; it comes again.
            let Ok(batch) = batch else { break };
            if batch.last_offset().0 < position.next {
                continue;
            }
            reading.arrived(&batch, position.next, now);
            let (from, next) = (position.next, batch.next_offset().0);
            visit(Arrived { partition, batch, from, now });
            position.next = next;
        }
    }
    reading.ahead.borrow_mut().insert(partition, *position);
    Ok(())
}

fn request<'a>(
    topic: &'a str,
    positions: &BTreeMap<i32, Position>,
    options: &cli::Fetch,
) -> fetch::FetchRequest<'a> {
    let partitions = positions
        .iter()
        .map(|(partition, position)| fetch::FetchPartition {
            partition: *partition,
            fetch_offset: position.next,
            partition_max_bytes: i32::try_from(options.partition_fetch_bytes).unwrap_or(i32::MAX),
            ..Default::default()
        })
        .collect();
    fetch::FetchRequest {
        max_wait_ms: MAX_WAIT_MS,
        min_bytes: 1,
        max_bytes: i32::try_from(options.fetch_bytes).unwrap_or(i32::MAX),
        session_epoch: NO_SESSION_EPOCH,
        topics: vec![fetch::FetchTopic { topic: topic.into(), partitions, ..Default::default() }],
        ..Default::default()
    }
}
