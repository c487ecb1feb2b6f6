//! ConsumerGroupHeartbeat v0-v1: join, stay, change and leave. v1: the client chooses its id; regular expressions.

use std::collections::BTreeSet;
use std::rc::Rc;

use net::messages::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};

use super::super::call::{Answer, Call};
use super::super::pending::Undo;
use super::super::per_topic::{Owned, Partitions};
use super::super::records::{CurrentValue, MemberState, MemberValue, Record};
use super::super::{Core, Group, Reason, Shard, Text};
use super::lookup::{self, Found};
use super::reconcile::{self, Goal};
use super::{ConsumerGroup, LEAVE_STATIC_EPOCH};
use crate::error_code::{ErrorCode, Refusal};

type Outcome = Result<ConsumerGroupHeartbeatResponse<'static>, Refusal>;

impl Shard {
    pub(in super::super) fn consumer_heartbeat(
        &mut self,
        call: &Call<'_>,
        request: &ConsumerGroupHeartbeatRequest<'_>,
    ) {
        let answer = self.consumer_heartbeat_outcome(call, request).unwrap_or_else(|refusal| {
            ConsumerGroupHeartbeatResponse {
                error_code: refusal.code as i16,
                error_message: Some(refusal.message.into()),
                ..ConsumerGroupHeartbeatResponse::default()
            }
        });
        self.core.answer(call.id, Answer::ConsumerHeartbeat(answer));
    }

    fn consumer_heartbeat_outcome(
        &mut self,
        call: &Call<'_>,
        request: &ConsumerGroupHeartbeatRequest<'_>,
    ) -> Outcome {
        lookup::check(call, request, &self.core.settings)?;
        if let Some(regex) = request.subscribed_topic_regex.as_deref()
            && !self.subscribes_by(&request.group_id, regex)
        {
            lookup::check_regex(regex)?;
        }
        if request.member_epoch == 0 {
            self.make_consumer_group(request)?;
        }
        let not_found = || {
            let message = format!("Group {} is not a consumer group.", request.group_id);
            Refusal::new(ErrorCode::GroupIdNotFound, message)
        };
        let Some(Group::Consumer(group)) = self.groups.get_mut(&*request.group_id) else {
            return Err(not_found());
        };
        if request.member_epoch >= 0 {
            return group.heartbeat(&mut self.core, call, request);
        }
        let (id, member) = (group.id.clone(), group.find_leaving(request)?);
        if request.member_epoch == LEAVE_STATIC_EPOCH {
            // It says that it will come back: it keeps its partitions as long as its session lasts.
            group.park_member(&mut self.core, &member);
        } else {
            self.remove_consumer_members(&id, &BTreeSet::from([member]), Reason::Left);
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(request.member_id.to_string().into()),
            member_epoch: request.member_epoch,
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// Whether a member of the group does so already.
    fn subscribes_by(&self, group: &str, regex: &str) -> bool {
        match self.groups.get(group) {
            Some(Group::Consumer(group)) => group.expressions.contains_key(regex),
            Some(Group::Classic(_)) | None => false,
        }
    }

    /// A first member makes the group, or makes it out of a classic one.
    fn make_consumer_group(&mut self, request: &ConsumerGroupHeartbeatRequest<'_>) -> Result<(), Refusal> {
        let id = match self.groups.get_key_value(&*request.group_id) {
            Some((_, Group::Consumer(_))) => return Ok(()),
            // An id that was given out and not used can join the new group as well.
            Some((id, Group::Classic(group))) if group.is_empty() => {
                let id = id.clone();
                self.remove_group(&id);
                id
            }
            Some((id, Group::Classic(group))) => {
                // Asked first: nothing is changed for a member that is refused.
                let is_known = group.knows(&request.member_id, request.instance_id.as_deref());
                lookup::check_room(is_known, group.member_count(), &self.core.settings)?;
                let id = id.clone();
                return self.upgrade(&id);
            }
            None => Text::from(&*request.group_id),
        };
        self.groups.insert(id.clone(), Group::Consumer(Box::new(ConsumerGroup::new(id.clone()))));
        self.core.undo.push((self.core.records.len(), Undo::Group { id, was: None }));
        Ok(())
    }
}

impl ConsumerGroup {
    fn heartbeat(
        &mut self,
        core: &mut Core,
        call: &Call<'_>,
        request: &ConsumerGroupHeartbeatRequest<'_>,
    ) -> Outcome {
        let is_known = self.knows(&request.member_id, request.instance_id.as_deref());
        lookup::check_room(is_known, self.members.len(), &core.settings)?;
        let owned = lookup::owned(request);
        let id = if request.member_id.is_empty() {
            chosen_id(call.random)
        } else {
            self.members
                .get_key_value(&*request.member_id)
                .map_or_else(|| request.member_id.as_ref().into(), |(id, _)| id.clone())
        };
        let id = match self.find(id, request, owned.as_ref())? {
            Found::Known(id) | Found::New(id) => id,
            Found::Replaces { old, new } => {
                self.replace_member(core, &old, &new);
                core.removed(&self.id, &old, Reason::Replaced, self.members.len());
                new
            }
        };
        let was = self.members.get(&id).map(|member| member.current.clone());
        let changed = self.update_member(core, call, &id, request);
        self.follow_metadata(core, changed);
        self.follow_epoch(core);
        self.reconcile(core, &id, owned.as_ref());
        self.renew(core, &id);
        self.watch_revocation(core, &id);
        self.ask_to_resolve(core);
        let current = self.members[&id].current.clone();
        let is_full = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some())
            && request.topic_partitions.is_some();
        let is_told = request.member_epoch == 0
            || is_full
            || was.is_none_or(|was| !same_partitions(&was.assigned, &current.assigned));
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(id.to_string().into()),
            member_epoch: current.epoch,
            heartbeat_interval_ms: core.heartbeat_interval_ms(&self.id),
            assignment: is_told.then(|| assignment(&current.assigned)),
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// Takes over what the member says, and records it where it is new; whether the group must look at its topics anew.
    fn update_member(
        &mut self,
        core: &mut Core,
        call: &Call<'_>,
        id: &Text,
        request: &ConsumerGroupHeartbeatRequest<'_>,
    ) -> bool {
        let was = self.members.get(id).map(|member| member.value.clone());
        let mut value = was.map_or_else(MemberValue::unknown, |was| (*was).clone());
        value.client_id = shared(&value.client_id, call.client_id);
        value.client_host = shared(&value.client_host, call.client_host);
        value.classic = None;
        if let Some(instance) = &request.instance_id {
            value.instance = Some(Text::from(&**instance));
        }
        if let Some(rack) = &request.rack_id {
            value.rack = Some(Text::from(&**rack));
        }
        if request.rebalance_timeout_ms != -1 {
            value.rebalance_timeout_ms = request.rebalance_timeout_ms;
        }
        if let Some(assignor) = &request.server_assignor {
            value.assignor = Some(Text::from(&**assignor));
        }
        if let Some(names) = &request.subscribed_topic_names {
            let names: BTreeSet<&str> = names.iter().map(|name| &**name).collect();
            value.topics = names.into_iter().map(Text::from).collect();
        }
        if let Some(regex) = &request.subscribed_topic_regex {
            // The empty one takes the subscription back.
            value.regex = (!regex.is_empty()).then(|| Text::from(&**regex));
        }
        self.set_value(core, id, value)
    }

    /// Records what a member says, if that is new.
    pub(super) fn set_value(&mut self, core: &mut Core, id: &Text, value: MemberValue) -> bool {
        let was = self.members.get(id).map(|member| member.value.clone());
        let is_new = was.is_none();
        let was = was.unwrap_or_else(|| Rc::new(MemberValue::unknown()));
        if !is_new && value == *was {
            return false;
        }
        let changed = value.topics != was.topics || value.regex != was.regex;
        let regex_was = was.regex.clone().filter(|regex| value.regex.as_ref() != Some(regex));
        let value = Some(Rc::new(value.shared(&mut core.shared)));
        self.put(core, Record::Member { group: self.id.clone(), member: id.clone(), value });
        if let Some(regex) = regex_was {
            self.forget_regex(core, &regex);
        }
        is_new || changed
    }

    /// One step of the member towards its target.
    pub(super) fn reconcile(&mut self, core: &mut Core, id: &Text, owned: Option<&Partitions>) {
        let Some(member) = self.members.get(id) else { return };
        let (target, value) = (self.target(id), member.value.clone());
        let subscribed = self.subscribed_ids(&core.image.borrow(), &value);
        let goal = Goal { epoch: self.target_epoch, target: &target, subscribed: &subscribed };
        let next = reconcile::step(&member.current, &goal, owned, |topic, index| self.is_free(topic, index));
        if next != *member.current {
            let value = Some(Rc::new(next));
            self.put(core, Record::Current { group: self.id.clone(), member: id.clone(), value });
        }
    }

    /// A static member goes on under another id, with what it had.
    pub(super) fn replace_member(&mut self, core: &mut Core, old: &Text, new: &Text) {
        let Some(member) = self.members.get(old) else { return };
        let (value, target) = (member.value.clone(), self.targets.get(old).cloned());
        let current = CurrentValue {
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            ..(*member.current).clone()
        };
        self.drop_member(core, old);
        let (group, member) = (self.id.clone(), new.clone());
        self.put(core, Record::Member { group: group.clone(), member: member.clone(), value: Some(value) });
        self.put(core, Record::Target { group: group.clone(), member: member.clone(), value: target });
        self.put(core, Record::Current { group, member, value: Some(Rc::new(current)) });
    }
}

/// The same text, without a copy where it is.
fn shared(was: &Text, now: &str) -> Text {
    if **was == *now { was.clone() } else { Text::from(now) }
}

fn same_partitions(a: &Owned, b: &Owned) -> bool {
    a.partitions() == b.partitions()
}

fn assignment(assigned: &Owned) -> Assignment {
    let topic = |(id, list): (_, &Vec<(i32, i32)>)| {
        let id: engine::ids::TopicId = id;
        TopicPartitions { topic_id: id.0, partitions: list.iter().map(|(index, _)| *index).collect() }
    };
    Assignment { topic_partitions: assigned.iter().map(topic).collect() }
}

/// An id as Kafka's own look: the base64 of a UUID, which never begins with a hyphen.
fn chosen_id(random: [u8; 16]) -> Text {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from_be_bytes(random);
    let letter = |place: u32| {
        let shift = 128_u32.saturating_sub(6 * (place + 1));
        let left = 6 * (place + 1);
        let six = if left > 128 { bits << (left - 128) } else { bits >> shift };
        char::from(LETTERS[usize::try_from(six & 63).unwrap_or(0)])
    };
    let id: String = (0..22).map(letter).collect();
    id.replacen('-', "A", usize::from(id.starts_with('-'))).into()
}
