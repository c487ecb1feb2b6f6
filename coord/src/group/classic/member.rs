//! A member of a classic group, and the calls that wait for the others.

use net::messages::join_group::JoinGroupResponse;

use super::super::call::{Answer, CallId};
use super::super::timers::Deadline;
use super::super::{Bytes, Text};
use crate::error_code::ErrorCode;

/// From this version of JoinGroup on the protocol's name may be null.
const NULL_PROTOCOL_VERSION: i16 = 7;

/// A request that is answered later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parked {
    pub call: CallId,
    pub version: i16,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    pub instance: Option<Text>,
    pub client_id: Text,
    pub client_host: Text,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// In the member's order of preference.
    pub protocols: Box<[(Text, Bytes)]>,
    pub assignment: Bytes,
    /// It has not been through a join phase yet.
    pub is_new: bool,
    /// It was told the generation and has not synced since.
    pub must_sync: bool,
    pub parked_join: Option<Parked>,
    pub parked_sync: Option<Parked>,
    pub deadline: Deadline,
}

impl Member {
    pub fn is_parked(&self) -> bool {
        self.parked_join.is_some() || self.parked_sync.is_some()
    }

    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|(name, _)| **name == *protocol).map(|(_, metadata)| metadata)
    }
}

impl Parked {
    pub fn join_refused(self, member_id: &str, why: ErrorCode) -> Answer {
        self.join(JoinGroupResponse {
            error_code: why as i16,
            member_id: member_id.to_owned().into(),
            protocol_name: None,
            ..JoinGroupResponse::default()
        })
    }

    /// The answer as this request's version can say it.
    pub fn join(self, mut answer: JoinGroupResponse<'static>) -> Answer {
        if self.version < NULL_PROTOCOL_VERSION {
            answer.protocol_name.get_or_insert_default();
        }
        Answer::Join(answer)
    }
}
