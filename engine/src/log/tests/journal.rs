//! The core's journal under logs that share it: what is in it alone is kept by restarts, panics and failures, and read.

use super::*;
use crate::folder::{Folder, FolderError};
use crate::journal;
use crate::names;
use crate::repair;
use crate::store::{OpenPartition, Store};
use rt::sim::{CrashPlan, Fault, OpKind, Sim, SimConfig, SimDisk};
use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};

pub(super) const DATA: &str = "/data/broker";
const EIO: i32 = 5;

/// Used from the first flush on.
pub(super) fn limits() -> Limits {
    Limits { journal: journal::Limits { flushes_min: 1, file_bytes: 256 << 10 }, ..Limits::default() }
}

pub(super) fn how(index: i32, epoch: i32) -> OpenPartition {
    let like = open_log(PathBuf::new(), epoch);
    OpenPartition {
        id: PartitionId { index, ..like.id },
        topic_name: like.topic_name,
        config: like.config,
        epoch: like.epoch,
    }
}

pub(super) fn log_dir(index: i32) -> PathBuf {
    Path::new(DATA).join("logs").join(names::folder("orders", how(index, 1).id))
}

pub(super) fn journals(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with(Path::new(DATA).join("journal"))).collect()
}

/// How many a running broker has.
pub(super) async fn files(core: &Core) -> usize {
    core.list_dir(Path::new(DATA).join("journal")).await.expect("is there").len()
}

/// A life on `disk`; gives what the test says, and what a killed process leaves.
pub(super) fn live<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    test: impl Fn(Core, Store) -> F + 'static,
) -> (T, SimDisk) {
    live_with(disk, 1, limits(), Faults::default(), test)
}

pub(super) fn live_with<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    seed: u64,
    limits: Limits,
    faults: Faults,
    test: impl Fn(Core, Store) -> F + 'static,
) -> (T, SimDisk) {
    let sim =
        Sim::with_disk(seed, SimConfig { memory_bytes: 16 << 20, ..SimConfig::default() }, disk.clone());
    let test = Rc::new(test);
    let ended = sim.run(|core| {
        let test = test.clone();
        async move {
            let (folder, _lock) = Folder::open(&core, Path::new(DATA), 1).await.expect("opens");
            let store = Store::with_faults(&core, folder.into(), limits, faults);
            test(core, store).await
        }
    });
    let said = ended.expect("the test runs to its end").remove(0);
    (said, sim.crash(CrashPlan::STRICT))
}

pub(super) fn copy(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new();
    copy.restore(&disk.snapshot());
    copy
}

pub(super) async fn append(log: &Log, value: &[u8]) {
    let appended = log.append(produced(value), AppendKind::Client).await.expect("appends");
    log.committed(appended.last_offset).await.expect("commits");
}

/// Appends until some went to the journal and no segment has them.
pub(super) async fn fill(core: &Core, store: &Store, log: &Log, count: usize) {
    while store.journal().flushes == 0 {
        append(log, b"first").await;
        core.yield_now().await;
    }
    for at in 0..count {
        append(log, format!("value {at}").as_bytes()).await;
    }
    let state = log.shared.state.borrow();
    assert!(state.behind.is_some() && state.filed_end < state.durable_end, "they are in the journal alone");
}

pub(super) async fn values(log: &Log) -> Vec<Vec<u8>> {
    read_all(log, Offset(0)).await.into_iter().map(|(_, _, value)| value).collect()
}

#[test]
fn what_is_in_the_journal_alone_is_there_after_a_power_cut_and_goes_to_the_segments() {
    let (before, disk) = live(&SimDisk::new(), |core, store| async move {
        let logs = store.open_logs(vec![how(0, 1), how(1, 1)]).await;
        let logs: Vec<Log> = logs.into_iter().map(|log| log.expect("opens")).collect();
        for log in &logs {
            fill(&core, &store, log, 5).await;
        }
        (values(&logs[0]).await, values(&logs[1]).await)
    });
    assert_eq!(journals(&disk).len(), 2);
    // A start that is cut off anywhere is done again.
    for cut in 0.. {
        let disk = copy(&disk);
        disk.crash_at_op(disk.op_count() + cut);
        let sim = Sim::with_disk(cut, SimConfig::default(), disk);
        let ended = sim.run(|core| async move {
            let (folder, _lock) = Folder::open(&core, Path::new(DATA), 1).await.expect("opens");
            let store = Store::with_faults(&core, folder.into(), limits(), Faults::default());
            for log in store.open_logs(vec![how(0, 2), how(1, 2)]).await {
                log.expect("opens");
            }
        });
        let expected = before.clone();
        let (found, _) = live(&sim.crash(CrashPlan::STRICT), |core, store| async move {
            let mut logs = store.open_logs(vec![how(0, 3), how(1, 3)]).await.into_iter();
            let mut next = || logs.next().and_then(Result::ok).expect("opens");
            let (first, second) = (next(), next());
            assert_eq!(files(&core).await, 0, "nobody needs them");
            (values(&first).await, values(&second).await)
        });
        assert_eq!(found, expected, "cut off at operation {cut}");
        if ended.is_ok() {
            return;
        }
    }
}

#[test]
fn a_log_that_panicked_has_it_all_when_it_is_opened_again() {
    let faults = Faults { panic_at: Some((LeaderEpoch(1), Offset(40))), ..Faults::default() };
    let (before, disk) = live_with(&SimDisk::new(), 1, limits(), faults, |core, store| async move {
        let log = store.open_log(how(0, 1)).await.expect("opens");
        while log.log_end_offset() < Offset(40) {
            append(&log, b"value").await;
        }
        assert!(log.shared.state.borrow().behind.is_some());
        let panics = core.spawn(rt::Class::Produce, {
            let log = log.clone();
            async move { log.append(produced(b"panics"), AppendKind::Client).await }
        });
        assert!(panics.await.is_err());
        let again = store.reopen_log(log, how(0, 2)).await.expect("opens again");
        assert_eq!(again.log_end_offset(), Offset(40));
        append(&again, b"later").await;
        values(&again).await
    });
    assert_eq!(before.len(), 41);
    let (found, _) =
        live(
            &disk,
            |_core, store| async move { values(&store.open_log(how(0, 3)).await.expect("opens")).await },
        );
    assert_eq!(found, before);
}

#[test]
fn a_reader_gets_it_from_the_file_when_memory_gave_way() {
    live(&SimDisk::new(), |core, store| async move {
        let log = store.open_log(how(0, 1)).await.expect("opens");
        fill(&core, &store, &log, 5).await;
        let before = values(&log).await;
        log.shared.tail.clear();
        assert!(log.bytes_available(Offset(0), log.high_watermark(), usize::MAX) > 0);
        assert_eq!(values(&log).await, before);
        assert!(log.shared.state.borrow().behind.is_none(), "it is in the segment now");
        assert!(log.counters().reads_from_disk > 0);
        fill(&core, &store, &log, 5).await;
        let newest = log.offset_of_max_timestamp().await.expect("reads").expect("there is one");
        assert_eq!(newest.0, Offset(0), "all have the same time");
        assert!(log.shared.state.borrow().behind.is_none());
    });
}

#[test]
fn a_write_of_the_journal_that_fails_takes_down_who_waited_for_it_and_nobody_else() {
    let disk = SimDisk::new();
    let failing = disk.clone();
    let ((), disk) = live(&disk, move |core, store| {
        let disk = failing.clone();
        async move {
            let (hit, other) = (store.open_log(how(0, 1)).await, store.open_log(how(1, 1)).await);
            let (hit, other) = (hit.expect("opens"), other.expect("opens"));
            fill(&core, &store, &hit, 3).await;
            fill(&core, &store, &other, 3).await;
            disk.fail_next(OpKind::Write, Fault::Error(EIO));
            let appended =
                hit.append(produced(b"lost"), AppendKind::Client).await.expect("is given an offset");
            assert!(hit.committed(appended.last_offset).await.is_err());
            let failure = hit.failure().expect("it failed");
            assert!(!failure.panicked && failure.why.contains("journal"), "{failure:?}");
            let written = store.journal().writes;
            append(&other, b"goes on").await;
            assert_eq!(store.journal().writes, written, "a journal that failed is not used");
            assert!(other.shared.state.borrow().behind.is_none());
        }
    });
    let ((hit, other), _) = live(&disk, |_core, store| async move {
        let mut logs = store.open_logs(vec![how(0, 2), how(1, 2)]).await.into_iter();
        let mut next = || logs.next().and_then(Result::ok).expect("opens");
        let (hit, other) = (next(), next());
        (values(&hit).await, values(&other).await)
    });
    assert_eq!(hit.last().map(Vec::as_slice), Some(&b"value 2"[..]));
    assert_eq!(other.last().map(Vec::as_slice), Some(&b"goes on"[..]));
}

#[test]
fn without_room_for_a_journal_flushes_go_to_segments() {
    let disk = SimDisk::new();
    let full = disk.clone();
    live(&disk, move |core, store| {
        let disk = full.clone();
        async move {
            let log = store.open_log(how(0, 1)).await.expect("opens");
            disk.set_free_bytes(0);
            for _ in 0..20 {
                append(&log, b"value").await;
                core.yield_now().await;
            }
            disk.set_free_bytes(1 << 40);
            append(&log, b"value").await;
            assert_eq!(store.journal(), journal::Counters::default());
            assert_eq!(log.counters().journaled, 0);
            assert_eq!(values(&log).await.len(), 21);
        }
    });
    assert_eq!(journals(&disk), [] as [PathBuf; 0]);
}

#[test]
fn a_partition_that_does_not_open_keeps_its_journal_until_it_does() {
    let (before, disk) = live(&SimDisk::new(), |core, store| async move {
        let log = store.open_log(how(0, 1)).await.expect("opens");
        fill(&core, &store, &log, 4).await;
        let other = store.open_log(how(1, 1)).await.expect("opens");
        fill(&core, &store, &other, 4).await;
        values(&log).await
    });
    let path = log_dir(0).join(names::PARTITION_FILE);
    let whole = disk.contents(&path).expect("is there");
    disk.put(&path, &vec![7; whole.len()]);
    let (refused, disk) = live(&disk, |core, store| async move {
        let other = store.open_log(how(1, 2)).await.expect("opens");
        fill(&core, &store, &other, 4).await;
        store.open_log(how(0, 2)).await.is_err()
    });
    assert!(refused);
    assert_eq!(journals(&disk).len(), 3, "the one that is needed, and two of the life that ended");
    disk.put(&path, &whole);
    let (found, _) = live(&disk, |core, store| async move {
        store.open_log(how(1, 3)).await.expect("opens");
        let log = store.open_log(how(0, 3)).await.expect("opens");
        assert_eq!(files(&core).await, 0);
        values(&log).await
    });
    assert_eq!(found, before);
}

#[test]
fn a_deleted_partition_needs_no_journal() {
    let ((), disk) = live(&SimDisk::new(), |core, store| async move {
        let log = store.open_log(how(0, 1)).await.expect("opens");
        fill(&core, &store, &log, 4).await;
        drop(log);
        store.delete_log(how(0, 1).id, "orders").await.expect("is deleted");
        assert_eq!(store.journal_kept_bytes(), 0);
    });
    assert_eq!(journals(&disk).len(), 2);
    live(&disk, |core, _store| async move { assert_eq!(files(&core).await, 0) });
}

#[test]
fn damage_in_a_journal_is_told_and_never_passed_over() {
    let (before, disk) = live(&SimDisk::new(), |core, store| async move {
        let log = store.open_log(how(0, 1)).await.expect("opens");
        fill(&core, &store, &log, 6).await;
        values(&log).await.len()
    });
    let used = journals(&disk)
        .into_iter()
        .find(|path| disk.contents(path).is_some_and(|bytes| bytes[4096..].iter().any(|byte| *byte != 0)));
    let used = used.expect("one is in use");
    let whole = disk.contents(&used).expect("is there");
    for (byte, is_refused) in [(4096 * 3 + 30, true), (20, false)] {
        let mut bad = whole.clone();
        bad[byte] ^= 4;
        disk.put(&used, &bad);
        let (end, _) = live(&copy(&disk), |_core, store| async move {
            assert!(store.folder().notes().iter().any(|note| note.contains("the journal")));
            store
                .open_log(how(0, 2))
                .await
                .map(|log| log.log_end_offset().0)
                .map_err(|error| error.to_string())
        });
        match end {
            Err(why) => {
                assert!(is_refused && why.contains("the journal has offset"), "{why}");
            }
            // The first entry says what the head said.
            Ok(end) => assert!(!is_refused && end as usize == before),
        }
    }
    let mut newer = whole;
    newer[..4096].copy_from_slice(&{
        let mut head = crate::fields::seal(*b"CLJF", 2, &[1; 16]);
        head.resize(4096, 0);
        head
    });
    disk.put(&used, &newer);
    let sim = Sim::with_disk(9, SimConfig::default(), disk);
    let refused = sim.run(|core| async move { Folder::open(&core, Path::new(DATA), 1).await.err() });
    let refused = refused.expect("runs").remove(0);
    assert!(matches!(refused, Some(FolderError::NewerJournal { version: 2, .. })), "{refused:?}");
}

/// Looks at every partition and mends what is damaged; gives what the journal had.
pub(super) fn mended(disk: &SimDisk) -> (usize, SimDisk) {
    let sim = Sim::with_disk(8, SimConfig::default(), copy(disk));
    let done = sim.run(|core| async move {
        let report =
            repair::inspect(&core, Path::new(DATA), &HashMap::new(), &|_| true).await.expect("looks");
        let mut journaled = 0;
        for one in &report.partitions {
            journaled += one.segments.iter().map(|segment| segment.journaled.len()).sum::<usize>();
            if one.is_damaged() {
                repair::mend(&core, one).await.expect("mends");
            }
        }
        journaled
    });
    (done.expect("runs").remove(0), sim.crash(CrashPlan::STRICT))
}

#[test]
fn a_repair_loses_nothing_that_is_in_the_journal_alone() {
    let (before, disk) = live(&SimDisk::new(), |core, store| async move {
        let log = store.open_log(how(0, 1)).await.expect("opens");
        fill(&core, &store, &log, 6).await;
        values(&log).await
    });
    assert_eq!(mended(&disk).0, 6 + usize::from(before[0] == b"first"), "all are in the journal");
    let path = log_dir(0).join(names::PARTITION_FILE);
    let length = disk.contents(&path).expect("is there").len();
    disk.put(&path, &vec![7; length]);
    let (_, disk) = mended(&disk);
    let (found, _) =
        live(
            &disk,
            |_core, store| async move { values(&store.open_log(how(0, 2)).await.expect("opens")).await },
        );
    assert_eq!(found, before);
}
