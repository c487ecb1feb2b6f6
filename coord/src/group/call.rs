//! What a shard is asked and what it answers, in the codec's own types.
//!
//! Requests about many groups (OffsetFetch, DescribeGroups, DeleteGroups, ConsumerGroupDescribe) are taken apart by the
//! caller: their groups live in different shards. Topics are named both ways: the caller fills in the name of a topic
//! that came by id, and the id of one that came by name (zeros where there is none), and answers itself for topics and
//! partitions that do not exist or that the client may not see.

use std::borrow::Cow;

use net::messages::consumer_group_describe as consumer_describe;
use net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use net::messages::delete_groups::DeletableGroupResult;
use net::messages::describe_groups::DescribedGroup;
use net::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use net::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use net::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use net::messages::list_groups::ListedGroup;
use net::messages::offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
use net::messages::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use net::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchResponseGroup};
use net::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::Budget;
use crate::error_code::ErrorCode;

/// Names a request until its one answer; chosen by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub id: CallId,
    /// The request's version.
    pub version: i16,
    pub client_id: &'a str,
    /// As Kafka shows it: a slash, then the address.
    pub client_host: &'a str,
    /// 16 random bytes, for a member id.
    pub random: [u8; 16],
    /// Shared by the calls that one request was taken apart into.
    pub budget: &'a Budget,
}

#[derive(Clone, Debug)]
pub enum Request<'a> {
    Join(JoinGroupRequest<'a>),
    Sync(SyncGroupRequest<'a>),
    Heartbeat(HeartbeatRequest<'a>),
    Leave(LeaveGroupRequest<'a>),
    Commit(OffsetCommitRequest<'a>),
    /// One group of an OffsetFetch. Versions before 8 have one group, without a member.
    FetchOffsets(OffsetFetchRequestGroup<'a>),
    DeleteOffsets(OffsetDeleteRequest<'a>),
    Describe {
        group: Cow<'a, str>,
    },
    List {
        states: Vec<Cow<'a, str>>,
        types: Vec<Cow<'a, str>>,
    },
    Delete {
        group: Cow<'a, str>,
    },
    ConsumerHeartbeat(ConsumerGroupHeartbeatRequest<'a>),
    ConsumerDescribe {
        group: Cow<'a, str>,
    },
}

/// The answer to the request of the same name.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Join(JoinGroupResponse<'static>),
    Sync(SyncGroupResponse<'static>),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse<'static>),
    Commit(OffsetCommitResponse<'static>),
    FetchOffsets(OffsetFetchResponseGroup<'static>),
    DeleteOffsets(OffsetDeleteResponse<'static>),
    Describe(DescribedGroup<'static>),
    List { error: ErrorCode, groups: Vec<ListedGroup<'static>> },
    Delete(DeletableGroupResult<'static>),
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse<'static>),
    ConsumerDescribe(consumer_describe::DescribedGroup<'static>),
}

impl Answer {
    /// The same answer as a refusal: what was to be said did not become durable.
    pub fn fail(&mut self, why: ErrorCode) {
        let error_code = why as i16;
        match self {
            Answer::Join(answer) => {
                let member_id = std::mem::take(&mut answer.member_id);
                *answer = JoinGroupResponse { error_code, member_id, ..JoinGroupResponse::default() };
            }
            Answer::Sync(answer) => {
                *answer = SyncGroupResponse { error_code, ..SyncGroupResponse::default() }
            }
            Answer::Heartbeat(answer) => answer.error_code = error_code,
            Answer::Leave(answer) => {
                answer.error_code = error_code;
                answer.members.clear();
            }
            Answer::Commit(answer) => {
                answer
                    .topics
                    .iter_mut()
                    .flat_map(|topic| &mut topic.partitions)
                    .for_each(|p| p.error_code = error_code);
            }
            Answer::FetchOffsets(answer) => {
                answer.error_code = error_code;
                answer.topics.clear();
            }
            Answer::DeleteOffsets(answer) => {
                answer.error_code = error_code;
                answer.topics.clear();
            }
            Answer::Describe(answer) => {
                let group_id = std::mem::take(&mut answer.group_id);
                *answer = DescribedGroup { error_code, group_id, ..DescribedGroup::default() };
            }
            Answer::List { error, groups } => {
                *error = why;
                groups.clear();
            }
            Answer::Delete(answer) => answer.error_code = error_code,
            Answer::ConsumerHeartbeat(answer) => {
                *answer = ConsumerGroupHeartbeatResponse {
                    error_code,
                    ..ConsumerGroupHeartbeatResponse::default()
                };
            }
            Answer::ConsumerDescribe(answer) => {
                let group_id = std::mem::take(&mut answer.group_id);
                *answer = consumer_describe::DescribedGroup {
                    error_code,
                    group_id,
                    ..consumer_describe::DescribedGroup::default()
                };
            }
        }
    }

    /// The error that the answer as a whole carries, where it has one of its own.
    pub fn error_code(&self) -> i16 {
        match self {
            Answer::Join(answer) => answer.error_code,
            Answer::Sync(answer) => answer.error_code,
            Answer::Heartbeat(answer) => answer.error_code,
            Answer::Leave(answer) => answer.error_code,
            Answer::Commit(answer) => {
                answer.topics.first().and_then(|topic| topic.partitions.first()).map_or(0, |p| p.error_code)
            }
            Answer::FetchOffsets(answer) => answer.error_code,
            Answer::DeleteOffsets(answer) => answer.error_code,
            Answer::Describe(answer) => answer.error_code,
            Answer::List { error, .. } => *error as i16,
            Answer::Delete(answer) => answer.error_code,
            Answer::ConsumerHeartbeat(answer) => answer.error_code,
            Answer::ConsumerDescribe(answer) => answer.error_code,
        }
    }
}

impl Request<'_> {
    /// The refusal of this request as a whole.
    pub fn refused(self, why: ErrorCode) -> Answer {
        let error_code = why as i16;
        let owned = |name: Cow<'_, str>| Cow::Owned(name.into_owned());
        match self {
            Request::Join(request) => {
                let member_id = owned(request.member_id);
                Answer::Join(JoinGroupResponse { error_code, member_id, ..JoinGroupResponse::default() })
            }
            Request::Sync(_) => {
                Answer::Sync(SyncGroupResponse { error_code, ..SyncGroupResponse::default() })
            }
            Request::Heartbeat(_) => {
                Answer::Heartbeat(HeartbeatResponse { error_code, ..HeartbeatResponse::default() })
            }
            Request::Leave(_) => {
                Answer::Leave(LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() })
            }
            Request::Commit(request) => Answer::Commit(super::offsets::commit_answer(&request, why)),
            Request::FetchOffsets(request) => Answer::FetchOffsets(OffsetFetchResponseGroup {
                group_id: owned(request.group_id),
                topics: Vec::new(),
                error_code,
            }),
            Request::DeleteOffsets(_) => {
                Answer::DeleteOffsets(OffsetDeleteResponse { error_code, ..OffsetDeleteResponse::default() })
            }
            Request::Describe { group } => Answer::Describe(DescribedGroup {
                error_code,
                group_id: owned(group),
                ..DescribedGroup::default()
            }),
            Request::List { .. } => Answer::List { error: why, groups: Vec::new() },
            Request::Delete { group } => {
                Answer::Delete(DeletableGroupResult { group_id: owned(group), error_code })
            }
            Request::ConsumerHeartbeat(_) => Answer::ConsumerHeartbeat(ConsumerGroupHeartbeatResponse {
                error_code,
                ..ConsumerGroupHeartbeatResponse::default()
            }),
            Request::ConsumerDescribe { group } => {
                Answer::ConsumerDescribe(consumer_describe::DescribedGroup {
                    error_code,
                    group_id: owned(group),
                    ..consumer_describe::DescribedGroup::default()
                })
            }
        }
    }

    /// The group it is about; None for a list of all.
    pub fn group(&self) -> Option<&str> {
        Some(match self {
            Request::Join(request) => &request.group_id,
            Request::Sync(request) => &request.group_id,
            Request::Heartbeat(request) => &request.group_id,
            Request::Leave(request) => &request.group_id,
            Request::Commit(request) => &request.group_id,
            Request::FetchOffsets(request) => &request.group_id,
            Request::DeleteOffsets(request) => &request.group_id,
            Request::Describe { group } | Request::Delete { group } | Request::ConsumerDescribe { group } => {
                group
            }
            Request::ConsumerHeartbeat(request) => &request.group_id,
            Request::List { .. } => return None,
        })
    }
}

/// What the log's error means to a client of the coordinator.
pub fn translate(why: ErrorCode) -> ErrorCode {
    match why {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::NotEnoughReplicas | ErrorCode::RequestTimedOut => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorCode::NotEnoughReplicasAfterAppend => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::NetworkException => ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}
