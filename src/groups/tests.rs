//! One core of a broker over the simulated disk, asked by frames as a connection would.

use std::cell::Cell;
use std::time::Duration;

use engine::log::Faults;
use net::api::ApiKey;
use net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use net::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use net::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use net::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use net::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use net::messages::list_groups::{ListGroupsRequest, ListGroupsResponse};
use net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use net::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use rt::sim::{CrashPlan, Fault, OpKind, Sim, SimConfig, SimDisk, Stopped};
use rt::{Class, Core};

use super::*;
use crate::handlers::tests::ask;
use crate::shard::tests::{live, settings, start_with, try_create};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const TOPIC: &str = "orders";
pub(super) const GROUP: &str = "g";

/// A broker with a topic and a coordinator that has loaded.
pub(super) async fn begin(core: &Core, arguments: &[&str]) -> Rc<Shard> {
    let mut all = vec!["groups.group.initial.rebalance.delay.ms=0", "groups.offsets.topic.num.partitions=3"];
    all.extend(arguments);
    let shard = start_with(core, Faults::default(), settings(&all)).await;
    if shard.metadata.borrow().topic(TOPIC).is_none() {
        assert_eq!(try_create(&shard, TOPIC, 2).await, 0);
    }
    let body = FindCoordinatorRequest { coordinator_keys: vec![GROUP.into()], ..Default::default() };
    let told = ask(&shard, ApiKey::FindCoordinator, 6, &body).await;
    let found: FindCoordinatorResponse = told.read();
    assert_eq!((found.coordinators[0].error_code, found.coordinators[0].node_id), (0, 1));
    while list(&shard).await.is_err() {
        core.yield_now().await;
    }
    shard
}

async fn list(shard: &Rc<Shard>) -> Result<Vec<String>, i16> {
    let told = ask(shard, ApiKey::ListGroups, 5, &ListGroupsRequest::default()).await;
    let listed: ListGroupsResponse = told.read();
    if listed.error_code != 0 {
        return Err(listed.error_code);
    }
    Ok(listed.groups.iter().map(|group| format!("{} {}", group.group_id, group.group_state)).collect())
}

async fn commit(shard: &Rc<Shard>, member: (&str, i32), offset: i64, metadata: &str) -> Vec<i16> {
    commit_for(shard, GROUP, member, offset, metadata).await
}

pub(super) async fn commit_for(
    shard: &Rc<Shard>,
    group: &str,
    member: (&str, i32),
    offset: i64,
    metadata: &str,
) -> Vec<i16> {
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        committed_metadata: Some(metadata.to_owned().into()),
        ..Default::default()
    };
    let topic = |name: &'static str, partitions: &[i32]| OffsetCommitRequestTopic {
        name: name.into(),
        partitions: partitions.iter().copied().map(partition).collect(),
        ..Default::default()
    };
    let body = OffsetCommitRequest {
        group_id: group.to_owned().into(),
        member_id: member.0.to_owned().into(),
        generation_id_or_member_epoch: member.1,
        // Between two that are there stands one that is not.
        topics: vec![topic("nothing", &[0]), topic(TOPIC, &[0, 9, 1])],
        ..Default::default()
    };
    let told = ask(shard, ApiKey::OffsetCommit, 9, &body).await;
    let committed: OffsetCommitResponse = told.read();
    committed.topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code).collect()
}

/// What is committed for partition 0, by name and by id.
async fn committed(shard: &Rc<Shard>) -> (i64, i64) {
    let id = shard.metadata.borrow().topic(TOPIC).expect("the topic is there").id;
    let mut offsets = Vec::new();
    for version in [8, 10] {
        let topic =
            OffsetFetchRequestTopics { name: TOPIC.into(), topic_id: id.0, partition_indexes: vec![0] };
        let group = OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let body = OffsetFetchRequest { groups: vec![group], ..Default::default() };
        let told = ask(shard, ApiKey::OffsetFetch, version, &body).await;
        let fetched: OffsetFetchResponse = told.read();
        assert_eq!(fetched.groups[0].error_code, 0);
        let one = &fetched.groups[0].topics[0].partitions[0];
        assert_eq!(one.error_code, 0);
        offsets.push(one.committed_offset);
    }
    (offsets[0], offsets[1])
}

fn join_request(member: &str) -> JoinGroupRequest<'_> {
    JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: b"m"[..].into() }],
        ..Default::default()
    }
}

/// Joins as the only member and leads itself to Stable; the member's id and generation.
async fn join(shard: &Rc<Shard>) -> (String, i32) {
    let told = ask(shard, ApiKey::JoinGroup, 9, &join_request("")).await;
    let refused: JoinGroupResponse = told.read();
    assert_eq!(refused.error_code, ErrorCode::MemberIdRequired as i16);
    let told = ask(shard, ApiKey::JoinGroup, 9, &join_request(&refused.member_id)).await;
    let joined: JoinGroupResponse = told.read();
    assert_eq!((joined.error_code, joined.members.len()), (0, 1));
    assert_eq!(joined.leader, joined.member_id);
    let assignment =
        SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment: b"all"[..].into() };
    let body = SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![assignment],
        ..Default::default()
    };
    let told = ask(shard, ApiKey::SyncGroup, 5, &body).await;
    let synced: SyncGroupResponse = told.read();
    assert_eq!((synced.error_code, &*synced.assignment), (0, &b"all"[..]));
    (joined.member_id.to_string(), joined.generation_id)
}

async fn heartbeat(shard: &Rc<Shard>, member: &str, generation_id: i32) -> i16 {
    let body = HeartbeatRequest {
        group_id: GROUP.into(),
        generation_id,
        member_id: member.into(),
        ..Default::default()
    };
    let told = ask(shard, ApiKey::Heartbeat, 4, &body).await;
    told.read::<HeartbeatResponse>().error_code
}

const UNKNOWN: i16 = ErrorCode::UnknownTopicOrPartition as i16;
const NOT_COORDINATOR: i16 = ErrorCode::NotCoordinator as i16;

#[test]
fn members_and_offsets_come_back_after_kill_9_and_others_are_expired() {
    let disk = SimDisk::new();
    let member = Rc::new(std::cell::RefCell::new((String::new(), 0)));
    let seen = member.clone();
    live(&disk, move |core, _| {
        let member = seen.clone();
        async move {
            let shard = begin(&core, &[]).await;
            assert_eq!(list(&shard).await, Ok(vec![]));
            assert_eq!(committed(&shard).await, (-1, -1));
            let (id, generation) = join(&shard).await;
            assert_eq!(heartbeat(&shard, &id, generation).await, 0);
            assert_eq!(commit(&shard, (&id, generation), 41, "").await, [UNKNOWN, 0, UNKNOWN, 0]);
            assert_eq!(commit(&shard, (&id, generation), 42, "").await, [UNKNOWN, 0, UNKNOWN, 0]);
            let illegal = ErrorCode::IllegalGeneration as i16;
            assert_eq!(
                commit(&shard, (&id, generation + 1), 1, "").await,
                [UNKNOWN, illegal, UNKNOWN, illegal]
            );
            assert_eq!(committed(&shard).await, (42, 42));
            *member.borrow_mut() = (id, generation);
        }
    });
    let seen = member.clone();
    live(&disk, move |core, _| {
        let member = seen.clone();
        async move {
            let shard = begin(&core, &[]).await;
            let (id, generation) = member.borrow().clone();
            assert_eq!(heartbeat(&shard, &id, generation).await, 0);
            assert_eq!(committed(&shard).await, (42, 42));
            assert_eq!(list(&shard).await, Ok(vec!["g Stable".to_owned()]));
            core.sleep(Duration::from_secs(11)).await;
            assert_eq!(list(&shard).await, Ok(vec!["g Empty".to_owned()]), "the session ended");
            assert_eq!(heartbeat(&shard, &id, generation).await, ErrorCode::UnknownMemberId as i16);
        }
    });
}

#[test]
fn a_commit_that_finds_the_disk_full_is_undone_and_the_next_one_counts() {
    let disk = SimDisk::new();
    live(&disk, |core, disk| async move {
        let shard = begin(&core, &["groups.offset.metadata.max.bytes=100000"]).await;
        let (id, generation) = join(&shard).await;
        let large = "x".repeat(30 << 10);
        let (mut last, mut refused) = (-1, 0);
        for offset in 0..16 {
            disk.fail_next(OpKind::Allocate, Fault::Error(ENOSPC));
            let codes = commit(&shard, (&id, generation), offset, &large).await;
            match codes[1] {
                0 => last = offset,
                code => {
                    assert_eq!(codes, [UNKNOWN, NOT_COORDINATOR, UNKNOWN, NOT_COORDINATOR], "{code}");
                    refused += 1;
                }
            }
            assert_eq!(committed(&shard).await, (last, last));
        }
        assert!(refused > 0, "the disk was full at least once");
        assert_eq!(heartbeat(&shard, &id, generation).await, 0);
        assert_eq!(counts(&shard).waiting, 0);
    });
}

#[test]
fn when_the_log_fails_everybody_is_sent_away_and_a_restart_has_what_was_acknowledged() {
    let disk = SimDisk::new();
    live(&disk, |core, disk| async move {
        let shard = begin(&core, &[]).await;
        let (id, generation) = join(&shard).await;
        assert_eq!(commit(&shard, (&id, generation), 5, "").await[1], 0);
        disk.fail_next(OpKind::Write, Fault::Error(EIO));
        assert_eq!(commit(&shard, (&id, generation), 6, "").await[1], NOT_COORDINATOR);
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(heartbeat(&shard, &id, generation).await, NOT_COORDINATOR);
        let (partition, _) = locate(&shard, GROUP).expect("the topic is there");
        assert!(!shard.groups.hosts.borrow().contains_key(&partition), "nothing is hosted on a failed log");
        assert_eq!(list(&shard).await, Ok(vec![]), "the groups of the other partitions are listed");
    });
    live(&disk, |core, _| async move {
        let shard = begin(&core, &[]).await;
        let (by_name, by_id) = committed(&shard).await;
        // What was answered with an error may have reached the disk.
        assert!(by_name == by_id && (5..=6).contains(&by_name), "{by_name}");
    });
}

/// With `write` as the default, and the power cut at any operation of a life: what is not synced then is lost.
#[test]
fn hazard_a12_no_acknowledged_offset_is_lost_or_goes_back_wherever_the_power_is_cut() {
    const COMMITS: i64 = 6;
    let disk = SimDisk::new();
    // (acknowledged, sent)
    let bounds = Rc::new(Cell::new((-1, -1)));
    for cut in (1..60).step_by(3) {
        let sim = Sim::with_disk(cut, SimConfig::default(), disk.clone());
        sim.stop_at(Some(rt::Instant::from_nanos(600 * 1_000_000_000)));
        let (seen, cutting) = (bounds.clone(), disk.clone());
        let ran = sim.run(move |core| {
            let (seen, cutting) = (seen.clone(), cutting.clone());
            async move {
                let shard = begin(&core, &["durability.default=write"]).await;
                let (acknowledged, sent) = seen.get();
                let (found, _) = committed(&shard).await;
                assert!((acknowledged..=sent).contains(&found), "{found}, of {acknowledged} to {sent}");
                seen.set((found, found));
                cutting.crash_at_op(cutting.op_count() + cut);
                for offset in found + 1..found + 1 + COMMITS {
                    seen.set((seen.get().0, offset));
                    assert_eq!(commit(&shard, ("", -1), offset, "").await[1], 0);
                    seen.set((offset, offset));
                }
            }
        });
        assert!(matches!(ran, Ok(_) | Err(Stopped::Crashed)), "cut {cut}: {ran:?}");
        drop(sim);
        disk.crash(cut, CrashPlan::RANDOM);
    }
    assert!(bounds.get().0 > 20, "most lives committed something: {bounds:?}");
}

#[test]
fn a_caller_that_goes_away_leaves_nothing_behind() {
    live(&SimDisk::new(), |core, _| async move {
        let shard = begin(&core, &[]).await;
        let (id, generation) = join(&shard).await;
        // A second member: its JoinGroup waits for the first one to join anew.
        let told = ask(&shard, ApiKey::JoinGroup, 9, &join_request("")).await;
        let second: JoinGroupResponse = told.read();
        let (asking, answered) = (shard.clone(), Rc::new(Cell::new(false)));
        let (second, seen) = (second.member_id.to_string(), answered.clone());
        let parked = core.spawn(Class::Produce, async move {
            ask(&asking, ApiKey::JoinGroup, 9, &join_request(&second)).await;
            seen.set(true);
        });
        core.sleep(Duration::from_millis(10)).await;
        assert_eq!(counts(&shard).waiting, 1);
        assert_eq!(heartbeat(&shard, &id, generation).await, ErrorCode::RebalanceInProgress as i16);
        parked.abort();
        assert!(parked.await.is_err());
        assert_eq!((counts(&shard).waiting, answered.get()), (0, false));
        // The group goes on: the phase ends when the first one has joined, with both.
        let told = ask(&shard, ApiKey::JoinGroup, 9, &join_request(&id)).await;
        let joined: JoinGroupResponse = told.read();
        assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, generation + 1, 2));
    });
}

#[test]
fn the_topic_is_made_once_with_what_it_must_have_whatever_the_defaults_are() {
    live(&SimDisk::new(), |core, _| async move {
        let arguments = ["durability.default=write", "topics.log.retention.ms=1000"];
        let shard = begin(&core, &arguments).await;
        create_topic(&shard).await;
        let metadata = shard.metadata.borrow();
        let topic = metadata.topic(OFFSETS_TOPIC).expect("it is there");
        assert_eq!(topic.partitions.len(), 3);
        assert_eq!(topic.configs.get("cleanup.policy").map(String::as_str), Some("compact"));
        let mut deleting = (**topic).clone();
        deleting.configs.insert("cleanup.policy".to_owned(), "delete".to_owned());
        assert!(shard.log_config(&deleting).compacted, "else nothing would ever shrink it");
        let config = shard.log_config(topic);
        assert_eq!(config.segment_bytes, 100 << 20);
        assert!(!config.deletes);
        assert_eq!(config.durability, engine::log::Durability::Fsync);
    });
}

async fn alter(
    shard: &Rc<Shard>,
    resource: (i8, &'static str),
    name: &'static str,
    value: &'static str,
) -> i16 {
    let config = AlterableConfig { name: name.into(), config_operation: 0, value: Some(value.into()) };
    let (resource_type, resource_name) = (resource.0, resource.1.into());
    let resource = AlterConfigsResource { resource_type, resource_name, configs: vec![config] };
    let body = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let told = ask(shard, ApiKey::IncrementalAlterConfigs, 1, &body).await;
    told.read::<IncrementalAlterConfigsResponse>().responses[0].error_code
}

#[test]
fn a_record_that_is_too_large_is_nobody_elses_error() {
    live(&SimDisk::new(), |core, _| async move {
        let shard = begin(&core, &["groups.offset.metadata.max.bytes=100000"]).await;
        assert_eq!(alter(&shard, (2, OFFSETS_TOPIC), "max.message.bytes", "20000").await, 0);
        let (id, generation) = join(&shard).await;
        let (large, member) = ("x".repeat(30 << 10), (&*id, generation));
        // All three are decided before the first is in the log.
        let commits = vec![(7, ""), (8, &*large), (9, "")];
        let commits = commits.into_iter().map(|(offset, text)| commit(&shard, member, offset, text));
        let codes: Vec<i16> =
            crate::shard::join::join_all(commits).await.iter().map(|codes| codes[1]).collect();
        assert_eq!(codes, [0, ErrorCode::UnknownServerError as i16, 0]);
        assert_eq!(committed(&shard).await, (9, 9));
        let refused = ErrorCode::InvalidConfig as i16;
        assert_eq!(alter(&shard, (2, OFFSETS_TOPIC), "cleanup.policy", "delete").await, refused);
    });
}

#[test]
fn a_groups_own_configs_are_told_to_its_members_also_after_kill_9() {
    let disk = SimDisk::new();
    let interval = |shard: Rc<Shard>, member: &'static str| async move {
        let body = ConsumerGroupHeartbeatRequest {
            group_id: "own".into(),
            member_id: member.into(),
            rebalance_timeout_ms: 30_000,
            subscribed_topic_names: Some(vec![TOPIC.into()]),
            topic_partitions: Some(Vec::new()),
            ..Default::default()
        };
        let told = ask(&shard, ApiKey::ConsumerGroupHeartbeat, 1, &body).await;
        let beat: ConsumerGroupHeartbeatResponse = told.read();
        assert_eq!(beat.error_code, 0);
        beat.heartbeat_interval_ms
    };
    live(&disk, move |core, _| async move {
        let shard = begin(&core, &[]).await;
        assert_eq!(interval(shard.clone(), "a").await, 5000);
        assert_eq!(alter(&shard, (32, "own"), "consumer.heartbeat.interval.ms", "14000").await, 0);
        assert_eq!(interval(shard, "b").await, 14_000);
    });
    live(&disk, move |core, _| async move {
        // What the broker allows has become less.
        let shard = begin(&core, &["groups.group.consumer.max.heartbeat.interval.ms=9000"]).await;
        assert_eq!(interval(shard, "c").await, 9_000);
    });
}
