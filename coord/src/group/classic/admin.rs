//! DescribeGroups v0-v6, ListGroups v0-v5, DeleteGroups v0-v2. Describe v6: GROUP_ID_NOT_FOUND. List v4: states. v5: types.

use std::borrow::Cow;

use net::messages::delete_groups::DeletableGroupResult;
use net::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use net::messages::list_groups::ListedGroup;

use super::super::budget::TOO_MUCH;
use super::super::call::{Answer, Call};
use super::super::{Budget, Group, Shard, Text};
use super::{ClassicGroup, Member, State};
use crate::error_code::ErrorCode;

/// From this version of DescribeGroups on an unknown group is an error, not only dead.
const NOT_FOUND_VERSION: i16 = 6;

impl Shard {
    pub(in super::super) fn describe(&mut self, call: &Call<'_>, id: &str) {
        let answer = match self.groups.get(id) {
            Some(Group::Classic(group)) => {
                group.described(call.budget).unwrap_or_else(|| too_much(call.version, id))
            }
            Some(Group::Consumer(_)) | None => {
                let not_found = call.version >= NOT_FOUND_VERSION;
                let why = if not_found { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
                DescribedGroup {
                    error_code: why as i16,
                    error_message: not_found.then(|| format!("Group {id} not found.").into()),
                    group_id: id.to_owned().into(),
                    group_state: "Dead".into(),
                    ..DescribedGroup::default()
                }
            }
        };
        self.core.answer(call.id, Answer::Describe(answer));
    }

    pub(in super::super) fn list(
        &mut self,
        call: &Call<'_>,
        states: &[Cow<'_, str>],
        types: &[Cow<'_, str>],
    ) {
        let matches = |filter: &[Cow<'_, str>], word: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(word))
        };
        let mut groups = Vec::new();
        for (id, group) in &self.groups {
            let (state, kind, protocol_type) = match group {
                Group::Classic(group) => {
                    (group.state.name(), "classic", group.protocol_type.as_deref().unwrap_or_default())
                }
                Group::Consumer(group) => (group.state().name(), "consumer", "consumer"),
            };
            if matches(states, state) && matches(types, kind) {
                groups.push(ListedGroup {
                    group_id: id.to_string().into(),
                    protocol_type: protocol_type.to_owned().into(),
                    group_state: state.into(),
                    group_type: kind.into(),
                });
            }
        }
        self.core.answer(call.id, Answer::List { error: ErrorCode::None, groups });
    }

    pub(in super::super) fn delete_group(&mut self, call: &Call<'_>, id: &str) {
        let found = self.groups.get_key_value(id).map(|(id, group)| {
            let is_empty = match group {
                Group::Classic(group) => group.is_empty(),
                Group::Consumer(group) => group.is_empty(),
            };
            (id.clone(), is_empty)
        });
        let why = match found {
            None => ErrorCode::GroupIdNotFound,
            Some((_, false)) => ErrorCode::NonEmptyGroup,
            Some((id, true)) => {
                self.offsets.delete_all(&mut self.core, &id);
                self.remove_group(&id);
                ErrorCode::None
            }
        };
        let answer = DeletableGroupResult { group_id: id.to_owned().into(), error_code: why as i16 };
        self.core.answer(call.id, Answer::Delete(answer));
    }
}

impl ClassicGroup {
    /// None where the budget does not allow it.
    fn described(&self, budget: &Budget) -> Option<DescribedGroup<'static>> {
        let protocol = self.protocol.as_deref().filter(|_| self.state == State::Stable);
        let member = |(id, member): (&Text, &Member)| {
            let metadata = protocol.and_then(|protocol| member.metadata(protocol));
            let described = DescribedGroupMember {
                member_id: id.to_string().into(),
                group_instance_id: member.instance.as_ref().map(|instance| instance.to_string().into()),
                client_id: member.client_id.to_string().into(),
                client_host: member.client_host.to_string().into(),
                member_metadata: metadata.map(|metadata| metadata.to_vec()).unwrap_or_default().into(),
                member_assignment: member.assignment.to_vec().into(),
            };
            budget.take(bytes(&described)).then_some(described)
        };
        Some(DescribedGroup {
            group_id: self.id.to_string().into(),
            group_state: self.state.name().into(),
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned().into(),
            protocol_data: protocol.unwrap_or_default().to_owned().into(),
            members: self.members.iter().map(member).collect::<Option<_>>()?,
            ..DescribedGroup::default()
        })
    }
}

fn too_much(version: i16, id: &str) -> DescribedGroup<'static> {
    let has_message = version >= NOT_FOUND_VERSION;
    DescribedGroup {
        error_code: ErrorCode::InvalidRequest as i16,
        error_message: has_message.then(|| TOO_MUCH.into()),
        group_id: id.to_owned().into(),
        ..DescribedGroup::default()
    }
}

fn bytes(member: &DescribedGroupMember<'_>) -> usize {
    let texts = [&member.member_id, &member.client_id, &member.client_host];
    size_of_val(member)
        + texts.map(|text| text.len()).iter().sum::<usize>()
        + member.group_instance_id.as_ref().map_or(0, |text| text.len())
        + member.member_metadata.len()
        + member.member_assignment.len()
}
