//! One core of a broker over the simulated disk: what becomes of partitions whose disk or whose code fails.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use engine::batch::Codec;
use engine::batch::build::BatchBuilder;
use engine::ids::{LeaderEpoch, Offset, TopicId};
use engine::log::{Faults, Limits as LogLimits};
use net::error_code::ErrorCode;
use rt::sim::{Fault, OpKind, Sim, SimConfig, SimDisk};
use rt::{Mesh, Slice};
use tuning::Machine;
use tuning::machine::{Cpu, Kernel, Limits as Cgroup};

use super::*;
use crate::config::{Config, Setting};
use crate::controller::{MorePartitions, NewTopic};
use crate::metadata_log::MetadataLog;
use crate::shard::mail::{FetchAsk, FetchPart, Fetched, ProduceAsk, ProducePart, Produced, Wait};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const TOPIC: &str = "orders";
/// A life that does not come to its end by itself, ends here.
const LIFE_NANOS_MAX: u64 = 600 * 1_000_000_000;
const PARTITIONS: i32 = 3;

pub(crate) fn settings(arguments: &[&str]) -> Settings {
    let cpu = Cpu { id: 0, package: 0, core: 0, node: 0, siblings: vec![0], allowed: true };
    let kernel = Kernel { major: 6, minor: 12, release: "6.12.1".into() };
    let machine = Machine { cpus: vec![cpu], kernel, memory_bytes: 8 << 30, limits: Cgroup::default() };
    let arguments: Vec<Setting> =
        arguments.iter().map(|text| Setting::parse(text).expect("it is a setting")).collect();
    let config = Config::parse("", "", &arguments).expect("the config is valid");
    let in_force = config.resolve(&machine).expect("the machine suffices");
    Settings::new(&config, &in_force).expect("the defaults are valid")
}

/// A broker of one core, as a start makes it.
async fn start(core: &Core, faults: Faults) -> Rc<Shard> {
    start_with(core, faults, settings(&[])).await
}

pub(crate) async fn start_with(core: &Core, faults: Faults, settings: Settings) -> Rc<Shard> {
    let (folder, lock) = Folder::open(core, Path::new("/data"), 0).await.expect("the folder opens");
    // The simulated process ends with its disk: nothing else gives the lock back.
    std::mem::forget(lock);
    let (log, mut metadata) = MetadataLog::open(core, &folder, settings.node_id).await.expect("it opens");
    let listener = crate::settings::listener("localhost".into(), 1);
    crate::broker::register(core, &settings, folder.uuid(), listener, &log, &mut metadata)
        .await
        .expect("registers");
    let store = Store::with_faults(core, Arc::new(folder), LogLimits::default(), faults);
    let port = Mesh::new(1, 16).remove(0);
    let image = metadata.image().clone();
    let shard = Shard::new(core.clone(), Arc::new(settings), store, image, port);
    shard.set_controller(Controller::new(&shard, metadata, log));
    core.spawn(Class::Control, shard.clone().read_mail()).detach();
    shard.host_all();
    shard.all_open().await;
    shard
}

async fn create(shard: &Rc<Shard>) -> TopicId {
    assert_eq!(try_create(shard, TOPIC, PARTITIONS).await, 0);
    topic_id(shard)
}

/// The error code.
pub(crate) async fn try_create(shard: &Rc<Shard>, name: &str, num_partitions: i32) -> i16 {
    let topic = NewTopic { num_partitions, ..NewTopic::with_defaults(name.to_owned()) };
    let ask = ControllerRequest::CreateTopics { topics: vec![topic], validate_only: false };
    match shard.ask_controller(ask).await {
        ControllerAnswer::CreatedTopics(mut created) => match created.remove(0).1 {
            Ok(_) => 0,
            Err(refused) => refused.code,
        },
        other => panic!("{other:?}"),
    }
}

pub(crate) fn topic_id(shard: &Shard) -> TopicId {
    shard.metadata.borrow().topic(TOPIC).expect("the topic is there").id
}

pub(crate) fn batch(value: &str) -> Slice {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(1000, None, Some(value.as_bytes()), &[]);
    Slice::from(builder.finish())
}

pub(crate) async fn produce(shard: &Rc<Shard>, partition: PartitionId, value: &str) -> (ErrorCode, i64) {
    let part = ProducePart { place: 0, partition, records: batch(value) };
    let ask = ProduceAsk { wait: Wait::AtMost(Duration::from_secs(5)), parts: vec![part] };
    match shard.ask(shard.core.id(), Ask::Produce(ask)).await {
        Answer::Produce(mut produced) => {
            let Produced { error, base_offset, .. } = produced.remove(0);
            (error, base_offset)
        }
        _ => (ErrorCode::UnknownServerError, -1),
    }
}

pub(crate) async fn fetch(shard: &Rc<Shard>, partition: PartitionId, fetch_offset: i64) -> Fetched {
    fetch_all(shard, &[partition], fetch_offset, 1 << 20).await.remove(0)
}

async fn fetch_all(
    shard: &Rc<Shard>,
    partitions: &[PartitionId],
    fetch_offset: i64,
    max_bytes: usize,
) -> Vec<Fetched> {
    let part = |(place, partition): (usize, &PartitionId)| FetchPart {
        place,
        partition: *partition,
        fetch_offset,
        partition_max_bytes: 1 << 20,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let parts = partitions.iter().enumerate().map(part).collect();
    match shard.ask(shard.core.id(), Ask::Fetch(FetchAsk { max_bytes, min_one: true, parts })).await {
        Answer::Fetch(fetched) => fetched,
        _ => panic!("a fetch is answered with something else"),
    }
}

/// (leader or -1, leader epoch) as the metadata has it.
fn led(shard: &Shard, partition: PartitionId) -> (i32, LeaderEpoch) {
    let metadata = shard.metadata.borrow();
    let partition = metadata.partition(partition).expect("the partition is there");
    (partition.leader.map_or(-1, |node| node.0), partition.leader_epoch)
}

/// One life of the broker on this disk, ended by kill -9.
pub(crate) fn live<F: Future<Output = ()> + 'static>(disk: &SimDisk, life: impl Fn(Core, SimDisk) -> F) {
    let sim = Sim::with_disk(1, SimConfig::default(), disk.clone());
    sim.stop_at(Some(rt::Instant::from_nanos(LIFE_NANOS_MAX)));
    sim.run(|core| life(core, disk.clone())).expect("the life runs to its end");
    drop(sim);
    disk.kill(1);
}

#[test]
fn after_an_error_of_the_disk_a_partition_is_offline_until_a_restart_and_the_rest_serves_on() {
    let disk = SimDisk::new();
    live(&disk, |core, disk| async move {
        let shard = start(&core, Faults::default()).await;
        let topic = create(&shard).await;
        let [lost, well] = [0, 1].map(|index| PartitionId { topic, index });
        assert_eq!(produce(&shard, lost, "kept").await, (ErrorCode::None, 0));
        let before = led(&shard, lost).1;

        disk.fail_next(OpKind::Write, Fault::Error(EIO));
        assert_eq!(produce(&shard, lost, "lost").await.0, ErrorCode::KafkaStorageError);
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(led(&shard, lost), (-1, LeaderEpoch(before.0 + 1)), "its epoch is resigned");
        assert_eq!(produce(&shard, lost, "late").await.0, ErrorCode::KafkaStorageError);
        assert_eq!(fetch(&shard, lost, 0).await.error, ErrorCode::KafkaStorageError);
        assert_eq!(produce(&shard, well, "well").await, (ErrorCode::None, 0));
        let why = shard.hosted(lost).and_then(|hosted| hosted.failure()).expect("it says why");
        assert!(why.contains("/data/logs/orders-0"), "{why}");
    });
    live(&disk, |core, _| async move {
        let shard = start(&core, Faults::default()).await;
        let lost = PartitionId { topic: topic_id(&shard), index: 0 };
        assert_eq!(led(&shard, lost).0, 1);
        assert_eq!(produce(&shard, lost, "again").await, (ErrorCode::None, 1));
        assert_eq!(fetch(&shard, lost, 0).await.high_watermark, 2);
    });
}

#[test]
fn what_finds_no_room_in_an_answer_is_not_read_from_disk_for_it() {
    const BATCH_BYTES: usize = 60 << 10;
    let disk = SimDisk::new();
    live(&disk, |core, _| async move {
        let shard = start(&core, Faults::default()).await;
        let topic = create(&shard).await;
        for index in 0..PARTITIONS {
            for _ in 0..6 {
                let (error, _) =
                    produce(&shard, PartitionId { topic, index }, &"x".repeat(BATCH_BYTES)).await;
                assert_eq!(error, ErrorCode::None);
            }
        }
    });
    live(&disk, |core, _| async move {
        let shard = start(&core, Faults::default()).await;
        let topic = topic_id(&shard);
        let all: Vec<_> = (0..PARTITIONS).map(|index| PartitionId { topic, index }).collect();
        let before = shard.store.counters().bytes_from_disk;
        let fetched = fetch_all(&shard, &all, 0, 100 << 10).await;
        let sizes: Vec<_> = fetched.iter().map(|one| one.bytes / BATCH_BYTES).collect();
        assert_eq!(sizes, [1, 0, 0]);
        assert!(fetched.iter().all(|one| one.available > BATCH_BYTES), "min_bytes counts them all");
        let read = shard.store.counters().bytes_from_disk - before;
        assert!((1..=7 * BATCH_BYTES as u64).contains(&read), "{read} bytes were read for one partition");
    });
}

#[test]
fn hazard_a14_after_a_panic_in_an_append_the_partition_comes_back_in_a_new_epoch() {
    let disk = SimDisk::new();
    live(&disk, |core, _| async move {
        let faults = Faults { panic_at: Some((LeaderEpoch(0), Offset(2))), ..Faults::default() };
        let shard = start(&core, faults).await;
        let topic = create(&shard).await;
        let partition = PartitionId { topic, index: 0 };
        for (value, offset) in [("a", 0), ("b", 1)] {
            assert_eq!(produce(&shard, partition, value).await, (ErrorCode::None, offset));
        }
        let asking = shard.clone();
        let panics = core.spawn(Class::Produce, async move { produce(&asking, partition, "panics").await });
        assert!(panics.await.is_err(), "the request's own task ends");
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(led(&shard, partition), (1, LeaderEpoch(1)));
        assert_eq!(produce(&shard, partition, "c").await, (ErrorCode::None, 2));
        let fetched = fetch(&shard, partition, 0).await;
        assert_eq!((fetched.error, fetched.high_watermark), (ErrorCode::None, 3));
    });
}

#[test]
fn hazard_a14_a_full_disk_is_an_error_that_ends_with_the_lack() {
    let disk = SimDisk::new();
    let refused = Rc::new(RefCell::new(0));
    let seen = refused.clone();
    live(&disk, move |core, disk| {
        let refused = seen.clone();
        async move {
            let shard = start(&core, Faults::default()).await;
            let topic = create(&shard).await;
            let partition = PartitionId { topic, index: 0 };
            let large = "x".repeat(60 << 10);
            let mut taken = 0;
            for _ in 0..8 {
                disk.fail_next(OpKind::Allocate, Fault::Error(ENOSPC));
                match produce(&shard, partition, &large).await {
                    (ErrorCode::None, offset) => {
                        assert_eq!(offset, taken);
                        taken += 1;
                    }
                    (error, _) => {
                        assert_eq!(error, ErrorCode::KafkaStorageError);
                        *refused.borrow_mut() += 1;
                    }
                }
            }
            assert_eq!(produce(&shard, partition, "small").await, (ErrorCode::None, taken));
            assert_eq!(led(&shard, partition), (1, LeaderEpoch(0)), "nothing was resigned");
        }
    });
    assert!(*refused.borrow() > 0, "the disk was full at least once");
}

#[test]
fn a_partition_made_on_a_full_disk_is_served_once_there_is_space() {
    let disk = SimDisk::new();
    live(&disk, |core, disk| async move {
        let shard = start(&core, Faults::default()).await;
        let free = 1 << 20;
        disk.set_free_bytes(free);
        for _ in 0..PARTITIONS {
            disk.fail_next(OpKind::Names, Fault::Error(ENOSPC));
        }
        let topic = create(&shard).await;
        let all: Vec<_> = (0..PARTITIONS).map(|index| PartitionId { topic, index }).collect();
        core.sleep(Duration::from_secs(10)).await;
        let dead: Vec<_> =
            all.iter().filter(|id| shard.hosted(**id).is_some_and(|one| one.failure().is_some())).collect();
        assert!(!dead.is_empty(), "the disk was full for one of them at least");
        let refused = produce(&shard, *dead[0], "early").await.0;
        assert_eq!(refused, ErrorCode::KafkaStorageError, "clients try again");
        assert_eq!(led(&shard, *dead[0]), (1, LeaderEpoch(0)), "nothing was resigned");
        disk.set_free_bytes(free * 1_000);
        core.sleep(Duration::from_secs(10)).await;
        for id in &all {
            assert_eq!(produce(&shard, *id, "late").await, (ErrorCode::None, 0));
        }
    });
}

#[test]
fn no_more_partitions_than_the_limit_are_created() {
    live(&SimDisk::new(), |core, _| async move {
        let settings = settings(&["limits.partitions_max=5"]);
        let shard = start_with(&core, Faults::default(), settings).await;
        assert_eq!(try_create(&shard, "a", 3).await, 0);
        assert_eq!(try_create(&shard, "b", 3).await, ErrorCode::PolicyViolation as i16);
        assert_eq!(try_create(&shard, "b", 2).await, 0);
        let more = MorePartitions { name: "b".to_owned(), count: 3, assignments: None };
        let ask = ControllerRequest::CreatePartitions { topics: vec![more], validate_only: false };
        let ControllerAnswer::CreatedPartitions(grown) = shard.ask_controller(ask).await else {
            panic!("the metadata log works")
        };
        assert!(grown[0].1.as_ref().is_err_and(|refused| refused.message.contains("limits.partitions_max")));
        assert_eq!(shard.metadata.borrow().partition_count(), 5);
    });
}

#[test]
fn a_part_that_waits_does_not_let_a_later_request_pass_the_parts_behind_it() {
    for seed in 0..20 {
        let sim = Sim::new(seed, SimConfig::default());
        let ended = sim.run(|core| async move {
            let shard = start(&core, Faults::default()).await;
            // Packing anew happens on a helper thread, so that every append waits for something.
            let configs = vec![("compression.type".to_owned(), Some("gzip".to_owned()))];
            let topic = NewTopic { num_partitions: 2, configs, ..NewTopic::with_defaults(TOPIC.to_owned()) };
            let ask = ControllerRequest::CreateTopics { topics: vec![topic], validate_only: false };
            assert!(matches!(shard.ask_controller(ask).await, ControllerAnswer::CreatedTopics(_)));
            let part = |place, index, value: &str| ProducePart {
                place,
                partition: PartitionId { topic: topic_id(&shard), index },
                records: batch(value),
            };
            let ask = |parts| Ask::Produce(ProduceAsk { wait: Wait::UntilDurable, parts });
            let asks = [ask(vec![part(0, 0, "a"), part(1, 1, "first")]), ask(vec![part(0, 1, "second")])];
            let answers = asks.map(|ask| {
                let shard = shard.clone();
                core.spawn(Class::Produce, async move { shard.ask(shard.core.id(), ask).await })
            });
            let mut offsets = Vec::new();
            for answer in answers {
                let Ok(Answer::Produce(produced)) = answer.await else { panic!("it is answered") };
                offsets.push(produced.last().expect("a part").base_offset);
            }
            assert_eq!(offsets, [0, 1]);
        });
        ended.expect("runs");
    }
}

/// What a question costs where it is asked, and where another core works on it.
#[test]
fn a_question_is_held_in_little() {
    const WORK_BYTES_MAX: usize = 192;
    const BY_MAIL_BYTES_MAX: usize = 224;
    const PRODUCE_BYTES_MAX: usize = 288;
    const GROUP_BYTES_MAX: usize = 192;
    let work = join::future_bytes(|(shard, ask, sent)| work(shard, CONTROLLER_CORE, 0, ask, sent));
    assert!(work <= WORK_BYTES_MAX, "{work}");
    live(&SimDisk::new(), |core, _| async move {
        let shard = start(&core, Faults::default()).await;
        let own = shard.core.id();
        let group = || {
            let client = crate::handlers::tests::CLIENT;
            Ask::Group(Box::new(groups::GroupAsk { frame: Slice::empty(), client, parts: Vec::new() }))
        };
        let produce = Ask::Produce(ProduceAsk { wait: Wait::Not, parts: Vec::new() });
        let check = |to: CoreId, ask: Ask, bytes_max: usize| {
            let bytes = size_of_val(&*shard.ask(to, ask));
            assert!(bytes <= bytes_max, "{bytes}");
        };
        check(CoreId(own.0 + 1), group(), BY_MAIL_BYTES_MAX);
        check(own, group(), GROUP_BYTES_MAX);
        check(own, produce, PRODUCE_BYTES_MAX);
    });
}
