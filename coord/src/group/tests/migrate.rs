//! Live groups that change their type, in both directions.

use net::messages::assignment::{self, ConsumerProtocolAssignment};
use net::messages::subscription;
use net::wire::{Decode, Reader};

use super::*;

/// What a cooperative consumer of topic "t" says.
fn owning(partitions: &[i32]) -> Vec<u8> {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["t".into()],
        owned_partitions: vec![subscription::TopicPartition {
            topic: "t".into(),
            partitions: partitions.to_vec(),
        }],
        ..ConsumerProtocolSubscription::default()
    };
    let mut w = Writer::new();
    w.i16(1);
    subscription.encode(&mut w, 1).unwrap();
    w.into_body().unwrap()
}

fn assigned(partitions: &[i32], user_data: Option<&'static [u8]>) -> Vec<u8> {
    let content = ConsumerProtocolAssignment {
        assigned_partitions: vec![assignment::TopicPartition {
            topic: "t".into(),
            partitions: partitions.to_vec(),
        }],
        user_data: user_data.map(Into::into),
    };
    let mut w = Writer::new();
    w.i16(1);
    content.encode(&mut w, 1).unwrap();
    w.into_body().unwrap()
}

fn partitions_of(bytes: &[u8]) -> Vec<i32> {
    let mut r = Reader::new(bytes);
    let version = r.i16().unwrap();
    let content = ConsumerProtocolAssignment::decode(&mut r, version).unwrap();
    content.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect()
}

fn cooperative(member: &str, owned: &[i32]) -> Join {
    Join { protocols: vec![("range".to_owned(), owning(owned))], ..Join::member(member) }
}

/// A stable classic group of one member that has all four partitions of "t"; its id and generation.
fn classic(w: &mut World) -> (String, i32) {
    let call = w.join(3, &cooperative("", &[]));
    w.advance(0);
    let member = w.joined(call).member_id.into_owned();
    let sync = w.sync(&member, 1, &[(&member, &assigned(&[0, 1, 2, 3], None))]);
    assert_eq!(partitions_of(&w.synced(sync).assignment), [0, 1, 2, 3]);
    (member, 1)
}

#[test]
fn a_classic_group_takes_in_a_member_of_the_new_protocol_and_gives_it_up_again() {
    let mut w = world_of(&[("t", 1, 4)]);
    let (old, generation) = classic(&mut w);
    w.commit(&Commit { generation, member: &old, ..Commit::default() });
    let new = w.beat(&Beat::join("new"));
    assert_eq!((code(new.error_code), new.member_epoch, told(&new).as_deref()), (E::None, 2, Some("")));
    let described = w.described();
    assert_eq!((described.members.len(), described.group_epoch), (2, 2));
    let types: Vec<(&str, i8)> = described.members.iter().map(|m| (&*m.member_id, m.member_type)).collect();
    assert_eq!(types, [(&*old, 0), ("new", 1)]);
    w.check_invariants();
    w.check_replay();
    // The old one hears that there is something to do, gives up half of what it has, and is told so twice.
    assert_eq!(w.heartbeat(&old, generation), E::RebalanceInProgress);
    let call = w.join(9, &cooperative(&old, &[0, 1, 2, 3]));
    let answer = w.joined(call);
    assert_eq!((answer.generation_id, &*answer.leader, answer.members.len()), (1, "", 0));
    let call = w.sync(&old, 1, &[]);
    assert_eq!(partitions_of(&w.synced(call).assignment), [0, 1]);
    let call = w.join(9, &cooperative(&old, &[0, 1]));
    assert_eq!(w.joined(call).generation_id, 2);
    let call = w.sync(&old, 2, &[]);
    assert_eq!(partitions_of(&w.synced(call).assignment), [0, 1]);
    assert_eq!(w.heartbeat(&old, 2), E::None);
    assert_eq!(told(&w.beat(&Beat::stay("new", 2))).as_deref(), Some("1:2 3"));
    assert_eq!(w.described().group_state, "Stable");
    assert_eq!(w.commit(&Commit { generation: 2, member: &old, ..Commit::default() }), E::None);
    assert_eq!(w.commit(&Commit { generation: 1, member: &old, ..Commit::default() }), E::IllegalGeneration);
    w.check_invariants();
    w.check_replay();
    // The last one of the new protocol leaves: a classic group again, and a rebalance.
    w.beat(&Beat::stay("new", -1));
    assert_eq!(w.state(), "PreparingRebalance");
    w.check_invariants();
    assert_eq!(w.heartbeat(&old, 2), E::RebalanceInProgress);
    let call = w.join(9, &cooperative(&old, &[0, 1]));
    let answer = w.joined(call);
    assert_eq!((answer.generation_id, answer.members.len()), (3, 1));
    let sync = w.sync(&old, 3, &[(&old, &assigned(&[0, 1, 2, 3], None))]);
    assert_eq!(partitions_of(&w.synced(sync).assignment), [0, 1, 2, 3]);
    assert_eq!(w.offset("g", "t", 0), 7);
    w.check_replay();
}

#[test]
fn a_rebalance_in_flight_starts_over_in_the_new_protocol() {
    let mut w = world_of(&[("t", 1, 4)]);
    let (old, _) = classic(&mut w);
    let second = w.join(3, &cooperative("", &[]));
    assert_eq!(w.state(), "PreparingRebalance");
    w.beat(&Beat::join("new"));
    let answer = w.joined(second);
    assert_eq!(code(answer.error_code), E::RebalanceInProgress);
    assert_eq!(w.described().members.len(), 3);
    assert_eq!(w.heartbeat(&old, 1), E::RebalanceInProgress);
    w.check_invariants();
    w.check_replay();
}

#[test]
fn what_cannot_be_upgraded() {
    let policy = |policy| Settings { consumer_migration_policy: policy, ..quick() };
    let unreadable = vec![("range".to_owned(), vec![0, 1, 2])];
    let connect = Join { kind: "connect".to_owned(), ..Join::default() };
    let cases = [
        (policy(MigrationPolicy::Disabled), Join::default(), None, E::GroupIdNotFound),
        (policy(MigrationPolicy::Downgrade), Join::default(), None, E::GroupIdNotFound),
        (policy(MigrationPolicy::Upgrade), Join::default(), None, E::None),
        (quick(), Join { protocols: unreadable, ..Join::default() }, None, E::GroupIdNotFound),
        (quick(), connect, None, E::GroupIdNotFound),
        (quick(), Join::default(), Some(&b"sticky"[..]), E::GroupIdNotFound),
        (Settings { consumer_max_size: 1, ..quick() }, Join::default(), None, E::GroupMaxSizeReached),
    ];
    for (settings, join, user_data, expect) in cases {
        let now = Now { ms: 1, unix_ms: 1 };
        let mut w = World::loaded(settings, topics(&[("t", 1, 4)]), Vec::new(), now);
        let call = w.join(3, &join);
        w.advance(0);
        let member = w.joined(call).member_id.into_owned();
        let mut request = sync_request(&member, 1, &[(&member, &assigned(&[0], user_data))]);
        request.protocol_type = Some(join.kind.clone().into());
        w.call(5, Request::Sync(request));
        assert_eq!(code(w.beat(&Beat::join("new")).error_code), expect, "{join:?}");
        let state = if expect == E::None { "Dead" } else { "Stable" };
        assert_eq!(w.state(), state);
        w.check_replay();
    }
}

#[test]
fn without_migration_the_protocols_do_not_mix() {
    let settings = Settings { consumer_migration_policy: MigrationPolicy::Disabled, ..quick() };
    let mut w = World::loaded(settings, topics(&[("t", 1, 4)]), Vec::new(), Now { ms: 1, unix_ms: 1 });
    w.beat(&Beat::join("new"));
    let call = w.join(9, &Join::default());
    assert_eq!(code(w.joined(call).error_code), E::InconsistentGroupProtocol);
}

#[test]
fn an_upgrade_that_does_not_become_durable_leaves_the_classic_group_alive() {
    let mut w = world_of(&[("t", 1, 4)]);
    let (old, generation) = classic(&mut w);
    let view = w.durable_view();
    w.hold = true;
    let call = w.call(1, Request::ConsumerHeartbeat(Beat::join("new").request()));
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    assert_eq!(error(&w.take(call)), E::CoordinatorNotAvailable);
    assert_eq!(w.durable_view(), view);
    assert_eq!(w.heartbeat(&old, generation), E::None);
    w.check_invariants();
    w.check_replay();
    w.advance(10_000);
    assert_eq!(w.state(), "Empty", "its sessions run");
}

#[test]
fn a_downgrade_that_does_not_become_durable_leaves_the_consumer_group_alive() {
    let mut w = world_of(&[("t", 1, 4)]);
    classic(&mut w);
    w.beat(&Beat::join("new"));
    let view = w.durable_view();
    w.hold = true;
    let call = w.call(1, Request::ConsumerHeartbeat(Beat::stay("new", -1).request()));
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    assert_eq!(error(&w.take(call)), E::CoordinatorNotAvailable);
    assert_eq!(w.durable_view(), view);
    assert_eq!(code(w.beat(&Beat::stay("new", 2)).error_code), E::None);
    w.check_invariants();
    w.check_replay();
    w.advance(100_000);
    assert_eq!(w.shard.group_count(), 1);
    assert!(w.described().members.is_empty() || w.state() == "Empty");
}

#[test]
fn a_call_that_waits_in_a_group_that_never_was_is_answered() {
    let mut w = world_of(&[("t", 1, 4)]);
    let (old, _) = classic(&mut w);
    w.beat(&Beat::join("new"));
    w.hold = true;
    w.call(1, Request::ConsumerHeartbeat(Beat::stay("new", -1).request()));
    let parked = w.join(9, &Join { instance: Some("i".to_owned()), ..cooperative("", &[]) });
    w.fail(E::NotLeaderOrFollower);
    w.hold = false;
    assert_eq!(code(w.joined(parked).error_code), E::NotCoordinator);
    assert_eq!(w.described().members.len(), 2);
    assert_eq!(w.heartbeat(&old, 1), E::RebalanceInProgress);
}

#[test]
fn a_static_member_changes_its_protocol_with_its_process() {
    let mut w = world_of(&[("t", 1, 4)]);
    let call = w.join(5, &Join { instance: Some("i".to_owned()), ..cooperative("", &[]) });
    w.advance(0);
    let old = w.joined(call).member_id.into_owned();
    let mut request = sync_request(&old, 1, &[(&old, &assigned(&[0, 1, 2, 3], None))]);
    request.group_instance_id = Some("i".into());
    w.call(5, Request::Sync(request));
    let new = w.beat(&Beat::join("new").instance("i"));
    assert_eq!((code(new.error_code), told(&new).as_deref()), (E::None, Some("1:0 1 2 3")));
    // That alone moves nobody's partitions.
    assert_eq!((w.described().members.len(), w.described().group_epoch), (1, 1));
    w.check_invariants();
    w.check_replay();
    // And back: the group is classic when its only member is.
    w.beat(&Beat { epoch: -2, ..Beat::stay("new", 0).instance("i") });
    let call = w.join(9, &Join { instance: Some("i".to_owned()), ..cooperative("", &[]) });
    let answer = w.joined(call);
    assert_eq!(code(answer.error_code), E::None);
    assert_eq!(w.state(), "Stable");
    let mut request = sync_request(&answer.member_id, answer.generation_id, &[]);
    request.group_instance_id = Some("i".into());
    let call = w.call(5, Request::Sync(request));
    assert_eq!(partitions_of(&w.synced(call).assignment), [0, 1, 2, 3]);
    w.check_invariants();
    w.check_replay();
}

#[test]
fn a_classic_member_that_does_not_do_what_it_is_told_is_out() {
    let mut w = world_of(&[("t", 1, 4)]);
    let (old, generation) = classic(&mut w);
    w.beat(&Beat::join("new"));
    for _ in 0..11 {
        assert_eq!(w.heartbeat(&old, generation), E::RebalanceInProgress);
        w.advance(5_000);
        w.beat(&Beat::stay("new", 2));
    }
    w.advance(5_010);
    assert_eq!(w.heartbeat(&old, generation), E::UnknownMemberId);
    assert_eq!(told(&w.beat(&Beat::stay("new", 2))).as_deref(), Some("1:0 1 2 3"));
}

#[test]
fn classic_members_are_checked_as_in_a_classic_group() {
    let mut w = world_of(&[("t", 1, 4)]);
    let (old, generation) = classic(&mut w);
    w.beat(&Beat::join("new"));
    assert_eq!(w.heartbeat("nobody", generation), E::UnknownMemberId);
    assert_eq!(w.heartbeat("new", 2), E::UnknownMemberId, "it speaks the other protocol");
    assert_eq!(w.heartbeat(&old, generation + 1), E::IllegalGeneration);
    let call = w.sync(&old, generation, &[]);
    assert_eq!(code(w.synced(call).error_code), E::RebalanceInProgress);
    let call = w.join(9, &Join::default());
    assert_eq!(code(w.joined(call).error_code), E::MemberIdRequired);
    let call = w.join(9, &Join::member(&old).protocols(&["other"]));
    assert_eq!(code(w.joined(call).error_code), E::InconsistentGroupProtocol);
    let call = w.join(9, &Join { protocols: vec![("range".to_owned(), vec![1])], ..Join::member(&old) });
    assert_eq!(code(w.joined(call).error_code), E::InconsistentGroupProtocol);
    assert_eq!(w.leave(&[("nobody", None), (&old, None)]), [E::UnknownMemberId, E::None]);
    assert_eq!(w.described().members.len(), 1);
    w.check_invariants();
    w.check_replay();
}

#[test]
fn an_id_that_was_given_out_and_not_used_does_not_keep_a_group_classic() {
    let mut w = world_of(&[("t", 1, 4)]);
    let call = w.join(9, &Join { kind: "connect".to_owned(), ..cooperative("", &[]) });
    let unused = w.joined(call).member_id.into_owned();
    let new = w.beat(&Beat::join("new"));
    assert_eq!((code(new.error_code), told(&new).as_deref()), (E::None, Some("1:0 1 2 3")));
    let call = w.join(9, &cooperative(&unused, &[]));
    let joined = w.joined(call);
    assert_eq!((code(joined.error_code), &*joined.member_id), (E::None, &*unused));
    w.check_replay();
}

#[test]
fn version_0_of_join_has_one_timeout_in_a_consumer_group_too() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.beat(&Beat::join("new"));
    let call = w.join(0, &Join { rebalance_ms: -1, ..cooperative("", &[]) });
    let old = w.joined(call).member_id.into_owned();
    w.advance(9_000);
    let ids: Vec<String> = w.described().members.iter().map(|m| m.member_id.to_string()).collect();
    assert!(ids.contains(&old), "{ids:?}");
    w.advance(1_000);
    assert!(!w.described().members.iter().any(|member| member.member_id == old));
}

#[test]
fn expressions_are_asked_about_again_when_a_downgrade_is_taken_back() {
    let mut w = world_of(&[("t", 1, 4)]);
    classic(&mut w);
    w.beat(&Beat { names: None, regex: Some("t.*"), ..Beat::join("new") });
    assert_eq!(w.resolves.len(), 1);
    w.hold = true;
    let leave = w.call(1, Request::ConsumerHeartbeat(Beat::stay("new", -1).request()));
    // The answer comes when there is nobody to take it.
    w.step(Input::Resolved { group: "g", patterns: &[("t.*".to_owned(), vec!["t".to_owned()])] });
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    assert_eq!(error(&w.take(leave)), E::CoordinatorNotAvailable);
    let epoch = w.described().members.iter().find(|m| m.member_id == "new").map(|m| m.member_epoch);
    w.beat(&Beat::stay("new", epoch.expect("it is back")));
    assert_eq!(w.resolves.len(), 2);
}

#[test]
fn a_plan_that_an_upgrade_overtook_is_made_anew_when_the_upgrade_is_taken_back() {
    let mut w = world_of(&[("t", 1, 4)]);
    let (old, generation) = classic(&mut w);
    let call = w.join(9, &cooperative(&old, &[0, 1, 2, 3]));
    w.advance(0);
    assert_eq!(w.joined(call).generation_id, generation + 1);
    w.hold = true;
    let sync = w.sync(&old, generation + 1, &[(&old, &assigned(&[0], None))]);
    w.call(1, Request::ConsumerHeartbeat(Beat::join("new").request()));
    // The plan becomes durable when nobody knows it any more.
    w.make_durable(1);
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    assert_eq!(code(w.synced(sync).error_code), E::CoordinatorNotAvailable);
    assert_eq!(w.heartbeat(&old, generation + 1), E::RebalanceInProgress);
    let call = w.join(9, &cooperative(&old, &[]));
    w.advance(0);
    assert_eq!(w.joined(call).generation_id, generation + 2);
    let sync = w.sync(&old, generation + 2, &[(&old, &assigned(&[1], None))]);
    assert_eq!(partitions_of(&w.synced(sync).assignment), [1]);
    w.check_replay();
}

#[test]
fn an_administrator_removes_members_of_either_protocol() {
    let mut w = world_of(&[("t", 1, 4)]);
    let (old, _) = classic(&mut w);
    w.beat(&Beat::join("new"));
    w.beat(&Beat::join("static").instance("i"));
    let rows = [("", Some("i")), ("", Some("i")), ("x", Some("j")), ("new", None), ("new", None)];
    assert_eq!(w.leave(&rows), [E::None, E::None, E::UnknownMemberId, E::None, E::None]);
    // Those that are left speak the classic protocol.
    assert_eq!(w.state(), "PreparingRebalance");
    assert_eq!(w.heartbeat(&old, 2), E::IllegalGeneration);
    w.check_invariants();
}
