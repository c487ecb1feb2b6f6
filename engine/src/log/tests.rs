//! The log on the real driver and on the simulated disk.

mod basics;
mod cold;
mod compaction;
mod compaction_beside;
mod crash;
mod hazards;
mod journal;
mod journal_beside;

use super::*;
use crate::batch::build::BatchBuilder;
use crate::batch::{self, Codec};
use crate::ids::{ProducerId, TopicId};

/// One batch of one record whose value has `bytes` bytes that are not zero.
pub(crate) fn batch_of(base: Offset, epoch: LeaderEpoch, bytes: usize) -> Vec<u8> {
    let value: Vec<u8> = (0..bytes).map(|at| (at % 255 + 1) as u8).collect();
    let mut builder = BatchBuilder::new(Codec::None).base_offset(base).leader_epoch(epoch);
    builder.append(1, None, Some(&value), &[]);
    builder.finish()
}

/// A produced batch of one record.
fn produced(value: &[u8]) -> Slice {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(1000, None, Some(value), &[]);
    Slice::from(builder.finish())
}

/// A produced batch of an idempotent producer.
fn sequenced(producer: i64, sequence: i32, value: &[u8]) -> Slice {
    let mut builder = BatchBuilder::new(Codec::None).producer(ProducerId(producer), 0, sequence);
    builder.append(1000, None, Some(value), &[]);
    Slice::from(builder.finish())
}

fn open_log(dir: PathBuf, epoch: i32) -> OpenLog {
    OpenLog {
        dir,
        id: PartitionId { topic: TopicId([7; 16]), index: 0 },
        topic_name: "orders".into(),
        config: LogConfig { after_max_ms: i64::MAX, ..LogConfig::default() },
        epoch: LeaderEpoch(epoch),
        checkpoint: None,
        limits: Limits::default(),
        tails: Tails::new(4 << 20),
        chunks: Chunks::new(4 << 20),
        journal: None,
        left: Vec::new(),
        partitions: Rc::new(Cell::new(1)),
        faults: Faults::default(),
    }
}

/// Everything from `from` to the high watermark, as (offset, epoch, value).
async fn read_all(log: &Log, from: Offset) -> Vec<(i64, i32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = from;
    while at < log.high_watermark() {
        let out = log.read(at, 1 << 20, true, log.high_watermark()).await.expect("readable");
        assert!(out.next > at, "progress at {at}");
        let bytes: Vec<u8> = out.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(bytes.len(), out.bytes);
        for batch in batch::batches(&bytes) {
            let batch = batch.expect("a whole batch");
            assert!(batch.crc_is_valid());
            for record in batch::walk::Records::new(&batch, batch.records_bytes()) {
                let record = record.expect("a record");
                let value = record.value.unwrap_or_default().to_vec();
                found.push((record.offset.0, batch.leader_epoch().0, value));
            }
        }
        at = out.next;
    }
    found
}

fn values(found: &[(i64, i32, Vec<u8>)]) -> Vec<&[u8]> {
    found.iter().map(|(_, _, value)| value.as_slice()).collect()
}
