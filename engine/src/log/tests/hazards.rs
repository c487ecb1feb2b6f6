//! One test for each hazard that a power cut alone does not show.

use super::*;
use rt::sim::{CrashPlan, Fault, OpKind, Sim, SimConfig, SimDisk};
use std::future::Future;

const DIR: &str = "/data/log";
const EIO: i32 = 5;

fn sim_on<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    test: impl Fn(Core, SimDisk) -> F,
) -> T {
    let sim = Sim::with_disk(1, SimConfig::default(), disk.clone());
    sim.run(|core| test(core, disk.clone())).expect("the test runs to its end").remove(0)
}

/// `count` batches, each in a flush of its own, all acknowledged; then the power goes.
fn acknowledged(count: i64) -> SimDisk {
    let sim = Sim::new(1, SimConfig::default());
    let written = sim.run(|core| async move {
        let log = Log::open(&core, open_log(DIR.into(), 1)).await.expect("opens");
        for n in 0..count {
            log.append(produced(&[b'x'; 900]), AppendKind::Client).await.expect("appends");
            log.committed(Offset(n)).await.expect("commits");
        }
    });
    written.expect("runs");
    sim.crash(CrashPlan::STRICT)
}

fn concat(slices: &[Slice]) -> Vec<u8> {
    slices.iter().flat_map(|slice| slice.to_vec()).collect()
}

fn segment_path() -> String {
    format!("{DIR}/{}", crate::names::segment(Offset(0)))
}

#[test]
fn hazard_a4_damage_in_the_middle_is_refused_and_never_cut() {
    let length = produced(&[b'x'; 900]).len() as u64;
    // Base offset, length, epoch, magic, CRC, attributes and a record of batch 4 of 20, and of the last one.
    for batch in [3, 19] {
        for byte in [7, 11, 15, 16, 20, 30, 400] {
            let disk = acknowledged(20);
            disk.flip_bit(segment_path(), (batch * length + byte) * 8 + 1);
            let before = disk.contents(segment_path());
            let refused = sim_on(&disk, |core, _| async move {
                Log::open(&core, open_log(DIR.into(), 2)).await.err().map(|error| error.to_string())
            });
            let refused = refused.unwrap_or_else(|| panic!("batch {batch}, byte {byte} went unnoticed"));
            assert!(refused.contains(&format!("at byte {}", batch * length)), "{refused}");
            assert_eq!(disk.contents(segment_path()), before, "nothing is changed");
        }
    }
    let disk = acknowledged(20);
    disk.flip_bit(segment_path(), (3 * length + 15) * 8);
    let end = sim_on(&disk, |core, _| async move {
        let how =
            OpenLog { faults: Faults { cut_damage: true, ..Faults::default() }, ..open_log(DIR.into(), 2) };
        Log::open(&core, how).await.expect("the broken variant cuts").log_end_offset()
    });
    assert_eq!(end, Offset(3), "which loses sixteen acknowledged batches");
}

#[test]
fn hazard_a4_a_sealed_segment_of_an_older_epoch_whose_index_is_lost_is_read_again_and_never_cut() {
    let life = |disk: &SimDisk, epoch: i32, checkpoint: Option<crate::checkpoint::Saved>, batches: i64| {
        sim_on(disk, move |core, _| {
            let mut how = OpenLog { checkpoint: checkpoint.clone(), ..open_log(DIR.into(), epoch) };
            how.config.segment_bytes = 5_000;
            async move {
                let log = Log::open(&core, how).await.map_err(|error| error.to_string())?;
                let before = read_all(&log, Offset::ZERO).await.len();
                for _ in 0..batches {
                    let appended =
                        log.append(produced(&[b'x'; 900]), AppendKind::Client).await.expect("appends");
                    log.committed(appended.last_offset).await.expect("commits");
                }
                core.sleep(std::time::Duration::from_secs(1)).await;
                Ok::<_, String>((before, log.close().await.expect("closes")))
            }
        })
    };
    let index = format!("{DIR}/{}", crate::names::index(Offset::ZERO));
    let lived = || {
        let disk = SimDisk::new();
        let (_, saved) = life(&disk, 1, None, 12).expect("opens");
        let (_, saved) = life(&disk, 2, Some(saved), 12).expect("opens");
        disk.flip_bit(&index, 300);
        (disk, saved)
    };
    let (disk, saved) = lived();
    for epoch in [3, 4] {
        let (found, _) = life(&disk, epoch, Some(saved.clone()), 0).expect("the index is made anew");
        assert_eq!(found, 24, "in epoch {epoch}");
    }
    let (disk, saved) = lived();
    disk.flip_bit(segment_path(), 1_000 * 8);
    let before = disk.contents(segment_path());
    let refused = life(&disk, 3, Some(saved), 0).expect_err("damage is refused");
    assert!(refused.contains("its batches end at offset"), "{refused}");
    assert_eq!(disk.contents(segment_path()), before, "nothing is changed");
}

#[test]
fn hazard_a4_cold_reads_of_sealed_segments_check_what_the_batch_crc_does_not_cover() {
    let sim = Sim::new(1, SimConfig::default());
    let disk = sim.disk();
    let read = sim.run(|core| {
        let disk = disk.clone();
        async move {
            let mut how = open_log(DIR.into(), 1);
            how.config.segment_bytes = 10_000;
            how.tails = Tails::new(0);
            let log = Log::open(&core, how).await.expect("opens");
            for _ in 0..30 {
                log.append(produced(&[b'x'; 900]), AppendKind::Client).await.expect("appends");
            }
            log.committed(Offset(29)).await.expect("commits");
            core.sleep(std::time::Duration::from_secs(1)).await;
            // The epoch of the first batch.
            disk.flip_bit(segment_path(), 15 * 8);
            log.read(Offset(0), 1000, true, Offset(30)).await
        }
    });
    let read = read.expect("runs").remove(0);
    assert!(matches!(read, Err(ReadError::Storage(ref why)) if why.contains("checksum")), "{read:?}");
}

#[test]
fn hazard_a6_a_duplicate_waits_for_its_original() {
    let answered_early = |faults: Faults| {
        let disk = SimDisk::new();
        sim_on(&disk, move |core, _| async move {
            let log = Log::open(&core, OpenLog { faults, ..open_log(DIR.into(), 1) }).await.expect("opens");
            log.append(sequenced(9, 0, b"a"), AppendKind::Client).await.expect("appends");
            let retry = log.append(sequenced(9, 0, b"a"), AppendKind::Client).await.expect("is known");
            assert!(retry.duplicate);
            log.committed(retry.last_offset).await.expect("commits");
            log.durable_end() == Offset(0)
        })
    };
    assert!(!answered_early(Faults::default()));
    assert!(answered_early(Faults { hasty_duplicates: true, ..Faults::default() }));
}

#[test]
fn hazard_a6_a_failed_append_leaves_no_sequence_behind() {
    let disk = SimDisk::new();
    sim_on(&disk, |core, disk| async move {
        let log = Log::open(&core, open_log(DIR.into(), 1)).await.expect("opens");
        disk.fail_next(OpKind::Write, Fault::Error(EIO));
        let appended = log.append(sequenced(9, 0, b"a"), AppendKind::Client).await.expect("is assigned");
        assert!(log.committed(appended.last_offset).await.is_err());
        assert!(log.is_poisoned());
        let again = log.append(sequenced(9, 0, b"a"), AppendKind::Client).await;
        assert!(matches!(again, Err(AppendError::Storage(_))), "a poisoned log answers no duplicate");
        let log = Log::open(&core, open_log(DIR.into(), 2)).await.expect("opens from disk in a new epoch");
        let retry = log.append(sequenced(9, 0, b"a"), AppendKind::Client).await.expect("appends");
        assert!(!retry.duplicate);
        log.committed(retry.last_offset).await.expect("commits");
    });
}

#[test]
fn hazard_a13_headers_that_lie_are_refused() {
    let disk = SimDisk::new();
    sim_on(&disk, |core, _| async move {
        let log = Log::open(&core, open_log(DIR.into(), 1)).await.expect("opens");
        let lies: [(usize, &[u8]); 4] = [
            (57, &1000i32.to_be_bytes()), // the count, against a last offset delta of 0
            (23, &(-1i32).to_be_bytes()), // the last offset delta
            (21, &0x20i16.to_be_bytes()), // the control bit
            (21, &0x10i16.to_be_bytes()), // the transactional bit
        ];
        for (at, field) in lies {
            let mut bytes = produced(b"x").to_vec();
            bytes[at..at + field.len()].copy_from_slice(field);
            batch::reseal(&mut bytes);
            let refused = log.append(Slice::from(bytes), AppendKind::Client).await;
            assert!(matches!(refused, Err(AppendError::InvalidRecord { .. })), "field at {at}: {refused:?}");
        }
        log.set_config(LogConfig { compacted: true, ..log.config() });
        match log.append(produced(b"no key"), AppendKind::Client).await {
            Err(AppendError::InvalidRecord { record_errors, .. }) => assert_eq!(record_errors[0].0, 0),
            other => panic!("{other:?}"),
        }
        assert_eq!(log.log_end_offset(), Offset(0));
    });
}

#[test]
fn hazard_a14_a_full_disk_assigns_nothing_and_heals_without_a_restart() {
    let disk = SimDisk::new();
    sim_on(&disk, |core, disk| async move {
        let log = Log::open(&core, open_log(DIR.into(), 1)).await.expect("opens");
        disk.set_free_bytes(0);
        let value = vec![b'x'; 60_000];
        let full = loop {
            let end = log.log_end_offset();
            if let Err(error) = log.append(produced(&value), AppendKind::Client).await {
                assert_eq!(log.log_end_offset(), end);
                break error;
            }
        };
        assert!(matches!(full, AppendError::NoSpace(_)), "{full:?}");
        assert!(!log.is_poisoned());
        disk.set_free_bytes(1 << 30);
        let appended = log.append(produced(&value), AppendKind::Client).await.expect("appends again");
        log.committed(appended.last_offset).await.expect("commits");
        let found = read_all(&log, Offset(0)).await;
        assert_eq!(found.len() as i64, appended.last_offset.0 + 1);
    });
}

#[test]
fn hazard_a15_the_tail_block_is_copied_not_written_to() {
    let disk = SimDisk::new();
    sim_on(&disk, |core, _| async move {
        let log = Log::open(&core, open_log(DIR.into(), 1)).await.expect("opens");
        log.append(produced(&[b'a'; 900]), AppendKind::Client).await.expect("appends");
        core.yield_now().await;
        core.yield_now().await;
        let in_flight = log.read(Offset(0), 1 << 20, true, Offset(1)).await.expect("reads");
        let before = concat(&in_flight.slices);
        for _ in 0..3 {
            log.append(produced(&[b'b'; 900]), AppendKind::Client).await.expect("appends");
        }
        log.committed(Offset(3)).await.expect("commits");
        assert_eq!(concat(&in_flight.slices), before);
        let counters = log.counters();
        assert!(counters.flushes >= 2, "{counters:?}");
        assert!(counters.tail_bytes_copied >= before.len() as u64);
        assert!(counters.tail_bytes_copied < counters.flushes * 2 * 4096);
        assert_eq!(counters.bytes_copied, counters.bytes, "one copy of each batch");
    });
}

#[test]
fn hazard_a14_a_panic_in_an_append_is_recovered_from_disk_in_a_new_epoch() {
    let disk = SimDisk::new();
    sim_on(&disk, |core, _| async move {
        let faults = Faults { panic_at: Some((LeaderEpoch(1), Offset(2))), ..Faults::default() };
        let (folder, _lock) = crate::folder::Folder::open(&core, DIR.as_ref(), 0).await.expect("opens");
        let store = crate::store::Store::with_faults(&core, folder.into(), Limits::default(), faults);
        let how = |epoch| crate::store::OpenPartition {
            id: open_log(DIR.into(), epoch).id,
            topic_name: "orders".into(),
            config: open_log(DIR.into(), epoch).config,
            epoch: LeaderEpoch(epoch),
        };
        let log = store.open_log(how(1)).await.expect("opens");
        for n in 0..2 {
            log.append(sequenced(9, n, b"kept"), AppendKind::Client).await.expect("appends");
            log.committed(Offset(i64::from(n))).await.expect("commits");
        }
        let waiting = core.spawn(rt::Class::Produce, {
            let log = log.clone();
            async move { log.committed(Offset(2)).await }
        });
        let panicked = core.spawn(rt::Class::Produce, {
            let log = log.clone();
            async move { log.append(sequenced(9, 2, b"panics"), AppendKind::Client).await }
        });
        assert!(panicked.await.is_err());
        assert!(waiting.await.expect("no panic of its own").is_err(), "who waits hears of it");
        assert!(log.failure().is_some_and(|failure| failure.panicked));
        assert!(log.append(sequenced(9, 2, b"late"), AppendKind::Client).await.is_err());

        let again = store.reopen_log(log, how(2)).await.expect("opens again");
        assert_eq!(again.log_end_offset(), Offset(2), "what was acknowledged is there");
        let appended = again.append(sequenced(9, 2, b"again"), AppendKind::Client).await.expect("appends");
        assert_eq!((appended.base_offset, appended.duplicate), (Offset(2), false));
        again.committed(Offset(2)).await.expect("commits");
        assert_eq!(again.epoch_at(Offset(1)), Some(LeaderEpoch(1)));
        assert_eq!(again.epoch_at(Offset(2)), Some(LeaderEpoch(2)));
    });
}

#[test]
fn hazard_a4_damage_stays_known_however_often_others_are_checkpointed() {
    let mut disk = SimDisk::new();
    let how = |index, epoch| crate::store::OpenPartition {
        id: PartitionId { index, ..open_log(DIR.into(), epoch).id },
        topic_name: "orders".into(),
        config: open_log(DIR.into(), epoch).config,
        epoch: LeaderEpoch(epoch),
    };
    let sim = Sim::with_disk(1, SimConfig::default(), disk.clone());
    let written = sim.run(move |core| async move {
        let store = crate::store::Store::open(&core, DIR.as_ref()).await.expect("opens");
        for index in 0..2 {
            let log = store.open_log(how(index, 1)).await.expect("opens");
            for _ in 0..9 {
                log.append(produced(&[b'x'; 900]), AppendKind::Client).await.expect("appends");
            }
        }
        store.close().await.expect("closes");
        let folder = store.folder().logs_dir().join(crate::names::folder("orders", how(0, 1).id));
        let segment = folder.join(crate::names::segment(Offset(0)));
        let file = core.open(segment, rt::Open::write().direct()).await.expect("opens");
        file.truncate(4096).await.expect("is cut");
    });
    written.expect("runs");
    disk = sim.crash(CrashPlan::KILLED);
    for epoch in 2..5 {
        let sim = Sim::with_disk(1, SimConfig::default(), disk);
        let opened = sim.run(move |core| async move {
            let store = crate::store::Store::open(&core, DIR.as_ref()).await.expect("opens");
            store.open_log(how(1, epoch)).await.expect("the other one is whole");
            let refused = store.open_log(how(0, epoch)).await.err().map(|error| error.to_string());
            assert!(refused.is_some_and(|why| why.contains("durable bytes")), "in epoch {epoch}");
            store.checkpoint().await.expect("is written");
            store.close().await.expect("closes");
        });
        opened.expect("runs");
        disk = sim.crash(CrashPlan::KILLED);
    }
}
