//! JoinGroup v0-v9. v1: rebalance timeout. v4: MEMBER_ID_REQUIRED. v5: static members. v9: skip the assignment.

use std::collections::BTreeMap;

use net::messages::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};

use super::super::call::Call;
use super::super::pending::{After, Undo};
use super::super::records::Record;
use super::super::settings::{METADATA_BYTES_MAX, NAME_BYTES_MAX, PENDING_MEMBERS_MAX, PROTOCOLS_MAX};
use super::super::timers::{Deadline, Key};
use super::super::{Bytes, Core, Group, Reason, Shard, Text};
use super::{ClassicGroup, Member, Parked, State};
use crate::error_code::ErrorCode;

/// From this version on a new member is told its id before it is taken in.
pub(in super::super) const MEMBER_ID_REQUIRED_VERSION: i16 = 4;

/// From this version on a leader that takes over can be told to assign nothing.
const SKIP_ASSIGNMENT_VERSION: i16 = 9;

/// A hyphen and a UUID behind the client's own part of a member id.
const ID_SUFFIX_BYTES: usize = 37;

/// What a static member was before another took its place, should the record of it not become durable.
pub(in super::super) struct Takeover {
    instance: Text,
    old_id: Text,
    old: Member,
    new_id: Text,
    old_leader: Option<Text>,
    call: Parked,
}

impl Shard {
    pub(in super::super) fn join(&mut self, call: &Call<'_>, request: JoinGroupRequest<'_>) {
        let parked = Parked { call: call.id, version: call.version };
        let refused = match self.check_join(&request) {
            Ok(()) => None,
            Err(why) => Some((why, &*request.member_id)),
        };
        if let Some((why, member_id)) = refused {
            self.core.answer(call.id, parked.join_refused(member_id, why));
            return;
        }
        if let Some((id, Group::Consumer(group))) = self.groups.get_key_value(&*request.group_id)
            && group.is_empty()
            && request.member_id.is_empty()
        {
            // Nobody speaks the other protocol any more.
            let id = id.clone();
            self.remove_group(&id);
        }
        match self.groups.get_mut(&*request.group_id) {
            Some(Group::Classic(group)) => group.join(&mut self.core, call, &request),
            Some(Group::Consumer(_)) => self.join_consumer_group(call, &request),
            None if request.member_id.is_empty() => self.join_first(call, &request),
            None => {
                let why = ErrorCode::UnknownMemberId;
                self.core.answer(call.id, parked.join_refused(&request.member_id, why));
            }
        }
    }

    fn check_join(&self, request: &JoinGroupRequest<'_>) -> Result<(), ErrorCode> {
        let settings = &self.core.settings;
        let sessions = settings.group_min_session_timeout_ms..=settings.group_max_session_timeout_ms;
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !sessions.contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let metadata: usize = request.protocols.iter().map(|protocol| protocol.metadata.len()).sum();
        if request.protocols.len() > PROTOCOLS_MAX || metadata > METADATA_BYTES_MAX {
            return Err(ErrorCode::InvalidRequest);
        }
        Ok(())
    }

    /// The group is made by its first member.
    fn join_first(&mut self, call: &Call<'_>, request: &JoinGroupRequest<'_>) {
        let id = Text::from(&*request.group_id);
        let mut group = Box::new(ClassicGroup::new(id.clone(), self.core.now.unix_ms));
        let value = group.value(&BTreeMap::new());
        group.join(&mut self.core, call, request);
        self.groups.insert(id.clone(), Group::Classic(group));
        let record = Record::Classic { group: id.clone(), value: Some(value) };
        self.core.changed(record, Undo::Group { id, was: None });
    }
}

impl ClassicGroup {
    pub fn join(&mut self, core: &mut Core, call: &Call<'_>, request: &JoinGroupRequest<'_>) {
        let parked = Parked { call: call.id, version: call.version };
        if !self.has_room(core, &request.member_id) {
            if let Some((id, _)) = self.members.get_key_value(&*request.member_id) {
                let id = id.clone();
                self.refuse_parked(core, &id, ErrorCode::GroupMaxSizeReached);
                self.remove_for(core, &id, Reason::Full);
                // It may have been the one that the others waited for.
                self.complete_join_if_all_are_in(core);
            }
            core.answer(call.id, parked.join_refused("", ErrorCode::GroupMaxSizeReached));
            return;
        }
        let names = request.protocols.iter().map(|protocol| &*protocol.name);
        if !self.accepts(&request.protocol_type, names) {
            let why = ErrorCode::InconsistentGroupProtocol;
            core.answer(call.id, parked.join_refused(&request.member_id, why));
            return;
        }
        if !request.member_id.is_empty() {
            self.join_again(core, call, request);
        } else if let Some(instance) = &request.group_instance_id {
            self.join_static(core, call, request, instance);
        } else {
            self.join_dynamic(core, call, request);
        }
    }

    /// Whether the limit on members lets this one in. While a rebalance gathers members only those that wait count, so
    /// that the last to rejoin an oversized group are left out.
    fn has_room(&self, core: &Core, member: &str) -> bool {
        let size_max = core.settings.group_max_size;
        let member = self.members.get(member);
        match self.state {
            State::Empty => true,
            State::Preparing => {
                member.is_some_and(|member| member.parked_join.is_some()) || self.waiting < size_max
            }
            State::Completing | State::Stable => member.is_some() || self.members.len() < size_max,
        }
    }

    fn join_dynamic(&mut self, core: &mut Core, call: &Call<'_>, request: &JoinGroupRequest<'_>) {
        let id = member_id(call.client_id, call.random);
        if call.version < MEMBER_ID_REQUIRED_VERSION {
            self.take_in(core, call, request, id);
            return;
        }
        let parked = Parked { call: call.id, version: call.version };
        if self.pending.len() >= PENDING_MEMBERS_MAX {
            core.answer(call.id, parked.join_refused("", ErrorCode::GroupMaxSizeReached));
            return;
        }
        let session_ms = u64::try_from(request.session_timeout_ms).unwrap_or(0);
        let mut deadline = Deadline::default();
        let key = || Key::Pending(self.id.clone(), id.clone());
        deadline.set(core.now.ms.saturating_add(session_ms), &mut core.timers, key);
        self.pending.insert(id.clone(), deadline);
        core.answer(call.id, parked.join_refused(&id, ErrorCode::MemberIdRequired));
    }

    fn join_static(
        &mut self,
        core: &mut Core,
        call: &Call<'_>,
        request: &JoinGroupRequest<'_>,
        instance: &str,
    ) {
        let id = member_id(instance, call.random);
        match self.instances.get(instance).cloned() {
            None => self.take_in(core, call, request, id),
            Some(old_id) => self.take_over(core, call, request, old_id, id),
        }
    }

    fn join_again(&mut self, core: &mut Core, call: &Call<'_>, request: &JoinGroupRequest<'_>) {
        let parked = Parked { call: call.id, version: call.version };
        let instance = request.group_instance_id.as_deref();
        if instance.is_none()
            && let Some((id, _)) = self.pending.get_key_value(&*request.member_id)
        {
            let id = id.clone();
            self.take_in(core, call, request, id);
            return;
        }
        if let Err(why) = self.check_member(&request.member_id, instance) {
            core.answer(call.id, parked.join_refused(&request.member_id, why));
            return;
        }
        let Some((id, member)) = self.members.get_key_value(&*request.member_id) else { return };
        let id = id.clone();
        let same = is_same(member, request);
        match self.state {
            State::Completing if same => {
                let told_as_leader = self.is_leader(&id);
                core.answer(call.id, parked.join(self.generation_answer(&id, told_as_leader)));
            }
            State::Stable if same && !self.is_leader(&id) => {
                core.answer(call.id, parked.join(self.generation_answer(&id, false)));
            }
            State::Preparing | State::Completing | State::Stable => {
                self.update(core, &id, request, parked);
                self.rebalance_or_complete(core);
            }
            State::Empty => {
                core.answer(call.id, parked.join_refused(&id, ErrorCode::UnknownMemberId));
            }
        }
    }

    fn take_in(&mut self, core: &mut Core, call: &Call<'_>, request: &JoinGroupRequest<'_>, id: Text) {
        if let Some(initial) = &mut self.initial {
            initial.joined = true;
        }
        let member = Member {
            instance: request.group_instance_id.as_deref().map(Text::from),
            client_id: core.shared.text(call.client_id),
            client_host: core.shared.text(call.client_host),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: rebalance_timeout_ms(call.version, request),
            protocols: protocols_of(core, request),
            assignment: core.shared.bytes(&[]),
            is_new: true,
            must_sync: false,
            parked_join: Some(Parked { call: call.id, version: call.version }),
            parked_sync: None,
            deadline: Deadline::default(),
        };
        self.add(core, id, Text::from(&*request.protocol_type), member);
        self.rebalance_or_complete(core);
    }

    /// The instance is here under another id, whose process is taken for dead.
    fn take_over(
        &mut self,
        core: &mut Core,
        call: &Call<'_>,
        request: &JoinGroupRequest<'_>,
        old_id: Text,
        new_id: Text,
    ) {
        let parked = Parked { call: call.id, version: call.version };
        let old_leader = self.leader.clone();
        let Some(old) = self.replace(core, &old_id, &new_id) else { return };
        core.removed(&self.id, &old_id, Reason::Replaced, self.members.len());
        self.update(core, &new_id, request, parked);
        self.renew(core, &new_id);
        match self.state {
            State::Stable if self.protocol.is_some() && self.selected_protocol() == self.protocol => {
                let Some(instance) = old.instance.clone() else { return };
                let takeover = Takeover { instance, old_id, old, new_id, old_leader, call: parked };
                self.persist(core);
                core.after.push(After::Replaced { group: self.id.clone(), takeover: Box::new(takeover) });
            }
            // The leader may be assigning to the old id.
            State::Stable | State::Completing => self.prepare_rebalance(core),
            State::Preparing | State::Empty => self.complete_join_if_all_are_in(core),
        }
    }

    /// Gives a member another id. What the old one has parked is answered as to a fenced instance.
    fn replace(&mut self, core: &mut Core, old_id: &Text, new_id: &Text) -> Option<Member> {
        self.refuse_parked(core, old_id, ErrorCode::FencedInstanceId);
        let led = self.is_leader(old_id);
        let old = self.remove(core, old_id)?;
        let mut member = old.clone();
        member.deadline = Deadline::default();
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), new_id.clone());
        }
        super::count_protocols(&mut self.protocols, &member, true);
        self.members.insert(new_id.clone(), member);
        if led {
            self.leader = Some(new_id.clone());
        }
        Some(old)
    }

    /// The new id is durable, or the old one comes back.
    pub fn replaced(&mut self, core: &mut Core, takeover: Takeover, outcome: Result<(), ErrorCode>) {
        let Takeover { instance, old_id, old, new_id, old_leader, call } = takeover;
        // Whoever came meanwhile has answered the call.
        let member = self.members.get_mut(&new_id).filter(|member| member.parked_join == Some(call));
        let Some(member) = member else { return };
        match outcome {
            Ok(()) if self.state != State::Stable => {
                // A rebalance began meanwhile, and the member is in it already.
            }
            Ok(()) => {
                member.parked_join = None;
                self.waiting -= 1;
                let mut answer = self.generation_answer(&new_id, false);
                if call.version >= SKIP_ASSIGNMENT_VERSION {
                    answer.skip_assignment = self.is_leader(&new_id);
                    if answer.skip_assignment {
                        answer.members = self.subscriptions();
                    }
                } else if let Some(leader) = old_leader {
                    // It must not think that it leads: it cannot be told to leave the assignment as it is.
                    answer.leader = leader.to_string().into();
                }
                core.answer(call.call, call.join(answer));
                self.renew(core, &new_id);
            }
            Err(why) => {
                member.parked_join = None;
                self.waiting -= 1;
                core.answer(call.call, call.join_refused("", why));
                let led = self.is_leader(&new_id) || self.members.len() == 1;
                self.remove(core, &new_id);
                super::count_protocols(&mut self.protocols, &old, true);
                self.instances.insert(instance, old_id.clone());
                self.members.insert(old_id.clone(), Member { deadline: Deadline::default(), ..old });
                if led {
                    self.leader = Some(old_id.clone());
                }
                self.renew(core, &old_id);
                self.complete_join_if_all_are_in(core);
            }
        }
    }

    /// Takes over what a rejoining member says, and parks it.
    fn update(&mut self, core: &mut Core, id: &Text, request: &JoinGroupRequest<'_>, parked: Parked) {
        let protocols = protocols_of(core, request);
        let Some(member) = self.members.get_mut(id) else { return };
        super::count_protocols(&mut self.protocols, member, false);
        member.protocols = protocols;
        super::count_protocols(&mut self.protocols, member, true);
        member.session_timeout_ms = request.session_timeout_ms;
        member.rebalance_timeout_ms = rebalance_timeout_ms(parked.version, request);
        match member.parked_join.replace(parked) {
            None => self.waiting += 1,
            // The same member asks again, so the earlier request's connection is gone.
            Some(older) => {
                core.answer(older.call, older.join_refused(id, ErrorCode::RebalanceInProgress));
            }
        }
    }

    /// What a member is told of the generation.
    pub(super) fn generation_answer(&self, id: &Text, as_leader: bool) -> JoinGroupResponse<'static> {
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.to_string().into());
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: text(&self.protocol_type),
            protocol_name: text(&self.protocol),
            leader: self.leader.as_deref().unwrap_or_default().to_owned().into(),
            member_id: id.to_string().into(),
            members: if as_leader { self.subscriptions() } else { Vec::new() },
            ..JoinGroupResponse::default()
        }
    }

    /// What the leader assigns by: the metadata of the chosen protocol.
    fn subscriptions(&self) -> Vec<JoinGroupResponseMember<'static>> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |(id, member): (&Text, &Member)| JoinGroupResponseMember {
            member_id: id.to_string().into(),
            group_instance_id: member.instance.as_ref().map(|instance| instance.to_string().into()),
            metadata: member.metadata(protocol).map_or_else(Vec::new, |metadata| metadata.to_vec()).into(),
        };
        self.members.iter().map(member).collect()
    }
}

fn protocols_of(core: &mut Core, request: &JoinGroupRequest<'_>) -> Box<[(Text, Bytes)]> {
    let shared = &mut core.shared;
    let protocols = request.protocols.iter();
    protocols.map(|protocol| (shared.text(&protocol.name), shared.bytes(&protocol.metadata))).collect()
}

/// Whether a rejoining member says what it said before. New timeouts alone are not a change.
fn is_same(member: &Member, request: &JoinGroupRequest<'_>) -> bool {
    let said = request.protocols.iter().map(|protocol| (&*protocol.name, &*protocol.metadata));
    member.protocols.iter().map(|(name, metadata)| (&**name, &**metadata)).eq(said)
}

/// Version 0 has only one timeout.
pub(in super::super) fn rebalance_timeout_ms(version: i16, request: &JoinGroupRequest<'_>) -> i32 {
    if version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms }
}

/// An id that nobody has: clients look for the instance in front of it.
pub(in super::super) fn member_id(prefix: &str, random: [u8; 16]) -> Text {
    let mut end = prefix.len().min(NAME_BYTES_MAX - ID_SUFFIX_BYTES);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut id = String::with_capacity(end + ID_SUFFIX_BYTES);
    id.push_str(&prefix[..end]);
    for (at, byte) in random.iter().enumerate() {
        if [0, 4, 6, 8, 10].contains(&at) {
            id.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            id.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    id.into()
}
