//! Random truncations, flips and splices of everything that comes from a socket or a disk: nothing panics, and what the
//! checksums cover is refused. Seeded, so that a failure comes back.

use engine::batch::build::BatchBuilder;
use engine::batch::{Batch, Codec};
use engine::checkpoint::{self, Saved};
use engine::epochs::EpochCache;
use engine::fuzz;
use engine::ids::{FilePos, LeaderEpoch, Offset, PartitionId, ProducerId, TopicId};
use engine::index::{SealedIndex, SparseIndex};
use engine::producers::ProducerStates;

const BATCHES: &str = include_str!("../../tests/golden/batches.tsv");

/// xorshift64*: enough for a test, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// `bytes` with one to four things wrong.
    fn damaged(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len());
            match self.below(6) {
                0 => out.truncate(at),
                1 => out.extend_from_slice(&bytes[..at.min(bytes.len())]),
                2 if !out.is_empty() => out[at] = self.next() as u8,
                3 if out.len() >= at + 4 => out[at..at + 4].copy_from_slice(&[0xff; 4]),
                4 if out.len() >= at + 8 => out[at..at + 8].copy_from_slice(&self.next().to_be_bytes()),
                _ if !out.is_empty() => out[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        out
    }
}

fn small_batches() -> Vec<Vec<u8>> {
    let hex =
        BATCHES.lines().skip(1).map(|line| line.split('\t').nth(1).unwrap()).filter(|hex| hex.len() < 4000);
    hex.map(|hex| {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    })
    .collect()
}

fn saved() -> Saved {
    let mut index = SparseIndex::new(Offset(10), 50);
    let mut producers = ProducerStates::new();
    for number in 0..8 {
        let mut builder = BatchBuilder::new(Codec::None)
            .producer(ProducerId(i64::from(number % 2)), 0, number / 2)
            .base_offset(Offset(10 + i64::from(number)));
        builder.append(i64::from(number), None, Some(b"v"), &[]);
        let bytes = builder.finish();
        producers.apply(&Batch::parse(&bytes).unwrap().0);
        let position = FilePos(u64::try_from(number).unwrap() * 69);
        index.note(Offset(10 + i64::from(number)), position, 69, i64::from(number));
    }
    let mut epochs = EpochCache::new();
    epochs.assign(LeaderEpoch(1), Offset(0));
    Saved {
        id: PartitionId::new(TopicId([3; 16]), 0),
        epoch: LeaderEpoch(1),
        log_start: Offset(0),
        end: Offset(18),
        segment: Offset(10),
        position: 8 * 69,
        clean: false,
        index,
        first_timestamp: 0,
        max_timestamp: 7,
        epochs,
        producers,
        truncations: 0,
        rewrites: 0,
    }
}

#[test]
fn damaged_batches_never_panic() {
    let mut random = Random(1);
    let batches = small_batches();
    assert!(batches.len() >= 20);
    for batch in &batches {
        for _ in 0..150 {
            fuzz::batch(&random.damaged(batch));
        }
    }
}

#[test]
fn a_damaged_batch_is_refused_or_damaged_where_no_checksum_reaches() {
    let mut random = Random(2);
    for batch in small_batches() {
        for _ in 0..50 {
            let damaged = random.damaged(&batch);
            let Ok((found, _)) = Batch::parse(&damaged) else { continue };
            if found.crc_is_valid() {
                assert_eq!(found.bytes()[17..], batch[17..]);
            }
        }
    }
}

#[test]
fn damaged_indexes_never_panic() {
    let mut random = Random(3);
    let bytes = SealedIndex::encode(&saved().index, Offset(18), 8 * 69, 0, 7, &[0x1234_5678]);
    for _ in 0..5_000 {
        let damaged = random.damaged(&bytes);
        fuzz::index(&damaged);
        fuzz::index(&random.damaged(&bytes[16..]));
        if SealedIndex::decode(&damaged).is_ok() {
            assert_eq!(damaged[..bytes.len()], bytes);
        }
    }
}

#[test]
fn damaged_checkpoints_never_panic() {
    let mut random = Random(4);
    let logs = [saved(), saved()];
    let bytes = checkpoint::encode(9, &logs);
    for _ in 0..5_000 {
        let damaged = random.damaged(&bytes);
        fuzz::checkpoint(&damaged);
        fuzz::checkpoint(&random.damaged(&bytes[16..]));
        if let Ok(found) = checkpoint::decode(&damaged) {
            assert_eq!(found.logs, logs);
        }
    }
}
