//! The bodies of the fuzz targets over group requests, and over what members put into them for each other; here so that an
//! ordinary test replays their corpora on any toolchain. There are topics, so that partitions are given away.
//!
//! Takes bytes from an attacker and asserts what must hold for all of them. Not called by the broker.

use net::api::ApiKey;
use net::header::RequestHeader;
use net::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use net::messages::delete_groups::DeleteGroupsRequest;
use net::messages::describe_groups::DescribeGroupsRequest;
use net::messages::heartbeat::HeartbeatRequest;
use net::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use net::messages::leave_group::LeaveGroupRequest;
use net::messages::list_groups::ListGroupsRequest;
use net::messages::offset_commit::OffsetCommitRequest;
use net::messages::offset_delete::OffsetDeleteRequest;
use net::messages::offset_fetch::OffsetFetchRequest;
use net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use net::wire::{Decode, Reader, Writer};

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use engine::ids::{LeaderEpoch, TopicId};

use super::{Answer, Budget, Call, CallId, Effects, Input, Now, Request, Settings, Shard};
use crate::metadata::{Change, Image, NodeId, Partition, Topic};

/// The topics of the corpus: name, first byte of the id, partitions.
const TOPICS: [(&str, u8, usize); 3] = [("t", 1, 4), ("two", 2, 2), ("topic", 3, 1)];

/// Longer than any timer that a member sets, and than offsets are kept.
const LONG_MS: u64 = 8 * 24 * 3600 * 1000;

/// The most requests that are made of one input.
const REQUESTS_MAX: usize = 64;

/// Frames, each with its length in two bytes: every request that can be read is asked of one shard, time passing between
/// them. Every call is answered once, every answer can be sent, and what was recorded can be loaded.
pub fn requests(bytes: &[u8]) {
    let mut driver = Driver::new();
    let mut rest = bytes;
    for _ in 0..REQUESTS_MAX {
        let Some((length, tail)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((frame, tail)) = tail.split_at_checked(length) else { break };
        rest = tail;
        driver.frame(frame);
    }
    driver.finish();
}

/// A subscription and an assignment, the length of the first in two bytes before it: what a classic consumer says and is
/// told. It is taken for what a member has by an upgrade, is reconciled, expires, and is turned back by a downgrade.
pub fn embedded(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let Some((metadata, assignment)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
        return;
    };
    let mut driver = Driver::new();
    let join = |member: &str| {
        let protocol = JoinGroupRequestProtocol { name: "range".into(), metadata: metadata.into() };
        Request::Join(JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            member_id: member.to_owned().into(),
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..JoinGroupRequest::default()
        })
    };
    let sync = |member: &str, generation_id: i32| {
        let planned =
            SyncGroupRequestAssignment { member_id: member.to_owned().into(), assignment: assignment.into() };
        Request::Sync(SyncGroupRequest {
            group_id: "g".into(),
            generation_id,
            member_id: member.to_owned().into(),
            assignments: vec![planned],
            ..SyncGroupRequest::default()
        })
    };
    let beat = |member_epoch: i32| {
        Request::ConsumerHeartbeat(ConsumerGroupHeartbeatRequest {
            group_id: "g".into(),
            member_id: "new".into(),
            member_epoch,
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(vec!["t".into()]),
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequest::default()
        })
    };
    driver.ask(3, join(""));
    driver.pass(3_000);
    let Some((member, generation)) = driver.joined.clone() else { return driver.finish() };
    driver.ask(3, sync(&member, generation));
    driver.ask(6, Request::Describe { group: "g".into() });
    driver.ask(1, beat(0));
    driver.ask(3, join(&member));
    if let Some((member, generation)) = driver.joined.clone() {
        driver.ask(3, sync(&member, generation));
        driver.ask(3, join(&member));
    }
    driver.ask(1, Request::ConsumerDescribe { group: "g".into() });
    driver.ask(1, beat(-1));
    driver.ask(6, Request::Describe { group: "g".into() });
    driver.pass(LONG_MS);
    driver.finish();
}

fn image() -> Image {
    let partition = Partition {
        replicas: vec![NodeId(1)],
        isr: vec![NodeId(1)],
        leader: None,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
    };
    let mut image = Image::default();
    for (name, id, count) in TOPICS {
        image.absorb(&Change::TopicCreated(Arc::new(Topic {
            id: TopicId([id; 16]),
            name: name.to_owned(),
            configs: BTreeMap::new(),
            partitions: vec![partition.clone(); count],
        })));
    }
    image
}

struct Driver {
    shard: Shard,
    now: Now,
    asked: u64,
    answered: u64,
    /// The member and the generation of the last JoinGroup that was answered so.
    joined: Option<(String, i32)>,
    records: Vec<super::RecordBytes>,
}

impl Driver {
    fn new() -> Driver {
        let mut shard = Shard::new(Settings::default(), Rc::new(RefCell::new(image())));
        let mut out = Effects::default();
        for input in [Input::Loaded, Input::Tick] {
            shard.step(Now::default(), input, &mut out).expect("nothing was loaded");
        }
        let now = Now { ms: 1, unix_ms: 1 };
        Driver { shard, now, asked: 0, answered: 0, joined: None, records: Vec::new() }
    }

    fn frame(&mut self, frame: &[u8]) {
        let mut r = Reader::new(frame);
        let Ok(header) = RequestHeader::decode(&mut r) else { return };
        let version = header.version;
        let budget = Budget::default();
        for request in read(header.key, version, &mut r).into_iter().flatten() {
            self.ask_within(&budget, version, request);
        }
        self.pass(1_000);
    }

    fn ask(&mut self, version: i16, request: Request<'_>) {
        self.ask_within(&Budget::default(), version, request);
    }

    fn ask_within(&mut self, budget: &Budget, version: i16, request: Request<'_>) {
        self.asked += 1;
        let id = CallId(self.asked);
        let mut random = [0; 16];
        random[8..].copy_from_slice(&self.asked.to_be_bytes());
        let (client_id, client_host) = ("fuzz", "/::1");
        let call = Call { id, version, client_id, client_host, random, budget };
        let mut out = Effects::default();
        self.shard.call(self.now, &call, request, &mut out);
        self.take(out);
    }

    /// Time passes, and what is due by then comes up in one step.
    fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += i64::try_from(ms).unwrap_or(0);
        self.step(Input::Tick);
    }

    fn step(&mut self, input: Input<'_>) {
        let mut out = Effects::default();
        self.shard.step(self.now, input, &mut out).expect("nothing is loaded");
        self.take(out);
    }

    /// Appends become durable at once.
    fn take(&mut self, out: Effects) {
        for (call, answer) in out.answers {
            assert!(call.0 <= self.asked, "an answer to nobody");
            self.answered += 1;
            sendable(&answer);
            if let Answer::Join(answer) = &*answer
                && answer.error_code == 0
            {
                self.joined = Some((answer.member_id.to_string(), answer.generation_id));
            }
        }
        for append in out.appends {
            self.records.extend(append.records);
            self.step(Input::Durable { seq: append.seq });
        }
    }

    fn finish(mut self) {
        self.step(Input::Unload);
        while self.shard.deadline().is_some() {
            self.step(Input::Tick);
        }
        assert_eq!(self.asked, self.answered);
        let mut shard = Shard::new(Settings::default(), Rc::new(RefCell::new(image())));
        for (key, value) in &self.records {
            let input = Input::Load { key, value: value.as_deref() };
            shard.step(self.now, input, &mut Effects::default()).expect("our own records are sound");
        }
    }
}

/// The requests that a body holds, group by group where it is about many.
fn read<'a>(key: ApiKey, version: i16, r: &mut Reader<'a>) -> Option<Vec<Request<'a>>> {
    Some(match key {
        ApiKey::JoinGroup => vec![Request::Join(JoinGroupRequest::decode(r, version).ok()?)],
        ApiKey::SyncGroup => vec![Request::Sync(SyncGroupRequest::decode(r, version).ok()?)],
        ApiKey::Heartbeat => vec![Request::Heartbeat(HeartbeatRequest::decode(r, version).ok()?)],
        ApiKey::LeaveGroup => vec![Request::Leave(LeaveGroupRequest::decode(r, version).ok()?)],
        ApiKey::OffsetCommit => vec![Request::Commit(OffsetCommitRequest::decode(r, version).ok()?)],
        ApiKey::OffsetFetch => {
            let request = OffsetFetchRequest::decode(r, version).ok()?;
            request.groups.into_iter().map(Request::FetchOffsets).collect()
        }
        ApiKey::OffsetDelete => {
            vec![Request::DeleteOffsets(OffsetDeleteRequest::decode(r, version).ok()?)]
        }
        ApiKey::DescribeGroups => {
            let request = DescribeGroupsRequest::decode(r, version).ok()?;
            request.groups.into_iter().map(|group| Request::Describe { group }).collect()
        }
        ApiKey::ListGroups => {
            let request = ListGroupsRequest::decode(r, version).ok()?;
            vec![Request::List { states: request.states_filter, types: request.types_filter }]
        }
        ApiKey::DeleteGroups => {
            let request = DeleteGroupsRequest::decode(r, version).ok()?;
            request.groups_names.into_iter().map(|group| Request::Delete { group }).collect()
        }
        ApiKey::ConsumerGroupHeartbeat => {
            vec![Request::ConsumerHeartbeat(ConsumerGroupHeartbeatRequest::decode(r, version).ok()?)]
        }
        ApiKey::ConsumerGroupDescribe => {
            let request = ConsumerGroupDescribeRequest::decode(r, version).ok()?;
            request.group_ids.into_iter().map(|group| Request::ConsumerDescribe { group }).collect()
        }
        _ => return None,
    })
}

/// An answer that cannot be encoded would end the connection of an honest client.
fn sendable(answer: &Answer) {
    use net::messages as m;
    use net::wire::Encode;
    let w = &mut Writer::new();
    let outcome = match answer.clone() {
        Answer::Join(answer) => answer.encode(w, 9),
        Answer::Sync(answer) => answer.encode(w, 5),
        Answer::Heartbeat(answer) => answer.encode(w, 4),
        Answer::Leave(answer) => answer.encode(w, 5),
        Answer::Commit(answer) => answer.encode(w, 9),
        Answer::FetchOffsets(group) => {
            let groups = vec![group];
            m::offset_fetch::OffsetFetchResponse { groups, ..Default::default() }.encode(w, 9)
        }
        Answer::DeleteOffsets(answer) => answer.encode(w, 0),
        Answer::Describe(group) => {
            m::describe_groups::DescribeGroupsResponse { groups: vec![group], ..Default::default() }
                .encode(w, 6)
        }
        Answer::List { groups, .. } => {
            m::list_groups::ListGroupsResponse { groups, ..Default::default() }.encode(w, 5)
        }
        Answer::Delete(result) => {
            m::delete_groups::DeleteGroupsResponse { results: vec![result], ..Default::default() }
                .encode(w, 2)
        }
        Answer::ConsumerHeartbeat(answer) => answer.encode(w, 1),
        Answer::ConsumerDescribe(group) => {
            let groups = vec![group];
            m::consumer_group_describe::ConsumerGroupDescribeResponse { groups, ..Default::default() }
                .encode(w, 1)
        }
    };
    outcome.expect("what is answered can be said");
}
