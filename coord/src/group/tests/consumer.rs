//! Rules of section 5: consumer groups.

use super::*;

#[test]
fn a_first_member_gets_everything_in_epoch_two() {
    let mut w = world_of(&[("t", 1, 3)]);
    let answer = w.beat(&Beat::join("a"));
    assert_eq!((answer.member_epoch, answer.heartbeat_interval_ms), (2, 5_000));
    assert_eq!(told(&answer).as_deref(), Some("1:0 1 2"));
    assert_eq!(told(&w.beat(&Beat::stay("a", 2))), None, "told once");
    let full = Beat { epoch: 2, ..Beat::join("a").owning(1, &[0, 1, 2]) };
    assert_eq!(told(&w.beat(&full)).as_deref(), Some("1:0 1 2"), "a full request is told again");
    let described = w.described();
    assert_eq!(
        (&*described.group_state, described.group_epoch, described.assignment_epoch),
        ("Stable", 2, 2)
    );
    assert_eq!(described.assignor_name, "uniform");
    assert_eq!(described.members[0].assignment.topic_partitions[0].topic_name, "t");
    w.check_invariants();
    w.check_replay();
}

#[test]
fn a_second_member_waits_until_the_first_has_given_up() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.beat(&Beat::join("a"));
    let b = w.beat(&Beat::join("b"));
    assert_eq!((b.member_epoch, told(&b).as_deref()), (3, Some("")));
    // The first keeps its epoch while it has to give up; it is told once, and confirms.
    let a = w.beat(&Beat::stay("a", 2));
    assert_eq!((a.member_epoch, told(&a).as_deref()), (2, Some("1:0 1")));
    assert_eq!(w.described().group_state, "Reconciling");
    w.check_replay();
    let a = w.beat(&Beat::stay("a", 2).owning(1, &[0, 1, 2]));
    assert_eq!((a.member_epoch, told(&a)), (2, None), "it still has one of them");
    assert_eq!(told(&w.beat(&Beat::stay("b", 3))), None);
    let a = w.beat(&Beat::stay("a", 2).owning(1, &[0, 1]));
    assert_eq!(a.member_epoch, 3);
    let b = w.beat(&Beat::stay("b", 3));
    assert_eq!((b.member_epoch, told(&b).as_deref()), (3, Some("1:2 3")));
    assert_eq!(w.described().group_state, "Stable");
    w.check_invariants();
    w.check_replay();
}

#[test]
fn requests_that_are_wrong_by_themselves() {
    let ok = Beat::join("a");
    let many: Vec<&'static str> = vec!["x"; settings::SUBSCRIBED_TOPICS_MAX + 1];
    let cases = [
        (Beat { group: "", ..ok.clone() }, E::InvalidRequest),
        (Beat { member: String::new(), ..ok.clone() }, E::InvalidRequest),
        (Beat { member: String::new(), version: 0, epoch: 1, ..ok.clone() }, E::InvalidRequest),
        (Beat { member: String::new(), version: 0, epoch: -1, ..ok.clone() }, E::InvalidRequest),
        (ok.clone().instance(""), E::InvalidRequest),
        (Beat { epoch: -3, ..ok.clone() }, E::InvalidRequest),
        (Beat { epoch: -2, ..ok.clone() }, E::InvalidRequest),
        (Beat { timeout_ms: -1, ..ok.clone() }, E::InvalidRequest),
        (Beat { owned: None, ..ok.clone() }, E::InvalidRequest),
        (ok.clone().owning(1, &[0]), E::InvalidRequest),
        (Beat { names: None, ..ok.clone() }, E::InvalidRequest),
        (Beat { names: Some(many), ..ok.clone() }, E::InvalidRequest),
        (Beat { assignor: Some("sticky"), ..ok.clone() }, E::UnsupportedAssignor),
        (Beat { regex: Some("["), ..ok.clone() }, E::InvalidRegularExpression),
        (Beat::stay("a", 1), E::GroupIdNotFound),
        (Beat::stay("a", -1), E::GroupIdNotFound),
        (Beat { regex: Some(""), ..ok.clone() }, E::None),
        (Beat { member: String::new(), version: 0, ..ok }, E::None),
    ];
    for (beat, expect) in cases {
        let mut w = world_of(&[("t", 1, 1)]);
        let answer = w.beat(&beat);
        assert_eq!(code(answer.error_code), expect, "{:?}", answer.error_message);
        assert_eq!(answer.error_message.is_some(), expect != E::None);
        assert_eq!(w.shard.group_count(), usize::from(expect == E::None), "nothing is made by an error");
    }
}

#[test]
fn an_id_that_the_coordinator_chooses_looks_like_kafkas() {
    let mut w = world_of(&[("t", 1, 1)]);
    let answer = w.beat(&Beat { member: String::new(), version: 0, ..Beat::join("") });
    assert_eq!(answer.member_id.as_deref(), Some("AAAAAAAAAAAAAAAAAAAAAQ"));
}

#[test]
fn members_are_fenced_by_their_epochs() {
    let mut w = world_of(&[("t", 1, 2)]);
    w.beat(&Beat::join("a"));
    w.beat(&Beat { names: Some(vec!["t", "u"]), ..Beat::stay("a", 2) });
    assert_eq!(w.described().members[0].member_epoch, 3);
    let cases = [
        (Beat::stay("b", 3), E::UnknownMemberId),
        (Beat::stay("b", -1), E::UnknownMemberId),
        (Beat::stay("a", 4), E::FencedMemberEpoch),
        (Beat::stay("a", 1), E::FencedMemberEpoch),
        (Beat::stay("a", 2), E::FencedMemberEpoch),
        (Beat::stay("a", 2).owning(1, &[0, 7]), E::FencedMemberEpoch),
        // The answer that told the new epoch was lost.
        (Beat::stay("a", 2).owning(1, &[0, 1]), E::None),
        (Beat::stay("a", 3), E::None),
        (Beat::stay("a", 3).instance("i"), E::UnknownMemberId),
        (Beat::join("a"), E::None),
    ];
    for (beat, expect) in cases {
        assert_eq!(code(w.beat(&beat).error_code), expect, "{} {}", beat.member, beat.epoch);
    }
    let again = w.beat(&Beat::join("a"));
    assert_eq!(told(&again).as_deref(), Some("1:0 1"), "a known member that joins again keeps what it has");
}

#[test]
fn a_full_group_takes_only_whom_it_knows() {
    let mut w = world_of(&[("t", 1, 2)]);
    w.shard.core.settings.consumer_max_size = 1;
    w.beat(&Beat::join("a").instance("i"));
    assert_eq!(code(w.beat(&Beat::join("b")).error_code), E::GroupMaxSizeReached);
    assert_eq!(code(w.beat(&Beat::stay("a", 2).instance("i")).error_code), E::None);
    w.beat(&Beat { epoch: -2, ..Beat::join("a").instance("i") });
    assert_eq!(code(w.beat(&Beat::join("c").instance("i")).error_code), E::None);
}

#[test]
fn static_members_come_back_to_what_they_had() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.beat(&Beat::join("a").instance("i"));
    w.beat(&Beat::join("b"));
    w.beat(&Beat::stay("a", 2).instance("i"));
    w.beat(&Beat::stay("a", 2).instance("i").owning(1, &[0, 1]));
    let epoch = w.described().group_epoch;
    assert_eq!(code(w.beat(&Beat::join("c").instance("i")).error_code), E::UnreleasedInstanceId);
    assert_eq!(code(w.beat(&Beat::join("a").instance("i")).error_code), E::UnreleasedInstanceId);
    assert_eq!(code(w.beat(&Beat::stay("c", 3).instance("i")).error_code), E::FencedInstanceId);
    let left = w.beat(&Beat { epoch: -2, ..Beat::stay("a", 0).instance("i") });
    assert_eq!((code(left.error_code), left.member_epoch), (E::None, -2));
    w.check_replay();
    let back = w.beat(&Beat::join("c").instance("i"));
    assert_eq!((back.member_epoch, told(&back).as_deref()), (3, Some("1:0 1")));
    assert_eq!(w.described().group_epoch, epoch, "no rebalance");
    assert_eq!(w.described().members.len(), 2);
    w.check_invariants();
    w.check_replay();
    // Gone for good.
    let left = w.beat(&Beat { epoch: -1, ..Beat::stay("c", 0).instance("i") });
    assert_eq!(left.member_epoch, -1);
    assert_eq!(w.described().group_epoch, epoch + 1);
    w.check_replay();
}

#[test]
fn a_static_member_that_stays_away_loses_its_place() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.beat(&Beat::join("a").instance("i"));
    w.advance(30_000);
    w.beat(&Beat { epoch: -2, ..Beat::stay("a", 0).instance("i") });
    w.advance(14_999);
    assert_eq!(w.described().members.len(), 1);
    w.advance(1);
    assert_eq!(w.described().members.len(), 0, "leaving does not renew the session");
    assert_eq!(w.described().group_state, "Empty");
}

#[test]
fn sessions_and_revocations_run_out() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.beat(&Beat { timeout_ms: 10_000, ..Beat::join("a") });
    w.beat(&Beat::join("b"));
    w.beat(&Beat::stay("a", 2));
    // It lives, but does not give up what it shall.
    for _ in 0..4 {
        w.advance(2_499);
        assert_eq!(code(w.beat(&Beat::stay("a", 2)).error_code), E::None);
        w.beat(&Beat::stay("b", 3));
    }
    w.advance(10);
    assert_eq!(code(w.beat(&Beat::stay("a", 2)).error_code), E::UnknownMemberId);
    let b = w.beat(&Beat::stay("b", 3));
    assert_eq!((b.member_epoch, told(&b).as_deref()), (4, Some("1:0 1 2 3")));
    w.advance(44_999);
    w.beat(&Beat::stay("b", 4));
    w.advance(45_000);
    assert_eq!(code(w.beat(&Beat::stay("b", 4)).error_code), E::UnknownMemberId);
    w.check_invariants();
    w.check_replay();
}

#[test]
fn group_configs_override_the_brokers() {
    let mut w = world_of(&[("t", 1, 1)]);
    let config = GroupConfig {
        consumer_session_timeout_ms: Some(50_000),
        consumer_heartbeat_interval_ms: Some(7_000),
        consumer_assignment_interval_ms: None,
    };
    w.step(Input::Config { group: "g", config });
    assert_eq!(w.beat(&Beat::join("a")).heartbeat_interval_ms, 7_000);
    w.advance(49_999);
    assert_eq!(w.described().members.len(), 1);
    w.advance(1);
    assert_eq!(w.described().members.len(), 0);
}

#[test]
fn the_target_is_not_computed_more_often_than_the_interval_allows() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.shard.core.settings.consumer_assignment_interval_ms = 1_000;
    w.beat(&Beat::join("a"));
    let b = w.beat(&Beat::join("b"));
    assert_eq!(b.member_epoch, 2, "the old target counts");
    assert_eq!(w.described().group_state, "Assigning");
    w.advance(1_000);
    assert_eq!(w.beat(&Beat::stay("b", 2)).member_epoch, 3);
}

#[test]
fn a_topic_that_comes_grows_or_goes_raises_the_epoch_and_another_does_not() {
    let mut w = world_of(&[("t", 1, 1)]);
    let a = w.beat(&Beat { names: Some(vec!["t", "u"]), ..Beat::join("a") });
    assert_eq!((a.member_epoch, told(&a).as_deref()), (2, Some("1:0")));
    w.follow(topics(&[("t", 1, 1), ("other", 9, 5)]));
    assert_eq!(w.beat(&Beat::stay("a", 2)).member_epoch, 2);
    w.follow(topics(&[("t", 1, 2), ("u", 2, 1)]));
    let a = w.beat(&Beat::stay("a", 2));
    assert_eq!((a.member_epoch, told(&a).as_deref()), (3, Some("1:0 1 2:0")));
    // Deleted and made anew: the old partitions are withdrawn first.
    w.follow(topics(&[("t", 3, 1), ("u", 2, 1)]));
    let a = w.beat(&Beat::stay("a", 3));
    assert_eq!((a.member_epoch, told(&a).as_deref()), (3, Some("2:0")));
    let a = w.beat(&Beat::stay("a", 3).owning(2, &[0]));
    assert_eq!((a.member_epoch, told(&a).as_deref()), (4, Some("2:0 3:0")));
    w.check_invariants();
    w.check_replay();
}

#[test]
fn the_assignor_that_most_ask_for_assigns() {
    let mut w = world_of(&[("t", 1, 3), ("u", 2, 3)]);
    let names = || Some(vec!["t", "u"]);
    w.beat(&Beat { names: names(), assignor: Some("range"), ..Beat::join("a") });
    w.beat(&Beat { names: names(), assignor: Some("range"), ..Beat::join("b") });
    assert_eq!(w.described().assignor_name, "range");
    let a = w.beat(&Beat::stay("a", 2));
    assert_eq!(told(&a).as_deref(), Some("1:0 1 2:0 1"));
    w.beat(&Beat { assignor: Some("uniform"), ..Beat::stay("a", 2) });
    assert_eq!(w.described().assignor_name, "uniform", "of equal votes the broker's first");
}

#[test]
fn expressions_are_resolved_outside_and_recorded() {
    let mut w = world_of(&[("t-1", 1, 1), ("t-2", 2, 1), ("x", 3, 1)]);
    let join = Beat { names: None, regex: Some("t-.*"), ..Beat::join("a") };
    let a = w.beat(&join);
    assert_eq!(told(&a).as_deref(), Some(""), "not resolved, no topics");
    let asked = std::mem::take(&mut w.resolves);
    assert_eq!(asked, [Resolve { group: "g".to_owned(), patterns: vec!["t-.*".to_owned()] }]);
    w.beat(&Beat::stay("a", a.member_epoch));
    assert!(w.resolves.is_empty(), "asked once");
    let pattern = regex::Pattern::new("t-.*").unwrap();
    let names = ["t-1", "t-2", "x"].iter().filter(|name| pattern.matches(name)).map(ToString::to_string);
    let told_patterns = [("t-.*".to_owned(), names.collect())];
    w.step(Input::Resolved { group: "g", patterns: &told_patterns });
    let a = w.beat(&Beat::stay("a", a.member_epoch));
    assert_eq!(told(&a).as_deref(), Some("1:0 2:0"));
    w.check_replay();
    // The same again changes nothing; new topics make it ask anew, though not at once.
    let records = w.log.len();
    w.step(Input::Resolved { group: "g", patterns: &told_patterns });
    assert_eq!(w.log.len(), records);
    w.follow(topics(&[("t-1", 1, 1), ("t-2", 2, 1), ("t-3", 4, 1)]));
    w.beat(&Beat::stay("a", a.member_epoch));
    assert!(w.resolves.is_empty());
    w.advance(10_000);
    w.beat(&Beat::stay("a", a.member_epoch));
    assert_eq!(w.resolves.len(), 1);
    // Taken back.
    let none = Beat { regex: Some(""), ..Beat::stay("a", a.member_epoch) };
    let a = w.beat(&none);
    assert_eq!(told(&a).as_deref(), Some(""));
    w.check_replay();
    assert!(w.log.iter().any(|(key, value)| key.starts_with(&[0, 16]) && value.is_none()));
}

#[test]
fn who_may_commit_and_fetch() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.beat(&Beat::join("a"));
    w.beat(&Beat::join("b"));
    w.beat(&Beat::stay("a", 2));
    w.beat(&Beat::stay("a", 2).owning(1, &[0, 1]));
    // "a" has 0 and 1 since epoch 2, and is in epoch 3.
    let good = Commit { generation: 3, member: "a", ..Commit::default() };
    let cases = [
        (good, E::None),
        (Commit { generation: 2, ..good }, E::None),
        (Commit { generation: 1, ..good }, E::StaleMemberEpoch),
        (Commit { generation: 4, ..good }, E::StaleMemberEpoch),
        (Commit { generation: 2, partition: 3, ..good }, E::StaleMemberEpoch),
        (Commit { generation: -1, ..good }, E::StaleMemberEpoch),
        (Commit { generation: -1, member: "", ..good }, E::UnknownMemberId),
        (Commit { member: "x", ..good }, E::UnknownMemberId),
        (Commit { version: 8, ..good }, E::UnsupportedVersion),
    ];
    for (commit, expect) in cases {
        assert_eq!(w.commit(&commit), expect);
    }
    for (member, epoch, expect) in [
        (None, -1, E::None),
        (Some("a"), 3, E::None),
        (Some("a"), 2, E::StaleMemberEpoch),
        (Some("x"), 3, E::UnknownMemberId),
        (None, 3, E::UnknownMemberId),
    ] {
        let request = OffsetFetchRequestGroup {
            group_id: "g".into(),
            member_id: member.map(Into::into),
            member_epoch: epoch,
            topics: None,
        };
        assert_eq!(error(&w.ask(9, Request::FetchOffsets(request))), expect, "{member:?} {epoch}");
    }
    for member in ["a", "b"] {
        w.beat(&Beat::stay(member, -1));
    }
    assert_eq!(w.commit(&Commit::default()), E::None, "nobody is in it");
}

#[test]
fn an_empty_group_changes_its_type_with_its_first_member() {
    let mut w = world_of(&[("t", 1, 2)]);
    w.shard.core.settings.consumer_migration_policy = MigrationPolicy::Disabled;
    w.commit(&Commit::default());
    w.beat(&Beat::join("a"));
    assert_eq!(w.offset("g", "t", 0), 7, "offsets stay");
    let call = w.join(9, &Join::default());
    assert_eq!(code(w.joined(call).error_code), E::InconsistentGroupProtocol);
    assert_eq!(w.state(), "Dead", "not a classic group");
    w.check_replay();
    w.beat(&Beat::stay("a", -1));
    let call = w.join(3, &Join::default());
    w.advance(0);
    let member = w.joined(call);
    assert_eq!(code(member.error_code), E::None);
    assert_eq!(code(w.beat(&Beat::join("a")).error_code), E::GroupIdNotFound);
    assert_eq!(code(w.described().error_code), E::GroupIdNotFound);
    w.leave(&[(&member.member_id, None)]);
    w.check_replay();
    assert_eq!(w.offset("g", "t", 0), 7);
    assert_eq!(code(w.beat(&Beat::join("a")).error_code), E::None);
    w.beat(&Beat::stay("a", -1));
    w.check_replay();
    assert_eq!(error(&w.ask(2, Request::Delete { group: "g".into() })), E::None);
    assert_eq!(w.shard.group_count(), 0);
    w.check_replay();
}

#[test]
fn what_does_not_become_durable_never_was() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.beat(&Beat::join("a"));
    let view = w.durable_view();
    w.hold = true;
    let calls = [
        w.call(1, Request::ConsumerHeartbeat(Beat::join("b").request())),
        w.call(1, Request::ConsumerHeartbeat(Beat::stay("a", 2).request())),
        w.call(1, Request::ConsumerHeartbeat(Beat::stay("a", -1).request())),
        w.call(1, Request::ConsumerHeartbeat(Beat { regex: Some("x"), ..Beat::join("c") }.request())),
    ];
    w.check_invariants();
    w.fail(E::NotLeaderOrFollower);
    w.hold = false;
    for call in calls {
        assert_eq!(error(&w.take(call)), E::NotCoordinator);
    }
    w.check_invariants();
    assert_eq!(w.durable_view(), view);
    assert_eq!(code(w.beat(&Beat::stay("a", 2)).error_code), E::None);
    w.advance(45_000);
    assert_eq!(w.described().members.len(), 0, "its session goes on after the failure");
}

#[test]
fn a_group_that_was_replaced_comes_back_when_its_successor_fails() {
    let mut w = world_of(&[("t", 1, 2)]);
    w.beat(&Beat::join("a"));
    let view = w.durable_view();
    w.hold = true;
    w.call(1, Request::ConsumerHeartbeat(Beat::stay("a", -1).request()));
    let join = w.join(3, &Join::default());
    w.advance(0);
    w.fail(E::NotEnoughReplicas);
    w.hold = false;
    assert_eq!(code(w.joined(join).error_code), E::CoordinatorNotAvailable);
    assert_eq!(w.durable_view(), view);
    assert_eq!(code(w.beat(&Beat::stay("a", 2)).error_code), E::None);
}

#[test]
fn a_compacted_log_loads() {
    let mut w = world_of(&[("t", 1, 4)]);
    w.beat(&Beat::join("a"));
    w.beat(&Beat::join("b"));
    w.beat(&Beat::stay("a", 2));
    w.beat(&Beat::stay("a", 2).owning(1, &[0, 1]));
    w.beat(&Beat::stay("b", 3));
    w.beat(&Beat { names: Some(vec!["t", "x"]), ..Beat::stay("a", 3) });
    w.commit(&Commit { generation: 4, member: "a", ..Commit::default() });
    let view = w.durable_view();
    // Only the last record of each key is left.
    let mut log = w.log.clone();
    let mut at = 0;
    while at < log.len() {
        if log[at + 1..].iter().any(|(key, _)| *key == log[at].0) { drop(log.remove(at)) } else { at += 1 }
    }
    assert!(log.len() < w.log.len());
    let settings = w.shard.core.settings.clone();
    let mut back = World::loaded(settings.clone(), w.shard.core.image.borrow().clone(), log.clone(), w.now);
    assert_eq!(back.durable_view(), view);
    back.check_invariants();
    // Any beginning may be missing: nothing panics, and a member without its own record is none.
    for from in 0..log.len() {
        World::loaded(settings.clone(), w.shard.core.image.borrow().clone(), log[from..].to_vec(), w.now);
    }
}
