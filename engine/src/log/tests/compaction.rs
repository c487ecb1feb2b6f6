//! Compaction on the simulated disk: what stays, whatever moment the power goes, and what goes on meanwhile.
//!
//! Checked after every start: the batches follow each other; each record is what was appended at its offset, once; the
//! newest acknowledged record of each key is there, or a newer one, or nothing of the key if it was deleted; the log did
//! not get shorter.

use super::*;
use crate::batch::rewrite::Opened;
use crate::folder::Folder;
use crate::repair;
use crate::store::{OpenPartition, Store};
use rt::sim::{CrashPlan, Sim, SimConfig, SimDisk, Stopped};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

const KEYS: i64 = 6;
const BASE_BATCHES: i64 = 36;
/// How many batches a life appends, between its compactions and while one runs.
const MORE_BATCHES: i64 = 14;
/// A tombstone goes in the second compaction.
const DELETE_RETENTION_MS: i64 = 0;

type Value = Option<Vec<u8>>;

/// A record: where it lies, in which epoch it was written, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: i64,
    pub(super) epoch: i32,
    pub(super) key: Vec<u8>,
    pub(super) value: Value,
}

#[derive(Clone, Default)]
pub(super) struct Model {
    appended: BTreeMap<(i32, i64), (Vec<u8>, Value)>,
    /// Of each key the newest that was acknowledged.
    pub(super) newest: BTreeMap<Vec<u8>, (i64, Value)>,
    pub(super) acked_end: i64,
    pub(super) violation: Option<String>,
}

impl Model {
    fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn check(&mut self, end: i64, found: &[Found]) {
        if end < self.acked_end {
            self.fail(format!("the log ends at {end}, {} were acknowledged", self.acked_end));
        }
        let mut last = BTreeMap::new();
        for (at, one) in found.iter().enumerate() {
            if at > 0 && found[at - 1].offset >= one.offset {
                return self.fail(format!("offset {} lies behind {}", one.offset, found[at - 1].offset));
            }
            let appended = self.appended.get(&(one.epoch, one.offset));
            if appended != Some(&(one.key.clone(), one.value.clone())) {
                return self.fail(format!("{one:?} was not appended"));
            }
            last.insert(one.key.clone(), one.offset);
        }
        for (key, (offset, value)) in self.newest.clone() {
            let is_there = match last.get(&key) {
                Some(last) => *last >= offset,
                None => value.is_none(),
            };
            if !is_there {
                let key = String::from_utf8_lossy(&key).into_owned();
                self.fail(format!(
                    "the newest record of {key}, at {offset}, is gone: {:?}",
                    last.get(key.as_bytes())
                ));
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Setup {
    faults: Faults,
    plan: CrashPlan,
    /// The life's log is checkpointed before its segments are rewritten, and not after.
    checkpoints: bool,
}

pub(super) fn partition(epoch: i32) -> OpenPartition {
    OpenPartition {
        id: PartitionId { topic: TopicId([7; 16]), index: 0 },
        topic_name: "changelog".into(),
        config: LogConfig {
            after_max_ms: i64::MAX,
            segment_bytes: 2_000,
            compacted: true,
            deletes: false,
            delete_retention_ms: DELETE_RETENTION_MS,
            ..LogConfig::default()
        },
        epoch: LeaderEpoch(epoch),
    }
}

async fn open(core: &Core, epoch: i32, faults: Faults) -> Result<(Store, Log), String> {
    let opened = Folder::open(core, Path::new("/data/broker"), 1).await;
    let (folder, _lock) = opened.map_err(|error| format!("the folder does not open: {error}"))?;
    let store = Store::with_faults(core, Arc::new(folder), Limits::default(), faults);
    let opened = store.open_log(partition(epoch)).await;
    opened.map(|log| (store, log)).map_err(|error| format!("the log does not open: {error}"))
}

/// One batch: two records of a key each, some of them tombstones, some batches packed, some of a producer.
pub(super) fn batch_number(n: i64, epoch: i32) -> (Slice, [(Vec<u8>, Value); 2]) {
    let codec = if n % 5 == 0 { Codec::Zstd } else { Codec::None };
    let mut builder = BatchBuilder::new(codec);
    let record = |k: i64| {
        let value = (k % 7 != 3).then(|| format!("{epoch}/{k}").repeat(20).into_bytes());
        (format!("key-{}", k * k % KEYS).into_bytes(), value)
    };
    let records = [record(n), record(n + 1)];
    for (key, value) in &records {
        builder.append(1000 + n, Some(key), value.as_deref(), &[]);
    }
    (Slice::from(builder.finish()), records)
}

pub(super) async fn append(log: &Log, n: i64, model: &Rc<RefCell<Model>>) -> Result<(), AppendError> {
    let epoch = log.leader_epoch().0;
    let (batch, records) = batch_number(n, epoch);
    let appended = log.append(batch, AppendKind::Client).await?;
    for (at, record) in records.iter().enumerate() {
        let offset = appended.base_offset.0 + at as i64;
        model.borrow_mut().appended.insert((epoch, offset), record.clone());
    }
    log.committed(appended.last_offset).await?;
    let mut model = model.borrow_mut();
    for (at, (key, value)) in records.into_iter().enumerate() {
        model.newest.insert(key, (appended.base_offset.0 + at as i64, value));
    }
    model.acked_end = appended.last_offset.0 + 1;
    Ok(())
}

/// Everything from the log start on; each batch must begin where the one before it ended.
pub(super) async fn records(log: &Log) -> Result<Vec<Found>, String> {
    let start = log.log_start_offset();
    let (mut found, mut at) = (Vec::new(), start);
    while at < log.high_watermark() {
        let read = log.read(at, 700, true, log.high_watermark()).await;
        let out = read.map_err(|error| format!("reading at {at}: {error:?}"))?;
        let bytes: Vec<u8> = out.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        for batch in batch::batches(&bytes) {
            let batch = batch.map_err(|error| error.to_string())?;
            // The log may start inside a batch.
            let continues = batch.base_offset() == at || (at == start && batch.base_offset() < at);
            if !continues || !batch.crc_is_valid() {
                return Err(format!("no valid batch at {at} but one at {}", batch.base_offset()));
            }
            at = batch.next_offset();
            let opened = Opened::of(batch, 1 << 20).map_err(|unsound| format!("{unsound:?} before {at}"))?;
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let served = opened.records().filter(|(record, _)| record.offset >= start);
            found.extend(served.map(|(record, _)| Found {
                offset: record.offset.0,
                epoch: batch.leader_epoch().0,
                key: owned(record.key).unwrap_or_default(),
                value: owned(record.value),
            }));
        }
        if at != out.next {
            return Err(format!("the read up to {} ends at {at}", out.next));
        }
    }
    Ok(found)
}

pub(super) async fn compact(log: &Log) -> Result<Compacted, CompactionError> {
    super::super::seal::settled(&log.shared, Offset(i64::MAX)).await;
    log.compact().await
}

/// A log of many segments, of which the first life's checkpoint knows an early one.
async fn fill(core: Core, model: Rc<RefCell<Model>>) {
    let (store, log) = open(&core, 1, Faults::default()).await.expect("opens");
    for n in 0..BASE_BATCHES {
        append(&log, n, &model).await.expect("appends");
        if n == BASE_BATCHES / 4 {
            store.checkpoint().await.expect("writes");
        }
    }
    super::super::seal::settled(&log.shared, Offset(i64::MAX)).await;
}

/// The life that is cut: compacts, appends while it does, and compacts again.
async fn life(core: Core, setup: Setup, model: Rc<RefCell<Model>>) {
    let (store, log) = match open(&core, 2, setup.faults).await {
        Ok(opened) => opened,
        Err(why) => return model.borrow_mut().fail(why),
    };
    if setup.checkpoints {
        store.checkpoint().await.expect("writes");
    }
    let writer = {
        let (log, model) = (log.clone(), model.clone());
        core.spawn(Class::Produce, async move {
            for n in 0..MORE_BATCHES {
                append(&log, 100 + n, &model).await.expect("appends");
            }
        })
    };
    let done = compact(&log).await.expect("compacts");
    assert!(done.counts.records_removed > 0, "{done:?}");
    writer.await.expect("does not panic");
    for n in 0..MORE_BATCHES {
        append(&log, 150 + n, &model).await.expect("appends");
    }
    // What the first left is little enough to become one.
    let done = compact(&log).await.expect("compacts");
    assert!(done.segments_before > done.segments_after, "{done:?}");
    check(&log, &model).await;
}

async fn check(log: &Log, model: &Rc<RefCell<Model>>) {
    match records(log).await {
        Ok(found) => model.borrow_mut().check(log.log_end_offset().0, &found),
        Err(why) => model.borrow_mut().fail(why),
    }
}

/// The life after: everything is there, and what was left undone is done.
async fn after(core: Core, setup: Setup, model: Rc<RefCell<Model>>) {
    // Who looks before the start does sees no damage either.
    let looked = repair::inspect(&core, Path::new("/data/broker"), &HashMap::new(), &|_| true).await;
    for partition in looked.expect("readable").partitions.iter().filter(|one| one.is_damaged()) {
        let damaged = partition.segments.iter().flat_map(|segment| &segment.examined.damaged);
        let damaged: Vec<_> = damaged.collect();
        model.borrow_mut().fail(format!(
            "{} is damaged: {:?} {damaged:?}",
            partition.dir.display(),
            partition.faults
        ));
    }
    let (_store, log) = match open(&core, 3, setup.faults).await {
        Ok(opened) => opened,
        Err(why) => return model.borrow_mut().fail(why),
    };
    check(&log, &model).await;
    for n in 0..MORE_BATCHES {
        append(&log, 200 + n, &model).await.expect("appends");
    }
    let clean_to = compact(&log).await.expect("compacts").clean_to;
    check(&log, &model).await;
    let mut seen = BTreeMap::new();
    for one in records(&log).await.expect("readable").into_iter().filter(|one| one.offset < clean_to.0) {
        if let Some(before) = seen.insert(one.key.clone(), one.offset) {
            model.borrow_mut().fail(format!("{one:?} is there although clean, as is one at {before}"));
        }
    }
}

pub(super) fn live<F: Future<Output = ()> + 'static>(
    seed: u64,
    disk: &SimDisk,
    run: impl Fn(Core) -> F,
) -> Result<bool, String> {
    let config = SimConfig { memory_bytes: 16 << 20, ..SimConfig::default() };
    match Sim::with_disk(seed, config, disk.clone()).run(run) {
        Ok(_) => Ok(true),
        Err(Stopped::Crashed) => Ok(false),
        Err(other) => Err(format!("{other:?}")),
    }
}

/// Cuts the life at each of its operations; the first thing that is wrong.
fn cut_everywhere(setup: Setup) -> Result<(), String> {
    let base = Rc::new(RefCell::new(Model::default()));
    let disk = SimDisk::new();
    live(1, &disk, |core| fill(core, base.clone()))?;
    disk.kill(1);
    let (whole, mut cut) = (disk.snapshot(), 0);
    loop {
        cut += 1;
        let model = Rc::new(RefCell::new(base.borrow().clone()));
        let disk = SimDisk::new();
        disk.restore(&whole);
        disk.crash_at_op(disk.op_count() + cut);
        let ran_out = live(cut, &disk, |core| life(core, setup, model.clone()))?;
        disk.crash(cut, setup.plan);
        live(cut, &disk, |core| after(core, setup, model.clone()))?;
        if let Some(violation) = model.borrow_mut().violation.take() {
            return Err(format!("cut at operation {cut}: {violation}"));
        }
        if ran_out {
            return Ok(());
        }
    }
}

const PLANS: [CrashPlan; 3] = [CrashPlan::STRICT, CrashPlan::RANDOM, CrashPlan::KILLED];

fn sound() -> Setup {
    Setup { faults: Faults::default(), plan: CrashPlan::STRICT, checkpoints: true }
}

/// Some cut under some plan shows that this variant is broken.
fn is_caught(faults: Faults, checkpoints: bool) -> String {
    let caught = |plan| cut_everywhere(Setup { faults, plan, checkpoints }).err();
    PLANS.into_iter().find_map(caught).expect("the suite notices this fault")
}

#[test]
fn a_compaction_cut_anywhere_keeps_the_newest_record_of_every_key() {
    for (plan, checkpoints) in PLANS.into_iter().zip([true, false, true]) {
        let setup = Setup { plan, checkpoints, ..sound() };
        if let Err(why) = cut_everywhere(setup) {
            panic!("{plan:?}, checkpoints {checkpoints}: {why}");
        }
    }
}

#[test]
fn a_swap_that_is_not_flushed_first_is_caught() {
    is_caught(Faults { unsynced_swap: true, ..Faults::default() }, true);
}

#[test]
fn a_swap_without_an_intent_is_caught() {
    is_caught(Faults { no_swap_intent: true, ..Faults::default() }, true);
}

#[test]
fn a_start_that_believes_a_checkpoint_of_a_rewritten_segment_is_caught() {
    let why = is_caught(Faults { stale_checkpoints: true, ..Faults::default() }, false);
    assert!(why.contains("does not open"), "{why}");
}
