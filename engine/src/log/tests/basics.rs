//! What a log does when nothing goes wrong, on the real driver.

use super::*;
use rt::{Class, Config, block_on_one};
use std::future::Future;

/// Runs on one core of the real driver, in a folder of its own.
fn on_disk<F: Future<Output = ()> + 'static>(test: impl FnOnce(Core, PathBuf) -> F + 'static) {
    // Not on tmpfs, which older kernels refuse O_DIRECT on.
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
    let dir = folder.path().join("log");
    block_on_one(Config::new(1), move |core| test(core, dir)).expect("the ring driver starts");
    drop(folder);
}

#[test]
fn appends_are_read_back_from_the_tail_and_from_the_disk() {
    on_disk(|core, dir| async move {
        let log = Log::open(&core, open_log(dir.clone(), 1)).await.expect("opens");
        for n in 0..100u32 {
            let appended = log.append(produced(&n.to_le_bytes()), AppendKind::Client).await.expect("appends");
            assert_eq!(appended.base_offset, Offset(i64::from(n)));
        }
        log.committed(Offset(99)).await.expect("commits");
        let from_tail = read_all(&log, Offset(0)).await;
        assert_eq!(from_tail.len(), 100);
        assert_eq!(log.counters().reads_from_disk, 0);
        assert_eq!(log.counters().bytes_copied, log.counters().bytes);
        let saved = log.close().await.expect("closes");
        assert_eq!(saved.end, Offset(100));
        for checkpoint in [None, Some(saved)] {
            let epoch = 2 + i32::from(checkpoint.is_some());
            let how = OpenLog { checkpoint, ..open_log(dir.clone(), epoch) };
            let log = Log::open(&core, how).await.expect("opens again");
            assert_eq!(log.log_end_offset(), Offset(100));
            assert_eq!(read_all(&log, Offset(0)).await, from_tail);
            assert!(log.counters().reads_from_disk > 0);
            assert_eq!(log.end_offset_for_epoch(LeaderEpoch(1)), Some((LeaderEpoch(1), Offset(100))));
            assert_eq!(log.read(Offset(101), 10, true, Offset(200)).await.err(), Some(ReadError::OutOfRange));
        }
    });
}

#[test]
fn appends_during_a_flush_form_the_next_one() {
    on_disk(|core, dir| async move {
        let log = Log::open(&core, open_log(dir, 1)).await.expect("opens");
        let tasks: Vec<_> = (0..500u32)
            .map(|n| {
                let log = log.clone();
                core.spawn(Class::Produce, async move {
                    let appended = log.append(produced(&n.to_le_bytes()), AppendKind::Client).await;
                    let appended = appended.expect("appends");
                    assert_eq!(appended.base_offset.0, i64::from(n), "offsets go by call order");
                    log.committed(appended.last_offset).await.expect("commits");
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        let counters = log.counters();
        assert_eq!(counters.batches, 500);
        assert!(counters.flushes < 50, "{counters:?}");
        let found = read_all(&log, Offset(0)).await;
        assert!(found.iter().enumerate().all(|(n, (offset, _, _))| *offset == n as i64));
    });
}

#[test]
fn segments_roll_are_sealed_and_read_across() {
    on_disk(|core, dir| async move {
        let mut how = open_log(dir.clone(), 1);
        how.config.segment_bytes = 200_000;
        let config = how.config.clone();
        let log = Log::open(&core, how).await.expect("opens");
        let value = vec![5; 10_000];
        for n in 0..100 {
            let appended = log.append(produced(&value), AppendKind::Client).await.expect("appends");
            assert_eq!(appended.base_offset, Offset(n));
        }
        let saved = log.close().await.expect("closes");
        assert!(log.counters().rolls >= 5);
        for (epoch, checkpoint) in [(2, Some(saved)), (3, None)] {
            let how = OpenLog { checkpoint, config: config.clone(), ..open_log(dir.clone(), epoch) };
            let log = Log::open(&core, how).await.expect("opens again");
            assert_eq!(read_all(&log, Offset(0)).await.len(), 100);
            assert_eq!(read_all(&log, Offset(57)).await.len(), 43);
        }
    });
}

#[test]
fn a_sealed_segment_is_read_again_where_its_index_is_missing_or_damaged() {
    on_disk(|core, dir| async move {
        let mut how = open_log(dir.clone(), 1);
        how.config.segment_bytes = 50_000;
        let config = how.config.clone();
        let mut how = Some(how);
        let mut saved = None;
        // Three incarnations: the segments of the first are older than the epochs that the checkpoint knows.
        for epoch in 1..=3 {
            let next = OpenLog { config: config.clone(), checkpoint: saved, ..open_log(dir.clone(), epoch) };
            let log = Log::open(&core, how.take().unwrap_or(next)).await.expect("opens");
            for _ in 0..10 {
                log.append(produced(&[5; 9000]), AppendKind::Client).await.expect("appends");
            }
            saved = Some(log.close().await.expect("closes"));
        }
        let index = dir.join(crate::names::index(Offset(0)));
        let mut bytes = std::fs::read(&index).expect("it was sealed");
        bytes[40] ^= 1;
        std::fs::write(&index, bytes).expect("writes");
        let second = dir.join(crate::names::index(Offset(5)));
        std::fs::remove_file(&second).expect("it was sealed");
        let how = OpenLog { config, checkpoint: saved, ..open_log(dir.clone(), 4) };
        let log = Log::open(&core, how).await.expect("opens again");
        assert_eq!(read_all(&log, Offset(0)).await.len(), 30);
        let notes: Vec<&str> = log.notes().iter().map(String::as_str).collect();
        let [damaged, missing] = notes[..] else { panic!("two notes: {notes:?}") };
        assert!(damaged.contains(&format!("{} is damaged", index.display())), "{damaged}");
        assert!(missing.contains(&format!("{} is missing", second.display())), "{missing}");
        log.close().await.expect("closes");
    });
}

#[test]
fn a_large_batch_spans_buffers_and_small_ones_join_it() {
    on_disk(|core, dir| async move {
        let mut how = open_log(dir.clone(), 1);
        how.config.max_message_bytes = 8 << 20;
        let log = Log::open(&core, how).await.expect("opens");
        let sizes = [10, 300_000, 20, 4096, 3_000_000, 1, 65_536, 900_000];
        for size in sizes {
            let last = log.append(produced(&vec![1; size]), AppendKind::Client).await.expect("appends");
            if size == 20 {
                log.committed(last.last_offset).await.expect("commits");
            }
        }
        log.committed(Offset(7)).await.expect("commits");
        let found = read_all(&log, Offset(0)).await;
        assert_eq!(values(&found).iter().map(|value| value.len()).collect::<Vec<_>>(), sizes);
        log.close().await.expect("closes");
        let log = Log::open(&core, open_log(dir, 2)).await.expect("opens again");
        let found = read_all(&log, Offset(0)).await;
        assert_eq!(values(&found).iter().map(|value| value.len()).collect::<Vec<_>>(), sizes);
    });
}

#[test]
fn a_cold_read_of_any_size_is_aligned() {
    on_disk(|core, dir| async move {
        let log = Log::open(&core, open_log(dir.clone(), 1)).await.expect("opens");
        for n in 0..10 {
            let appended = log.append(produced(&vec![n; 60_000]), AppendKind::Client).await.expect("appends");
            log.committed(appended.last_offset).await.expect("commits");
        }
        log.close().await.expect("closes");
        let log = Log::open(&core, open_log(dir, 2)).await.expect("opens again");
        for max_bytes in [1, 4097, 65_537, 123_456, 200_001, 262_143, 1 << 20] {
            let out = log.read(Offset(1), max_bytes, true, Offset(10)).await.expect("readable");
            assert!(out.next > Offset(1), "{max_bytes}");
        }
    });
}

#[test]
fn a_retry_gets_the_offsets_of_its_original() {
    on_disk(|core, dir| async move {
        let log = Log::open(&core, open_log(dir.clone(), 1)).await.expect("opens");
        let first = log.append(sequenced(9, 0, b"a"), AppendKind::Client).await.expect("appends");
        let retry = log.append(sequenced(9, 0, b"a"), AppendKind::Client).await.expect("is known");
        assert_eq!((retry.base_offset, retry.duplicate), (first.base_offset, true));
        assert!(log.high_watermark() <= retry.last_offset, "the original is in its flush");
        log.committed(retry.last_offset).await.expect("commits with the original");
        let gap = log.append(sequenced(9, 5, b"b"), AppendKind::Client).await;
        assert_eq!(gap, Err(AppendError::OutOfOrderSequence));
        log.close().await.expect("closes");
        let log = Log::open(&core, open_log(dir, 2)).await.expect("opens again");
        let retry = log.append(sequenced(9, 0, b"a"), AppendKind::Client).await.expect("is known");
        assert!(retry.duplicate);
    });
}

#[test]
fn what_a_client_may_not_send_is_refused_and_leaves_no_trace() {
    on_disk(|core, dir| async move {
        let log = Log::open(&core, open_log(dir, 1)).await.expect("opens");
        let good = produced(b"x").to_vec();
        let mut corrupt = good.clone();
        corrupt[68] ^= 1;
        let mut based = good.clone();
        batch::set_base_offset(&mut based, Offset(4));
        let cases = [
            (Vec::new(), "NotOneBatch"),
            (good[..20].to_vec(), "NotOneBatch"),
            (corrupt, "Corrupt"),
            (based, "InvalidRecord"),
            ([good.clone(), good.clone()].concat(), "NotOneBatch"),
            (produced(&vec![1; 2 << 20]).to_vec(), "MessageTooLarge"),
        ];
        for (bytes, expected) in cases {
            let refused = log.append(Slice::from(bytes), AppendKind::Client).await.expect_err(expected);
            assert!(format!("{refused:?}").starts_with(expected), "{refused:?}");
        }
        assert_eq!(log.log_end_offset(), Offset(0));
        let trimmed = [good.clone(), good[..30].to_vec()].concat();
        log.append(Slice::from(trimmed), AppendKind::Client).await.expect("a fragment is trimmed");
    });
}

#[test]
fn times_are_found_and_the_log_start_moves() {
    on_disk(|core, dir| async move {
        let mut how = open_log(dir.clone(), 1);
        how.config.segment_bytes = 50_000;
        let config = how.config.clone();
        let log = Log::open(&core, how).await.expect("opens");
        for n in 0..100i64 {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.append(n * 10, None, Some(&[1; 2000]), &[]);
            log.append(Slice::from(builder.finish()), AppendKind::Client).await.expect("appends");
        }
        log.committed(Offset(99)).await.expect("commits");
        let found = log.offset_for_timestamp(555).await.expect("finds");
        assert_eq!(found, Some((Offset(56), 560, LeaderEpoch(1))));
        assert_eq!(log.offset_for_timestamp(5000).await, Ok(None));
        assert_eq!(log.offset_of_max_timestamp().await.expect("finds").map(|f| f.0), Some(Offset(99)));
        assert_eq!(log.delete_records(Offset(60)).await, Ok(Offset(60)));
        assert_eq!(log.read(Offset(59), 10, true, Offset(100)).await.err(), Some(ReadError::OutOfRange));
        assert_eq!(log.end_offset_for_epoch(LeaderEpoch(0)), Some((LeaderEpoch(0), Offset(60))));
        let saved = log.close().await.expect("closes");
        for (epoch, checkpoint) in [(2, Some(saved)), (3, None)] {
            let how = OpenLog { checkpoint, config: config.clone(), ..open_log(dir.clone(), epoch) };
            let log = Log::open(&core, how).await.expect("opens again");
            assert_eq!(log.log_start_offset(), Offset(60));
            assert_eq!(log.end_offset_for_epoch(LeaderEpoch(0)), Some((LeaderEpoch(0), Offset(60))));
            assert_eq!(read_all(&log, Offset(60)).await.len(), 40);
        }
    });
}

#[test]
fn log_append_time_is_the_brokers_and_an_unset_time_is_repaired() {
    on_disk(|core, dir| async move {
        let mut how = open_log(dir, 1);
        how.config.timestamp_type = batch::TimestampType::LogAppendTime;
        let log = Log::open(&core, how).await.expect("opens");
        let appended = log.append(produced(b"x"), AppendKind::Client).await.expect("appends");
        assert!(appended.log_append_time_ms > 1_000_000);
        log.set_config(LogConfig::default());
        let mut unset = produced(b"y").to_vec();
        unset[35..43].copy_from_slice(&(-1i64).to_be_bytes());
        batch::reseal(&mut unset);
        log.append(Slice::from(unset), AppendKind::Client).await.expect("appends");
        log.committed(Offset(1)).await.expect("commits");
        let out = log.read(Offset(0), 1 << 20, true, Offset(2)).await.expect("reads");
        let bytes: Vec<u8> = out.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let times: Vec<i64> = batch::batches(&bytes).map(|b| b.expect("whole").max_timestamp()).collect();
        assert_eq!(times, [appended.log_append_time_ms, 1000]);
    });
}

#[test]
fn a_producer_that_was_silent_for_too_long_is_forgotten() {
    on_disk(|core, dir| async move {
        let log = Log::open(&core, open_log(dir, 1)).await.expect("opens");
        log.append(sequenced(9, 0, b"old"), AppendKind::Client).await.expect("appends");
        let gap = log.append(sequenced(9, 5, b"gap"), AppendKind::Client).await;
        assert_eq!(gap.err(), Some(AppendError::OutOfOrderSequence));
        log.set_config(LogConfig { producer_expiration_ms: i64::MAX, ..log.config() });
        assert_eq!(log.expire_producers(), 0);
        log.set_config(LogConfig { producer_expiration_ms: 1000, ..log.config() });
        assert_eq!(log.expire_producers(), 1, "by the time in its last batch");
        let first = log.append(sequenced(9, 5, b"first"), AppendKind::Client).await.expect("appends");
        assert_eq!((first.base_offset, first.duplicate), (Offset(1), false), "any first sequence is taken");
    });
}
