//! Lives of one log on the simulated disk, each ended by a power cut, and what must hold in the next.
//!
//! Checked at every start: what was acknowledged is there and is what it was; (epoch, offset) never names two contents;
//! nothing that an earlier recovery removed comes back.

use super::*;
use crate::folder::Folder;
use crate::journal;
use crate::store::{OpenPartition, Store};
use rt::Class;
use rt::sim::{CrashPlan, Sim, SimConfig, SimDisk, Stopped};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Appends of one life; most lives are cut short.
const APPENDS: u32 = 24;
const WRITERS: u32 = 4;

#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub faults: Faults,
    pub durability: Durability,
    pub plan: CrashPlan,
    /// Acknowledged records must survive the plan under this durability, and so must what a life could read.
    pub keeps: bool,
    /// Some lives are killed instead: what they left unsynced is still so when the power goes in a later one.
    pub kills: bool,
    pub lives: u32,
    pub segment_bytes: u64,
    pub value_bytes: usize,
    /// Each writer's appends at a time.
    pub appends: u32,
    /// Lives truncate their log as well.
    pub truncates: bool,
    /// Lives raise its start, some of them twice at a time.
    pub raises: bool,
    /// How many logs each life has.
    pub logs: i32,
    pub journal: journal::Limits,
}

impl Setup {
    pub(super) fn fsync(plan: CrashPlan) -> Setup {
        Setup {
            faults: Faults::default(),
            durability: Durability::Fsync,
            plan,
            keeps: true,
            kills: true,
            lives: 6,
            segment_bytes: 30_000,
            value_bytes: 700,
            appends: APPENDS,
            truncates: false,
            raises: false,
            logs: 1,
            journal: journal::Limits::default(),
        }
    }

    /// Lives of several logs that share a journal of few entries.
    fn journaled(plan: CrashPlan) -> Setup {
        let journal = journal::Limits { file_bytes: 24 << 10, flushes_min: 1 };
        Setup { logs: 3, journal, appends: 12, value_bytes: 300, segment_bytes: 12_000, ..Setup::fsync(plan) }
    }
}

/// What was promised, over all lives.
#[derive(Default)]
struct Model {
    acked: BTreeMap<i64, (i32, Vec<u8>)>,
    assigned: BTreeMap<(i32, i64), Vec<u8>>,
    /// Per life: its epoch, and where the log ended when it began.
    begun: Vec<(i32, i64)>,
    /// The highest log start that was promised, and the highest that was asked for.
    starts: (i64, i64),
    violation: Option<String>,
}

impl Model {
    fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn assign(&mut self, epoch: i32, offset: i64, value: Vec<u8>) {
        if let Some(before) = self.assigned.insert((epoch, offset), value.clone())
            && before != value
        {
            self.fail(format!("epoch {epoch}, offset {offset} was given twice"));
        }
    }

    fn check(&mut self, epoch: i32, start: i64, end: i64, found: &[(i64, i32, Vec<u8>)], keeps: bool) {
        let (promised, asked) = self.starts;
        if start > asked || (keeps && start < promised) || start > end {
            return self.fail(format!("the log is {start}..{end}, its start {promised} to {asked}"));
        }
        // A host that died under `write` may have taken the end with it; what comes now was never asked to go.
        self.starts = (start, asked.min(end));
        self.acked.retain(|offset, _| *offset >= start);
        for ((offset, batch_epoch, value), at) in found.iter().zip(start..) {
            if *offset != at {
                return self.fail(format!("offset {offset} where {at} belongs"));
            }
            if self.assigned.get(&(*batch_epoch, *offset)) != Some(value) {
                return self.fail(format!("epoch {batch_epoch}, offset {offset} is not what was appended"));
            }
            let revived = self.begun.iter().any(|(later, end)| later > batch_epoch && offset >= end);
            if revived {
                return self.fail(format!("epoch {batch_epoch}, offset {offset} came back"));
            }
        }
        let lost = self.acked.iter().find(|(offset, (epoch, value))| {
            found.get((**offset - start) as usize).is_none_or(|(_, e, v)| (e, v) != (epoch, value))
        });
        match lost {
            Some((offset, _)) if keeps => {
                let offset = *offset;
                self.fail(format!("acknowledged offset {offset} is gone; the log ends at {end}"));
            }
            Some(_) => self.acked.retain(|offset, _| *offset < end),
            None => {}
        }
        if keeps {
            let seen = found.iter().map(|(offset, epoch, value)| (*offset, (*epoch, value.clone())));
            self.acked.extend(seen);
        }
        self.begun.push((epoch, end));
    }
}

fn partition(setup: &Setup, index: i32, epoch: i32) -> OpenPartition {
    OpenPartition {
        id: PartitionId { topic: TopicId([7; 16]), index },
        topic_name: "orders".into(),
        config: LogConfig {
            after_max_ms: i64::MAX,
            segment_bytes: setup.segment_bytes,
            durability: setup.durability,
            ..LogConfig::default()
        },
        epoch: LeaderEpoch(epoch),
    }
}

/// Bytes that no other append has, none of them zero.
fn value(bytes: usize, epoch: i32, writer: u32, n: u32) -> Vec<u8> {
    let mut value = format!("{epoch}/{writer}/{n}").into_bytes();
    value.resize(bytes, b'x');
    value
}

type Models = Vec<Rc<RefCell<Model>>>;

async fn life(core: Core, setup: Setup, epoch: i32, models: Models) {
    let opened = Folder::open(&core, Path::new("/data/broker"), 1).await;
    let (folder, _lock) = match opened {
        Ok(opened) => opened,
        Err(error) => return models[0].borrow_mut().fail(format!("the folder does not open: {error}")),
    };
    let limits = Limits { journal: setup.journal, ..Limits::default() };
    let store = Store::with_faults(&core, Arc::new(folder), limits, setup.faults);
    let logs = models.into_iter().zip(0..).map(|(model, index)| {
        core.spawn(Class::Control, life_of_log(core.clone(), store.clone(), setup, (index, epoch), model))
    });
    for log in logs.collect::<Vec<_>>() {
        log.await.expect("a log's life does not panic");
    }
    if core.random_u64() & 3 == 0 {
        store.close().await.expect("closes");
        store.folder().mark_clean(&core).await.expect("marks");
    }
}

async fn life_of_log(
    core: Core,
    store: Store,
    setup: Setup,
    (index, epoch): (i32, i32),
    model: Rc<RefCell<Model>>,
) {
    let log = match store.open_log(partition(&setup, index, epoch)).await {
        Ok(log) => log,
        Err(error) => return model.borrow_mut().fail(format!("the log does not open: {error}")),
    };
    let found = match try_read_all(&log).await {
        Ok(found) => found,
        Err(why) => return model.borrow_mut().fail(why),
    };
    let (start, end) = (log.log_start_offset().0, log.log_end_offset().0);
    model.borrow_mut().check(log.leader_epoch().0, start, end, &found, setup.keeps);
    let raise = |_| core.spawn(Class::Control, raise(core.clone(), log.clone(), model.clone()));
    let raising: Vec<_> = (0..if setup.raises { 2 } else { 0 }).map(raise).collect();
    append_all(&core, &store, &log, setup, &model).await;
    if setup.truncates {
        let end = log.log_end_offset();
        let to = Offset((core.random_u64() % (end.0.cast_unsigned() + 1)).cast_signed());
        // From here on either is lawful, until the answer.
        model.borrow_mut().acked.retain(|offset, _| *offset < to.0);
        match log.truncate(to, LeaderEpoch(epoch + 1)).await {
            Ok(end) if end == to => model.borrow_mut().begun.push((epoch + 1, to.0)),
            other => return model.borrow_mut().fail(format!("truncating to {to}: {other:?}")),
        }
        append_all(&core, &store, &log, setup, &model).await;
    }
    for task in raising {
        task.await.expect("raising does not panic");
    }
}

async fn append_all(core: &Core, store: &Store, log: &Log, setup: Setup, model: &Rc<RefCell<Model>>) {
    let spawn = |writer| core.spawn(Class::Produce, write(log.clone(), setup, writer, model.clone()));
    let writers: Vec<_> = (0..WRITERS).map(spawn).collect();
    for (at, writer) in writers.into_iter().enumerate() {
        writer.await.expect("a writer does not panic");
        if at == 1 && core.random_u64() & 1 == 0 {
            let _ = store.checkpoint().await;
        }
    }
}

async fn write(log: Log, setup: Setup, writer: u32, model: Rc<RefCell<Model>>) {
    for n in 0..setup.appends {
        let value = value(setup.value_bytes, log.leader_epoch().0, writer, n);
        let appended = match log.append(produced(&value), AppendKind::Client).await {
            Ok(appended) => appended,
            Err(error) => return model.borrow_mut().fail(format!("an append failed: {error:?}")),
        };
        let (epoch, offset) = (log.leader_epoch().0, appended.base_offset.0);
        model.borrow_mut().assign(epoch, offset, value.clone());
        if let Err(Poisoned(why)) = log.committed(appended.last_offset).await {
            return model.borrow_mut().fail(format!("an append was given up: {why}"));
        }
        model.borrow_mut().acked.insert(offset, (epoch, value));
    }
}

/// Raises the log start again and again to somewhere below the high watermark.
async fn raise(core: Core, log: Log, model: Rc<RefCell<Model>>) {
    for _ in 0..6 {
        core.yield_now().await;
        let (start, end) = (log.log_start_offset().0, log.high_watermark().0);
        let to = start + (core.random_u64() % ((end - start).unsigned_abs() + 1)).cast_signed();
        let (_, asked) = model.borrow().starts;
        model.borrow_mut().starts.1 = asked.max(to);
        match log.delete_records(Offset(to)).await {
            Ok(reached) if reached.0 >= to => {
                let mut model = model.borrow_mut();
                model.starts.0 = model.starts.0.max(reached.0);
                model.acked.retain(|offset, _| *offset >= reached.0);
            }
            Ok(reached) => return model.borrow_mut().fail(format!("asked for {to}, raised to {reached}")),
            Err(_) => return,
        }
    }
}

async fn try_read_all(log: &Log) -> Result<Vec<(i64, i32, Vec<u8>)>, String> {
    let mut at = log.log_start_offset();
    while at < log.high_watermark() {
        let out =
            log.read(at, 1 << 20, true, log.high_watermark()).await.map_err(|e| format!("{e:?} at {at}"))?;
        let bytes: Vec<u8> = out.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        if out.next <= at || batch::batches(&bytes).any(|b| !b.is_ok_and(|b| b.crc_is_valid())) {
            return Err(format!("no valid batch at {at}"));
        }
        at = out.next;
    }
    Ok(read_all(log, log.log_start_offset()).await)
}

/// Lives until something breaks. The disk survives each; everything else goes with it.
pub(super) fn lives(seed: u64, setup: Setup) -> Result<(), String> {
    let models: Models = (0..setup.logs).map(|_| Rc::default()).collect();
    let mut disk = SimDisk::new();
    let mut random = seed;
    for number in 0..setup.lives {
        let config = SimConfig { memory_bytes: 16 << 20, ..SimConfig::default() };
        let sim = Sim::with_disk(seed ^ u64::from(number), config, disk.clone());
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        disk.crash_at_op(disk.op_count() + 1 + (random >> 33) % (70 * setup.logs.unsigned_abs() as u64));
        let epoch = number as i32 * 2 + 1;
        let ended = sim.run(|core| life(core, setup, epoch, models.clone()));
        if let Err(stopped) = ended
            && stopped != Stopped::Crashed
        {
            return Err(format!("life {number} ended with {stopped:?}"));
        }
        for (model, log) in models.iter().zip(0..) {
            if let Some(violation) = model.borrow_mut().violation.take() {
                return Err(format!("life {number}, log {log}: {violation}"));
            }
        }
        let killed = setup.kills && random >> 60 & 1 == 1;
        disk = sim.crash(if killed { CrashPlan::KILLED } else { setup.plan });
    }
    Ok(())
}

/// No seed breaks it.
pub(super) fn holds(setup: Setup, seeds: u64) {
    // The nightly script asks for more.
    let asked = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 1..=asked.unwrap_or(seeds) {
        if let Err(why) = lives(seed, setup) {
            panic!("seed {seed}: {why}");
        }
    }
}

/// Some seed shows that this variant is broken.
pub(super) fn is_caught(setup: Setup, seeds: u64) -> String {
    let found = (1..=seeds).find_map(|seed| lives(seed, setup).err());
    found.expect("the suite notices this fault")
}

const PLANS: [CrashPlan; 4] = [
    CrashPlan::STRICT,
    CrashPlan::RANDOM,
    CrashPlan { sector_bytes: 4096, ..CrashPlan::RANDOM },
    CrashPlan::KILLED,
];

#[test]
fn what_fsync_acknowledged_survives_every_power_cut() {
    PLANS.into_iter().for_each(|plan| holds(Setup::fsync(plan), 20));
}

#[test]
fn what_the_journal_acknowledged_survives_every_power_cut() {
    PLANS.into_iter().for_each(|plan| holds(Setup::journaled(plan), 20));
    let truncating = |plan| Setup { truncates: true, appends: 3, lives: 10, ..Setup::journaled(plan) };
    PLANS.into_iter().for_each(|plan| holds(truncating(plan), 10));
    // A process that was killed had taken a segment's name away, and a power cut two lives later brought it back.
    assert_eq!(lives(29, truncating(CrashPlan::STRICT)), Ok(()));
    let raising = |plan| Setup { raises: true, lives: 10, ..Setup::journaled(plan) };
    PLANS.into_iter().for_each(|plan| holds(raising(plan), 10));
    // Files of one entry each: it is the turn of one again while its logs still write behind.
    let tight = |plan| {
        let journal = journal::Limits { file_bytes: 8 << 10, flushes_min: 1 };
        Setup { journal, ..Setup::journaled(plan) }
    };
    PLANS.into_iter().for_each(|plan| holds(tight(plan), 10));
    let none = Faults::default();
    let broken = [
        Setup { faults: Faults { forgotten_journal: true, ..none }, ..Setup::journaled(CrashPlan::STRICT) },
        Setup { faults: Faults { reused_journal: true, ..none }, ..tight(CrashPlan::STRICT) },
        Setup { faults: Faults { skip_flush: true, ..none }, ..Setup::journaled(CrashPlan::STRICT) },
        Setup { faults: Faults { stale_journal: true, ..none }, ..truncating(CrashPlan::STRICT) },
    ];
    for setup in broken {
        is_caught(setup, 300);
    }
}

#[test]
fn hazard_a3_what_write_acknowledged_survives_the_death_of_the_process() {
    let durability = Durability::Write { flush_messages: 10, flush_ms: 0 };
    holds(Setup { durability, ..Setup::fsync(CrashPlan::KILLED) }, 20);
}

#[test]
fn hazard_a1_an_epoch_and_offset_never_name_two_contents() {
    let durability = Durability::Write { flush_messages: 0, flush_ms: 0 };
    let setup = Setup { durability, keeps: false, ..Setup::fsync(CrashPlan::RANDOM) };
    holds(setup, 25);
    let faults = Faults { resume_old_epoch: true, ..Faults::default() };
    let caught = is_caught(Setup { faults, ..setup }, 60);
    assert!(caught.contains("given twice") || caught.contains("not what was appended"), "{caught}");
}

#[test]
fn hazard_a2_what_recovery_removed_never_comes_back() {
    let faults = Faults { no_zeroing: true, ..Faults::default() };
    is_caught(Setup { faults, lives: 12, ..Setup::fsync(CrashPlan::RANDOM) }, 1000);
}

#[test]
fn hazard_a2_a_truncation_is_done_or_done_again_wherever_the_power_goes() {
    let truncating = |plan| Setup { truncates: true, appends: 3, lives: 10, ..Setup::fsync(plan) };
    PLANS.into_iter().for_each(|plan| holds(truncating(plan), 25));
    let faults = Faults { no_intent: true, ..Faults::default() };
    is_caught(Setup { faults, ..truncating(CrashPlan::RANDOM) }, 200);
}

#[test]
fn a_raised_log_start_is_where_it_was_promised_wherever_the_power_goes() {
    let raising = |plan| Setup { raises: true, lives: 10, ..Setup::fsync(plan) };
    PLANS.into_iter().for_each(|plan| holds(raising(plan), 25));
    let durability = Durability::Write { flush_messages: 0, flush_ms: 0 };
    for (plan, keeps) in [(CrashPlan::KILLED, true), (CrashPlan::RANDOM, false)] {
        holds(Setup { durability, keeps, ..raising(plan) }, 25);
    }
    let faults = Faults { skip_flush: true, ..Faults::default() };
    is_caught(Setup { faults, ..raising(CrashPlan::STRICT) }, 40);
}

#[test]
fn hazard_a5_nothing_is_acknowledged_under_a_name_that_may_go() {
    let faults = Faults { skip_dir_sync: true, ..Faults::default() };
    is_caught(Setup { faults, ..Setup::fsync(CrashPlan::STRICT) }, 40);
}

#[test]
fn a_recovery_that_takes_what_it_reads_for_durable_is_caught() {
    let faults = Faults { trusting_reads: true, ..Faults::default() };
    is_caught(Setup { faults, raises: true, lives: 10, ..Setup::fsync(CrashPlan::STRICT) }, 200);
}

#[test]
fn a_log_that_does_not_flush_is_caught() {
    let faults = Faults { skip_flush: true, ..Faults::default() };
    is_caught(Setup { faults, ..Setup::fsync(CrashPlan::STRICT) }, 40);
}

#[test]
fn a_recovery_that_believes_wrong_checksums_is_caught() {
    let faults = Faults { skip_crc: true, ..Faults::default() };
    is_caught(Setup { faults, ..Setup::fsync(CrashPlan::RANDOM) }, 200);
}

#[test]
fn zeros_written_ahead_never_cover_what_was_appended() {
    let setup = |plan| Setup { segment_bytes: 4 << 20, value_bytes: 9_000, ..Setup::fsync(plan) };
    [CrashPlan::STRICT, CrashPlan::RANDOM, CrashPlan::KILLED]
        .into_iter()
        .for_each(|plan| holds(setup(plan), 12));
    let faults = Faults { racing_zeros: true, ..Faults::default() };
    is_caught(Setup { faults, ..setup(CrashPlan::STRICT) }, 200);
}

#[test]
fn a_durability_that_changes_under_a_log_counts_from_then_on() {
    let write = |flush_ms| Durability::Write { flush_messages: 0, flush_ms };
    // What was, what comes, and whether an append after the change must bring what came before it onto the media.
    for (before, after, flushed_by) in [
        (write(0), Durability::Fsync, "an append"),
        (write(86_400_000), write(5), "time"),
        (write(0), write(5), "time"),
    ] {
        let sim = Sim::new(7, SimConfig { memory_bytes: 16 << 20, ..SimConfig::default() });
        let ended = sim.run(move |core| async move {
            let setup =
                Setup { durability: before, segment_bytes: 1 << 20, ..Setup::fsync(CrashPlan::STRICT) };
            let (folder, _lock) = Folder::open(&core, Path::new("/data/broker"), 1).await.expect("opens");
            let store = Store::with_faults(&core, Arc::new(folder), Limits::default(), Faults::default());
            let log = store.open_log(partition(&setup, 0, 1)).await.expect("opens");
            for n in 0..8 {
                let appended = log.append(produced(&value(9_000, 1, 0, n)), AppendKind::Client).await;
                log.committed(appended.expect("appends").last_offset).await.expect("commits");
                if n == 3 {
                    log.set_config(LogConfig { durability: after, ..log.config() });
                }
            }
            if flushed_by == "time" {
                core.sleep(std::time::Duration::from_millis(100)).await;
            }
            std::mem::forget(_lock);
        });
        ended.expect("the life runs to its end");
        let disk = sim.crash(CrashPlan::STRICT);
        let sim = Sim::with_disk(8, SimConfig { memory_bytes: 16 << 20, ..SimConfig::default() }, disk);
        let ended = sim.run(move |core| async move {
            let (folder, _lock) = Folder::open(&core, Path::new("/data/broker"), 1).await.expect("opens");
            let store = Store::with_faults(&core, Arc::new(folder), Limits::default(), Faults::default());
            let setup =
                Setup { durability: after, segment_bytes: 1 << 20, ..Setup::fsync(CrashPlan::STRICT) };
            let log = store.open_log(partition(&setup, 0, 2)).await.expect("opens");
            assert_eq!(log.log_end_offset(), Offset(8), "{before:?} to {after:?}");
        });
        ended.expect("the life runs to its end");
    }
}
