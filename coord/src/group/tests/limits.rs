//! Bounded steps, bounded memory, and bytes that no coordinator wrote.

use super::*;

#[test]
fn offsets_load_record_by_record() {
    const GROUPS: usize = 20;
    const PARTITIONS: i32 = 1_000;
    let mut w = World::new(quick());
    for group in 0..GROUPS {
        for partition in 0..PARTITIONS {
            let group = format!("g{group}");
            w.commit(&Commit { group: &group, partition, ..Commit::default() });
        }
    }
    assert_eq!(w.shard.offset_count(), GROUPS * 1_000);
    let mut back = World::loaded(quick(), Image::default(), w.log.clone(), w.now);
    assert_eq!(back.shard.offset_count(), GROUPS * 1_000);
    assert_eq!(back.offset("g7", "t", 999), 7);
}

#[test]
fn what_a_shard_holds_is_dropped_in_pieces() {
    let check = |case: fn(&mut World)| {
        let mut w = world_of(&[("t", 1, 8)]);
        case(&mut w);
        let held = w.entries();
        assert!(held > 4 * settings::UNLOADED_PER_STEP_MAX, "{held}");
        let most = w.unload();
        // The last offsets of a step are a whole piece of their list, and their group may go with them.
        assert!(
            (settings::UNLOADED_PER_STEP_MAX / 2..settings::UNLOADED_PER_STEP_MAX + 66).contains(&most),
            "{most}"
        );
        assert_eq!((w.entries(), w.shard.deadline()), (0, None));
        assert!(w.waiting.is_empty(), "who waited was sent away");
        assert!(w.answers.values().all(|answer| error(answer) == E::NotCoordinator));
        assert_eq!(error(&w.ask(0, Request::List { states: vec![], types: vec![] })), E::NotCoordinator);
        // Nothing brings anything back.
        w.step(Input::Failed { seq: 1, why: E::UnknownServerError });
        assert_eq!(w.entries(), 0);
    };
    let offsets_of_one_group = |w: &mut World| {
        for partition in 0..2_000 {
            w.commit(&Commit { partition, metadata: "m", ..Commit::default() });
        }
        w.answers.clear();
    };
    check(offsets_of_one_group);
    check(|w| {
        for group in 0..1_500 {
            w.commit(&Commit {
                group: &format!("g{group}"),
                topic: &format!("t{group}"),
                ..Commit::default()
            });
        }
    });
    check(|w| {
        for _ in 0..1_500 {
            w.join(3, &Join::default());
        }
    });
    check(|w| {
        for member in 0..1_500 {
            let config = GroupConfig { consumer_session_timeout_ms: Some(50_000), ..GroupConfig::default() };
            w.step(Input::Config { group: &format!("g{member}"), config });
        }
        w.shard.core.settings.consumer_assignment_interval_ms = 1_000_000;
        for member in 0..1_500 {
            w.beat(&Beat::join(&format!("m{member}")));
        }
    });
    check(|w| {
        w.hold = true;
        for partition in 0..1_500 {
            w.call(9, Request::Commit(Commit { partition, ..Commit::default() }.request()));
        }
    });
}

#[test]
fn the_end_of_loading_and_due_timers_are_cut_into_steps() {
    let mut w = World::new(quick());
    for group in 0..1_000 {
        let join = Join { group: format!("g{group}"), ..Join::default() };
        w.join(3, &join);
    }
    assert_eq!(w.shard.group_count(), 1_000);
    let mut ticks = 0;
    while w.shard.deadline().is_some_and(|at| at <= w.now.ms) {
        w.step(Input::Tick);
        ticks += 1;
    }
    assert!(ticks >= 1_000 / settings::TIMERS_PER_STEP_MAX, "{ticks}");
    let mut back = World::loaded(quick(), Image::default(), w.log.clone(), w.now);
    let mut shard = Shard::new(quick(), Rc::default());
    let mut out = Effects::default();
    for (key, value) in &w.log {
        shard.step(w.now, Input::Load { key, value: value.as_deref() }, &mut out).unwrap();
    }
    shard.step(w.now, Input::Loaded, &mut out).unwrap();
    let mut ticks = 0;
    while shard.deadline() == Some(0) {
        shard.step(w.now, Input::Tick, &mut out).unwrap();
        ticks += 1;
    }
    assert!(ticks >= 1_000 / settings::GROUPS_PER_STEP_MAX, "{ticks}");
    assert_eq!(back.durable_view().lines().count(), 2_000);
}

#[test]
fn damaged_records_stop_the_load_and_unknown_types_do_not() {
    let whole = {
        let mut w = World::new(quick());
        stable(&mut w, 2);
        w.commit(&Commit { group: "simple", ..Commit::default() });
        w.log
    };
    let load = |key: &[u8], value: Option<&[u8]>| {
        let mut shard = Shard::new(quick(), Rc::default());
        shard.step(Now::default(), Input::Load { key, value }, &mut Effects::default())
    };
    for (key, value) in &whole {
        let value = value.as_deref().expect("no tombstones here");
        assert_eq!(load(key, Some(value)), Ok(()));
        for end in 0..value.len() {
            assert!(load(key, Some(&value[..end])).is_err(), "{end} of {value:?}");
        }
        for end in 0..key.len() {
            assert!(load(&key[..end], Some(value)).is_err(), "{end} of {key:?}");
        }
        let mut newer = value.to_vec();
        newer[1] = 9;
        assert!(load(key, Some(&newer)).is_err());
    }
    assert_eq!(load(&[0, 99, 1, 2, 3], Some(&[0, 0])), Ok(()));
    assert_eq!(load(&[0, 14, 1, 2, 3], None), Ok(()));
}

#[test]
fn subscriptions_of_any_bytes_are_only_bytes() {
    let mut seed = 7_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let honest = subscribe(&["t", "u"]);
    for round in 0..500 {
        let mut metadata = honest.clone();
        for _ in 0..1 + random() % 4 {
            let at = random() as usize % metadata.len();
            metadata[at] ^= 1 << (random() % 8);
        }
        if round % 5 == 0 {
            metadata = (0..random() % 40).map(|_| random() as u8).collect();
        }
        let mut w = World::new(quick());
        let call = w.join(3, &Join { protocols: vec![("range".to_owned(), metadata)], ..Join::default() });
        w.advance(0);
        let member = w.joined(call).member_id.into_owned();
        let sync = w.sync(&member, 1, &[(&member, b"a")]);
        w.synced(sync);
        w.commit(&Commit { generation: 1, member: &member, ..Commit::default() });
        // Expiry and deletion look into the subscription; both must cope.
        w.shard.sweeps.expire();
        w.advance(0);
        assert_eq!(w.offset("g", "t", 0), 7);
        w.check_replay();
    }
}

#[test]
fn a_client_id_of_any_length_makes_a_member_id_that_can_be_sent() {
    for name in ["ä".repeat(16_383), "x".repeat(32_767), String::new()] {
        let id = super::super::classic::member_id_for_tests(&name);
        assert!(id.len() <= settings::NAME_BYTES_MAX);
        assert!(id.ends_with("-07070707-0707-0707-0707-070707070707"));
    }
}

#[test]
fn five_thousand_members_join_at_once() {
    let mut w = World::new(Settings::default());
    let calls: Vec<u64> = (0..5_000).map(|_| w.join(3, &Join::default())).collect();
    w.advance(60_000);
    let mut leaders = 0;
    for call in calls {
        let answer = w.joined(call);
        assert_eq!(answer.generation_id, 1);
        leaders += usize::from(answer.members.len() == 5_000);
    }
    assert_eq!(leaders, 1);
}

#[test]
fn a_group_that_is_named_again_and_again_is_told_until_the_answers_grow_too_large() {
    const MENTIONS: usize = 1_000;
    let mut w = world_of(&[("t", 1, 10_000)]);
    let large = Join { protocols: vec![("range".to_owned(), vec![0; 900 << 10])], ..Join::default() };
    let call = w.join(3, &large);
    w.advance(0);
    let member = w.joined(call).member_id.into_owned();
    let sync = w.sync(&member, 1, &[(&member, b"a")]);
    assert_eq!(code(w.synced(sync).error_code), E::None);
    w.beat(&Beat { group: "c", ..Beat::join("m") });
    let classic = || Request::Describe { group: "g".into() };
    let consumer = || Request::ConsumerDescribe { group: "c".into() };
    let requests: [(i16, &dyn Fn() -> Request<'static>, usize); 2] =
        [(6, &classic, 900 << 10), (1, &consumer, 80_000)];
    for (version, request, bytes) in requests {
        let budget = Budget::default();
        let calls: Vec<u64> = (0..MENTIONS).map(|_| w.call_within(&budget, version, request())).collect();
        let codes: Vec<E> = calls.into_iter().map(|call| error(&w.take(call))).collect();
        let told = codes.partition_point(|code| *code == E::None);
        assert!(told > 10 && told <= settings::ANSWER_BYTES_MAX / bytes, "{told}");
        assert!(codes[told..].iter().all(|code| *code == E::InvalidRequest));
        assert_eq!(error(&w.ask(version, request())), E::None, "the next request has a budget of its own");
    }
}

#[test]
fn an_offset_that_is_asked_for_again_and_again_is_refused() {
    let mut w = World::new(quick());
    let metadata = "x".repeat(4_096);
    w.commit(&Commit { metadata: &metadata, ..Commit::default() });
    let asked = |count: usize| OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: "t".into(),
            topic_id: [0; 16],
            partition_indexes: vec![0; count],
        }]),
        ..OffsetFetchRequestGroup::default()
    };
    for (count, expect, rows) in [(10_000, E::None, 1), (250_000, E::InvalidRequest, 0)] {
        let Answer::FetchOffsets(answer) = w.ask(9, Request::FetchOffsets(asked(count))) else {
            panic!("of another request");
        };
        assert_eq!((code(answer.error_code), answer.topics.len()), (expect, rows));
    }
    let all = || OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let budget = Budget::default();
    let calls: Vec<u64> =
        (0..20_000).map(|_| w.call_within(&budget, 9, Request::FetchOffsets(all()))).collect();
    let refused = calls.into_iter().filter(|call| error(&w.take(*call)) == E::InvalidRequest).count();
    assert!((1..19_000).contains(&refused), "{refused}");
}

#[test]
fn members_and_ids_that_are_gone_leave_no_timer_behind() {
    let mut w = world_of(&[("t", 1, 1)]);
    let before = w.shard.core.timers.len();
    for _ in 0..100 {
        // An id that is given out and left; one that is used, and left; a member of the other protocol.
        let call = w.join(4, &Join::default());
        let id = w.joined(call).member_id.into_owned();
        assert_eq!(w.leave(&[(&id, None)]), [E::None]);
        let call = w.join(4, &Join::default());
        let id = w.joined(call).member_id.into_owned();
        w.join(4, &Join::member(&id));
        assert_eq!(w.leave(&[(&id, None)]), [E::None]);
        w.advance(0);
        w.beat(&Beat { group: "c", ..Beat::join("m") });
        w.beat(&Beat { group: "c", ..Beat::stay("m", -1) });
    }
    w.advance(0);
    let after = w.shard.core.timers.len();
    // The classic group's phases may have an entry each.
    assert!(after <= before + 2, "{before} before, {after} after");
}
