//! The state machine: what commands do, that replicas stay equal, and that no bytes make it panic.

use engine::ids::LeaderEpoch;

use super::*;
use crate::wire;

/// A small deterministic generator: the same seed, the same commands.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn node(&mut self) -> NodeId {
        NodeId(i32::try_from(self.below(5)).expect("small"))
    }

    fn small(&mut self) -> i32 {
        i32::try_from(self.below(6)).expect("small")
    }

    fn id(&mut self) -> TopicId {
        TopicId([u8::try_from(1 + self.below(8)).expect("small"); 16])
    }

    fn partition(&mut self) -> PartitionId {
        PartitionId { topic: self.id(), index: self.small() }
    }

    fn nodes(&mut self) -> Vec<NodeId> {
        (0..self.below(4)).map(|_| self.node()).collect()
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| one(self)).collect()
    }

    /// Half of the epochs and incarnations fit, so that commands of every kind succeed and fail.
    fn command(&mut self, metadata: &Metadata) -> Command {
        let node = self.node();
        let known = metadata.image().broker(node);
        let epoch = known.map_or(0, |broker| broker.epoch) + i64::from(self.below(4) == 0);
        let incarnation = [u8::try_from(self.below(2)).expect("small"); 16];
        match self.below(15) {
            0 => Command::RegisterBroker {
                node,
                storage: [0; 16],
                incarnation,
                listeners: vec![listener("a")],
                rack: Some("r".to_owned()),
            },
            1 | 2 => Command::BrokerStarted {
                node,
                incarnation: known.map_or(incarnation, |broker| broker.incarnation),
                lost: self.list(Random::partition),
            },
            3 => Command::FenceBroker { node, epoch },
            4 => Command::UnregisterBroker { node },
            5 | 6 => Command::CreateTopic {
                id: self.id(),
                name: format!("t{}", self.small()),
                partitions: self.list(Random::nodes),
                configs: BTreeMap::from([("segment.ms".to_owned(), self.small().to_string())]),
            },
            7 => Command::DeleteTopic { id: self.id() },
            8 => Command::CreatePartitions {
                id: self.id(),
                existing: self.small(),
                partitions: self.list(Random::nodes),
            },
            9 => Command::SetTopicConfigs {
                id: self.id(),
                changes: vec![("retention.ms".to_owned(), (self.below(2) == 0).then(|| "9".to_owned()))],
            },
            10 => Command::AllocateProducerIds { node, count: u32::try_from(self.below(3)).expect("small") },
            14 => Command::SetConfigs {
                resource: match self.below(3) {
                    0 => ConfigResource::Brokers,
                    1 => ConfigResource::Broker(node),
                    _ => ConfigResource::Group(format!("g{}", self.small())),
                },
                changes: vec![("a.key".to_owned(), (self.below(2) == 0).then(|| "9".to_owned()))],
            },
            11 => self.alter_partition(metadata, node, epoch),
            12 => Command::ResignLeadership {
                node,
                broker_epoch: epoch,
                partitions: self.list(Random::partition),
            },
            _ => Command::ReclaimLeadership {
                node,
                broker_epoch: epoch,
                partitions: self.list(Random::partition),
            },
        }
    }

    fn alter_partition(&mut self, metadata: &Metadata, leader: NodeId, broker_epoch: i64) -> Command {
        let id = self.partition();
        let now = metadata.image().partition(id);
        Command::AlterPartition {
            id,
            leader,
            broker_epoch,
            leader_epoch: now.map_or(LeaderEpoch(0), |partition| partition.leader_epoch),
            partition_epoch: now.map_or(0, |partition| partition.partition_epoch),
            isr: self.nodes(),
        }
    }
}

fn listener(name: &str) -> Listener {
    Listener { name: name.to_owned(), host: "host".to_owned(), port: 9092, security_protocol: 0 }
}

fn register(node: i32, incarnation: u8) -> Command {
    Command::RegisterBroker {
        node: NodeId(node),
        storage: [9; 16],
        incarnation: [incarnation; 16],
        listeners: vec![listener("PLAINTEXT")],
        rack: None,
    }
}

fn started(node: i32, incarnation: u8) -> Command {
    Command::BrokerStarted { node: NodeId(node), incarnation: [incarnation; 16], lost: Vec::new() }
}

fn create(id: u8, name: &str, partitions: &[&[i32]]) -> Command {
    Command::CreateTopic {
        id: TopicId([id; 16]),
        name: name.to_owned(),
        partitions: partitions.iter().map(|nodes| nodes.iter().copied().map(NodeId).collect()).collect(),
        configs: BTreeMap::new(),
    }
}

fn run(metadata: &mut Metadata, command: &Command) -> Applied {
    let index = metadata.applied_index() + 1;
    metadata.apply(index, command)
}

fn must(metadata: &mut Metadata, command: &Command) -> Vec<Change> {
    let applied = run(metadata, command);
    assert_eq!(applied.refused, None, "{command:?}");
    applied.changes
}

fn cluster(nodes: i32) -> Metadata {
    let mut metadata = Metadata::new("cluster".to_owned());
    for node in 0..nodes {
        must(&mut metadata, &register(node, 1));
        must(&mut metadata, &started(node, 1));
    }
    metadata
}

/// What the module doc promises of every partition.
fn check_invariants(metadata: &Metadata) {
    for topic in metadata.image().topics() {
        assert!(!topic.partitions.is_empty());
        for (id, partition) in topic.ids() {
            assert_eq!(metadata.image().partition(id), Some(partition));
            let distinct: BTreeSet<NodeId> = partition.replicas.iter().copied().collect();
            assert_eq!(distinct.len(), partition.replicas.len());
            assert!(!partition.isr.is_empty());
            assert!(partition.isr.iter().all(|node| distinct.contains(node)));
            if let Some(leader) = partition.leader {
                assert!(partition.isr.contains(&leader), "{id} is led from outside the in-sync set");
                assert!(metadata.image().is_active(leader), "{id} is led by a fenced broker");
            }
        }
    }
}

/// No change of leader, and no start of a leader's process, without a new epoch.
fn check_epochs(before: &Metadata, after: &Metadata) {
    for topic in before.image().topics() {
        for (id, old) in topic.ids() {
            let Some(new) = after.image().partition(id) else { continue };
            assert!(new.leader_epoch >= old.leader_epoch);
            assert!(new.partition_epoch >= old.partition_epoch);
            if new.leader != old.leader {
                assert!(new.leader_epoch > old.leader_epoch, "{id} changed its leader within an epoch");
            }
            let incarnation = |metadata: &Metadata, leader| {
                metadata.image().broker(leader).map(|broker| broker.incarnation)
            };
            if let (Some(a), Some(b)) = (old.leader, new.leader)
                && (a, incarnation(before, a)) != (b, incarnation(after, b))
            {
                assert!(new.leader_epoch > old.leader_epoch, "{id}: one epoch, two processes");
            }
        }
    }
}

#[test]
fn random_commands_leave_two_replicas_and_their_readers_equal() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut one = Metadata::new("cluster".to_owned());
        let mut two = one.clone();
        let mut reader = one.image().clone();
        let mut accepted = 0;
        for _ in 0..400 {
            let before = one.clone();
            let command = random.command(&one);
            let decoded = Command::decode(&command.encode()).expect("it was encoded");
            assert_eq!(decoded, command);
            let applied = run(&mut one, &command);
            assert_eq!(run(&mut two, &decoded), applied);
            accepted += usize::from(applied.refused.is_none());
            applied.changes.iter().for_each(|change| reader.absorb(change));
            check_invariants(&one);
            check_epochs(&before, &one);
            if random.below(50) == 0 {
                two = Metadata::decode(&two.encode()).expect("it was encoded");
            }
        }
        assert_eq!(one.encode(), two.encode(), "seed {seed}");
        assert_eq!(one, two, "seed {seed}");
        assert_eq!(&reader, one.image(), "seed {seed}");
        let partitions: usize = one.image().topics().map(|topic| topic.partitions.len()).sum();
        assert_eq!(one.image().partition_count(), partitions);
        assert!(accepted > 40, "seed {seed} tried too little: {accepted}");
    }
}

#[test]
fn hazard_a1_a_start_bumps_the_epoch_of_every_led_partition_in_one_command() {
    let mut metadata = cluster(1);
    let topics = 50;
    for topic in 1..=topics {
        must(&mut metadata, &create(topic, &format!("t{topic}"), &[&[0], &[0], &[0], &[0]]));
    }
    let epochs = |metadata: &Metadata| -> Vec<(PartitionId, i32)> {
        let topics: Vec<Arc<Topic>> = metadata.image().topics().cloned().collect();
        topics
            .iter()
            .flat_map(|t| t.ids().map(|(id, p)| (id, p.leader_epoch.0)).collect::<Vec<_>>())
            .collect()
    };
    let first = epochs(&metadata);
    // The process dies and comes back: the same incarnation never leads twice.
    must(&mut metadata, &register(0, 2));
    let nobody = metadata.image().topics().all(|t| t.partitions.iter().all(|p| p.leader.is_none()));
    assert!(nobody, "a process that has not recovered leads");
    let changes = must(&mut metadata, &started(0, 2));
    let bumped: usize = changes
        .iter()
        .map(|change| if let Change::Partitions { indexes, .. } = change { indexes.len() } else { 0 })
        .sum();
    assert_eq!(bumped, usize::from(topics) * 4);
    for ((id, before), (same, after)) in first.into_iter().zip(epochs(&metadata)) {
        assert_eq!(id, same);
        assert!(after > before, "{id} goes on in epoch {before}");
    }
    let leads = metadata.image().topics().all(|t| t.partitions.iter().all(|p| p.leader == Some(NodeId(0))));
    assert!(leads);
}

#[test]
fn hazard_a1_a_started_leader_that_never_registered_anew_also_takes_new_epochs() {
    let mut metadata = cluster(1);
    must(&mut metadata, &create(1, "t", &[&[0]]));
    must(&mut metadata, &started(0, 1));
    let id = PartitionId { topic: TopicId([1; 16]), index: 0 };
    assert_eq!(metadata.image().partition(id).map(|p| p.leader_epoch), Some(LeaderEpoch(1)));
}

#[test]
fn hazard_a1_a_failed_log_leads_again_only_in_a_new_epoch() {
    let mut metadata = cluster(1);
    must(&mut metadata, &create(1, "t", &[&[0], &[0]]));
    let id = PartitionId { topic: TopicId([1; 16]), index: 1 };
    let broker_epoch = metadata.image().broker(NodeId(0)).expect("registered").epoch;
    let node = NodeId(0);
    must(&mut metadata, &Command::ResignLeadership { node, broker_epoch, partitions: vec![id] });
    assert_eq!(metadata.image().partition(id).map(|p| (p.leader, p.leader_epoch.0)), Some((None, 1)));
    must(&mut metadata, &Command::ReclaimLeadership { node, broker_epoch, partitions: vec![id] });
    assert_eq!(metadata.image().partition(id).map(|p| (p.leader, p.leader_epoch.0)), Some((Some(node), 2)));
    let other = PartitionId { index: 0, ..id };
    assert_eq!(metadata.image().partition(other).map(|p| p.leader_epoch.0), Some(0));
}

#[test]
fn hazard_a11_a_node_with_another_data_folder_is_refused() {
    let mut metadata = cluster(1);
    let Command::RegisterBroker { node, incarnation, listeners, rack, .. } = register(0, 2) else {
        unreachable!()
    };
    let wiped = Command::RegisterBroker { node, storage: [8; 16], incarnation, listeners, rack };
    let refused = run(&mut metadata, &wiped).refused.expect("it is another disk");
    assert_eq!(refused.code, ErrorCode::DuplicateBrokerRegistration);
    assert_eq!(metadata.image().broker(NodeId(0)).map(|broker| broker.storage), Some([9; 16]));
}

#[test]
fn a_fenced_broker_hands_over_and_the_last_in_sync_one_keeps_its_claim() {
    let mut metadata = cluster(3);
    must(&mut metadata, &create(1, "t", &[&[0, 1]]));
    let id = PartitionId { topic: TopicId([1; 16]), index: 0 };
    let fence = |metadata: &Metadata, node| Command::FenceBroker {
        node: NodeId(node),
        epoch: metadata.image().broker(NodeId(node)).expect("registered").epoch,
    };
    let command = fence(&metadata, 0);
    must(&mut metadata, &command);
    let now = metadata.image().partition(id).expect("it exists").clone();
    assert_eq!((now.leader, now.isr.as_slice()), (Some(NodeId(1)), &[NodeId(1)][..]));
    let command = fence(&metadata, 1);
    must(&mut metadata, &command);
    let now = metadata.image().partition(id).expect("it exists").clone();
    assert_eq!((now.leader, now.isr.as_slice()), (None, &[NodeId(1)][..]));
    // The other one returns first: it may lack acknowledged records, so nobody leads.
    must(&mut metadata, &started(0, 1));
    assert_eq!(metadata.image().partition(id).and_then(|p| p.leader), None);
    must(&mut metadata, &started(1, 1));
    assert_eq!(metadata.image().partition(id).and_then(|p| p.leader), Some(NodeId(1)));
}

#[test]
fn stale_and_impossible_commands_change_nothing() {
    let mut metadata = cluster(2);
    must(&mut metadata, &create(1, "t", &[&[0, 1]]));
    let id = PartitionId { topic: TopicId([1; 16]), index: 0 };
    let broker_epoch = metadata.image().broker(NodeId(0)).expect("registered").epoch;
    let report = |leader_epoch, partition_epoch, isr: &[i32]| Command::AlterPartition {
        id,
        leader: NodeId(0),
        broker_epoch,
        leader_epoch: LeaderEpoch(leader_epoch),
        partition_epoch,
        isr: isr.iter().copied().map(NodeId).collect(),
    };
    let cases = [
        (create(2, "t", &[&[0]]), ErrorCode::TopicAlreadyExists),
        (create(1, "u", &[&[0]]), ErrorCode::InvalidRequest),
        (create(0, "u", &[&[0]]), ErrorCode::InvalidRequest),
        (create(2, "a b", &[&[0]]), ErrorCode::InvalidTopicException),
        (create(2, "u", &[]), ErrorCode::InvalidPartitions),
        (create(2, "u", &[&[]]), ErrorCode::InvalidReplicaAssignment),
        (create(2, "u", &[&[7]]), ErrorCode::InvalidReplicaAssignment),
        (Command::DeleteTopic { id: TopicId([5; 16]) }, ErrorCode::UnknownTopicId),
        (Command::FenceBroker { node: NodeId(0), epoch: 0 }, ErrorCode::StaleBrokerEpoch),
        (Command::FenceBroker { node: NodeId(6), epoch: 0 }, ErrorCode::BrokerIdNotRegistered),
        (Command::UnregisterBroker { node: NodeId(0) }, ErrorCode::InvalidRequest),
        (started(0, 7), ErrorCode::StaleBrokerEpoch),
        (report(1, 0, &[0]), ErrorCode::FencedLeaderEpoch),
        (report(0, 1, &[0]), ErrorCode::InvalidUpdateVersion),
        (report(0, 0, &[1]), ErrorCode::InvalidRequest),
        (report(0, 0, &[]), ErrorCode::InvalidRequest),
        (Command::AllocateProducerIds { node: NodeId(0), count: 0 }, ErrorCode::InvalidRequest),
    ];
    for (command, code) in cases {
        let before = metadata.clone();
        let applied = run(&mut metadata, &command);
        assert_eq!(applied.refused.map(|refusal| refusal.code), Some(code), "{command:?}");
        assert_eq!(metadata.image(), before.image(), "{command:?}");
    }
    must(&mut metadata, &report(0, 0, &[0]));
    assert_eq!(metadata.image().partition(id).map(|p| p.isr.clone()), Some(vec![NodeId(0)]));
}

#[test]
fn producer_ids_go_on_behind_a_snapshot() {
    let mut metadata = cluster(1);
    let block = |metadata: &mut Metadata| {
        let command = Command::AllocateProducerIds { node: NodeId(0), count: 1000 };
        match must(metadata, &command).as_slice() {
            [Change::ProducerIds { ids, .. }] => ids.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(block(&mut metadata), 0..1000);
    let mut restored = Metadata::decode(&metadata.encode()).expect("it was encoded");
    assert_eq!(block(&mut restored), 1000..2000);
}

#[test]
fn hostile_bytes_are_errors_and_applied_mutants_never_panic() {
    let mut random = Random(7);
    let mut metadata = cluster(3);
    for _ in 0..300 {
        let command = random.command(&metadata);
        run(&mut metadata, &command);
    }
    let snapshot = metadata.encode();
    for _ in 0..20_000 {
        let mut bytes = random.command(&metadata).encode();
        mutate(&mut random, &mut bytes);
        if let Ok(command) = Command::decode(&bytes) {
            run(&mut metadata.clone(), &command);
        }
    }
    for _ in 0..5_000 {
        let mut bytes = snapshot.clone();
        mutate(&mut random, &mut bytes);
        if let Ok(mut restored) = Metadata::decode(&bytes)
            && restored.applied_index() < u64::MAX
        {
            let command = random.command(&restored);
            run(&mut restored, &command);
        }
    }
    for length in 0..snapshot.len() {
        assert!(Metadata::decode(&snapshot[..length]).is_err());
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        let at = usize::try_from(random.below(bytes.len().max(1) as u64)).expect("small");
        match random.below(3) {
            0 => bytes.truncate(at),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next().to_le_bytes()[0];
                }
            }
        }
    }
}

#[test]
fn a_later_releases_tags_are_skipped_and_its_kinds_refused() {
    let mut tagged = Command::DeleteTopic { id: TopicId([3; 16]) }.encode();
    tagged.pop();
    tagged.extend_from_slice(&[1, 5, 2, 0xaa, 0xbb]);
    assert_eq!(Command::decode(&tagged), Ok(Command::DeleteTopic { id: TopicId([3; 16]) }));
    assert_eq!(Command::decode(&[0, 99, 0, 0, 0]), Err(wire::Error::Unsupported { kind: 99, version: 0 }));
    assert_eq!(Command::decode(&[0, 6, 0, 1, 0]), Err(wire::Error::Unsupported { kind: 6, version: 1 }));
    assert_eq!(Metadata::decode(&[0, 2]), Err(wire::Error::Unsupported { kind: -1, version: 2 }));
}

/// Bytes for ever: what an earlier release wrote is what a later one reads.
#[test]
fn golden_bytes() {
    let bytes = create(1, "t", &[&[0]]).encode();
    let mut expect = vec![0, 5, 0, 0];
    expect.extend_from_slice(&[1; 16]);
    expect.extend_from_slice(&[2, b't', 2, 2, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bytes, expect);
    let allocate = Command::AllocateProducerIds { node: NodeId(2), count: 1000 }.encode();
    assert_eq!(allocate, [0, 9, 0, 0, 0, 0, 0, 2, 0xe8, 0x07, 0]);
    let changes = vec![("k".to_owned(), Some("v".to_owned())), ("l".to_owned(), None)];
    let group = Command::SetConfigs { resource: ConfigResource::Group("g".to_owned()), changes }.encode();
    assert_eq!(group, [0, 14, 0, 0, 32, 2, b'g', 3, 2, b'k', 2, b'v', 2, b'l', 0, 0]);
    let broker = Command::SetConfigs { resource: ConfigResource::Broker(NodeId(2)), changes: Vec::new() };
    assert_eq!(broker.encode(), [0, 14, 0, 0, 4, 0, 0, 0, 2, 1, 0]);
    let brokers = Command::SetConfigs { resource: ConfigResource::Brokers, changes: Vec::new() }.encode();
    assert_eq!(brokers, [0, 14, 0, 0, 5, 1, 0]);
    let mut metadata = Metadata::new("c".to_owned());
    let empty = [0, 1, 2, b'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0];
    assert_eq!(metadata.encode(), empty);
    let version_0 = [0, 0, 2, b'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0];
    assert_eq!(Metadata::decode(&version_0), Ok(metadata.clone()));
    must(&mut metadata, &Command::decode(&group).expect("it is a command"));
    let with_configs = [
        &[0, 1, 2, b'c', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2][..],
        &[32, 2, b'g', 2, 2, b'k', 2, b'v', 0],
    ]
    .concat();
    assert_eq!(metadata.encode(), with_configs);
    assert_eq!(Metadata::decode(&with_configs), Ok(metadata));
}

#[test]
fn replicas_are_spread_over_brokers_and_racks() {
    let mut metadata = Metadata::new("cluster".to_owned());
    for node in 0..6 {
        let Command::RegisterBroker { node, storage, incarnation, listeners, .. } = register(node, 1) else {
            unreachable!()
        };
        let rack = Some(format!("rack{}", node.0 % 3));
        must(&mut metadata, &Command::RegisterBroker { node, storage, incarnation, listeners, rack });
        if node.0 != 5 {
            must(&mut metadata, &started(node.0, 1));
        }
    }
    for random in 0..7 {
        let placed = placement::place(metadata.image(), 50, 3, random).expect("six brokers");
        let mut leads = BTreeMap::new();
        for replicas in &placed {
            let distinct: BTreeSet<&NodeId> = replicas.iter().collect();
            assert_eq!(distinct.len(), 3);
            assert!(!replicas.contains(&NodeId(5)), "five active ones are enough");
            *leads.entry(replicas[0]).or_insert(0) += 1;
        }
        assert!(leads.values().all(|count| *count == 10), "{leads:?}");
    }
    let all = placement::place(metadata.image(), 3, 6, 0).expect("six brokers");
    assert!(all.iter().all(|replicas| replicas.last() == Some(&NodeId(5))));
}
