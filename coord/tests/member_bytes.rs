//! What one of a thousand members costs the coordinator: at rest, and at the most while they all join.

#[path = "../../net/tests/watched/mod.rs"]
mod watched;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use coord::group::{Answer, Budget, Call, CallId, Effects, Input, Now, Request, Settings, Shard};
use coord::metadata::{Change, Image, Partition, Topic};
use engine::ids::{LeaderEpoch, TopicId};
use net::messages::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, TopicPartitions};
use net::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

const MEMBERS: usize = 1_000;
const TOPIC: &str = "orders";
const TOPIC_ID: [u8; 16] = [1; 16];
/// About what a consumer says of one topic, and is given of it.
const SUBSCRIPTION: [u8; 20] = [7; 20];
const ASSIGNMENT_BYTES: usize = 24;
/// Before version 4 a member is taken in at once.
const JOIN_VERSION: i16 = 3;
const SYNC_VERSION: i16 = 3;
const BEAT_VERSION: i16 = 1;

type Name = std::borrow::Cow<'static, str>;

/// A coordinator whose log is always behind, until it is told to catch up.
struct Coordinator {
    shard: Shard,
    now: Now,
    calls: u64,
    undurable: u64,
    answers: Vec<(CallId, Box<Answer>)>,
}

impl Coordinator {
    fn new() -> Coordinator {
        let settings = Settings { group_initial_rebalance_delay_ms: 0, ..Settings::default() };
        let now = Now { ms: 1, unix_ms: 1_000_000 };
        let shard = Shard::new(settings, Rc::new(RefCell::new(image())));
        let mut new = Coordinator { shard, now, calls: 0, undurable: 0, answers: Vec::new() };
        new.step(Input::Loaded);
        while new.shard.deadline() == Some(0) {
            new.step(Input::Tick);
        }
        new
    }

    fn step(&mut self, input: Input<'_>) {
        let mut out = Effects::default();
        self.shard.step(self.now, input, &mut out).expect("nothing is loaded");
        self.take_up(out);
    }

    fn call(&mut self, version: i16, request: Request<'_>) {
        self.calls += 1;
        let mut random = [0; 16];
        random[8..].copy_from_slice(&self.calls.to_be_bytes());
        let (id, budget) = (CallId(self.calls), &Budget::default());
        let call = Call { id, version, client_id: "application", client_host: "/10.0.0.1", random, budget };
        let mut out = Effects::default();
        self.shard.call(self.now, &call, request, &mut out);
        self.take_up(out);
    }

    fn take_up(&mut self, out: Effects) {
        self.undurable = out.appends.last().map_or(self.undurable, |append| append.seq);
        self.answers.extend(out.answers);
    }

    /// Everything becomes durable; what was answered since the last time.
    fn catch_up(&mut self) -> Vec<Answer> {
        self.step(Input::Durable { seq: self.undurable });
        std::mem::take(&mut self.answers).into_iter().map(|(_, answer)| *answer).collect()
    }

    fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += i64::try_from(ms).expect("a short time");
        self.step(Input::Tick);
    }
}

/// Has one topic, with a partition for each member.
fn image() -> Image {
    let partition = Partition {
        replicas: Vec::new(),
        isr: Vec::new(),
        leader: None,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
    };
    let topic = Topic {
        id: TopicId(TOPIC_ID),
        name: TOPIC.to_owned(),
        configs: Default::default(),
        partitions: vec![partition; MEMBERS],
    };
    let mut image = Image::default();
    image.absorb(&Change::TopicCreated(Arc::new(topic)));
    image
}

fn check(what: &str, seen: watched::Seen, rest_max: usize, most_max: usize) {
    let each = |bytes: isize| usize::try_from(bytes).expect("something is held") / MEMBERS;
    let (rest, most) = (each(seen.held), each(seen.held_max));
    assert!(rest <= rest_max && most <= most_max, "{what}: {rest} bytes at rest, {most} at the most");
}

#[test]
fn a_member_of_a_classic_group_is_held_in_little() {
    const REST_BYTES_MAX: usize = 680;
    const MOST_BYTES_MAX: usize = 1_760;
    let mut coordinator = Coordinator::new();
    let seen = watched::allocations(|| join_classic(&mut coordinator));
    check("classic", seen, REST_BYTES_MAX, MOST_BYTES_MAX);
}

#[test]
fn a_member_of_a_consumer_group_is_held_in_little() {
    const REST_BYTES_MAX: usize = 920;
    const MOST_BYTES_MAX: usize = 1_560;
    let mut coordinator = Coordinator::new();
    let seen = watched::allocations(|| join_consumers(&mut coordinator));
    check("consumer", seen, REST_BYTES_MAX, MOST_BYTES_MAX);
}

fn join_classic(coordinator: &mut Coordinator) {
    for _ in 0..MEMBERS {
        coordinator.call(JOIN_VERSION, Request::Join(join_request()));
    }
    coordinator.pass(0);
    let joined = |answer: Answer| match answer {
        Answer::Join(answer) => (answer.member_id, answer.leader),
        other => panic!("{other:?}"),
    };
    let joined: Vec<_> = coordinator.catch_up().into_iter().map(joined).collect();
    assert_eq!(joined.len(), MEMBERS);
    for (id, leader) in &joined {
        let mut request = SyncGroupRequest {
            group_id: "group".into(),
            generation_id: 1,
            member_id: (&**id).into(),
            ..SyncGroupRequest::default()
        };
        if id == leader {
            let plan = |(id, _): &(Name, Name)| SyncGroupRequestAssignment {
                member_id: id.clone(),
                assignment: id.as_bytes()[..ASSIGNMENT_BYTES].to_vec().into(),
            };
            request.assignments = joined.iter().map(plan).collect();
        }
        coordinator.call(SYNC_VERSION, Request::Sync(request));
    }
    let synced = coordinator.catch_up();
    let is_synced = |answer: &Answer| matches!(answer, Answer::Sync(answer) if answer.assignment.len() == ASSIGNMENT_BYTES);
    assert_eq!(synced.iter().filter(|answer| is_synced(answer)).count(), MEMBERS);
}

fn join_request() -> JoinGroupRequest<'static> {
    JoinGroupRequest {
        group_id: "group".into(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: SUBSCRIPTION[..].into() }],
        ..JoinGroupRequest::default()
    }
}

/// What a member of a consumer group knows.
#[derive(Clone, Default)]
struct Member {
    epoch: i32,
    owned: Vec<i32>,
}

fn join_consumers(coordinator: &mut Coordinator) {
    const ROUNDS_MAX: usize = 10;
    let mut members = vec![Member::default(); MEMBERS];
    for _ in 0..ROUNDS_MAX {
        for (place, member) in members.iter().enumerate() {
            coordinator.call(BEAT_VERSION, Request::ConsumerHeartbeat(beat_request(place, member)));
        }
        let answers = coordinator.catch_up();
        assert_eq!(answers.len(), MEMBERS);
        for (member, answer) in members.iter_mut().zip(answers) {
            let Answer::ConsumerHeartbeat(answer) = answer else { panic!("{answer:?}") };
            assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
            member.epoch = answer.member_epoch;
            if let Some(told) = answer.assignment {
                member.owned = told.topic_partitions.into_iter().flat_map(|topic| topic.partitions).collect();
            }
        }
        if members.iter().all(|member| member.owned.len() == 1) {
            return;
        }
        coordinator.pass(
            u64::try_from(Settings::default().consumer_assignment_interval_ms).expect("it is positive"),
        );
    }
    panic!("after {ROUNDS_MAX} rounds not everybody has one");
}

fn beat_request(place: usize, member: &Member) -> ConsumerGroupHeartbeatRequest<'static> {
    let owned = TopicPartitions { topic_id: TOPIC_ID, partitions: member.owned.clone() };
    ConsumerGroupHeartbeatRequest {
        group_id: "group".into(),
        // As long as the ids that consumers choose.
        member_id: format!("{place:022}").into(),
        member_epoch: member.epoch,
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![TOPIC.into()]),
        topic_partitions: Some(if member.owned.is_empty() { Vec::new() } else { vec![owned] }),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}
