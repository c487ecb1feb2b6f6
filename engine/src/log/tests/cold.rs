//! Reads behind the tail: whole batches whatever lies across chunks, shared, ahead, and never damaged.

use super::*;
use crate::chunks::CHUNK_BYTES;
use rt::sim::{Fault, OpKind, Sim, SimConfig, SimDisk};

const DIR: &str = "/data/orders-0";
const EIO: i32 = 5;

/// Values of these sizes, over and over: small ones, some as large as a chunk, and larger.
const SIZES: [usize; 8] = [100, 900, 70_000, 300_000, 5, 262_083, 4_096, 600_000];

fn value(n: usize) -> Vec<u8> {
    let mut value = format!("{n}/").into_bytes();
    value.resize(SIZES[n % SIZES.len()].max(4), (n % 255) as u8 + 1);
    value
}

/// A test with a log whose `count` batches are on disk only.
fn behind_the_tail<F: Future<Output = ()> + 'static>(
    segment_bytes: u64,
    count: usize,
    test: impl Fn(Core, Log, SimDisk) -> F + Clone + 'static,
) {
    let sim = Sim::new(3, SimConfig { memory_bytes: 64 << 20, ..SimConfig::default() });
    let disk = sim.disk();
    let ended = sim.run(|core| {
        let mut how = open_log(DIR.into(), 1);
        how.config.segment_bytes = segment_bytes;
        (how.tails, how.chunks) = (Tails::new(0), Chunks::new(16 << 20));
        let (disk, test) = (disk.clone(), test.clone());
        async move {
            let log = Log::open(&core, how).await.expect("opens");
            for n in 0..count {
                log.append(produced(&value(n)), AppendKind::Client).await.expect("appends");
            }
            log.committed(Offset(count as i64 - 1)).await.expect("commits");
            core.sleep(std::time::Duration::from_secs(1)).await;
            test(core.clone(), log, disk).await;
        }
    });
    ended.expect("runs");
}

#[test]
fn every_batch_is_found_whole_from_any_offset_under_any_limit() {
    for segment_bytes in [700_000, 1 << 30] {
        behind_the_tail(segment_bytes, 40, |_, log, _| async move {
            assert_eq!(values(&read_all(&log, Offset(0)).await).len(), 40);
            for from in 0..40 {
                for max_bytes in [1, 1_000, 100_000, 1 << 20] {
                    let up_to = Offset(38);
                    let out = log.read(Offset(from), max_bytes, true, up_to).await.expect("readable");
                    let bytes: Vec<u8> = out.slices.iter().flat_map(|slice| slice.to_vec()).collect();
                    let mut next = from;
                    for batch in batch::batches(&bytes) {
                        let batch = batch.expect("whole");
                        assert_eq!((batch.base_offset(), batch.crc_is_valid()), (Offset(next), true));
                        let records = batch.records_bytes();
                        let record = batch::walk::Records::new(&batch, records).next();
                        let found = record.expect("one").expect("valid").value.map(<[u8]>::to_vec);
                        assert_eq!(found, Some(value(next as usize)));
                        next += 1;
                    }
                    assert_eq!(out.next, Offset(next));
                    assert!(if from < up_to.0 { (from + 1..=up_to.0).contains(&next) } else { next == from });
                    assert!(next == from + 1 || out.bytes <= max_bytes);
                    let alone = log.read(Offset(from), max_bytes, false, up_to).await.expect("readable");
                    assert!(alone.bytes <= max_bytes);
                }
            }
        });
    }
}

#[test]
fn readers_share_chunks_and_the_next_ones_come_ahead() {
    behind_the_tail(1 << 30, 40, |core, log, _| async move {
        log.read(Offset(0), 1_000, true, Offset(40)).await.expect("readable");
        core.sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(log.counters().reads_from_disk, 3, "one that was needed, two ahead of it");
        read_all(&log, Offset(0)).await;
        let once = log.counters();
        assert!(once.bytes_from_disk < log.size_bytes() + CHUNK_BYTES * 3, "{once:?}");
        read_all(&log, Offset(0)).await;
        let twice = log.counters();
        // Only the last chunk, which still grows, is read again.
        assert!(twice.bytes_from_disk - once.bytes_from_disk < 3 * CHUNK_BYTES, "{twice:?}");
    });
}

#[test]
fn a_read_that_fails_is_told_and_tried_anew_by_the_next_one() {
    behind_the_tail(1 << 30, 8, |_, log, disk| async move {
        disk.fail_next(OpKind::Read, Fault::Error(EIO));
        let failed = log.read(Offset(0), 1_000, true, Offset(8)).await;
        assert!(matches!(failed, Err(ReadError::Storage(_))), "{failed:?}");
        assert_eq!(read_all(&log, Offset(0)).await.len(), 8);
    });
}

#[test]
fn hazard_a4_an_offset_that_jumps_is_an_error_and_not_an_endless_wait() {
    // Bits of the first and the second base offset, none of which a batch CRC covers.
    for (batch, byte, bit) in [(0, 0, 0), (1, 7, 6), (1, 6, 0), (1, 7, 0)] {
        behind_the_tail(1 << 30, 8, move |_, log, disk| async move {
            let path = format!("{DIR}/{}", crate::names::segment(Offset(0)));
            let start = batch * produced(&value(0)).len() as u64;
            disk.flip_bit(path, (start + byte) * 8 + bit);
            let read = log.read(Offset(0), 1 << 20, true, Offset(8)).await;
            assert!(matches!(&read, Err(ReadError::Storage(why)) if why.contains("damaged")), "{read:?}");
        });
    }
}
