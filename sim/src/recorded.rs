//! The production broker on a real driver, under load, with a record of its file operations; then that record on the
//! simulated disk, cut at any of its events, recovered by the broker and checked against what had been acknowledged by then.
//!
//! It shows without root what a power cut would leave of the operations that the real driver was given: open flags, ranges,
//! sync flags, allocations, names and the order of completion are the recorded ones.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use corelog::settings::Faults;
use corelog::shard::join::join_all;
use engine::batch::Codec;
use engine::batch::build::BatchBuilder;
use engine::journal;
use net::client::{Client, Error, Options};
use rt::record::{Event, Recorder};
use rt::sim::{CrashPlan, replay};
use rt::{Core, Slice};

use crate::lives::{Running, look_at};
use crate::model::Model;
use crate::random::Random;
use crate::value;
use crate::workload::{Fixed, TOPICS, admin};

const CORES: u16 = 2;
const CORE_MEMORY_BYTES: usize = 64 << 20;
/// Producers of each partition, each with one batch in flight.
const PRODUCERS: u64 = 3;
const RECORDS_PER_BATCH_MAX: u64 = 4;
const TIMEOUT_MS: i32 = 30_000;

/// What a run did, and what it told its clients when.
pub struct Recording {
    events: Vec<Event>,
    root: PathBuf,
    topics: Vec<(usize, Fixed)>,
    batches: Vec<Batch>,
}

struct Batch {
    topic: &'static str,
    partition: i32,
    numbers: Vec<u64>,
    /// How much had been recorded when the acknowledgement arrived, and the offset it gave.
    acknowledged: Option<(usize, i64)>,
}

impl Recording {
    pub fn events(&self) -> usize {
        self.events.len()
    }

    pub fn acknowledged(&self) -> usize {
        self.batches.iter().filter(|batch| batch.acknowledged.is_some()).count()
    }

    /// Cuts the power after so many events, and looks at what the broker makes of it.
    ///
    /// # Errors
    /// What had been promised and is not so.
    pub fn check_cut(&self, events: usize, plan: CrashPlan, seed: u64) -> Result<(), String> {
        let disk = replay(&self.events[..events], &self.root, seed);
        disk.crash(seed, plan);
        let model = Rc::new(RefCell::new(self.model_at(events)));
        model.borrow_mut().life_ended(plan != CrashPlan::KILLED);
        look_at(disk, model, CORES, seed).map_err(|why| {
            format!("cut after {events} of {} events, {plan:?}, seed {seed}: {why}", self.events())
        })
    }

    /// What clients had been told by then.
    fn model_at(&self, events: usize) -> Model {
        let mut model = Model::default();
        for (created, topic) in &self.topics {
            model.creating(topic.name, topic.durability, topic.partitions, topic.is_compacted());
            if *created <= events {
                model.is_there(topic.name, None);
            }
        }
        for batch in &self.batches {
            let partition = model.partition(batch.topic, batch.partition);
            batch.numbers.iter().for_each(|number| partition.sending(*number));
            if let Some((at, base)) = batch.acknowledged
                && at <= events
            {
                model.check(batch.topic, batch.partition, |partition| {
                    partition.acknowledged(base, &batch.numbers)
                });
            }
        }
        // Records of later lives are told apart from these.
        let last = self.batches.iter().flat_map(|batch| &batch.numbers).max();
        model.skip_values(last.copied().unwrap_or(0));
        model
    }
}

/// Runs the broker in an empty folder, with so many batches from each producer, and stops it.
///
/// # Errors
/// The broker or its clients could not do it.
pub fn record(root: &Path, batches: u64, seed: u64) -> Result<Recording, String> {
    let recorder = Recorder::new();
    let data = root.join("broker");
    let (tell, told) = mpsc::channel();
    let running = Running::new(
        CORES,
        &data,
        any_port(),
        journal::Limits::default(),
        Faults::default(),
        move |ready| {
            // Nobody listens after the first word.
            let _ = tell.send(ready.address);
        },
    )?;
    let config = rt::Config {
        memory_bytes: CORE_MEMORY_BYTES,
        record: Some(recorder.clone()),
        ..rt::Config::new(usize::from(CORES))
    };
    let broker = running.broker.clone();
    let runtime =
        rt::start(config, move |core| broker.clone().run_core(core)).map_err(|why| why.to_string())?;
    let asked = told.recv().map_err(|_| "the broker ended before it served".to_owned()).and_then(|address| {
        let work = {
            let recorder = recorder.clone();
            move |core| clients(core, address, recorder, batches, seed)
        };
        rt::block_on_one(rt::Config::new(1), work).map_err(|why| why.to_string())?
    });
    running.told_to_stop.store(true, Ordering::Relaxed);
    runtime.join().map_err(|panicked| panicked.to_string())?;
    running.broker.outcome()?;
    let (topics, batches) = asked?;
    Ok(Recording { events: recorder.events(), root: root.to_path_buf(), topics, batches })
}

type Asked = (Vec<(usize, Fixed)>, Vec<Batch>);

async fn clients(
    core: Core,
    address: SocketAddr,
    recorder: Recorder,
    batches: u64,
    seed: u64,
) -> Result<Asked, String> {
    let client = Client::connect(&core, address, Options::default()).await.map_err(|why| why.to_string())?;
    let mut topics = Vec::new();
    for topic in TOPICS {
        admin::ask_create(&client, &topic).await.map_err(|why| why.to_string())?;
        topics.push((recorder.position(), topic));
    }
    let partitions = TOPICS.iter().flat_map(|topic| (0..topic.partitions).map(|index| (topic.name, index)));
    let producers = partitions.flat_map(|(topic, index)| (0..PRODUCERS).map(move |_| (topic, index)));
    let number_next = Rc::new(RefCell::new(0));
    let work = producers.enumerate().map(|(at, (topic, partition))| {
        let random = Random::new(seed ^ ((at as u64) << 32));
        let producer =
            Producer { core: core.clone(), client: client.clone(), recorder: recorder.clone(), random };
        producer.run(topic, partition, batches, number_next.clone())
    });
    let mut all = Vec::new();
    for batches in join_all(work).await {
        all.extend(batches.map_err(|why| why.to_string())?);
    }
    Ok((topics, all))
}

struct Producer {
    core: Core,
    client: Client,
    recorder: Recorder,
    random: Random,
}

impl Producer {
    async fn run(
        mut self,
        topic: &'static str,
        partition: i32,
        count: u64,
        number_next: Rc<RefCell<u64>>,
    ) -> Result<Vec<Batch>, Error> {
        let mut done = Vec::new();
        for _ in 0..count {
            let numbers: Vec<u64> = (0..self.random.between(1, RECORDS_PER_BATCH_MAX))
                .map(|_| {
                    *number_next.borrow_mut() += 1;
                    *number_next.borrow()
                })
                .collect();
            let mut batch = BatchBuilder::new(Codec::None);
            for number in &numbers {
                let (key, value) = (value::key(*number), value::of(*number));
                batch.append(self.core.wall_ms(), Some(&key), Some(&value), &[]);
            }
            let records = Slice::from(batch.finish());
            let taken = self.client.produce(topic, partition, records, -1, TIMEOUT_MS).await?;
            let acknowledged = Some((self.recorder.position(), taken.base_offset));
            done.push(Batch { topic, partition, numbers, acknowledged });
        }
        Ok(done)
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
