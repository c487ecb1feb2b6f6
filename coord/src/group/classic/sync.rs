//! SyncGroup v0-v5 and Heartbeat v0-v4. Sync v3: static members. v5: the protocol's type and name.

use std::collections::BTreeMap;

use net::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use net::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::super::call::{Answer, Call};
use super::super::pending::After;
use super::super::{Bytes, Core, Group, Reason, Shard, Text};
use super::{ClassicGroup, Parked, State};
use crate::error_code::ErrorCode;

/// From this version on the protocol's type and name must be told.
const PROTOCOL_REQUIRED_VERSION: i16 = 5;

/// A leader's plan, until it is durable.
pub(in super::super) struct Plan {
    generation: i32,
    assignments: BTreeMap<Text, Bytes>,
}

impl Shard {
    pub(in super::super) fn sync(&mut self, call: &Call<'_>, request: SyncGroupRequest<'_>) {
        let untold = request.protocol_type.is_none() || request.protocol_name.is_none();
        if request.group_id.is_empty() {
            self.core.answer(call.id, Answer::Sync(refused(ErrorCode::InvalidGroupId)));
        } else if call.version >= PROTOCOL_REQUIRED_VERSION && untold {
            self.core.answer(call.id, Answer::Sync(refused(ErrorCode::InconsistentGroupProtocol)));
        } else {
            match self.groups.get_mut(&*request.group_id) {
                Some(Group::Classic(group)) => group.sync(&mut self.core, call, &request),
                Some(Group::Consumer(group)) => {
                    let answer = group.sync_classic(&mut self.core, &request).unwrap_or_else(refused);
                    self.core.answer(call.id, Answer::Sync(answer));
                }
                None => self.core.answer(call.id, Answer::Sync(refused(ErrorCode::UnknownMemberId))),
            }
        }
    }

    pub(in super::super) fn heartbeat(&mut self, call: &Call<'_>, request: &HeartbeatRequest<'_>) {
        let outcome = match self.groups.get_mut(&*request.group_id) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            Some(Group::Classic(group)) => group.heartbeat(&mut self.core, request),
            Some(Group::Consumer(group)) => group.heartbeat_classic(&mut self.core, request),
            None => Err(ErrorCode::UnknownMemberId),
        };
        let error_code = outcome.err().unwrap_or(ErrorCode::None) as i16;
        let answer = HeartbeatResponse { error_code, ..HeartbeatResponse::default() };
        self.core.answer(call.id, Answer::Heartbeat(answer));
    }
}

impl ClassicGroup {
    fn heartbeat(&mut self, core: &mut Core, request: &HeartbeatRequest<'_>) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.renew_by_name(core, &request.member_id);
        if self.state == State::Preparing { Err(ErrorCode::RebalanceInProgress) } else { Ok(()) }
    }

    pub(super) fn renew_by_name(&mut self, core: &mut Core, member: &str) {
        if let Some((id, _)) = self.members.get_key_value(member) {
            let id = id.clone();
            self.renew(core, &id);
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest<'_>) -> Result<(), ErrorCode> {
        let differs = |said: &Option<std::borrow::Cow<'_, str>>, is: &Option<Text>| {
            said.as_deref().zip(is.as_deref()).is_some_and(|(said, is)| said != is)
        };
        if self.state == State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if self.state == State::Preparing {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    fn sync(&mut self, core: &mut Core, call: &Call<'_>, request: &SyncGroupRequest<'_>) {
        if let Err(why) = self.check_sync(request) {
            core.answer(call.id, Answer::Sync(refused(why)));
            return;
        }
        let Some((id, _)) = self.members.get_key_value(&*request.member_id) else { return };
        let id = id.clone();
        if let Some(member) = self.members.get_mut(&id) {
            member.must_sync = false;
        }
        if self.state == State::Stable {
            // The leader too: its new plan for the same generation comes too late.
            core.answer(call.id, Answer::Sync(self.assigned(&id)));
            self.renew(core, &id);
            return;
        }
        if let Some(member) = self.members.get_mut(&id) {
            let parked = Parked { call: call.id, version: call.version };
            if let Some(older) = member.parked_sync.replace(parked) {
                core.answer(older.call, Answer::Sync(refused(ErrorCode::RebalanceInProgress)));
            }
        }
        if self.is_leader(&id) && self.planned != Some(self.generation) {
            self.write_plan(core, request);
        }
    }

    /// Who is missing in the plan gets nothing; who is no member is left out.
    fn write_plan(&mut self, core: &mut Core, request: &SyncGroupRequest<'_>) {
        let mut assignments = BTreeMap::new();
        for planned in &request.assignments {
            if let Some((id, _)) = self.members.get_key_value(&*planned.member_id) {
                assignments.insert(id.clone(), Bytes::from(&*planned.assignment));
            }
        }
        self.record(core, &assignments);
        self.planned = Some(self.generation);
        let plan = Plan { generation: self.generation, assignments };
        core.after.push(After::Synced { group: self.id.clone(), plan });
    }

    /// The plan is durable, or it failed. If the group has moved on it is nobody's plan any more.
    pub fn synced(&mut self, core: &mut Core, plan: Plan, outcome: Result<(), ErrorCode>) {
        if self.state != State::Completing || self.generation != plan.generation {
            return;
        }
        self.planned = None;
        if let Err(why) = outcome {
            self.give_up_assignment(core, why);
            self.prepare_rebalance(core);
            return;
        }
        let mut assignments = plan.assignments;
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_else(|| core.shared.bytes(&[]));
        }
        self.become_(core, State::Stable);
        core.counted.rebalances_classic += 1;
        self.answer_syncs(core, None);
    }

    /// What was assigned is void; who waits for it is told why.
    pub(super) fn give_up_assignment(&mut self, core: &mut Core, why: ErrorCode) {
        let nothing = core.shared.bytes(&[]);
        self.members.values_mut().for_each(|member| member.assignment = nothing.clone());
        self.answer_syncs(core, Some(why));
    }

    fn answer_syncs(&mut self, core: &mut Core, why: Option<ErrorCode>) {
        let ids: Vec<Text> = self.members.keys().cloned().collect();
        for id in &ids {
            let Some(parked) = self.members.get_mut(id).and_then(|member| member.parked_sync.take()) else {
                continue;
            };
            let answer = why.map_or_else(|| self.assigned(id), refused);
            core.answer(parked.call, Answer::Sync(answer));
            self.renew(core, id);
        }
    }

    /// Whoever was told the generation and did not sync is taken for dead.
    pub(super) fn sync_phase_over(&mut self, core: &mut Core) {
        if !matches!(self.state, State::Completing | State::Stable) {
            return;
        }
        let missing: Vec<Text> =
            self.members.iter().filter(|(_, member)| member.must_sync).map(|(id, _)| id.clone()).collect();
        for id in &missing {
            self.refuse_parked(core, id, ErrorCode::UnknownMemberId);
            self.remove_for(core, id, Reason::Rebalance);
        }
        if !missing.is_empty() {
            self.prepare_rebalance(core);
        }
    }

    fn assigned(&self, id: &Text) -> SyncGroupResponse<'static> {
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.to_string().into());
        SyncGroupResponse {
            protocol_type: text(&self.protocol_type),
            protocol_name: text(&self.protocol),
            assignment: self.assignment(id).to_vec().into(),
            ..SyncGroupResponse::default()
        }
    }
}

pub(super) fn refused(why: ErrorCode) -> SyncGroupResponse<'static> {
    SyncGroupResponse { error_code: why as i16, ..SyncGroupResponse::default() }
}
