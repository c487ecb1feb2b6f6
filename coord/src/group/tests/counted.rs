//! What is counted of what happens to groups, and which members are told of as removed.

use super::*;

/// "rebalances classic/consumer, commits, expirations; reason xN ..."; then those removed, with how many were left.
fn happened(w: &World) -> String {
    let counted = w.counted;
    let reasons = Reason::ALL.into_iter().filter(|why| counted.removed(*why) > 0);
    let reasons: Vec<String> =
        reasons.map(|why| format!("{} x{}", why.name(), counted.removed(why))).collect();
    let told: Vec<String> =
        w.removed.iter().map(|one| format!("{} {} {}", one.group, one.why.name(), one.left)).collect();
    format!(
        "{}/{} rebalances, {} commits, {} expirations; {}; told: {}",
        counted.rebalances_classic,
        counted.rebalances_consumer,
        counted.offset_commits,
        counted.offset_expirations,
        reasons.join(" "),
        told.join(", "),
    )
}

fn check(mut w: World, case: impl FnOnce(&mut World), expect: &str) {
    case(&mut w);
    assert_eq!(happened(&w), expect);
}

#[test]
fn a_rebalance_counts_when_it_takes_effect_and_who_leaves_is_not_told_of() {
    let leave_both = |w: &mut World| {
        let (members, _) = stable(w, 2);
        let rows: Vec<_> = members.iter().map(|member| (&**member, None)).collect();
        assert_eq!(w.leave(&rows), [E::None; 2]);
        assert_eq!(w.leave(&[("stranger", None)]), [E::UnknownMemberId]);
    };
    check(World::new(quick()), leave_both, "1/0 rebalances, 0 commits, 0 expirations; left x2; told: ");
    let plan_fails = |w: &mut World| {
        let call = w.join(3, &Join::default());
        w.advance(0);
        let member = w.joined(call).member_id.into_owned();
        w.hold = true;
        w.sync(&member, 1, &[(&member, b"x")]);
        w.fail(E::NotEnoughReplicas);
    };
    check(World::new(quick()), plan_fails, "0/0 rebalances, 0 commits, 0 expirations; ; told: ");
    let consumers = |w: &mut World| {
        w.beat(&Beat::join("a"));
        w.beat(&Beat::stay("a", 2));
        w.beat(&Beat::join("b"));
        w.beat(&Beat::stay("b", -1));
    };
    check(world_of(&[("t", 1, 2)]), consumers, "0/2 rebalances, 0 commits, 0 expirations; left x1; told: ");
}

#[test]
fn members_that_go_are_told_of_with_the_reason() {
    let session = |w: &mut World| {
        stable(w, 2);
        w.advance(10_000);
    };
    check(
        World::new(quick()),
        session,
        "1/0 rebalances, 0 commits, 0 expirations; session x2; told: g session 1, g session 0",
    );
    let no_rejoin = |w: &mut World| {
        let (members, generation) = stable(w, 1);
        let newcomer = w.join(3, &Join::default());
        while !w.answers.contains_key(&newcomer) {
            w.heartbeat(&members[0], generation);
            w.advance(5_000);
        }
    };
    check(
        World::new(quick()),
        no_rejoin,
        "1/0 rebalances, 0 commits, 0 expirations; rebalance x1; told: g rebalance 1",
    );
    let no_sync = |w: &mut World| {
        let call = w.join(3, &Join::default());
        w.advance(0);
        let member = w.joined(call).member_id.into_owned();
        while w.heartbeat(&member, 1) == E::None {
            w.advance(5_000);
        }
    };
    check(
        World::new(quick()),
        no_sync,
        "0/0 rebalances, 0 commits, 0 expirations; rebalance x1; told: g rebalance 0",
    );
    let replaced = |w: &mut World| {
        for _ in 0..2 {
            w.join(9, &Join::instance("i"));
            w.advance(0);
        }
    };
    check(
        World::new(quick()),
        replaced,
        "0/0 rebalances, 0 commits, 0 expirations; replaced x1; told: g replaced 1",
    );
    let consumers = |w: &mut World| {
        w.beat(&Beat { timeout_ms: 10_000, ..Beat::join("a") });
        w.beat(&Beat::join("b"));
        w.beat(&Beat::stay("a", 2));
        for _ in 0..4 {
            w.advance(2_500);
            w.beat(&Beat::stay("a", 2));
        }
        w.advance(45_000);
        w.beat(&Beat::join("c").instance("i"));
        w.beat(&Beat { epoch: -2, ..Beat::stay("c", 0).instance("i") });
        w.beat(&Beat::join("d").instance("i"));
    };
    check(
        world_of(&[("t", 1, 4)]),
        consumers,
        "0/3 rebalances, 0 commits, 0 expirations; session x1 rebalance x1 replaced x1; \
         told: g rebalance 1, g session 0, g replaced 1",
    );
}

#[test]
fn an_oversized_groups_last_to_rejoin_is_told_of() {
    let mut w = World::new(quick());
    let (members, _) = stable(&mut w, 3);
    let smaller = Settings { group_max_size: 2, ..quick() };
    let rejoin = |w: &mut World| {
        for member in &members {
            w.join(9, &Join::member(member));
        }
    };
    check(
        World::loaded(smaller, Image::default(), w.log.clone(), w.now),
        rejoin,
        "0/0 rebalances, 0 commits, 0 expirations; full x1; told: g full 2",
    );
}

#[test]
fn commits_and_expirations_count_by_partition() {
    let settings = || Settings { offsets_retention_ms: 3_600_000, offset_metadata_max_bytes: 3, ..quick() };
    let commits = |w: &mut World| {
        w.commit(&Commit::default());
        w.commit(&Commit { partition: 1, ..Commit::default() });
        assert_eq!(w.commit(&Commit { metadata: "long", ..Commit::default() }), E::OffsetMetadataTooLarge);
    };
    check(World::new(settings()), commits, "0/0 rebalances, 2 commits, 0 expirations; ; told: ");
    let expire = |w: &mut World| {
        commits(w);
        w.advance(3_600_000 + 700_000);
        assert_eq!(w.shard.offset_count(), 0);
    };
    check(World::new(settings()), expire, "0/0 rebalances, 2 commits, 2 expirations; ; told: ");
    let mut before = World::new(settings());
    commits(&mut before);
    check(
        World::loaded(settings(), Image::default(), before.log.clone(), before.now),
        |_| {},
        "0/0 rebalances, 0 commits, 0 expirations; ; told: ",
    );
}
