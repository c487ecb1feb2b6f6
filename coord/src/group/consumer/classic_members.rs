//! Members that speak the classic protocol in a consumer group, while its application moves from one to the other.
//!
//! They are members like the others: their subscription is what their metadata says, their generation is their member
//! epoch, and they are reconciled by what a JoinGroup says they own. Nothing is parked, nobody leads. A heartbeat tells
//! them to rejoin when there is something for them; then they have their rebalance timeout to join, and again to sync.

use std::rc::Rc;

use net::messages::heartbeat::HeartbeatRequest;
use net::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use net::messages::leave_group::MemberIdentity;
use net::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use engine::ids::TopicId;

use super::super::call::Call;
use super::super::classic::{
    CONSUMER, MEMBER_ID_REQUIRED_VERSION, Parked, member_id, rebalance_timeout_ms, subscription,
};
use super::super::migrate::{assignment_bytes, sorted, version_of};
use super::super::per_topic::Partitions;
use super::super::records::{ClassicValue, MemberState, MemberValue};
use super::super::timers::Key;
use super::super::{Bytes, Core, Group, MigrationPolicy, Shard, Text};
use super::{ConsumerGroup, Member};
use crate::error_code::ErrorCode;

impl Shard {
    /// JoinGroup to a consumer group.
    pub(in super::super) fn join_consumer_group(&mut self, call: &Call<'_>, request: &JoinGroupRequest<'_>) {
        let parked = Parked { call: call.id, version: call.version };
        let Some(Group::Consumer(group)) = self.groups.get_mut(&*request.group_id) else { return };
        let id = group.id.clone();
        let answer = match group.join_classic(&mut self.core, call, request) {
            Err((why, member_id)) => parked.join_refused(&member_id, why),
            Ok(mut answer) => {
                // The last member of the other protocol may have been this one's former self.
                if self.downgrade_if_classic(&id)
                    && let Some(Group::Classic(group)) = self.groups.get(&id)
                {
                    answer.generation_id = group.generation();
                }
                parked.join(answer)
            }
        };
        self.core.answer(call.id, answer);
    }
}

type Joined = Result<JoinGroupResponse<'static>, (ErrorCode, String)>;

impl ConsumerGroup {
    fn join_classic(&mut self, core: &mut Core, call: &Call<'_>, request: &JoinGroupRequest<'_>) -> Joined {
        // Only who is given an id is told one.
        let refuse = |why| Err((why, String::new()));
        if core.settings.consumer_migration_policy == MigrationPolicy::Disabled {
            return refuse(ErrorCode::InconsistentGroupProtocol);
        }
        let instance = request.group_instance_id.as_deref();
        if !self.knows(&request.member_id, instance) && self.members.len() >= core.settings.consumer_max_size
        {
            return refuse(ErrorCode::GroupMaxSizeReached);
        }
        let metadata = request.protocols.first().map(|protocol| &*protocol.metadata);
        let Some(said) = metadata.and_then(subscription).filter(|_| self.accepts_classic(request)) else {
            return refuse(ErrorCode::InconsistentGroupProtocol);
        };
        let id = self.classic_member_id(core, call, request)?;
        let owned = said.owned_partitions.iter().flat_map(|topic| {
            let id = core.image.borrow().topic(&topic.topic).map(|topic| topic.id);
            id.into_iter().flat_map(|id| topic.partitions.iter().map(move |index| (id, *index)))
        });
        let owned: Partitions = owned.collect::<Vec<(TopicId, i32)>>().into_iter().collect();
        let was = self.members.get(&id).map(|member| member.value.clone());
        let was = was.unwrap_or_else(|| Rc::new(MemberValue::unknown()));
        let mut value = (*was).clone();
        value.instance = instance.map(Text::from).or(value.instance);
        value.rack = said.rack_id.as_deref().map(Text::from).or(value.rack);
        value.client_id = call.client_id.into();
        value.client_host = call.client_host.into();
        value.topics = sorted(said.topics.iter().map(|topic| &**topic));
        value.regex = None;
        value.rebalance_timeout_ms = rebalance_timeout_ms(call.version, request);
        let protocols = request.protocols.iter();
        value.classic = Some(ClassicValue {
            session_timeout_ms: request.session_timeout_ms,
            protocols: protocols
                .map(|protocol| (Text::from(&*protocol.name), Bytes::from(&*protocol.metadata)))
                .collect(),
        });
        let changed = self.set_value(core, &id, value);
        self.follow_metadata(core, changed);
        self.follow_epoch(core);
        self.reconcile(core, &id, Some(&owned));
        self.renew(core, &id);
        // The next step is its SyncGroup.
        self.expect_step(core, &id, true);
        let protocol = request.protocols.first().map(|protocol| protocol.name.to_string().into());
        Ok(JoinGroupResponse {
            generation_id: self.members[&id].current.epoch,
            protocol_type: Some(CONSUMER.into()),
            protocol_name: protocol,
            member_id: id.to_string().into(),
            ..JoinGroupResponse::default()
        })
    }

    /// Whether its protocols fit to those of the other classic members.
    fn accepts_classic(&self, request: &JoinGroupRequest<'_>) -> bool {
        let offers = |value: &MemberValue, name: &str| {
            value
                .classic
                .as_ref()
                .is_none_or(|classic| classic.protocols.iter().any(|(known, _)| **known == *name))
        };
        request.protocol_type == CONSUMER
            && request
                .protocols
                .iter()
                .any(|protocol| self.members.values().all(|member| offers(&member.value, &protocol.name)))
    }

    /// The member that joins: one that is here, a new one, or a static one's next process.
    fn classic_member_id(
        &mut self,
        core: &mut Core,
        call: &Call<'_>,
        request: &JoinGroupRequest<'_>,
    ) -> Result<Text, (ErrorCode, String)> {
        let asked = Text::from(&*request.member_id);
        let Some(instance) = request.group_instance_id.as_deref() else {
            if !asked.is_empty() {
                return Ok(asked);
            }
            let id = member_id(call.client_id, call.random);
            if call.version >= MEMBER_ID_REQUIRED_VERSION {
                return Err((ErrorCode::MemberIdRequired, id.to_string()));
            }
            return Ok(id);
        };
        let holder = self.instances.get(instance).cloned();
        match holder {
            None if asked.is_empty() => Ok(member_id(instance, call.random)),
            None => Err((ErrorCode::UnknownMemberId, String::new())),
            Some(holder) if asked.is_empty() => {
                let id = member_id(instance, call.random);
                self.replace_member(core, &holder, &id);
                Ok(id)
            }
            Some(holder) if holder == asked => Ok(asked),
            Some(_) => Err((ErrorCode::FencedInstanceId, String::new())),
        }
    }

    /// The member, if it speaks the classic protocol and is in this generation.
    fn check_classic(
        &self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(Text, &Member), ErrorCode> {
        if let Some(instance) = instance {
            let holder = self.instances.get(instance).ok_or(ErrorCode::UnknownMemberId)?;
            if **holder != *member {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        let (id, found) = self.members.get_key_value(member).ok_or(ErrorCode::UnknownMemberId)?;
        if found.value.classic.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        if found.current.epoch != generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok((id.clone(), found))
    }

    pub fn heartbeat_classic(
        &mut self,
        core: &mut Core,
        request: &HeartbeatRequest<'_>,
    ) -> Result<(), ErrorCode> {
        let instance = request.group_instance_id.as_deref();
        let (id, member) = self.check_classic(&request.member_id, instance, request.generation_id)?;
        let must_rejoin = member.current.epoch < self.epoch
            || match member.current.state {
                MemberState::Unrevoked => true,
                MemberState::Unreleased => self.is_target_free(&id, member),
                MemberState::Stable | MemberState::Unknown => false,
            };
        self.renew(core, &id);
        if must_rejoin {
            self.expect_step(core, &id, false);
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether all that the member waits for can be its own now.
    fn is_target_free(&self, id: &Text, member: &Member) -> bool {
        let target = self.target(id);
        target.iter().all(|(topic, list)| {
            list.iter().all(|index| {
                member.current.assigned.epoch(topic, *index).is_some() || self.is_free(topic, *index)
            })
        })
    }

    pub fn sync_classic(
        &mut self,
        core: &mut Core,
        request: &SyncGroupRequest<'_>,
    ) -> Result<SyncGroupResponse<'static>, ErrorCode> {
        let instance = request.group_instance_id.as_deref();
        let (id, member) = self.check_classic(&request.member_id, instance, request.generation_id)?;
        let protocols =
            member.value.classic.as_ref().map(|classic| &classic.protocols[..]).unwrap_or_default();
        let first = protocols.first();
        let is_type = request.protocol_type.as_deref().is_none_or(|kind| kind == CONSUMER);
        let is_name = request
            .protocol_name
            .as_deref()
            .is_none_or(|name| first.is_some_and(|(known, _)| **known == *name));
        if !is_type || !is_name {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if member.current.epoch < self.epoch && member.current.state != MemberState::Unrevoked {
            self.expect_step(core, &id, false);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let version = first.and_then(|(_, metadata)| version_of(metadata)).unwrap_or(0);
        let assignment =
            assignment_bytes(&core.image.borrow(), &member.current.assigned.partitions(), version);
        if let Some(member) = self.members.get_mut(&id) {
            member.rejoin.cancel();
        }
        self.renew(core, &id);
        let text =
            |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(|text| text.to_owned().into());
        Ok(SyncGroupResponse {
            protocol_type: text(&request.protocol_type),
            protocol_name: text(&request.protocol_name),
            assignment: assignment.to_vec().into(),
            ..SyncGroupResponse::default()
        })
    }

    /// Whom a row of LeaveGroup is about. An administrator removes members of the consumer protocol so, too.
    pub fn find_row(&self, row: &MemberIdentity<'_>) -> Result<Text, ErrorCode> {
        let id = match row.group_instance_id.as_deref() {
            Some(instance) => {
                let holder = self.instances.get(instance).ok_or(ErrorCode::UnknownMemberId)?;
                if !row.member_id.is_empty() && **holder != *row.member_id {
                    return Err(ErrorCode::FencedInstanceId);
                }
                holder
            }
            None => {
                let member = self.members.get_key_value(&*row.member_id);
                member.map(|(id, _)| id).ok_or(ErrorCode::UnknownMemberId)?
            }
        };
        Ok(id.clone())
    }

    /// The member has its rebalance timeout for what it must do next; `anew` even if it had to do something already.
    fn expect_step(&mut self, core: &mut Core, id: &Text, anew: bool) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.rejoin.is_set() && !anew {
            return;
        }
        let timeout_ms = u64::try_from(member.value.rebalance_timeout_ms).unwrap_or(0);
        let at = core.now.ms.saturating_add(timeout_ms);
        member.rejoin.set(at, &mut core.timers, || Key::Rejoin(self.id.clone(), id.clone()));
    }
}
