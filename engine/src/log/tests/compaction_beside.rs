//! Compaction beside everything else that a log does, and what is left for whom afterwards.

use super::super::compact::PIECE_BYTES;
use super::compaction::{Model, append, batch_number, compact, live, partition, records};
use super::*;
use crate::batch::rewrite::Opened;
use rt::sim::{CrashPlan, Fault, OpKind, Sim, SimConfig, SimDisk};
use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::time::Duration;

const DIR: &str = "/data/log";
const BATCHES: i64 = 40;

fn open_compacted(epoch: i32) -> OpenLog {
    OpenLog { config: partition(epoch).config, ..open_log(DIR.into(), epoch) }
}

async fn filled(core: &Core, model: &Rc<RefCell<Model>>) -> Log {
    let log = Log::open(core, open_compacted(1)).await.expect("opens");
    for n in 0..BATCHES {
        append(&log, n, model).await.expect("appends");
    }
    super::super::seal::settled(&log.shared, Offset(i64::MAX)).await;
    log
}

async fn cleaned_files(core: &Core) -> usize {
    let listed = core.list_dir(DIR).await.expect("lists");
    listed.iter().filter(|entry| entry.name.to_str().is_some_and(crate::names::is_cleaned)).count()
}

/// One life on a fresh disk.
fn sim<T: 'static, F: Future<Output = T> + 'static>(
    seed: u64,
    test: impl Fn(Core, SimDisk, Rc<RefCell<Model>>) -> F,
) -> T {
    let disk = SimDisk::new();
    let config = SimConfig { memory_bytes: 16 << 20, ..SimConfig::default() };
    let sim = Sim::with_disk(seed, config, disk.clone());
    sim.run(|core| test(core, disk.clone(), Rc::default())).expect("the test runs to its end").remove(0)
}

async fn pause(core: &Core) {
    core.sleep(Duration::from_micros(core.random_u64() % 4000)).await;
}

/// Reads it all, again and again, until told to stop.
async fn read_until(log: Log, model: Rc<RefCell<Model>>, stop: Rc<Cell<bool>>) -> u32 {
    let mut rounds = 0;
    while !stop.get() {
        let before = model.borrow().clone();
        let start = log.log_start_offset();
        match records(&log).await {
            // A start that moved meanwhile is another log's.
            Ok(found) if log.log_start_offset() == start => {
                let mut checked = model.borrow().clone();
                checked.newest = before.newest;
                checked.newest.retain(|_, (offset, _)| *offset >= start.0);
                checked.check(log.log_end_offset().0, &found);
                if let Some(violation) = checked.violation {
                    model.borrow_mut().violation.get_or_insert(violation);
                }
            }
            Ok(_) => {}
            Err(why) if why.contains("OutOfRange") => {}
            Err(why) => {
                model.borrow_mut().violation.get_or_insert(why);
            }
        }
        rounds += 1;
        // Time stands still as long as anything can run.
        log.shared.core.sleep(Duration::from_micros(100)).await;
    }
    rounds
}

#[test]
fn appends_reads_retention_and_truncation_go_on_beside_it() {
    let (mut compacted, mut interrupted) = (0, 0);
    for seed in 1..=24 {
        let outcome = sim(seed, |core, _, model| async move {
            let log = filled(&core, &model).await;
            let stop = Rc::new(Cell::new(false));
            let reader = core.spawn(Class::Fetch, read_until(log.clone(), model.clone(), stop.clone()));
            let (beside, run) = (log.clone(), core.clone());
            let compaction = core.spawn(Class::Background, async move {
                pause(&run).await;
                compact(&beside).await
            });
            for n in 0..6 {
                pause(&core).await;
                append(&log, 100 + n, &model).await.expect("appends");
            }
            match core.random_u64() % 3 {
                0 => {
                    let to = Offset((core.random_u64() % 40).cast_signed());
                    model.borrow_mut().newest.retain(|_, (offset, _)| *offset >= to.0);
                    log.delete_records(to).await.expect("moves the start");
                }
                1 => {
                    // The reader would take what goes for lost.
                    stop.set(true);
                    let to = Offset(20 + (core.random_u64() % 60).cast_signed());
                    let end = log.truncate(to, LeaderEpoch(2)).await.expect("truncates");
                    let mut model = model.borrow_mut();
                    model.newest.retain(|_, (offset, _)| *offset < end.0);
                    model.acked_end = end.0;
                }
                _ => {}
            }
            let done = compaction.await.expect("does not panic");
            stop.set(true);
            reader.await.expect("does not panic");
            for n in 0..6 {
                append(&log, 200 + n, &model).await.expect("appends");
            }
            assert_eq!(cleaned_files(&core).await, 0);
            let found = records(&log).await.expect("readable");
            model.borrow_mut().check(log.log_end_offset().0, &found);
            assert_eq!(model.borrow().violation, None, "seed {seed}");
            // The next one is free to go on.
            compact(&log).await.expect("compacts");
            let found = records(&log).await.expect("readable");
            model.borrow_mut().check(log.log_end_offset().0, &found);
            assert_eq!(model.borrow().violation, None, "seed {seed}, again");
            log.close().await.expect("closes");
            drop(log);
            let again = Log::open(&core, open_compacted(3)).await.expect("opens without a checkpoint");
            assert_eq!(records(&again).await.expect("readable"), found);
            done.map(drop)
        });
        match outcome {
            Ok(()) => compacted += 1,
            Err(CompactionError::Interrupted(_)) => interrupted += 1,
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(compacted > 6 && interrupted > 2, "{compacted} done, {interrupted} interrupted");
}

#[test]
fn on_a_full_disk_it_gives_up_and_disturbs_nobody() {
    sim(1, |core, disk, model| async move {
        let log = filled(&core, &model).await;
        let before = records(&log).await.expect("readable");
        disk.set_free_bytes(4096);
        assert!(matches!(compact(&log).await, Err(CompactionError::NoSpace(_))));
        disk.set_free_bytes(1 << 30);
        disk.fail_next(OpKind::Allocate, Fault::Error(28));
        assert!(matches!(compact(&log).await, Err(CompactionError::NoSpace(_))));
        assert_eq!(cleaned_files(&core).await, 0);
        assert!(!log.is_poisoned());
        assert_eq!(records(&log).await.expect("readable"), before);
        append(&log, 500, &model).await.expect("appends");
        assert!(compact(&log).await.expect("there is space again").counts.records_removed > 0);
        let counters = log.counters();
        assert_eq!((counters.compactions, counters.compactions_failed), (1, 2));
    });
}

#[test]
fn damage_ends_it_and_is_not_sealed_anew() {
    sim(1, |core, disk, model| async move {
        let log = filled(&core, &model).await;
        let path = format!("{DIR}/{}", crate::names::segment(Offset(0)));
        disk.flip_bit(&path, 8 * 700);
        let before = disk.contents(&path);
        assert!(matches!(compact(&log).await, Err(CompactionError::Damaged(_))));
        assert_eq!((disk.contents(&path), cleaned_files(&core).await), (before, 0));
        disk.flip_bit(&path, 8 * 700);
        // One that fails after the intent poisons the log, and the next start ends it.
        // Two look for what an earlier one may have left; the third is the rename.
        (0..3).for_each(|_| disk.fail_next(OpKind::Names, Fault::Error(5)));
        assert!(compact(&log).await.is_err());
        assert!(log.is_poisoned());
        log.retire().await;
        let log = Log::open(&core, open_compacted(2)).await.expect("opens");
        let found = records(&log).await.expect("readable");
        model.borrow_mut().check(log.log_end_offset().0, &found);
        assert_eq!(model.borrow().violation, None);
        assert_eq!(cleaned_files(&core).await, 0);
    });
}

#[test]
fn a_table_too_small_for_all_keys_takes_more_runs_and_gives_the_same() {
    let cleaned = |places: usize| {
        sim(1, move |core, _, model| async move {
            let mut how = open_compacted(1);
            how.limits.key_places_max = places;
            let log = Log::open(&core, how).await.expect("opens");
            for n in 0..BATCHES {
                append(&log, n, &model).await.expect("appends");
            }
            let mut runs = 0;
            while log.compaction_plan().is_some() || runs == 0 {
                compact(&log).await.expect("compacts");
                runs += 1;
                assert!(runs < 100, "each run gets further");
            }
            let found = records(&log).await.expect("readable");
            model.borrow_mut().check(log.log_end_offset().0, &found);
            assert_eq!(model.borrow().violation, None);
            let found: Vec<_> = found.into_iter().filter(|one| one.value.is_some()).collect();
            (runs, found)
        })
    };
    let (runs, found) = cleaned(4);
    assert!(runs > 1);
    assert_eq!(cleaned(1 << 10), (1, found));
}

#[test]
fn hazard_a6_retries_are_duplicates_after_a_start_from_what_compaction_left() {
    sim(1, |core, _, _| async move {
        let log = Log::open(&core, open_compacted(1)).await.expect("opens");
        let batch = |sequence: i32| {
            let mut builder = BatchBuilder::new(Codec::None).producer(ProducerId(9), 0, sequence);
            builder.append(1000, Some(b"same key"), Some(&[b'v'; 700]), &[]);
            Slice::from(builder.finish())
        };
        let mut given = Vec::new();
        for sequence in 0..30 {
            let appended = log.append(batch(sequence), AppendKind::Client).await.expect("appends");
            log.committed(appended.last_offset).await.expect("commits");
            given.push(appended.base_offset);
        }
        compact(&log).await.expect("compacts");
        assert!(records(&log).await.expect("readable").len() < 5);
        log.close().await.expect("closes");
        drop(log);
        let log = Log::open(&core, open_compacted(2)).await.expect("opens without a checkpoint");
        for sequence in 25..30 {
            let retried = log.append(batch(sequence), AppendKind::Client).await.expect("known");
            assert!(retried.duplicate);
            assert_eq!(retried.base_offset, given[sequence as usize]);
        }
        assert!(!log.append(batch(30), AppendKind::Client).await.expect("the next").duplicate);
    });
}

#[test]
fn times_and_epochs_are_found_as_if_what_is_left_had_been_all() {
    sim(1, |core, _, model| async move {
        let log = filled(&core, &model).await;
        let (first_epoch, end) = (log.end_offset_for_epoch(LeaderEpoch(1)), log.log_end_offset());
        log.close().await.expect("closes");
        drop(log);
        let log = Log::open(&core, open_compacted(4)).await.expect("opens");
        for n in 0..BATCHES {
            append(&log, 300 + n, &model).await.expect("appends");
        }
        compact(&log).await.expect("compacts");
        log.close().await.expect("closes");
        drop(log);
        // From the batches alone.
        let log = Log::open(&core, open_compacted(5)).await.expect("opens without a checkpoint");
        assert_eq!(log.end_offset_for_epoch(LeaderEpoch(1)), first_epoch);
        assert_eq!(log.epoch_at(Offset(end.0 - 1)), Some(LeaderEpoch(1)));
        assert_eq!(log.epoch_at(end), Some(LeaderEpoch(4)));
        let mut times = BTreeMap::new();
        let out = log.read(Offset(0), 1 << 20, true, log.high_watermark()).await;
        let mut at = Offset(0);
        let mut out = out.expect("readable");
        while out.next > at {
            at = out.next;
            let bytes: Vec<u8> = out.slices.iter().flat_map(|slice| slice.to_vec()).collect();
            for batch in batch::batches(&bytes) {
                let opened = Opened::of(batch.expect("whole"), 1 << 20).expect("sound");
                times.extend(opened.records().map(|(record, _)| (record.offset.0, record.timestamp)));
            }
            out = log.read(at, 1 << 20, true, log.high_watermark()).await.expect("readable");
        }
        assert!(times.len() < 60, "most is gone");
        for time in (990..1400).step_by(7) {
            let expect = times.iter().find(|(_, found)| **found >= time).map(|(at, found)| (*at, *found));
            let found = log.offset_for_timestamp(time).await.expect("looks");
            assert_eq!(found.map(|(at, found, _)| (at.0, found)), expect, "{time}");
        }
        let largest = times.values().max().copied();
        let found = log.offset_of_max_timestamp().await.expect("looks");
        assert_eq!(found.map(|(_, time, _)| time), largest);
    });
}

#[test]
fn what_is_active_is_rolled_when_it_should_have_been_compacted() {
    sim(1, |core, _, _| async move {
        let log = Log::open(&core, open_compacted(1)).await.expect("opens");
        let mut builder = BatchBuilder::new(Codec::None);
        builder.append(core.wall_ms(), Some(b"a"), Some(b"1"), &[]);
        let appended = log.append(Slice::from(builder.finish()), AppendKind::Client).await.expect("appends");
        log.committed(appended.last_offset).await.expect("commits");
        assert!(!log.roll_overdue().await.expect("looks"));
        let mut config = log.config();
        config.compaction.max_lag_ms = 1000;
        log.set_config(config);
        assert!(!log.roll_overdue().await.expect("looks"));
        core.sleep(Duration::from_millis(1001)).await;
        assert!(log.roll_overdue().await.expect("rolls"));
        assert!(!log.roll_overdue().await.expect("looks"), "an empty segment is not rolled");
        super::super::seal::settled(&log.shared, Offset(i64::MAX)).await;
        let plan = log.compaction_plan().expect("there is something");
        assert!(plan.is_overdue && plan.is_due(&log.config().compaction));
    });
}

#[test]
fn a_killed_broker_leaves_nothing_that_is_half_written() {
    let disk = SimDisk::new();
    let model: Rc<RefCell<Model>> = Rc::default();
    let run = |core: Core| {
        let model = model.clone();
        async move {
            let log = filled(&core, &model).await;
            core.create_dir_all(DIR).await.expect("is there");
            let path = format!("{DIR}/{}", crate::names::cleaned(Offset(0)));
            let file = core.open(path, rt::Open::write().create()).await.expect("opens");
            file.allocate(0..4096).await.expect("allocates");
            assert_eq!(cleaned_files(&core).await, 1);
            drop(log);
        }
    };
    live(1, &disk, run).expect("runs");
    disk.crash(1, CrashPlan::KILLED);
    live(2, &disk, |core| async move {
        Log::open(&core, open_compacted(2)).await.expect("opens");
        assert_eq!(cleaned_files(&core).await, 0);
        let (batch, _) = batch_number(1, 2);
        assert!(!batch.is_empty());
    })
    .expect("runs");
}

/// What it does on the core is bounded by bytes: reading, checking, copying and writing a piece; the passes are helpers'.
#[test]
fn between_two_yields_it_passes_on_one_piece_at_most() {
    const SEGMENT_BYTES: u64 = 3 << 17;
    const RECORD_BYTES: i64 = 5_000;
    const RECORDS: i64 = 200;
    sim(1, |core, _, _| async move {
        let mut how = open_compacted(1);
        how.config.segment_bytes = SEGMENT_BYTES;
        let log = Log::open(&core, how).await.expect("opens");
        for n in 0..RECORDS {
            let mut builder = BatchBuilder::new(Codec::None);
            // Every fifth key comes again, so that segments change.
            let key = format!("key-{}", n - n % 5 / 4);
            builder.append(n, Some(key.as_bytes()), Some(&[b'v'; RECORD_BYTES as usize]), &[]);
            let appended = log.append(Slice::from(builder.finish()), AppendKind::Client).await;
            log.committed(appended.expect("appends").last_offset).await.expect("is durable");
        }
        super::super::seal::settled(&log.shared, Offset(i64::MAX)).await;
        let passed = || {
            let counters = log.counters();
            (counters.compaction_bytes_read, counters.compaction_bytes_written)
        };
        let (mut most_read, mut most_written) = (0, 0);
        let mut compacting = pin!(log.compact());
        let done = poll_fn(|context| {
            let before = passed();
            let polled = compacting.as_mut().poll(context);
            most_read = most_read.max(passed().0 - before.0);
            most_written = most_written.max(passed().1 - before.1);
            polled
        });
        let done = done.await.expect("compacts");
        assert!(done.segments_before >= 2 && done.counts.records_removed > 0, "{done:?}");
        let (read, written) = passed();
        let removed = done.counts.records_removed * RECORD_BYTES as u64;
        assert!(read > 20 * PIECE_BYTES as u64 && written <= read / 2 - removed, "{read} {written}");
        // The last batch of a piece passes the bound.
        let most_bytes = PIECE_BYTES as u64 + RECORD_BYTES as u64 + 200;
        assert!((PIECE_BYTES as u64..most_bytes).contains(&most_read), "{most_read}");
        assert!((1..most_bytes).contains(&most_written), "{most_written}");
    });
}
