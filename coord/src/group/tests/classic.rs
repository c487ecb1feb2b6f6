//! Rules of section 2: classic groups.

use super::*;

#[test]
fn the_first_join_waits_for_others_and_the_delay_grows_with_them() {
    let mut w = World::new(Settings::default());
    let first = w.join(3, &Join::default());
    w.advance(2_999);
    let second = w.join(3, &Join::default());
    w.advance(1);
    assert!(!w.answers.contains_key(&first), "one more delay for the second");
    w.advance(3_000);
    let (a, b) = (w.joined(first), w.joined(second));
    assert_eq!((a.generation_id, b.generation_id), (1, 1));
    assert_eq!(a.leader, b.leader);
    let (leader, follower) = if a.member_id == a.leader { (&a, &b) } else { (&b, &a) };
    assert_eq!(leader.members.len(), 2);
    assert!(follower.members.is_empty());
    assert_eq!(leader.protocol_name.as_deref(), Some("range"));
    assert!(leader.member_id.starts_with("client-"));
}

#[test]
fn a_lone_member_is_delayed_once() {
    let mut w = World::new(Settings::default());
    let call = w.join(3, &Join::default());
    w.advance(3_000);
    assert_eq!(w.joined(call).generation_id, 1);
}

#[test]
fn the_initial_delay_ends_with_the_rebalance_timeout() {
    let mut w = World::new(Settings::default());
    let join = Join { rebalance_ms: 7_000, ..Join::default() };
    let first = w.join(3, &join);
    for _ in 0..6 {
        w.advance(1_000);
        w.join(3, &join);
    }
    assert!(w.waiting.contains(&first));
    w.advance(1_000);
    assert_eq!(w.joined(first).generation_id, 1);
}

#[test]
fn requests_that_no_group_accepts() {
    let many = vec![("p".to_owned(), Vec::new()); 101];
    let cases = [
        (Join { group: String::new(), ..Join::default() }, E::InvalidGroupId),
        (Join { session_ms: 5_999, ..Join::default() }, E::InvalidSessionTimeout),
        (Join { session_ms: 1_800_001, ..Join::default() }, E::InvalidSessionTimeout),
        (Join::member("nobody"), E::UnknownMemberId),
        (Join { protocols: Vec::new(), ..Join::default() }, E::InconsistentGroupProtocol),
        (Join { kind: String::new(), ..Join::default() }, E::InconsistentGroupProtocol),
        (Join { protocols: many, ..Join::default() }, E::InvalidRequest),
    ];
    for (join, expect) in cases {
        let mut w = World::new(quick());
        let call = w.join(5, &join);
        assert_eq!(code(w.joined(call).error_code), expect);
    }
}

#[test]
fn requests_that_a_stable_group_refuses() {
    let mut w = World::new(Settings { group_max_size: 2, ..quick() });
    let (members, _) = stable(&mut w, 2);
    let other_type = Join { kind: "connect".to_owned(), ..Join::member(&members[0]) };
    let other_name = Join::member(&members[0]).protocols(&["sticky"]);
    let wrong_instance = Join { instance: Some("i".to_owned()), ..Join::member(&members[0]) };
    let cases = [
        (Join::member("nobody"), E::GroupMaxSizeReached),
        (Join::default(), E::GroupMaxSizeReached),
        (other_type, E::InconsistentGroupProtocol),
        (other_name, E::InconsistentGroupProtocol),
        (wrong_instance, E::UnknownMemberId),
    ];
    for (join, expect) in cases {
        let call = w.join(9, &join);
        let answer = w.joined(call);
        assert_eq!(code(answer.error_code), expect);
        assert_eq!(answer.member_id.is_empty(), expect == E::GroupMaxSizeReached);
    }
    assert_eq!(w.state(), "Stable");
}

#[test]
fn a_new_member_is_told_its_id_and_the_id_dies_with_its_session() {
    let mut w = World::new(quick());
    let call = w.join(4, &Join::default());
    let told = w.joined(call);
    assert_eq!(code(told.error_code), E::MemberIdRequired);
    assert_eq!(w.log.len(), 1, "the group is recorded, the id is not");
    w.advance(10_001);
    let call = w.join(4, &Join::member(&told.member_id));
    assert_eq!(code(w.joined(call).error_code), E::UnknownMemberId);
    assert_eq!(w.state(), "Empty");
}

#[test]
fn an_unused_id_holds_up_a_rebalance_until_it_dies() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 1);
    let call = w.join(9, &Join::default());
    w.joined(call);
    let rejoin = w.join(9, &Join::member(&members[0]));
    w.advance(9_999);
    assert!(w.waiting.contains(&rejoin));
    w.advance(1);
    assert_eq!(w.joined(rejoin).generation_id, generation + 1);
}

#[test]
fn old_versions_are_told_an_empty_protocol_name_instead_of_null() {
    for (version, expect) in [(0, Some("")), (6, Some("")), (7, None)] {
        let mut w = World::new(quick());
        let call = w.join(version, &Join::member("nobody"));
        assert_eq!(w.joined(call).protocol_name.as_deref(), expect);
    }
}

#[test]
fn what_a_rejoin_brings_depends_on_who_and_what() {
    // (leader, changed, starts a rebalance)
    for (leader, changed, rebalances) in
        [(true, false, true), (true, true, true), (false, false, false), (false, true, true)]
    {
        let mut w = World::new(quick());
        let (members, generation) = stable(&mut w, 2);
        let mut join = Join::member(&members[usize::from(!leader)]);
        if changed {
            join.protocols[0].1 = subscribe(&["other"]);
        }
        let call = w.join(9, &join);
        if rebalances {
            assert!(w.waiting.contains(&call));
            assert_eq!(w.heartbeat(&members[usize::from(leader)], generation), E::RebalanceInProgress);
        } else {
            let answer = w.joined(call);
            assert_eq!((answer.generation_id, answer.members.len()), (generation, 0));
            assert_eq!(w.state(), "Stable");
        }
    }
}

#[test]
fn most_votes_choose_among_the_protocols_that_all_support() {
    let mut w = World::new(quick());
    w.shard.core.settings.group_initial_rebalance_delay_ms = 100;
    let joins = [["a", "b", "c"], ["b", "a", "c"], ["c", "b", "x"]];
    let calls: Vec<u64> = joins.iter().map(|names| w.join(3, &Join::default().protocols(names))).collect();
    w.advance(10_000);
    for call in calls {
        assert_eq!(w.joined(call).protocol_name.as_deref(), Some("b"));
    }
}

#[test]
fn members_that_do_not_rejoin_are_out_but_static_ones_stay() {
    let mut w = World::new(quick());
    let fixed = w.join(5, &Join::instance("i"));
    w.advance(0);
    let fixed = w.joined(fixed).member_id.into_owned();
    let dynamic = w.join(3, &Join::default());
    let again = Join { instance: Some("i".to_owned()), ..Join::member(&fixed) };
    let again = w.join(5, &again);
    w.advance(0);
    let (dynamic, fixed_answer) = (w.joined(dynamic), w.joined(again));
    assert_eq!(dynamic.generation_id, 2);
    assert_eq!(fixed_answer.member_id, fixed);
    // A third joins; neither of the others comes. Both keep their sessions alive, so the join phase runs its time.
    let third = w.join(3, &Join::default());
    for _ in 0..12 {
        w.advance(5_000);
        if w.answers.contains_key(&third) {
            break;
        }
        assert_eq!(w.heartbeat(&dynamic.member_id, 2), E::RebalanceInProgress);
        let beat = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: 2,
            member_id: fixed.clone().into(),
            group_instance_id: Some("i".into()),
        };
        assert_eq!(error(&w.ask(4, Request::Heartbeat(beat))), E::RebalanceInProgress);
    }
    let answer = w.joined(third);
    assert_eq!(answer.generation_id, 3);
    assert_eq!(answer.leader, answer.member_id);
    assert_eq!(answer.members.len(), 2, "the static one is still there: {answer:?}");
}

#[test]
fn a_static_member_that_restarts_keeps_its_place_without_a_rebalance() {
    for (version, leads, told_leader, skips) in
        [(9, true, true, true), (8, true, false, false), (9, false, false, false)]
    {
        let mut w = World::new(quick());
        let leader = w.join(version, &Join::instance("a"));
        w.advance(0);
        let leader = w.joined(leader).member_id.into_owned();
        let second = w.join(version, &Join::instance("b"));
        let again = w.join(version, &Join { instance: Some("a".into()), ..Join::member(&leader) });
        w.advance(0);
        let (second, first) = (w.joined(second), w.joined(again));
        let (lead, follow) = if first.leader == first.member_id { ("a", "b") } else { ("b", "a") };
        let ids = if lead == "a" { [&first, &second] } else { [&second, &first] };
        let plan = [(&*ids[0].member_id, &b"lead"[..]), (&*ids[1].member_id, &b"follow"[..])];
        let mut request = sync_request(&ids[0].member_id, 2, &plan);
        request.group_instance_id = Some(lead.into());
        let id = w.call(5, Request::Sync(request));
        assert_eq!(&*w.synced(id).assignment, b"lead");
        let (instance, old) = if leads { (lead, &ids[0].member_id) } else { (follow, &ids[1].member_id) };
        let call = w.join(version, &Join::instance(instance));
        let answer = w.joined(call);
        assert_eq!((code(answer.error_code), answer.generation_id), (E::None, 2));
        assert_eq!(answer.leader == answer.member_id, told_leader, "{version} {leads}");
        assert_eq!(answer.skip_assignment, skips);
        assert_eq!(answer.members.len(), if skips { 2 } else { 0 });
        assert!(answer.member_id.starts_with(instance));
        assert_eq!(w.state(), "Stable");
        // The old process is fenced, the new one has its assignment.
        let mut request = sync_request(old, 2, &[]);
        request.group_instance_id = Some(instance.to_owned().into());
        assert_eq!(error(&w.ask(5, Request::Sync(request))), E::FencedInstanceId);
        let mut request = sync_request(&answer.member_id, 2, &[]);
        request.group_instance_id = Some(instance.to_owned().into());
        let id = w.call(5, Request::Sync(request));
        assert_eq!(&*w.synced(id).assignment, if leads { &b"lead"[..] } else { b"follow" });
        w.check_replay();
    }
}

#[test]
fn a_takeover_that_does_not_become_durable_is_taken_back() {
    let mut w = World::new(quick());
    let id = w.join(9, &Join::instance("a"));
    w.advance(0);
    let old = w.joined(id).member_id.into_owned();
    let mut request = sync_request(&old, 1, &[(&old, b"mine")]);
    request.group_instance_id = Some("a".into());
    w.call(5, Request::Sync(request.clone()));
    w.hold = true;
    let call = w.join(9, &Join::instance("a"));
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    let answer = w.joined(call);
    assert_eq!((code(answer.error_code), &*answer.member_id), (E::CoordinatorNotAvailable, ""));
    let again = w.call(5, Request::Sync(request));
    assert_eq!(&*w.synced(again).assignment, b"mine");
    w.check_replay();
}

#[test]
fn sync_says_who_may_and_when() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 2);
    let leader = &*members[0];
    let with = |change: &dyn Fn(&mut SyncGroupRequest<'static>)| {
        let mut request = sync_request(leader, generation, &[]);
        change(&mut request);
        request
    };
    let cases = [
        (with(&|r| r.group_id = "".into()), E::InvalidGroupId),
        (with(&|r| r.group_id = "other".into()), E::UnknownMemberId),
        (with(&|r| r.member_id = "other".into()), E::UnknownMemberId),
        (with(&|r| r.group_instance_id = Some("other".into())), E::UnknownMemberId),
        (with(&|r| r.generation_id += 1), E::IllegalGeneration),
        (with(&|r| r.protocol_type = None), E::InconsistentGroupProtocol),
        (with(&|r| r.protocol_name = None), E::InconsistentGroupProtocol),
        (with(&|r| r.protocol_type = Some("connect".into())), E::InconsistentGroupProtocol),
        (with(&|r| r.protocol_name = Some("sticky".into())), E::InconsistentGroupProtocol),
        (with(&|_| {}), E::None),
    ];
    for (request, expect) in cases {
        assert_eq!(error(&w.ask(5, Request::Sync(request))), expect);
    }
    // The leader's later plan is ignored.
    let call = w.sync(leader, generation, &[(leader, b"new")]);
    assert_eq!(&*w.synced(call).assignment, leader.as_bytes());
    w.join(9, &Join::member(leader));
    let call = w.sync(&members[1], generation, &[]);
    assert_eq!(code(w.synced(call).error_code), E::RebalanceInProgress);
}

#[test]
fn a_plan_that_does_not_become_durable_starts_over() {
    let mut w = World::new(quick());
    let call = w.join(3, &Join::default());
    w.advance(0);
    let member = w.joined(call).member_id.into_owned();
    w.hold = true;
    let sync = w.sync(&member, 1, &[(&member, b"x")]);
    assert!(w.waiting.contains(&sync));
    w.fail(E::NotLeaderOrFollower);
    assert_eq!(code(w.synced(sync).error_code), E::NotCoordinator);
    assert_eq!(w.heartbeat(&member, 1), E::RebalanceInProgress);
}

#[test]
fn a_leader_that_never_syncs_is_out_when_the_sync_phase_ends() {
    let mut w = World::new(quick());
    w.shard.core.settings.group_initial_rebalance_delay_ms = 10;
    let calls = [w.join(3, &Join::default()), w.join(3, &Join::default())];
    w.advance(100);
    let answers = calls.map(|call| w.joined(call));
    let follower = answers.iter().find(|a| a.member_id != a.leader).expect("one follows");
    let leader = answers.iter().find(|a| a.member_id == a.leader).expect("one leads");
    let sync = w.sync(&follower.member_id, 1, &[]);
    for _ in 0..12 {
        w.advance(5_000);
        if w.answers.contains_key(&sync) {
            break;
        }
        assert_eq!(w.heartbeat(&leader.member_id, 1), E::None, "it lives, but does not sync");
    }
    assert_eq!(code(w.synced(sync).error_code), E::RebalanceInProgress);
    assert_eq!(w.heartbeat(&leader.member_id, 1), E::UnknownMemberId);
}

#[test]
fn heartbeats_in_each_state() {
    let mut w = World::new(quick());
    assert_eq!(w.heartbeat("m", 1), E::UnknownMemberId);
    let call = w.join(3, &Join::default());
    w.advance(0);
    let member = w.joined(call).member_id.into_owned();
    assert_eq!(w.heartbeat(&member, 1), E::None, "completing");
    assert_eq!(w.heartbeat(&member, 2), E::IllegalGeneration);
    assert_eq!(w.heartbeat("other", 1), E::UnknownMemberId);
    w.sync(&member, 1, &[]);
    for _ in 0..10 {
        w.advance(9_000);
        assert_eq!(w.heartbeat(&member, 1), E::None, "stable, and alive by its heartbeats");
    }
    w.advance(10_000);
    assert_eq!(w.heartbeat(&member, 1), E::UnknownMemberId);
    assert_eq!(w.state(), "Empty");
    w.check_replay();
}

#[test]
fn leaving_is_per_row_and_brings_one_rebalance() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 3);
    let rows = [(&*members[1], None), ("nobody", None), ("", Some("no instance")), (&*members[2], None)];
    let got = w.leave(&rows);
    assert_eq!(got, [E::None, E::UnknownMemberId, E::UnknownMemberId, E::None]);
    let call = w.join(9, &Join::member(&members[0]));
    let answer = w.joined(call);
    assert_eq!((answer.generation_id, answer.members.len()), (generation + 1, 1));
    assert_eq!(w.leave(&[(&members[0], None)]), [E::None]);
    assert_eq!(w.state(), "Empty");
    w.check_replay();
    // Version 2 knows no rows.
    let single = |member: &str| {
        Request::Leave(LeaveGroupRequest {
            group_id: "g".into(),
            member_id: member.to_owned().into(),
            members: Vec::new(),
        })
    };
    assert_eq!(error(&w.ask(2, single("nobody"))), E::UnknownMemberId);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut w = World::new(quick());
    let call = w.join(5, &Join::instance("i"));
    w.advance(0);
    let member = w.joined(call).member_id.into_owned();
    assert_eq!(w.leave(&[("other", Some("i"))]), [E::FencedInstanceId]);
    assert_eq!(w.leave(&[("", Some("i"))]), [E::None]);
    assert_eq!(w.heartbeat(&member, 1), E::UnknownMemberId);
}

#[test]
fn the_last_of_an_oversized_group_to_rejoin_are_left_out() {
    let mut w = World::new(quick());
    let (members, _) = stable(&mut w, 3);
    let (log, now) = (w.log.clone(), w.now);
    let smaller = Settings { group_max_size: 2, ..quick() };
    let mut w = World::loaded(smaller, Image::default(), log, now);
    assert_eq!(w.state(), "PreparingRebalance");
    let calls: Vec<u64> = members.iter().map(|member| w.join(9, &Join::member(member))).collect();
    assert_eq!(code(w.joined(calls[2]).error_code), E::GroupMaxSizeReached);
    // Nobody else is waited for.
    assert_eq!(code(w.joined(calls[0]).error_code), E::None);
}

#[test]
fn a_group_comes_back_stable_with_its_generation_and_assignments() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 3);
    w.check_replay();
    let mut back = World::loaded(quick(), Image::default(), w.log.clone(), w.now);
    for member in &members {
        assert_eq!(back.heartbeat(member, generation), E::None);
        let call = back.sync(member, generation, &[]);
        assert_eq!(&*back.synced(call).assignment, member.as_bytes());
    }
    back.advance(10_000);
    assert_eq!(back.state(), "Empty", "sessions run from the load on");
}

#[test]
fn a_loading_shard_answers_with_what_the_oldest_client_retries() {
    let mut w = World::new(quick());
    w.shard = Shard::new(quick(), Rc::default());
    let call = w.join(3, &Join::default());
    assert_eq!(code(w.joined(call).error_code), E::CoordinatorLoadInProgress);
    assert_eq!(w.heartbeat("m", 1), E::None);
    let call = w.sync("m", 1, &[]);
    assert_eq!(code(w.synced(call).error_code), E::RebalanceInProgress);
    assert_eq!(w.commit(&Commit::default()), E::CoordinatorLoadInProgress);
}

#[test]
fn an_unloaded_shard_sends_every_waiting_call_away() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 2);
    w.hold = true;
    let rejoin = w.join(9, &Join::member(&members[0]));
    let commit = Commit { generation, member: &members[1], ..Commit::default() };
    let commit = w.call(9, Request::Commit(commit.request()));
    w.unload();
    assert_eq!(code(w.joined(rejoin).error_code), E::NotCoordinator);
    assert_eq!(error(&w.take(commit)), E::NotCoordinator);
    assert!(w.waiting.is_empty());
    assert_eq!(w.shard.deadline(), None);
    assert_eq!(w.heartbeat(&members[0], generation), E::NotCoordinator);
}

#[test]
fn a_group_whose_first_record_fails_never_was() {
    let mut w = World::new(quick());
    w.hold = true;
    let parked = w.join(3, &Join::default());
    w.advance(0);
    w.fail(E::KafkaStorageError);
    assert_eq!(code(w.joined(parked).error_code), E::NotCoordinator);
    assert_eq!(w.shard.group_count(), 0);
    assert!(w.waiting.is_empty());
}

#[test]
fn listing_filters_by_state_and_type_without_case() {
    let mut w = World::new(quick());
    stable(&mut w, 1);
    w.commit(&Commit { group: "simple", ..Commit::default() });
    let cases: [(&[&str], &[&str], &[&str]); 5] = [
        (&[], &[], &["g", "simple"]),
        (&["sTaBle"], &[], &["g"]),
        (&["Empty"], &["CLASSIC"], &["simple"]),
        (&["Nonsense"], &[], &[]),
        (&[], &["consumer"], &[]),
    ];
    for (states, types, expect) in cases {
        let cow = |words: &[&str]| words.iter().map(|word| (*word).to_owned().into()).collect();
        let Answer::List { groups, .. } = w.ask(5, Request::List { states: cow(states), types: cow(types) })
        else {
            panic!("a list")
        };
        let got: Vec<&str> = groups.iter().map(|group| &*group.group_id).collect();
        assert_eq!(got, expect);
    }
}

#[test]
fn describing_tells_metadata_only_when_stable() {
    let mut w = World::new(quick());
    let (members, _) = stable(&mut w, 1);
    let described = w.describe("g");
    assert_eq!((&*described.protocol_data, &*described.members[0].client_host), ("range", "/127.0.0.1"));
    assert_eq!(&*described.members[0].member_metadata, subscribe(&["t"]));
    w.join(3, &Join::default());
    w.advance(0);
    let described = w.describe("g");
    assert_eq!((&*described.group_state, &*described.protocol_data), ("PreparingRebalance", ""));
    assert!(described.members.iter().all(|member| member.member_metadata.is_empty()));
    assert!(described.members.iter().any(|member| *member.member_id == *members[0]));
    let unknown = w.describe("unknown");
    assert_eq!((code(unknown.error_code), &*unknown.group_state), (E::GroupIdNotFound, "Dead"));
    let Answer::Describe(old) = w.ask(5, Request::Describe { group: "unknown".into() }) else { panic!() };
    assert_eq!((code(old.error_code), &*old.group_state), (E::None, "Dead"));
}

#[test]
fn a_takeover_that_is_taken_back_does_not_bring_back_a_leader_that_has_left() {
    let mut w = World::new(quick());
    let first = w.join(9, &Join::instance("a"));
    w.advance(0);
    let first = w.joined(first).member_id.into_owned();
    let second = w.join(9, &Join::instance("b"));
    let again = w.join(9, &Join { instance: Some("a".into()), ..Join::member(&first) });
    w.advance(0);
    let leader = w.joined(second).leader.into_owned();
    w.joined(again);
    let (led, followed) = if leader == first { ("a", "b") } else { ("b", "a") };
    let mut request = sync_request(&leader, 2, &[]);
    request.group_instance_id = Some(led.into());
    w.call(5, Request::Sync(request));
    assert_eq!(w.state(), "Stable");
    w.hold = true;
    w.join(9, &Join::instance(followed));
    let row = MemberIdentity { group_instance_id: Some(led.into()), ..MemberIdentity::default() };
    let leave =
        LeaveGroupRequest { group_id: "g".into(), members: vec![row], ..LeaveGroupRequest::default() };
    w.call(5, Request::Leave(leave));
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    w.check_invariants();
}

#[test]
fn a_group_that_could_not_record_that_it_is_empty_does_so_with_the_next_sweep() {
    let mut w = World::new(quick());
    stable(&mut w, 1);
    w.commit(&Commit { group: "other", ..Commit::default() });
    w.hold = true;
    w.advance(10_000);
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    assert_eq!(w.state(), "Empty");
    let back = World::loaded(quick(), Image::default(), w.log.clone(), w.now).state();
    assert_eq!(back, "Stable", "the log does not know");
    w.advance(600_000);
    let back = World::loaded(quick(), Image::default(), w.log.clone(), w.now).state();
    assert_eq!(back, w.state());
    w.check_replay();
}

#[test]
fn of_two_plans_for_one_generation_the_log_keeps_the_first() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 1);
    let call = w.join(9, &Join::member(&members[0]));
    w.advance(0);
    let generation = generation + i32::from(w.joined(call).error_code == 0);
    w.hold = true;
    let first = w.sync(&members[0], generation, &[(&members[0], b"first")]);
    let second = w.sync(&members[0], generation, &[(&members[0], b"second")]);
    assert_eq!(w.open.len(), 1);
    w.hold = false;
    w.make_durable(usize::MAX);
    assert_eq!(code(w.synced(first).error_code), E::RebalanceInProgress, "it asked again meanwhile");
    assert_eq!(&*w.synced(second).assignment, b"first");
    w.check_replay();
}

#[test]
fn a_plan_that_failed_makes_room_for_another() {
    let mut w = World::new(quick());
    let (members, generation) = stable(&mut w, 1);
    let call = w.join(9, &Join::member(&members[0]));
    w.advance(0);
    assert_eq!(w.joined(call).generation_id, generation + 1);
    w.hold = true;
    let lost = w.sync(&members[0], generation + 1, &[(&members[0], b"lost")]);
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    assert_eq!(code(w.synced(lost).error_code), E::CoordinatorNotAvailable);
    let call = w.join(9, &Join::member(&members[0]));
    w.advance(0);
    assert_eq!(w.joined(call).generation_id, generation + 2);
    let next = w.sync(&members[0], generation + 2, &[(&members[0], b"next")]);
    assert_eq!(&*w.synced(next).assignment, b"next");
    w.check_replay();
}
