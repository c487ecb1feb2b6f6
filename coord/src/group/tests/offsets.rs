//! Rules of section 3: committed offsets.

use net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};

use engine::ids::TopicId;

use super::*;

const HOUR_MS: u64 = 3_600_000;

fn delete_offsets(w: &mut World, group: &str, topic: &str, partition: i32) -> (E, E) {
    let partitions = vec![OffsetDeleteRequestPartition { partition_index: partition }];
    let topics = vec![OffsetDeleteRequestTopic { name: topic.to_owned().into(), partitions }];
    let request = OffsetDeleteRequest { group_id: group.to_owned().into(), topics };
    match w.ask(0, Request::DeleteOffsets(request)) {
        Answer::DeleteOffsets(answer) => {
            let row = answer.topics.first().and_then(|topic| topic.partitions.first());
            (code(answer.error_code), code(row.map_or(0, |row| row.error_code)))
        }
        other => panic!("{other:?}"),
    }
}

fn delete_group(w: &mut World, group: &str) -> E {
    error(&w.ask(2, Request::Delete { group: group.to_owned().into() }))
}

#[test]
fn a_commit_is_seen_when_it_is_durable_and_undone_when_it_fails() {
    let mut w = World::new(quick());
    assert_eq!(w.commit(&Commit { offset: 5, ..Commit::default() }), E::None);
    w.hold = true;
    let commit = w.call(9, Request::Commit(Commit { offset: 9, ..Commit::default() }.request()));
    let fetch = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let fetch = w.call(9, Request::FetchOffsets(fetch));
    assert!(w.answers.is_empty(), "neither is answered before the append is durable");
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    assert_eq!(error(&w.take(commit)), E::CoordinatorNotAvailable);
    assert_eq!(error(&w.take(fetch)), E::CoordinatorNotAvailable);
    assert_eq!(w.offset("g", "t", 0), 5);
    w.check_replay();
}

#[test]
fn a_simple_group_goes_with_the_append_that_made_it() {
    let mut w = World::new(quick());
    w.hold = true;
    w.call(9, Request::Commit(Commit::default().request()));
    assert_eq!(w.shard.group_count(), 1);
    w.fail(E::KafkaStorageError);
    assert_eq!((w.shard.group_count(), w.shard.offset_count()), (0, 0));
}

#[test]
fn a_commit_of_nothing_makes_no_group() {
    let mut w = World::new(Settings { offset_metadata_max_bytes: 1, ..quick() });
    let nothing = OffsetCommitRequest { group_id: "g".into(), ..OffsetCommitRequest::default() };
    assert_eq!(error(&w.ask(9, Request::Commit(nothing))), E::None);
    assert_eq!(w.commit(&Commit { metadata: "long", ..Commit::default() }), E::OffsetMetadataTooLarge);
    assert_eq!(w.shard.group_count(), 0);
}

#[test]
fn who_may_commit() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 1);
    let member = &*members[0];
    let good = Commit { generation, member, ..Commit::default() };
    let cases = [
        (good, E::None),
        (Commit { generation: generation - 1, ..good }, E::IllegalGeneration),
        (Commit { generation: -1, ..good }, E::IllegalGeneration),
        (Commit { member: "other", ..good }, E::UnknownMemberId),
        (Commit { member: "", ..good }, E::UnknownMemberId),
        (Commit { instance: Some("i"), ..good }, E::UnknownMemberId),
        (Commit::default(), E::UnknownMemberId),
        (Commit { group: "other", generation: 1, ..good }, E::GroupIdNotFound),
        (Commit { group: "other", generation: 1, version: 8, ..good }, E::IllegalGeneration),
        (Commit { group: "", ..Commit::default() }, E::None),
    ];
    for (commit, expect) in cases {
        assert_eq!(w.commit(&commit), expect);
    }
    // While others join it may still commit; before it has synced it may not.
    let newcomer = w.join(3, &Join::default());
    assert_eq!(w.commit(&good), E::None);
    w.join(9, &Join::member(member));
    w.joined(newcomer);
    let next = Commit { generation: generation + 1, ..good };
    assert_eq!(w.commit(&next), E::RebalanceInProgress);
}

#[test]
fn an_empty_group_takes_any_commit_without_a_generation() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 1);
    assert_eq!(w.leave(&[(&members[0], None)]), [E::None]);
    assert_eq!(w.commit(&Commit { member: "x", instance: Some("i"), ..Commit::default() }), E::None);
    assert_eq!(
        w.commit(&Commit { generation, member: &members[0], ..Commit::default() }),
        E::UnknownMemberId
    );
}

#[test]
fn metadata_is_limited_in_utf16_units_and_per_partition() {
    let mut w = World::new(Settings { offset_metadata_max_bytes: 4, ..quick() });
    for (metadata, expect) in [
        ("", E::None),
        ("abcd", E::None),
        ("äöüß", E::None),
        ("abcde", E::OffsetMetadataTooLarge),
        ("😀😀", E::None),
        ("😀😀a", E::OffsetMetadataTooLarge),
    ] {
        assert_eq!(w.commit(&Commit { metadata, ..Commit::default() }), expect, "{metadata}");
    }
    w.check_replay();
}

#[test]
fn fetching_tells_minus_one_for_what_is_not_there() {
    let mut w = World::new(quick());
    w.commit(&Commit { topic_id: [1; 16], metadata: "m", ..Commit::default() });
    let asked = |topic_id, name: &str, group: &str| OffsetFetchRequestGroup {
        group_id: group.to_owned().into(),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: name.to_owned().into(),
            topic_id,
            partition_indexes: vec![0],
        }]),
        ..Default::default()
    };
    let cases = [
        (asked([0; 16], "t", "g"), (7, 3, "m")),
        (asked([1; 16], "t", "g"), (7, 3, "m")),
        // The topic was deleted and made anew.
        (asked([2; 16], "t", "g"), (-1, -1, "")),
        (asked([0; 16], "u", "g"), (-1, -1, "")),
        (asked([0; 16], "t", "unknown"), (-1, -1, "")),
    ];
    for (request, (offset, epoch, metadata)) in cases {
        let Answer::FetchOffsets(answer) = w.ask(9, Request::FetchOffsets(request)) else { panic!() };
        let row = &answer.topics[0].partitions[0];
        let got = (row.committed_offset, row.committed_leader_epoch, row.metadata.as_deref());
        assert_eq!(got, (offset, epoch, Some(metadata)));
        assert_eq!((code(row.error_code), code(answer.error_code)), (E::None, E::None));
    }
    let all = OffsetFetchRequestGroup { group_id: "unknown".into(), topics: None, ..Default::default() };
    let Answer::FetchOffsets(answer) = w.ask(9, Request::FetchOffsets(all)) else { panic!() };
    assert!(answer.topics.is_empty());
}

#[test]
fn offsets_of_subscribed_topics_cannot_be_deleted() {
    let mut w = World::new(quick());
    assert_eq!(delete_offsets(&mut w, "g", "t", 0).0, E::GroupIdNotFound);
    let (members, generation) = stable(&mut w, 1);
    for topic in ["t", "other"] {
        w.commit(&Commit { topic, generation, member: &members[0], ..Commit::default() });
    }
    assert_eq!(delete_offsets(&mut w, "g", "t", 0), (E::None, E::GroupSubscribedToTopic));
    assert_eq!(delete_offsets(&mut w, "g", "other", 0), (E::None, E::None));
    assert_eq!(w.offset("g", "other", 0), -1);
    let records = w.log.len();
    assert_eq!(delete_offsets(&mut w, "g", "other", 1), (E::None, E::None));
    assert_eq!(w.log.len(), records, "nothing to delete, no record");
    w.leave(&[(&members[0], None)]);
    assert_eq!(delete_offsets(&mut w, "g", "t", 0), (E::None, E::None));
    w.check_replay();
}

#[test]
fn a_group_of_another_type_must_be_empty_for_its_offsets_to_go() {
    let mut w = World::new(quick());
    let call = w.join(3, &Join { kind: "connect".to_owned(), ..Join::default() });
    w.advance(0);
    w.joined(call);
    assert_eq!(delete_offsets(&mut w, "g", "t", 0).0, E::NonEmptyGroup);
}

#[test]
fn deleting_a_group_takes_its_offsets_and_is_undone_as_a_whole() {
    let mut w = World::new(quick());
    assert_eq!(delete_group(&mut w, "g"), E::GroupIdNotFound);
    let (members, generation) = stable(&mut w, 1);
    for partition in 0..1_500 {
        w.commit(&Commit { partition, generation, member: &members[0], ..Commit::default() });
    }
    assert_eq!(delete_group(&mut w, "g"), E::NonEmptyGroup);
    w.leave(&[(&members[0], None)]);
    w.hold = true;
    let call = w.call(2, Request::Delete { group: "g".into() });
    assert_eq!(w.open.len(), 2, "many tombstones are several appends");
    w.fail(E::NotEnoughReplicas);
    assert_eq!(error(&w.take(call)), E::CoordinatorNotAvailable);
    assert_eq!(w.shard.offset_count(), 1_500);
    w.hold = false;
    assert_eq!(w.state(), "Empty");
    assert_eq!(delete_group(&mut w, "g"), E::None);
    assert_eq!((w.shard.group_count(), w.shard.offset_count()), (0, 0));
    w.check_replay();
}

#[test]
fn offsets_expire_by_the_state_of_their_group() {
    let mut w = World::new(Settings { offsets_retention_ms: HOUR_MS.cast_signed(), ..quick() });
    let (members, generation) = stable(&mut w, 1);
    let by_member = Commit { generation, member: &members[0], ..Commit::default() };
    w.commit(&by_member);
    w.commit(&Commit { topic: "other", ..by_member });
    w.commit(&Commit { group: "simple", ..Commit::default() });
    w.commit(&Commit { group: "short", version: 4, retention_ms: 1_000, ..Commit::default() });
    w.commit(&Commit { version: 4, retention_ms: 1_000, partition: 1, ..by_member });
    let live_for = |w: &mut World, ms: u64| {
        for _ in 0..ms / 9_000 {
            w.advance(9_000);
            assert_eq!(w.heartbeat(&members[0], generation), E::None);
        }
    };
    live_for(&mut w, 700_000);
    assert_eq!(w.shard.group_count(), 2, "an expiry of its own comes before the broker's");
    assert_eq!(w.offset("g", "t", 1), 7, "but not where the topic is subscribed");
    // As long as the member lives, subscribed topics stay and others go.
    live_for(&mut w, HOUR_MS + 700_000);
    assert_eq!(w.offset("g", "t", 0), 7);
    assert_eq!(w.offset("g", "other", 0), -1);
    assert_eq!(w.offset("simple", "t", 0), -1);
    assert_eq!(w.shard.group_count(), 1);
    // Without members the retention runs from the time it became empty.
    w.leave(&[(&members[0], None)]);
    w.advance(HOUR_MS - 1_000);
    assert_eq!(w.offset("g", "t", 0), 7);
    w.advance(700_000);
    assert_eq!((w.shard.group_count(), w.shard.offset_count()), (0, 0));
    w.check_replay();
}

#[test]
fn a_deleted_topic_takes_its_offsets_but_not_those_of_its_successor() {
    let mut w = World::new(quick());
    for group in 0..200 {
        let group = format!("group {group}");
        w.commit(&Commit { group: &group, topic_id: [1; 16], ..Commit::default() });
        w.commit(&Commit { group: &group, topic_id: [2; 16], partition: 1, ..Commit::default() });
    }
    w.commit(&Commit { group: "big", topic: "u", topic_id: [3; 16], ..Commit::default() });
    for partition in 0..2_500 {
        w.commit(&Commit { group: "big", topic_id: [1; 16], partition, ..Commit::default() });
    }
    let topic = Topic {
        id: TopicId([1; 16]),
        name: "t".to_owned(),
        configs: BTreeMap::new(),
        partitions: Vec::new(),
    };
    w.step(Input::TopicDeleted(&topic));
    assert_eq!(w.shard.deadline(), Some(0));
    let mut steps = 0;
    while w.shard.deadline() == Some(0) {
        w.step(Input::Tick);
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
    assert_eq!(w.shard.offset_count(), 201);
    assert_eq!((w.offset("group 7", "t", 0), w.offset("group 7", "t", 1)), (-1, 7));
    w.check_replay();
}

#[test]
fn the_record_of_a_commit_is_kafkas() {
    let mut w = World::new(quick());
    w.commit(&Commit { group: "gr", metadata: "m", topic_id: [5; 16], ..Commit::default() });
    let (key, value) = &w.log[0];
    assert_eq!(key, &[0, 1, 0, 2, b'g', b'r', 0, 1, b't', 0, 0, 0, 0]);
    let mut expect = vec![0, 4];
    expect.extend(7i64.to_be_bytes());
    expect.extend(3i32.to_be_bytes());
    expect.extend([2, b'm']);
    expect.extend(1_000_000i64.to_be_bytes());
    expect.extend([1, 0, 16]);
    expect.extend([5; 16]);
    assert_eq!(value.as_deref(), Some(&expect[..]));
    w.commit(&Commit { version: 4, retention_ms: 50, ..Commit::default() });
    let value = w.log[1].1.as_ref().expect("a value");
    assert_eq!(&value[..2], &[0, 1], "an expiry only version 1 can say");
    assert_eq!(&value[value.len() - 8..], &1_000_050i64.to_be_bytes());
}

#[test]
fn who_waits_for_a_disk_that_hangs_is_told_so_in_time_and_what_was_written_counts() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 1);
    let call = w.join(9, &Join::member(&members[0]));
    w.advance(0);
    let generation = generation + 1;
    assert_eq!(w.joined(call).generation_id, generation);
    w.hold = true;
    let sync = w.sync(&members[0], generation, &[(&members[0], b"a")]);
    let commit = w.call(9, Request::Commit(Commit { group: "s", offset: 9, ..Commit::default() }.request()));
    w.advance(4_999);
    let fetch = OffsetFetchRequestGroup { group_id: "s".into(), topics: None, ..Default::default() };
    let fetch = w.call(9, Request::FetchOffsets(fetch));
    assert!(w.answers.is_empty());
    w.advance(1);
    assert_eq!(error(&w.take(commit)), E::CoordinatorNotAvailable);
    assert!(w.answers.is_empty(), "the other one has just begun to wait");
    w.advance(4_999);
    assert_eq!(error(&w.take(fetch)), E::NotCoordinator);
    assert_eq!(w.shard.deadline(), w.shard.core.timers.first(), "nothing is due for them any more");
    w.hold = false;
    w.make_durable(usize::MAX);
    assert_eq!(w.offset("s", "t", 0), 9);
    assert_eq!(&*w.synced(sync).assignment, b"a", "a plan takes effect when it is durable");
    w.check_replay();
}

#[test]
fn a_record_that_cannot_be_written_fails_alone_for_good() {
    let mut w = World::new(quick());
    w.hold = true;
    let calls: Vec<u64> = ["a", "b", "c"]
        .map(|group| w.call(9, Request::Commit(Commit { group, ..Commit::default() }.request())))
        .to_vec();
    w.make_durable(1);
    w.fail(E::MessageTooLarge);
    let codes: Vec<E> = calls.into_iter().map(|call| error(&w.take(call))).collect();
    assert_eq!(codes, [E::None, E::UnknownServerError, E::NotCoordinator]);
}
