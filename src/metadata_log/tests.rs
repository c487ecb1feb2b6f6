//! The metadata log over the simulated disk: what a compacted log gives back, whatever moment it is cut at.

use std::cell::RefCell;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;

use engine::ids::TopicId;
use rt::sim::{CrashPlan, Fault, OpKind, Sim, SimConfig, SimDisk, Stopped};

use super::*;

const NODE: NodeId = NodeId(1);
const ID_BLOCK: u32 = 1000;
const TOPIC: TopicId = TopicId([7; 16]);

/// Runs one life of a broker's metadata on this disk. `None` if the power was cut in it.
fn live<F: Future<Output = ()> + 'static>(disk: &SimDisk, life: impl Fn(Core) -> F) -> Option<SimDisk> {
    let sim = Sim::with_disk(1, SimConfig::default(), disk.clone());
    match sim.run(life) {
        Ok(_) => {
            // As kill -9 leaves it: whatever was written is there, and the lock is not.
            sim.disk().kill(1);
            Some(sim.disk())
        }
        Err(Stopped::Crashed) => None,
        Err(other) => panic!("{other:?}"),
    }
}

async fn open(core: &Core) -> (MetadataLog, Metadata) {
    let (folder, _lock) = Folder::open(core, Path::new("/data"), 0).await.expect("the folder opens");
    MetadataLog::open(core, &folder, NODE).await.expect("the metadata log opens")
}

async fn commit(log: &MetadataLog, metadata: &mut Metadata, commands: &[Command]) {
    for (index, command) in log.commit(commands).await.expect("commits") {
        match command {
            Some(command) => assert_eq!(metadata.apply(index, &command).refused, None),
            None => metadata.skip(index),
        }
    }
}

/// A cluster with a topic that was configured, grown and led anew, and a log of more entries than are kept.
async fn fill(core: Core) {
    let (log, mut metadata) = open(&core).await;
    let storage = [3; 16];
    let incarnation = [4; 16];
    let broker =
        Command::RegisterBroker { node: NODE, storage, incarnation, listeners: Vec::new(), rack: None };
    let started = Command::BrokerStarted { node: NODE, incarnation, lost: Vec::new() };
    let created = Command::CreateTopic {
        id: TOPIC,
        name: "kept".to_owned(),
        partitions: vec![vec![NODE]; 3],
        configs: [("retention.ms".to_owned(), "1000".to_owned())].into(),
    };
    let grown = Command::CreatePartitions { id: TOPIC, existing: 3, partitions: vec![vec![NODE]] };
    commit(&log, &mut metadata, &[broker, started.clone(), created, grown, started]).await;
    let ids = vec![Command::AllocateProducerIds { node: NODE, count: ID_BLOCK }; 1000];
    for _ in 0..raft::SNAPSHOT_ENTRIES / 1000 {
        commit(&log, &mut metadata, &ids).await;
    }
}

fn filled() -> SimDisk {
    live(&SimDisk::new(), fill).expect("runs to its end")
}

/// The topic is as it was, the next producer ids were never given, and the log takes more.
async fn check(core: Core) {
    let (log, mut metadata) = open(&core).await;
    let topic = metadata.image().topic("kept").expect("the topic is there").clone();
    assert_eq!(topic.id, TOPIC);
    assert_eq!(topic.partitions.len(), 4);
    assert_eq!(topic.configs["retention.ms"], "1000");
    assert!(topic.partitions.iter().all(|one| one.leader_epoch.0 == 1 && one.leader == Some(NODE)));
    let block = Command::AllocateProducerIds { node: NODE, count: ID_BLOCK };
    let mut given = None;
    for (index, command) in log.commit(&[block]).await.expect("commits") {
        for change in metadata.apply(index, &command.expect("a command")).changes {
            if let coord::metadata::Change::ProducerIds { ids, .. } = change {
                given = Some(ids.start);
            }
        }
    }
    let handed_out = i64::try_from(raft::SNAPSHOT_ENTRIES * u64::from(ID_BLOCK)).expect("fits");
    assert!(given.is_some_and(|start| start >= handed_out), "{given:?} was handed out before");
}

async fn compact(core: Core) {
    let (log, metadata) = open(&core).await;
    log.compact_if_due(|| metadata.encode()).await.expect("compacts");
}

#[test]
fn a_long_log_is_compacted_and_gives_the_same_metadata() {
    let disk = filled();
    let bytes = |disk: &SimDisk, generation: u64| {
        disk.contents(format!("/data/raft/raft-{generation:010}.log")).map(|bytes| bytes.len())
    };
    assert_eq!(bytes(&disk, 3), None);
    let before = bytes(&disk, 2).expect("the generation that the cluster began with");
    let disk = live(&disk, compact).expect("runs to its end");
    assert_eq!(bytes(&disk, 2), None);
    assert!(bytes(&disk, 3).expect("a new generation") <= before);
    live(&disk, check).expect("runs to its end");
    // A log that is short is left alone.
    let disk = live(&disk, compact).expect("runs to its end");
    assert_eq!(bytes(&disk, 4), None);
}

#[test]
fn a_compaction_cut_anywhere_loses_nothing() {
    let disk = filled();
    let whole = disk.snapshot();
    let from = disk.op_count();
    live(&disk, compact).expect("runs to its end");
    let until = disk.op_count();
    for cut in (from + 1..=until).step_by(3) {
        for plan in [CrashPlan::STRICT, CrashPlan::RANDOM] {
            let disk = SimDisk::new();
            disk.restore(&whole);
            disk.crash_at_op(disk.op_count() + cut - from);
            assert!(live(&disk, compact).is_none(), "operation {cut} was reached");
            disk.crash(cut, plan);
            live(&disk, check).expect("runs to its end");
        }
    }
}

#[test]
fn a_full_disk_refuses_a_command_and_takes_it_when_there_is_space_again() {
    let disk = live(&SimDisk::new(), |core| async move { drop(open(&core).await) }).expect("runs");
    let (seen, at_once) = (Rc::new(RefCell::new(Vec::new())), disk.clone());
    let outcomes = seen.clone();
    live(&disk, move |core| {
        let (disk, outcomes) = (at_once.clone(), outcomes.clone());
        async move {
            let (log, _) = open(&core).await;
            // More than the room that was taken ahead.
            let feature = |n: usize| Command::SetFeature { name: "x".repeat(30_000 + n), level: 1 };
            let large: Vec<Command> = (0..70).map(feature).collect();
            disk.fail_next(OpKind::Allocate, Fault::Error(28));
            for _ in 0..2 {
                let taken = log.commit(&large).await.is_ok();
                outcomes.borrow_mut().push(taken);
            }
        }
    })
    .expect("runs");
    assert_eq!(*seen.borrow(), [false, true]);
}
