//! LeaveGroup v0-v5, and who may commit. v3: many members at once, static ones too.

use net::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse};
use net::messages::offset_commit::OffsetCommitRequest;

use super::super::call::{Answer, Call};
use super::super::{Core, Group, Reason, Shard, Text};
use super::{ClassicGroup, State};
use crate::error_code::ErrorCode;

/// Before this version the request is about one member, without a row.
const MANY_MEMBERS_VERSION: i16 = 3;

impl Shard {
    pub(in super::super) fn leave(&mut self, call: &Call<'_>, request: &LeaveGroupRequest<'_>) {
        let only = MemberIdentity { member_id: request.member_id.clone(), ..MemberIdentity::default() };
        let is_single = call.version < MANY_MEMBERS_VERSION;
        let leaving = if is_single { std::slice::from_ref(&only) } else { &request.members };
        if request.group_id.is_empty() {
            let error_code = ErrorCode::InvalidGroupId as i16;
            let answer = LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() };
            self.core.answer(call.id, Answer::Leave(answer));
            return;
        }
        let rows = match self.groups.get_mut(&*request.group_id) {
            Some(Group::Classic(group)) => group.leave(&mut self.core, leaving),
            Some(Group::Consumer(group)) => {
                let id = group.id.clone();
                let found: Vec<Result<Text, ErrorCode>> =
                    leaving.iter().map(|row| group.find_row(row)).collect();
                let ids = found.iter().flatten().cloned().collect();
                self.remove_consumer_members(&id, &ids, Reason::Left);
                let rows = leaving.iter().zip(found);
                rows.map(|(row, found)| left(row, found.err().unwrap_or(ErrorCode::None))).collect()
            }
            None => leaving.iter().map(|row| left(row, ErrorCode::UnknownMemberId)).collect(),
        };
        let mut answer = LeaveGroupResponse { members: rows, ..LeaveGroupResponse::default() };
        if is_single {
            answer.error_code = answer.members.pop().map_or(0, |row| row.error_code);
        }
        self.core.answer(call.id, Answer::Leave(answer));
    }
}

impl ClassicGroup {
    /// One rebalance for all of them.
    fn leave(&mut self, core: &mut Core, leaving: &[MemberIdentity<'_>]) -> Vec<MemberResponse<'static>> {
        let mut rows = Vec::with_capacity(leaving.len());
        let member_count = self.members.len();
        for row in leaving {
            let outcome = self.leave_one(core, row);
            rows.push(left(row, outcome.err().unwrap_or(ErrorCode::None)));
        }
        match self.state {
            // An unused id that leaves disturbs nobody.
            State::Stable | State::Completing if self.members.len() == member_count => {}
            State::Stable | State::Completing | State::Preparing | State::Empty => {
                self.rebalance_after_removal(core);
            }
        }
        rows
    }

    fn leave_one(&mut self, core: &mut Core, row: &MemberIdentity<'_>) -> Result<(), ErrorCode> {
        let instance = row.group_instance_id.as_deref();
        let id = match instance {
            // An administrator removes a static member without knowing its id.
            Some(instance) if row.member_id.is_empty() => self.instances.get(instance).cloned(),
            Some(_) | None => self.members.get_key_value(&*row.member_id).map(|(id, _)| id.clone()),
        };
        if instance.is_none() && self.forget_pending(core, &row.member_id) {
            return Ok(());
        }
        if !row.member_id.is_empty() {
            self.check_member(&row.member_id, instance)?;
        }
        let id = id.ok_or(ErrorCode::UnknownMemberId)?;
        self.refuse_parked(core, &id, ErrorCode::UnknownMemberId);
        self.remove_for(core, &id, Reason::Left);
        Ok(())
    }

    /// Whether this request may commit offsets; a member's session is renewed.
    pub fn may_commit(
        &mut self,
        core: &mut Core,
        request: &OffsetCommitRequest<'_>,
    ) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let instance = request.group_instance_id.as_deref();
        let is_member = generation >= 0 || !request.member_id.is_empty() || instance.is_some();
        if is_member {
            self.check_member(&request.member_id, instance)?;
            if generation != self.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if self.state != State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        match self.state {
            State::Completing => Err(ErrorCode::RebalanceInProgress),
            State::Preparing | State::Stable | State::Empty => {
                self.renew_by_name(core, &request.member_id);
                Ok(())
            }
        }
    }
}

fn left(row: &MemberIdentity<'_>, why: ErrorCode) -> MemberResponse<'static> {
    MemberResponse {
        member_id: row.member_id.to_string().into(),
        group_instance_id: row.group_instance_id.as_ref().map(|instance| instance.to_string().into()),
        error_code: why as i16,
    }
}
