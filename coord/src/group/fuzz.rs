//! The body of the fuzz target over group requests, here so that an ordinary test replays its corpus on any toolchain.
//!
//! Takes bytes from an attacker and asserts what must hold for all of them. Not called by the broker.

use net::api::ApiKey;
use net::header::RequestHeader;
use net::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use net::messages::delete_groups::DeleteGroupsRequest;
use net::messages::describe_groups::DescribeGroupsRequest;
use net::messages::heartbeat::HeartbeatRequest;
use net::messages::join_group::JoinGroupRequest;
use net::messages::leave_group::LeaveGroupRequest;
use net::messages::list_groups::ListGroupsRequest;
use net::messages::offset_commit::OffsetCommitRequest;
use net::messages::offset_delete::OffsetDeleteRequest;
use net::messages::offset_fetch::OffsetFetchRequest;
use net::messages::sync_group::SyncGroupRequest;
use net::wire::{Decode, Reader, Writer};

use super::{Answer, Call, CallId, Effects, Input, Now, Request, Settings, Shard};
use crate::metadata::Image;

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

struct Driver {
    shard: Shard,
    now: Now,
    asked: u64,
    answered: u64,
    records: Vec<super::RecordBytes>,
}

impl Driver {
    fn new() -> Driver {
        let mut shard = Shard::new(Settings::default(), Image::default());
        let mut out = Effects::default();
        for input in [Input::Loaded, Input::Tick] {
            shard.step(Now::default(), input, &mut out).expect("nothing was loaded");
        }
        let now = Now { ms: 1, unix_ms: 1 };
        Driver { shard, now, asked: 0, answered: 0, records: Vec::new() }
    }

    fn frame(&mut self, frame: &[u8]) {
        let mut r = Reader::new(frame);
        let Ok(header) = RequestHeader::decode(&mut r) else { return };
        let version = header.version;
        for request in read(header.key, version, &mut r).into_iter().flatten() {
            self.asked += 1;
            let id = CallId(self.asked);
            let mut random = [0; 16];
            random[8..].copy_from_slice(&self.asked.to_be_bytes());
            let call = Call { id, version, client_id: "fuzz", client_host: "/::1", random };
            let mut out = Effects::default();
            self.shard.call(self.now, &call, request, &mut out);
            self.take(out);
        }
        self.now.ms += 1_000;
        self.now.unix_ms += 1_000;
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
        }
        for append in out.appends {
            self.records.extend(append.records);
            self.step(Input::Durable { seq: append.seq });
        }
    }

    fn finish(mut self) {
        self.step(Input::Unload);
        assert_eq!(self.asked, self.answered);
        let mut shard = Shard::new(Settings::default(), Image::default());
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
