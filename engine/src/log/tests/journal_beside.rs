//! The journal beside everything else that a log does: what a reviewer found by exact interleavings.

use super::journal::{
    DATA, append, copy, files, fill, how, limits, live, live_with, log_dir, mended, values,
};
use super::*;
use crate::journal;
use crate::names;
use rt::sim::{Fault, OpKind, SimDisk};
use std::path::Path;
use std::time::Duration;

fn of_file_bytes(file_bytes: u64) -> Limits {
    Limits { journal: journal::Limits { flushes_min: 1, file_bytes }, ..Limits::default() }
}

/// Begins a new segment as compaction does, with no append behind it.
async fn roll(log: &Log) {
    let plain = log.config();
    let mut overdue = log.config();
    overdue.compacted = true;
    overdue.compaction.max_lag_ms = 0;
    log.set_config(overdue);
    assert!(log.roll_overdue().await.expect("rolls"));
    log.set_config(plain);
}

#[test]
fn a_truncation_waits_for_the_seal_that_writing_behind_begins() {
    for seed in 1..60 {
        live_with(&SimDisk::new(), seed, limits(), Faults::default(), |core, store| async move {
            let log = store.open_log(how(0, 2)).await.expect("opens");
            for _ in 0..20 {
                append(&log, &[1; 100_000]).await;
            }
            fill(&core, &store, &log, 5).await;
            roll(&log).await;
            log.truncate(Offset(3), LeaderEpoch(9)).await.expect("truncates");
            core.sleep(Duration::from_millis(20)).await;
            assert!(!log.shared.state.borrow_mut().active().is_sealed());
            append(&log, b"goes on").await;
        });
    }
}

#[test]
fn what_fsync_acknowledges_behind_a_sync_that_is_under_way_has_everything_before_it() {
    for (seed, yields, flushes_min) in (1..20)
        .flat_map(|seed| (0..4).flat_map(move |yields| [(seed, yields, 1), (seed, yields, usize::MAX)]))
    {
        let journal = journal::Limits { flushes_min, ..journal::Limits::default() };
        let limits = Limits { journal, ..Limits::default() };
        let lived =
            live_with(&SimDisk::new(), seed, limits, Faults::default(), move |core, store| async move {
                let log = store.open_log(how(0, 1)).await.expect("opens");
                for _ in 0..20 {
                    append(&log, b"first").await;
                    core.yield_now().await;
                }
                let fsync = log.config();
                let durability = Durability::Write { flush_messages: 0, flush_ms: 0 };
                log.set_config(LogConfig { durability, ..fsync.clone() });
                for _ in 0..4 {
                    append(&log, &[7; 3000]).await;
                }
                log.set_config(fsync);
                for _ in 0..yields {
                    core.yield_now().await;
                }
                append(&log, b"under fsync").await;
                log.log_end_offset()
            });
        let (end, disk) = lived;
        let (found, _) = live(&disk, |_core, store| async move {
            store.open_log(how(0, 2)).await.map(|log| log.log_end_offset()).map_err(|error| error.to_string())
        });
        assert_eq!(found, Ok(end), "seed {seed}, {yields} yields, journal from {flushes_min}");
    }
}

#[test]
fn a_log_in_the_last_entry_of_a_file_is_asked_to_let_go_of_it() {
    for spacing in 0..10 {
        live_with(
            &SimDisk::new(),
            spacing,
            of_file_bytes(24 << 10),
            Faults::default(),
            move |core, store| async move {
                let busy = store.open_log(how(100, 1)).await.expect("opens");
                fill(&core, &store, &busy, 1).await;
                let mut silent = Vec::new();
                for index in 0..12 {
                    let log = store.open_log(how(index, 1)).await.expect("opens");
                    let clock = core.clone();
                    silent.push(core.spawn(rt::Class::Produce, async move {
                        clock.sleep(Duration::from_micros(index as u64 * spacing)).await;
                        append(&log, &[5; 1500]).await;
                    }));
                }
                for task in silent {
                    task.await.expect("ends");
                }
                for _ in 0..100 {
                    append(&busy, b"goes on").await;
                }
                core.sleep(Duration::from_millis(200)).await;
                let before = store.journal().refused;
                for _ in 0..50 {
                    append(&busy, b"goes on").await;
                    core.sleep(Duration::from_millis(20)).await;
                }
                assert_eq!(store.journal().refused, before, "spacing {spacing}");
            },
        );
    }
}

#[test]
fn a_log_that_failed_leaves_one_of_the_files_to_the_others() {
    let disk = SimDisk::new();
    let failing = disk.clone();
    live_with(&disk, 1, of_file_bytes(24 << 10), Faults::default(), move |core, store| {
        let disk = failing.clone();
        async move {
            let hit = store.open_log(how(0, 1)).await.expect("opens");
            let busy = store.open_log(how(1, 1)).await.expect("opens");
            fill(&core, &store, &hit, 1).await;
            disk.fail_next(OpKind::Write, Fault::Error(5));
            assert!(hit.save().await.is_err());
            for _ in 0..60 {
                append(&busy, &[1; 3000]).await;
                core.sleep(Duration::from_millis(20)).await;
            }
            let counters = store.journal();
            assert!(counters.flushes > counters.refused, "{counters:?}");
        }
    });
}

#[test]
fn rot_in_a_segment_is_healed_by_the_journal_and_takes_nothing_behind_it() {
    let (before, disk) = live(&SimDisk::new(), |core, store| async move {
        let log = store.open_log(how(0, 1)).await.expect("opens");
        fill(&core, &store, &log, 3).await;
        // Larger than what goes to the journal: the segment has everything then.
        for value in 1..7 {
            append(&log, &[value; 20_000]).await;
        }
        assert!(log.shared.state.borrow().behind.is_none());
        values(&log).await
    });
    let segment = log_dir(0).join(names::segment(Offset(0)));
    let whole = disk.contents(&segment).expect("is there");
    let mut at = 0;
    for _ in 0..before.len() - 8 {
        at += batch::total_bytes(&whole[at..]).expect("a batch");
    }
    for is_in_journal in [true, false] {
        let (mut rotten, disk) = (whole.clone(), copy(&disk));
        rotten[at + 65] ^= 4;
        disk.put(&segment, &rotten);
        for path in super::journal::journals(&disk).into_iter().filter(|_| !is_in_journal) {
            disk.put(path, &[0; 8192]);
        }
        let (found, disk) = live(&disk, |_core, store| async move {
            match store.open_log(how(0, 2)).await {
                Ok(log) => Some(values(&log).await),
                Err(_refused) => None,
            }
        });
        assert_eq!(found, is_in_journal.then(|| before.clone()));
        assert!(
            is_in_journal || disk.contents(&segment) == Some(rotten),
            "a log that is refused is left as it is"
        );
    }
}

#[test]
fn a_disk_with_room_for_one_file_is_left_with_none() {
    let disk = SimDisk::new();
    let full = disk.clone();
    live(&disk, move |core, store| {
        let disk = full.clone();
        async move {
            let log = store.open_log(how(0, 1)).await.expect("opens");
            for _ in 0..3 {
                disk.set_free_bytes(300 << 10);
                append(&log, b"value").await;
                core.sleep(Duration::from_secs(605)).await;
                append(&log, b"value").await;
                core.sleep(Duration::from_secs(1)).await;
                assert_eq!(files(&core).await, 0);
            }
        }
    });
}

#[test]
fn a_repair_does_not_bring_back_what_a_compaction_took_away() {
    let keyed = |key: &str, value: &str| {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.append(1000, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        Slice::from(builder.finish())
    };
    let (before, disk) = live(&SimDisk::new(), move |core, store| async move {
        let warm = store.open_log(how(1, 1)).await.expect("opens");
        fill(&core, &store, &warm, 1).await;
        let log = store.open_log(how(0, 1)).await.expect("opens");
        let mut config = LogConfig { compacted: true, deletes: false, ..log.config() };
        config.compaction.min_dirty_ratio = 0.0;
        log.set_config(config);
        for at in 0..60 {
            let one = keyed(&format!("key {}", at % 7), &format!("value {at}"));
            let appended = log.append(one, AppendKind::Client).await.expect("appends");
            log.committed(appended.last_offset).await.expect("commits");
        }
        assert!(log.counters().journaled > 0);
        roll(&log).await;
        let appended = log.append(keyed("key 0", "last"), AppendKind::Client).await.expect("appends");
        log.committed(appended.last_offset).await.expect("commits");
        core.sleep(Duration::from_secs(1)).await;
        log.compact().await.expect("compacts");
        let dir = log.dir().to_path_buf();
        core.unlink(dir.join(names::index(Offset(0)))).await.expect("goes");
        core.sync_dir(dir).await.expect("syncs");
        values(&log).await
    });
    assert!(before.len() < 20, "it was compacted");
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

#[test]
fn a_journal_of_which_nobody_knows_what_it_held_is_kept() {
    let (_, disk) = live(&SimDisk::new(), |core, store| async move {
        let log = store.open_log(how(0, 1)).await.expect("opens");
        fill(&core, &store, &log, 3).await;
    });
    for path in super::journal::journals(&disk) {
        let mut bytes = disk.contents(&path).expect("is there");
        (bytes[20], bytes[4096 + 20]) = (!bytes[20], !bytes[4096 + 20]);
        disk.put(&path, &bytes);
    }
    live(&disk, |core, store| async move {
        assert!(store.folder().notes().iter().any(|note| note.contains("is damaged, and kept")));
        let names = core.list_dir(Path::new(DATA).join("journal")).await.expect("is there");
        assert_eq!(
            names.iter().filter(|entry| entry.name.to_string_lossy().ends_with(".damaged")).count(),
            2
        );
    });
}
