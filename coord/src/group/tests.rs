//! The coordinator as its callers see it. `World` drives a shard: it keeps the log, makes appends durable at once unless
//! told to hold them, moves the clock from deadline to deadline, and checks after every step what must always hold.

mod classic;
mod consumer;
mod consumer_random;
mod counted;
mod hostile;
mod limits;
mod migrate;
mod mixed_random;
mod offsets;
mod random;

use std::collections::{BTreeMap, VecDeque};

use net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use net::messages::heartbeat::HeartbeatRequest;
use net::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use net::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use net::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use net::messages::subscription::ConsumerProtocolSubscription;
use net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use net::wire::{Encode, Writer};

use super::*;
use crate::error_code::ErrorCode as E;

pub struct World {
    pub shard: Shard,
    pub now: Now,
    calls: u64,
    /// Calls without an answer.
    pub waiting: std::collections::BTreeSet<u64>,
    pub answers: BTreeMap<u64, Answer>,
    pub resolves: Vec<Resolve>,
    pub counted: Counted,
    pub removed: Vec<Removed>,
    /// Durable records, and appends that are not.
    pub log: Vec<RecordBytes>,
    pub open: VecDeque<Append>,
    pub hold: bool,
}

impl World {
    pub fn new(settings: Settings) -> World {
        World::loaded(settings, Image::new("test".to_owned()), Vec::new(), Now { ms: 1, unix_ms: 1_000_000 })
    }

    /// A shard that comes up from a log.
    pub fn loaded(settings: Settings, image: Image, log: Vec<RecordBytes>, now: Now) -> World {
        let mut world = World {
            shard: Shard::new(settings, Rc::new(RefCell::new(image))),
            now,
            calls: 0,
            waiting: std::collections::BTreeSet::new(),
            answers: BTreeMap::new(),
            resolves: Vec::new(),
            counted: Counted::default(),
            removed: Vec::new(),
            log: Vec::new(),
            open: VecDeque::new(),
            hold: false,
        };
        for (key, value) in &log {
            world.step(Input::Load { key, value: value.as_deref() });
        }
        world.log = log;
        world.step(Input::Loaded);
        while world.shard.deadline() == Some(0) {
            world.step(Input::Tick);
        }
        world
    }

    pub fn step(&mut self, input: Input<'_>) {
        let mut out = Effects::default();
        self.shard.step(self.now, input, &mut out).expect("our own records are sound");
        self.take_up(out);
    }

    /// To its end; the most that one step dropped.
    pub fn unload(&mut self) -> usize {
        let (mut most, mut before) = (0, self.entries());
        self.step(Input::Unload);
        while self.shard.deadline() == Some(0) {
            self.step(Input::Tick);
            most = most.max(before - self.entries());
            before = self.entries();
        }
        most
    }

    /// What the shard holds, however small each.
    pub fn entries(&self) -> usize {
        let Shard { core, groups, offsets, pending, .. } = &self.shard;
        let members: usize = groups.values().map(Group::member_count).sum();
        groups.len() + members + offsets.len() + core.timers.len() + core.configs.len() + pending.len()
    }

    pub fn follow(&mut self, image: Image) {
        *self.shard.core.image.borrow_mut() = image;
        self.step(Input::Metadata);
    }

    fn take_up(&mut self, out: Effects) {
        for (call, answer) in out.answers {
            assert!(self.waiting.remove(&call.0), "call {} was answered before", call.0);
            self.answers.insert(call.0, *answer);
        }
        self.open.extend(out.appends);
        self.resolves.extend(out.resolves);
        self.counted.add(&out.counted);
        self.removed.extend(out.removed);
        if !self.hold {
            self.make_durable(usize::MAX);
        }
    }

    /// The next appends have become durable.
    pub fn make_durable(&mut self, count: usize) {
        for _ in 0..count {
            let Some(append) = self.open.pop_front() else { return };
            self.log.extend(append.records);
            self.step(Input::Durable { seq: append.seq });
        }
    }

    /// The next append failed, and with it all later ones.
    pub fn fail(&mut self, why: E) {
        let seq = self.open.front().expect("an append is open").seq;
        self.open.clear();
        self.step(Input::Failed { seq, why });
    }

    pub fn call(&mut self, version: i16, request: Request<'_>) -> u64 {
        self.call_within(&Budget::default(), version, request)
    }

    /// One of the calls that a request was taken apart into.
    pub fn call_within(&mut self, budget: &Budget, version: i16, request: Request<'_>) -> u64 {
        self.calls += 1;
        let id = self.calls;
        self.waiting.insert(id);
        let mut random = [0; 16];
        random[8..].copy_from_slice(&id.to_be_bytes());
        let (client_id, client_host) = ("client", "/127.0.0.1");
        let call = Call { id: CallId(id), version, client_id, client_host, random, budget };
        let mut out = Effects::default();
        self.shard.call(self.now, &call, request, &mut out);
        self.take_up(out);
        id
    }

    /// The answer to a request that is answered at once.
    pub fn ask(&mut self, version: i16, request: Request<'_>) -> Answer {
        let id = self.call(version, request);
        self.take(id)
    }

    pub fn take(&mut self, id: u64) -> Answer {
        self.answers.remove(&id).unwrap_or_else(|| panic!("call {id} has no answer yet"))
    }

    /// Time passes, deadline by deadline.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now.ms + ms;
        loop {
            let due = self.shard.deadline().unwrap_or(u64::MAX).max(self.now.ms);
            if due > end {
                break;
            }
            self.now.unix_ms += i64::try_from(due - self.now.ms).unwrap();
            self.now.ms = due;
            self.step(Input::Tick);
        }
        self.now.unix_ms += i64::try_from(end - self.now.ms).unwrap();
        self.now.ms = end;
    }

    pub fn join(&mut self, version: i16, join: &Join) -> u64 {
        self.call(version, Request::Join(join.request()))
    }

    pub fn joined(&mut self, id: u64) -> JoinGroupResponse<'static> {
        match self.take(id) {
            Answer::Join(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn sync(&mut self, member: &str, generation: i32, plan: &[(&str, &[u8])]) -> u64 {
        self.call(5, Request::Sync(sync_request(member, generation, plan)))
    }

    pub fn synced(&mut self, id: u64) -> SyncGroupResponse<'static> {
        match self.take(id) {
            Answer::Sync(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn heartbeat(&mut self, member: &str, generation: i32) -> E {
        let request = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: generation,
            member_id: member.to_owned().into(),
            ..HeartbeatRequest::default()
        };
        error(&self.ask(4, Request::Heartbeat(request)))
    }

    pub fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<E> {
        let row = |(member, instance): &(&str, Option<&str>)| MemberIdentity {
            member_id: (*member).to_owned().into(),
            group_instance_id: instance.map(|instance| instance.to_owned().into()),
            reason: None,
        };
        let members = members.iter().map(row).collect();
        let request = LeaveGroupRequest { group_id: "g".into(), members, ..LeaveGroupRequest::default() };
        match self.ask(5, Request::Leave(request)) {
            Answer::Leave(answer) => answer.members.iter().map(|row| code(row.error_code)).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub fn describe(&mut self, group: &str) -> net::messages::describe_groups::DescribedGroup<'static> {
        match self.ask(6, Request::Describe { group: group.to_owned().into() }) {
            Answer::Describe(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&mut self) -> String {
        self.describe("g").group_state.into_owned()
    }

    pub fn commit(&mut self, commit: &Commit<'_>) -> E {
        let id = self.call(commit.version, Request::Commit(commit.request()));
        error(&self.take(id))
    }

    /// The committed offset of a partition; -1 where there is none.
    pub fn offset(&mut self, group: &str, topic: &str, partition: i32) -> i64 {
        let topics = vec![OffsetFetchRequestTopics {
            name: topic.to_owned().into(),
            topic_id: [0; 16],
            partition_indexes: vec![partition],
        }];
        let request = OffsetFetchRequestGroup {
            group_id: group.to_owned().into(),
            topics: Some(topics),
            ..OffsetFetchRequestGroup::default()
        };
        match self.ask(9, Request::FetchOffsets(request)) {
            Answer::FetchOffsets(answer) => answer.topics[0].partitions[0].committed_offset,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that is persisted, as the describing requests show it.
    pub fn durable_view(&mut self) -> String {
        let mut view = String::new();
        let ids: Vec<Text> = self.shard.groups.keys().cloned().collect();
        for id in ids {
            let described = self.describe(&id);
            let all = OffsetFetchRequestGroup {
                group_id: id.to_string().into(),
                topics: None,
                ..OffsetFetchRequestGroup::default()
            };
            let offsets = self.ask(9, Request::FetchOffsets(all));
            let consumer = self.ask(1, Request::ConsumerDescribe { group: id.to_string().into() });
            view += &format!("{described:?} {consumer:?}\n{offsets:?}\n");
        }
        view
    }

    /// A shard that loads the durable log shows what this one shows, now that nothing is in flight.
    pub fn check_replay(&mut self) {
        assert!(self.open.is_empty());
        let settings = self.shard.core.settings.clone();
        let image = self.shard.core.image.borrow().clone();
        let mut replayed = World::loaded(settings, image, self.log.clone(), self.now);
        assert_eq!(replayed.durable_view(), self.durable_view());
    }
}

impl World {
    pub fn beat(&mut self, beat: &Beat) -> ConsumerGroupHeartbeatResponse<'static> {
        match self.ask(beat.version, Request::ConsumerHeartbeat(beat.request())) {
            Answer::ConsumerHeartbeat(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn described(&mut self) -> net::messages::consumer_group_describe::DescribedGroup<'static> {
        match self.ask(1, Request::ConsumerDescribe { group: "g".into() }) {
            Answer::ConsumerDescribe(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn check_invariants(&self) {
        for group in self.shard.groups.values() {
            match group {
                Group::Classic(group) => group.check_invariants(),
                Group::Consumer(group) => group.check_invariants(),
            }
        }
    }
}

/// A ConsumerGroupHeartbeat for group "g".
#[derive(Clone)]
pub struct Beat {
    pub version: i16,
    pub group: &'static str,
    pub member: String,
    pub epoch: i32,
    pub instance: Option<String>,
    pub timeout_ms: i32,
    pub names: Option<Vec<&'static str>>,
    pub regex: Option<&'static str>,
    pub assignor: Option<&'static str>,
    pub owned: Option<Vec<([u8; 16], Vec<i32>)>>,
}

impl Beat {
    /// The first heartbeat of a member.
    pub fn join(member: &str) -> Beat {
        Beat {
            version: 1,
            group: "g",
            member: member.to_owned(),
            epoch: 0,
            instance: None,
            timeout_ms: 60_000,
            names: Some(vec!["t"]),
            regex: None,
            assignor: None,
            owned: Some(Vec::new()),
        }
    }

    /// A heartbeat that says nothing new.
    pub fn stay(member: &str, epoch: i32) -> Beat {
        Beat { epoch, timeout_ms: -1, names: None, owned: None, ..Beat::join(member) }
    }

    pub fn owning(self, topic: u8, partitions: &[i32]) -> Beat {
        Beat { owned: Some(vec![([topic; 16], partitions.to_vec())]), ..self }
    }

    pub fn instance(self, instance: &str) -> Beat {
        Beat { instance: Some(instance.to_owned()), ..self }
    }

    pub fn request(&self) -> ConsumerGroupHeartbeatRequest<'static> {
        let names = |names: &Vec<&'static str>| names.iter().map(|name| (*name).into()).collect();
        let owned = |owned: &Vec<([u8; 16], Vec<i32>)>| {
            let topic = |(topic_id, partitions): &([u8; 16], Vec<i32>)| TopicPartitions {
                topic_id: *topic_id,
                partitions: partitions.clone(),
            };
            owned.iter().map(topic).collect()
        };
        ConsumerGroupHeartbeatRequest {
            group_id: self.group.into(),
            member_id: self.member.clone().into(),
            member_epoch: self.epoch,
            instance_id: self.instance.clone().map(Into::into),
            rack_id: None,
            rebalance_timeout_ms: self.timeout_ms,
            subscribed_topic_names: self.names.as_ref().map(names),
            subscribed_topic_regex: self.regex.map(Into::into),
            server_assignor: self.assignor.map(Into::into),
            topic_partitions: self.owned.as_ref().map(owned),
        }
    }
}

/// The metadata of topics by name, the first byte of their ids, and their partition counts.
pub fn topics(topics: &[(&str, u8, usize)]) -> Image {
    let partition = || crate::metadata::Partition {
        replicas: vec![crate::metadata::NodeId(1)],
        isr: vec![crate::metadata::NodeId(1)],
        leader: None,
        leader_epoch: engine::ids::LeaderEpoch(0),
        partition_epoch: 0,
    };
    let mut image = Image::new("test".to_owned());
    for (name, id, count) in topics {
        image.absorb(&crate::metadata::Change::TopicCreated(std::sync::Arc::new(Topic {
            id: engine::ids::TopicId([*id; 16]),
            name: (*name).to_owned(),
            configs: BTreeMap::new(),
            partitions: (0..*count).map(|_| partition()).collect(),
        })));
    }
    image
}

/// A world with these topics and without an assignment interval.
pub fn world_of(topics_: &[(&str, u8, usize)]) -> World {
    let settings = Settings { consumer_assignment_interval_ms: 0, ..quick() };
    World::loaded(settings, topics(topics_), Vec::new(), Now { ms: 1, unix_ms: 1_000_000 })
}

/// "1:0 1 2:0" of an assignment; None where it was not told.
pub fn told(answer: &ConsumerGroupHeartbeatResponse<'_>) -> Option<String> {
    let assignment = answer.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter().map(|topic| {
        let list: Vec<String> = topic.partitions.iter().map(ToString::to_string).collect();
        format!("{}:{}", topic.topic_id[0], list.join(" "))
    });
    Some(topics.collect::<Vec<_>>().join(" "))
}

pub fn code(code: i16) -> E {
    E::from_i16(code).expect("a code that Kafka knows")
}

pub fn error(answer: &Answer) -> E {
    code(answer.error_code())
}

pub fn subscribe(topics: &[&str]) -> Vec<u8> {
    let subscription = ConsumerProtocolSubscription {
        topics: topics.iter().map(|topic| (*topic).to_owned().into()).collect(),
        ..ConsumerProtocolSubscription::default()
    };
    let mut w = Writer::new();
    w.i16(0);
    subscription.encode(&mut w, 0).unwrap();
    w.into_body().unwrap()
}

/// A JoinGroup request of group "g".
#[derive(Clone, Debug)]
pub struct Join {
    pub group: String,
    pub member: String,
    pub instance: Option<String>,
    pub kind: String,
    pub protocols: Vec<(String, Vec<u8>)>,
    pub session_ms: i32,
    pub rebalance_ms: i32,
}

impl Default for Join {
    fn default() -> Join {
        Join {
            group: "g".to_owned(),
            member: String::new(),
            instance: None,
            kind: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), subscribe(&["t"]))],
            session_ms: 10_000,
            rebalance_ms: 60_000,
        }
    }
}

impl Join {
    pub fn member(id: &str) -> Join {
        Join { member: id.to_owned(), ..Join::default() }
    }

    pub fn instance(id: &str) -> Join {
        Join { instance: Some(id.to_owned()), ..Join::default() }
    }

    pub fn protocols(mut self, names: &[&str]) -> Join {
        self.protocols = names.iter().map(|name| ((*name).to_owned(), subscribe(&["t"]))).collect();
        self
    }

    pub fn request(&self) -> JoinGroupRequest<'static> {
        let protocol = |(name, metadata): &(String, Vec<u8>)| JoinGroupRequestProtocol {
            name: name.clone().into(),
            metadata: metadata.clone().into(),
        };
        JoinGroupRequest {
            group_id: self.group.clone().into(),
            member_id: self.member.clone().into(),
            group_instance_id: self.instance.clone().map(Into::into),
            protocol_type: self.kind.clone().into(),
            protocols: self.protocols.iter().map(protocol).collect(),
            session_timeout_ms: self.session_ms,
            rebalance_timeout_ms: self.rebalance_ms,
            reason: None,
        }
    }
}

pub fn sync_request(member: &str, generation: i32, plan: &[(&str, &[u8])]) -> SyncGroupRequest<'static> {
    let assignment = |(member, bytes): &(&str, &[u8])| SyncGroupRequestAssignment {
        member_id: (*member).to_owned().into(),
        assignment: bytes.to_vec().into(),
    };
    SyncGroupRequest {
        group_id: "g".into(),
        generation_id: generation,
        member_id: member.to_owned().into(),
        group_instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: plan.iter().map(assignment).collect(),
    }
}

/// An OffsetCommit of one partition of topic "t".
#[derive(Clone, Copy)]
pub struct Commit<'a> {
    pub version: i16,
    pub group: &'a str,
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub generation: i32,
    pub member: &'a str,
    pub instance: Option<&'a str>,
    pub retention_ms: i64,
    pub metadata: &'a str,
    pub topic_id: [u8; 16],
}

impl Default for Commit<'_> {
    fn default() -> Self {
        Commit {
            version: 9,
            group: "g",
            topic: "t",
            partition: 0,
            offset: 7,
            generation: -1,
            member: "",
            instance: None,
            retention_ms: -1,
            metadata: "",
            topic_id: [0; 16],
        }
    }
}

impl Commit<'_> {
    pub fn request(&self) -> OffsetCommitRequest<'static> {
        let partition = OffsetCommitRequestPartition {
            partition_index: self.partition,
            committed_offset: self.offset,
            committed_leader_epoch: 3,
            committed_metadata: Some(self.metadata.to_owned().into()),
        };
        OffsetCommitRequest {
            group_id: self.group.to_owned().into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member.to_owned().into(),
            group_instance_id: self.instance.map(|instance| instance.to_owned().into()),
            retention_time_ms: self.retention_ms,
            topics: vec![OffsetCommitRequestTopic {
                name: self.topic.to_owned().into(),
                topic_id: self.topic_id,
                partitions: vec![partition],
            }],
        }
    }
}

/// A group "g" of members without an initial delay.
pub fn quick() -> Settings {
    Settings { group_initial_rebalance_delay_ms: 0, ..Settings::default() }
}

/// A stable group of this many members, the leader first; its generation.
pub fn stable(world: &mut World, count: usize) -> (Vec<String>, i32) {
    let mut members: Vec<String> = Vec::new();
    for _ in 0..count {
        let mut id = world.join(9, &Join::default());
        let told = world.joined(id);
        assert_eq!(code(told.error_code), E::MemberIdRequired);
        id = world.join(9, &Join::member(&told.member_id));
        let mut calls = vec![id];
        world.advance(0);
        // The others hear of it from their heartbeats, and rejoin.
        for member in &members {
            calls.push(world.join(9, &Join::member(member)));
        }
        members.push(told.member_id.into_owned());
        world.advance(0);
        for call in calls {
            assert_eq!(code(world.joined(call).error_code), E::None);
        }
        let described = world.describe("g");
        assert_eq!(described.group_state, "CompletingRebalance");
    }
    let Some(Group::Classic(group)) = world.shard.groups.get("g") else { panic!("there is a classic group") };
    let (generation, leader) = (group.generation(), group.leader_for_tests());
    let at = members.iter().position(|member| *member == leader).expect("a member leads");
    members.swap(0, at);
    let plan: Vec<(String, Vec<u8>)> = members.iter().map(|m| (m.clone(), m.as_bytes().to_vec())).collect();
    let plan: Vec<(&str, &[u8])> = plan.iter().map(|(member, bytes)| (&**member, &**bytes)).collect();
    let calls: Vec<u64> = members.iter().map(|m| world.sync(m, generation, &plan)).collect();
    for (call, member) in calls.into_iter().zip(&members) {
        let answer = world.synced(call);
        assert_eq!((code(answer.error_code), &*answer.assignment), (E::None, member.as_bytes()));
    }
    (members, generation)
}
