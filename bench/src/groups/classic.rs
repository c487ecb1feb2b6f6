//! A member of a classic group, as an eager consumer: FindCoordinator is done, then JoinGroup (again with the id that
//! MEMBER_ID_REQUIRED gives), SyncGroup, heartbeats, LeaveGroup. The leader deals the partitions out in turn.

use std::borrow::Cow;

use net::error_code::ErrorCode;
use net::messages::assignment::{ConsumerProtocolAssignment, TopicPartition};
use net::messages::subscription::ConsumerProtocolSubscription;
use net::messages::{heartbeat, join_group, leave_group, sync_group};
use net::wire::{Decode, Encode, Reader, Writer};

use super::crew::{ANSWER_WAIT, Crew, Hands, Next, REBALANCE_TIMEOUT};
use crate::link::{Error, Link};
use crate::schedule::partitions_of;

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "roundrobin";
/// Of the subscriptions and assignments inside.
const FORMAT_VERSION: i16 = 1;

pub struct Member {
    link: Link,
    id: String,
    generation: i32,
    is_in: bool,
}

/// Members of the new generation, in order; only the leader is told.
type Members = Vec<String>;

impl Member {
    pub fn new(link: Link) -> Member {
        Member { link, id: String::new(), generation: -1, is_in: false }
    }

    pub async fn turn(&mut self, hands: &Hands) -> Result<Next, Error> {
        if !self.is_in {
            let members = self.join(hands).await?;
            self.is_in = self.sync(hands, members).await?;
            return Ok(if self.is_in { Next::AfterHeartbeat } else { Next::AtOnce });
        }
        match self.beat(hands).await? {
            None => Ok(Next::AfterHeartbeat),
            Some(ErrorCode::RebalanceInProgress) => {
                hands.give_up_all();
                self.is_in = false;
                Ok(Next::AtOnce)
            }
            Some(code) => Err(hands.refused("the heartbeat", code.as_i16())),
        }
    }

    /// Joins, however many attempts that takes; the members, if this one leads.
    async fn join(&mut self, hands: &Hands) -> Result<Members, Error> {
        let subscription = ConsumerProtocolSubscription {
            topics: vec![Cow::Borrowed(hands.crew.topic.as_str())],
            ..Default::default()
        };
        let metadata = embedded(&subscription)?;
        loop {
            let request = join_group::JoinGroupRequest {
                group_id: Cow::Borrowed(&hands.crew.group),
                session_timeout_ms: millis(hands.crew.session_timeout),
                rebalance_timeout_ms: millis(REBALANCE_TIMEOUT),
                member_id: Cow::Borrowed(&self.id),
                group_instance_id: None,
                protocol_type: Cow::Borrowed(PROTOCOL_TYPE),
                protocols: vec![join_group::JoinGroupRequestProtocol {
                    name: Cow::Borrowed(ASSIGNOR),
                    metadata: Cow::Borrowed(&metadata),
                }],
                reason: None,
            };
            let answer = self.link.call_within(&request, ANSWER_WAIT).await?;
            let body = answer.body::<join_group::Api>()?;
            match ErrorCode::from_i16(body.error_code) {
                Some(ErrorCode::None) => {
                    self.id = body.member_id.clone().into_owned();
                    self.generation = body.generation_id;
                    let mut members: Members =
                        body.members.iter().map(|member| member.member_id.clone().into_owned()).collect();
                    members.sort();
                    return Ok(if body.leader == body.member_id { members } else { Vec::new() });
                }
                Some(ErrorCode::MemberIdRequired) => self.id = body.member_id.into_owned(),
                // A member that was asked to rejoin and came too late, or for the second time.
                Some(ErrorCode::RebalanceInProgress) => {}
                _ => return Err(hands.refused("JoinGroup", body.error_code)),
            }
        }
    }

    /// Whether the generation lasted until its assignment was there.
    async fn sync(&mut self, hands: &Hands, members: Members) -> Result<bool, Error> {
        let request = sync_group::SyncGroupRequest {
            group_id: Cow::Borrowed(&hands.crew.group),
            generation_id: self.generation,
            member_id: Cow::Borrowed(&self.id),
            group_instance_id: None,
            protocol_type: Some(Cow::Borrowed(PROTOCOL_TYPE)),
            protocol_name: Some(Cow::Borrowed(ASSIGNOR)),
            assignments: assignments(&hands.crew, &members)?,
        };
        let answer = self.link.call_within(&request, ANSWER_WAIT).await?;
        let body = answer.body::<sync_group::Api>()?;
        match ErrorCode::from_i16(body.error_code) {
            Some(ErrorCode::None) => {
                hands.stands(&self.id, self.generation);
                hands.take(&partitions_in(&body.assignment, &hands.crew.topic)?);
                Ok(true)
            }
            Some(ErrorCode::RebalanceInProgress) => Ok(false),
            _ => Err(hands.refused("SyncGroup", body.error_code)),
        }
    }

    /// What the coordinator objects, if it does.
    async fn beat(&mut self, hands: &Hands) -> Result<Option<ErrorCode>, Error> {
        let request = heartbeat::HeartbeatRequest {
            group_id: Cow::Borrowed(&hands.crew.group),
            generation_id: self.generation,
            member_id: Cow::Borrowed(&self.id),
            group_instance_id: None,
        };
        let answer = self.link.call_within(&request, ANSWER_WAIT).await?;
        let code = answer.body::<heartbeat::Api>()?.error_code;
        match ErrorCode::from_i16(code) {
            Some(ErrorCode::None) => Ok(None),
            Some(code) => Ok(Some(code)),
            None => Err(hands.refused("the heartbeat", code)),
        }
    }

    pub async fn leave(&mut self, hands: &Hands) -> Result<(), Error> {
        let member = leave_group::MemberIdentity { member_id: Cow::Borrowed(&self.id), ..Default::default() };
        let request = leave_group::LeaveGroupRequest {
            group_id: Cow::Borrowed(&hands.crew.group),
            members: vec![member],
            ..Default::default()
        };
        let answer = self.link.call_within(&request, ANSWER_WAIT).await?;
        let body = answer.body::<leave_group::Api>()?;
        match body
            .members
            .iter()
            .map(|member| member.error_code)
            .chain([body.error_code])
            .find(|code| *code != 0)
        {
            None => Ok(()),
            Some(code) => Err(hands.refused("LeaveGroup", code)),
        }
    }
}

/// The partitions in turn to the members; nothing for those who do not lead.
fn assignments<'a>(
    crew: &Crew,
    members: &'a [String],
) -> Result<Vec<sync_group::SyncGroupRequestAssignment<'a>>, Error> {
    let share = |(index, member): (usize, &'a String)| {
        let partitions = partitions_of(&crew.partitions, members.len(), index);
        let topic = TopicPartition { topic: Cow::Borrowed(&crew.topic), partitions };
        let content = ConsumerProtocolAssignment { assigned_partitions: vec![topic], user_data: None };
        let assignment = Cow::Owned(embedded(&content)?);
        Ok(sync_group::SyncGroupRequestAssignment { member_id: Cow::Borrowed(member.as_str()), assignment })
    };
    members.iter().enumerate().map(share).collect()
}

fn partitions_in(assignment: &[u8], topic: &str) -> Result<Vec<i32>, Error> {
    let mut reader = Reader::new(assignment);
    let version = reader.i16()?;
    let content = ConsumerProtocolAssignment::decode(&mut reader, version)?;
    let ours = content.assigned_partitions.iter().filter(|assigned| assigned.topic == topic);
    Ok(ours.flat_map(|assigned| &assigned.partitions).copied().collect())
}

/// With its version before it, as these formats travel.
fn embedded(content: &impl Encode) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    writer.i16(FORMAT_VERSION);
    content.encode(&mut writer, FORMAT_VERSION)?;
    Ok(writer.into_body()?)
}

pub fn millis(duration: std::time::Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_read_back() {
        let topic = |topic, partitions| TopicPartition { topic: Cow::Borrowed(topic), partitions };
        let content = ConsumerProtocolAssignment {
            assigned_partitions: vec![topic("ours", vec![3, 5]), topic("another", vec![1])],
            user_data: None,
        };
        let bytes = embedded(&content).expect("encodes");
        assert_eq!(partitions_in(&bytes, "ours").expect("reads"), [3, 5]);
        assert!(partitions_in(&bytes[..5], "ours").is_err());
    }
}
