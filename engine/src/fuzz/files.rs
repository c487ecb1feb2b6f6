//! Whole files as a start finds them, on the simulated disk: a log's segment and the controller's log.
//!
//! Whatever lies there, a start ends with a log or with a reason; what it opened it can read, and a second start finds the
//! same.

use crate::batch::{self, Batch, batches, reseal, set_base_offset, set_leader_epoch};
use crate::cache::Tails;
use crate::chunks::Chunks;
use crate::ids::{LeaderEpoch, Offset, PartitionId, TopicId};
use crate::log::{Faults, Limits, Log, LogConfig, OpenLog};
use crate::names;
use crate::raft_log::{RaftLog, Recovered, format};
use rt::Core;
use rt::sim::{Sim, SimConfig, SimDisk};
use std::future::Future;
use std::path::Path;

const LOG_DIR: &str = "/data/log";
const RAFT_DIR: &str = "/data/raft";
/// The epoch that is written into batches made to continue the log.
const OLD_EPOCH: LeaderEpoch = LeaderEpoch(1);
const MEMORY_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 256 << 10;

/// A segment file: the bytes as they are, and again with its batches made to continue each other.
pub fn recovery(bytes: &[u8]) {
    for content in [bytes.to_vec(), continued(bytes)] {
        let disk = SimDisk::new();
        disk.put(Path::new(LOG_DIR).join(names::segment(Offset::ZERO)), &content);
        let Some(found) = on(&disk, |core| async move { open_log(core, OLD_EPOCH.0 + 1).await }) else {
            continue;
        };
        let again = on(&disk, |core| async move { open_log(core, OLD_EPOCH.0 + 2).await });
        assert_eq!(again, Some(found), "a second start finds the same");
    }
}

/// Gives the batches consecutive offsets, one epoch and true checksums, as far as their lengths go.
fn continued(bytes: &[u8]) -> Vec<u8> {
    let mut content = bytes.to_vec();
    let (mut at, mut offset) = (0, Offset::ZERO);
    while let Ok(total) = batch::total_bytes(&content[at..]) {
        let Some(one) = content.get_mut(at..at + total) else { break };
        set_base_offset(one, offset);
        set_leader_epoch(one, OLD_EPOCH);
        reseal(one);
        let next = Batch::parse(one).map(|(view, _)| view.next_offset());
        match next {
            Ok(next) if next > offset => offset = next,
            _ends_here => break,
        }
        at += total;
    }
    content
}

/// The log's end and the bytes of all it holds; nothing where it is refused.
async fn open_log(core: Core, epoch: i32) -> Option<(Offset, Vec<u8>)> {
    let how = OpenLog {
        dir: LOG_DIR.into(),
        id: PartitionId { topic: TopicId([7; 16]), index: 0 },
        topic_name: "fuzzed".into(),
        config: LogConfig { after_max_ms: i64::MAX, ..LogConfig::default() },
        epoch: LeaderEpoch(epoch),
        checkpoint: None,
        limits: Limits::default(),
        tails: Tails::new(1 << 20),
        chunks: Chunks::new(1 << 20),
        journal: None,
        left: Vec::new(),
        partitions: std::rc::Rc::new(std::cell::Cell::new(1)),
        faults: Faults::default(),
    };
    let log = Log::open(&core, how).await.ok()?;
    let (mut at, mut all) = (Offset::ZERO, Vec::new());
    while at < log.high_watermark() {
        let out =
            log.read(at, READ_BYTES, true, log.high_watermark()).await.expect("what was opened can be read");
        assert!(out.next > at);
        out.slices.iter().for_each(|slice| all.extend_from_slice(slice));
        at = out.next;
    }
    assert!(batches(&all).all(|found| found.is_ok_and(|found| found.crc_is_valid())));
    Some((log.log_end_offset(), all))
}

/// A generation of the controller's log: the bytes as they are, and as the body of its first group.
pub fn raft_log(bytes: &[u8]) {
    let generation = 1;
    let framed = format::group(generation << 32, 0, bytes).map(|(group, _)| group);
    for content in [Some(bytes.to_vec()), framed].into_iter().flatten() {
        let disk = SimDisk::new();
        disk.put(Path::new(RAFT_DIR).join("raft-0000000001.log"), &content);
        let Some(found) = on(&disk, open_raft_log) else { continue };
        assert_eq!(on(&disk, open_raft_log), Some(found), "a second start finds the same");
    }
}

async fn open_raft_log(core: Core) -> Option<Recovered> {
    RaftLog::open(&core, Path::new(RAFT_DIR)).await.ok().map(|(_, recovered)| recovered)
}

fn on<T: 'static, F: Future<Output = T> + 'static>(disk: &SimDisk, work: impl Fn(Core) -> F) -> T {
    let config = SimConfig { memory_bytes: MEMORY_BYTES, ..SimConfig::default() };
    let sim = Sim::with_disk(1, config, disk.clone());
    let done = sim.run(work).expect("a start comes to an end");
    drop(sim);
    disk.kill(1);
    done.into_iter().next().expect("one core")
}
