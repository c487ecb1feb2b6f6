use super::*;

fn topic(byte: u8) -> TopicId {
    TopicId([byte; 16])
}

fn member(id: &str, topics: &[u8], target: &[(u8, i32)]) -> Subscriber {
    Subscriber {
        id: id.into(),
        instance: None,
        topics: Rc::new(topics.iter().map(|byte| topic(*byte)).collect()),
        target: Rc::new(target.iter().map(|(byte, partition)| (topic(*byte), *partition)).collect()),
    }
}

fn counts(counts: &[(u8, i32)]) -> BTreeMap<TopicId, i32> {
    counts.iter().map(|(byte, count)| (topic(*byte), *count)).collect()
}

/// "1:0 1 2:0" for each member.
fn shown(assigned: &[Partitions]) -> Vec<String> {
    let show = |partitions: &Partitions| {
        let topics = partitions.iter().map(|(id, list)| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            format!("{}:{}", id.0[0], list.join(" "))
        });
        topics.collect::<Vec<_>>().join(" ")
    };
    assigned.iter().map(show).collect()
}

#[test]
fn cases() {
    let (uniform, range) = (Assignor::Uniform, Assignor::Range);
    let cases = [
        ("nobody", uniform, vec![], vec![(1, 3)], vec![]),
        ("alone", uniform, vec![member("a", &[1], &[])], vec![(1, 2)], vec!["1:0 1"]),
        (
            "the first ones have one more",
            uniform,
            vec![member("a", &[1, 2], &[]), member("b", &[1, 2], &[]), member("c", &[1, 2], &[])],
            vec![(1, 2), (2, 2)],
            vec!["1:0 2:1", "1:1", "2:0"],
        ),
        (
            "a newcomer gets what is above the quota",
            uniform,
            vec![member("a", &[1], &[(1, 0), (1, 1), (1, 2), (1, 3)]), member("b", &[1], &[])],
            vec![(1, 4)],
            vec!["1:0 1", "1:2 3"],
        ),
        (
            "what has gone is dropped",
            uniform,
            vec![member("a", &[1], &[(1, 7), (2, 0)]), member("b", &[1], &[(1, 0)])],
            vec![(1, 2)],
            vec!["1:1", "1:0"],
        ),
        (
            "more members than partitions",
            uniform,
            vec![member("a", &[1], &[]), member("b", &[1], &[(1, 0)])],
            vec![(1, 1)],
            vec!["", "1:0"],
        ),
        (
            "subscriptions differ",
            uniform,
            vec![member("a", &[1, 2], &[]), member("b", &[2], &[]), member("c", &[1], &[])],
            vec![(1, 2), (2, 2)],
            vec!["1:0 2:1", "2:0", "1:1"],
        ),
        (
            "range is contiguous, and alike for topics of one size",
            range,
            vec![member("b", &[1, 2], &[]), member("a", &[1, 2], &[])],
            vec![(1, 5), (2, 5)],
            vec!["1:3 4 2:3 4", "1:0 1 2 2:0 1 2"],
        ),
        (
            "range among the subscribers of each topic",
            range,
            vec![member("a", &[1], &[]), member("b", &[1, 2], &[])],
            vec![(1, 3), (2, 2)],
            vec!["1:0 1", "1:2 2:0 1"],
        ),
    ];
    for (name, assignor, members, topics, expect) in cases {
        assert_eq!(shown(&assign(assignor, &members, &counts(&topics))), expect, "{name}");
    }
}

#[test]
fn range_seats_static_members_by_instance_before_the_others() {
    let mut members = [member("a", &[1], &[]), member("z", &[1], &[]), member("y", &[1], &[])];
    members[1].instance = Some("i1".into());
    members[2].instance = Some("i2".into());
    assert_eq!(shown(&assign(Assignor::Range, &members, &counts(&[(1, 3)]))), ["1:2", "1:0", "1:1"]);
}

#[test]
fn every_partition_has_one_owner_loads_are_even_and_nothing_moves_twice() {
    let mut seed = 99_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 9) as usize % below
    };
    for _ in 0..300 {
        let topics: Vec<(u8, i32)> = (1..=4).map(|byte| (byte, random(9) as i32)).collect();
        let same = random(2) == 0;
        let mut members: Vec<Subscriber> = (0..1 + random(6))
            .map(|at| {
                let chosen: Vec<u8> = (1..=4).filter(|_| same || random(2) == 0).collect();
                member(&format!("m{at}"), &chosen, &[])
            })
            .collect();
        let counts = counts(&topics);
        for _ in 0..3 {
            for assignor in [Assignor::Range, Assignor::Uniform] {
                let assigned = assign(assignor, &members, &counts);
                let mut seen = BTreeSet::new();
                for (member, partitions) in members.iter().zip(&assigned) {
                    for (topic, list) in partitions.iter() {
                        assert!(member.topics.contains(&topic));
                        assert!(list.iter().all(|partition| seen.insert((topic, *partition))));
                    }
                }
                let subscribed = |topic: &TopicId| members.iter().any(|m| m.topics.contains(topic));
                let expect: i32 = counts.iter().filter(|(t, _)| subscribed(t)).map(|(_, count)| count).sum();
                assert_eq!(seen.len(), expect.unsigned_abs() as usize);
                if assignor == Assignor::Uniform {
                    if same {
                        let loads = assigned.iter().map(Partitions::count);
                        let (least, most) = (loads.clone().min(), loads.max());
                        assert!(most <= least.map(|least| least + 1));
                    }
                    for (member, partitions) in members.iter_mut().zip(&assigned) {
                        member.target = Rc::new(partitions.clone());
                    }
                    assert_eq!(assign(assignor, &members, &counts), assigned, "settled");
                }
            }
            // Somebody leaves, and is followed by a newcomer.
            let topics = members[0].topics.clone();
            members.remove(0);
            members.push(Subscriber { topics, ..member("new", &[], &[]) });
        }
    }
}

/// Looking at every member for every partition, in each of the passes, this would be half a billion steps.
#[test]
fn thousands_of_members_that_differ_share_thousands_of_partitions() {
    const MEMBERS: usize = 5_000;
    let mut members: Vec<Subscriber> =
        (0..MEMBERS).map(|at| member(&format!("m{at:04}"), &[1, 2], &[])).collect();
    members[0] = member("m0000", &[2], &[]);
    // One has all of the larger topic.
    let all: Vec<(u8, i32)> = (0..5_000).map(|partition| (1, partition)).collect();
    members[1] = member("m0001", &[1, 2], &all);
    let assigned = assign(Assignor::Uniform, &members, &counts(&[(1, 5_000), (2, 5_000)]));
    let loads = assigned.iter().map(Partitions::count);
    assert_eq!((loads.clone().min(), loads.clone().max(), loads.sum()), (Some(2), Some(2), 10_000));
}
