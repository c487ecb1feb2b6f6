//! ConsumerGroupDescribe v0-v1. v1: whether a member speaks the classic protocol.

use net::messages::consumer_group_describe::{
    Assignment, DescribedGroup, Member as Described, TopicPartitions,
};

use super::super::budget::TOO_MUCH;
use super::super::call::{Answer, Call};
use super::super::per_topic::Partitions;
use super::super::{Budget, Core, Group, Shard, Text};
use super::{ConsumerGroup, Member};
use crate::error_code::ErrorCode;
use crate::metadata::Image;

const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl Shard {
    pub(in super::super) fn consumer_describe(&mut self, call: &Call<'_>, id: &str) {
        let answer = match self.groups.get(id) {
            Some(Group::Consumer(group)) => {
                group.described(&self.core, call.budget).unwrap_or_else(|| DescribedGroup {
                    error_code: ErrorCode::InvalidRequest as i16,
                    error_message: Some(TOO_MUCH.into()),
                    group_id: id.to_owned().into(),
                    ..DescribedGroup::default()
                })
            }
            Some(Group::Classic(_)) | None => DescribedGroup {
                error_code: match id.is_empty() {
                    true => ErrorCode::InvalidGroupId as i16,
                    false => ErrorCode::GroupIdNotFound as i16,
                },
                error_message: Some(format!("Group {id} is not a consumer group.").into()),
                group_id: id.to_owned().into(),
                ..DescribedGroup::default()
            },
        };
        self.core.answer(call.id, Answer::ConsumerDescribe(answer));
    }
}

impl ConsumerGroup {
    /// None where the budget does not allow it.
    fn described(&self, core: &Core, budget: &Budget) -> Option<DescribedGroup<'static>> {
        let member = |(id, member): (&Text, &Member)| {
            let described = self.described_member(core, id, member);
            budget.take(bytes(&described)).then_some(described)
        };
        Some(DescribedGroup {
            group_id: self.id.to_string().into(),
            group_state: self.state().name().into(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor_name: self.assignor_name(core).to_owned().into(),
            members: self.members.iter().map(member).collect::<Option<_>>()?,
            ..DescribedGroup::default()
        })
    }

    /// What a member still has to give up counts as its own.
    fn described_member(&self, core: &Core, id: &Text, member: &Member) -> Described<'static> {
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.to_string().into());
        let (value, current) = (&member.value, &member.current);
        let held = current.assigned.each().chain(current.revoking.each());
        let held: Partitions = held.map(|(topic, partition, _)| (topic, partition)).collect();
        Described {
            member_id: id.to_string().into(),
            instance_id: text(&value.instance),
            rack_id: text(&value.rack),
            member_epoch: current.epoch,
            client_id: value.client_id.to_string().into(),
            client_host: value.client_host.to_string().into(),
            subscribed_topic_names: value.topics.iter().map(|topic| topic.to_string().into()).collect(),
            // Kafka has the empty text for none.
            subscribed_topic_regex: text(&value.regex).or(Some("".into())),
            assignment: shown(&core.image.borrow(), &held),
            target_assignment: shown(&core.image.borrow(), &self.target(id)),
            member_type: if value.classic.is_some() { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
        }
    }
}

fn bytes(member: &Described<'_>) -> usize {
    let texts = [&member.member_id, &member.client_id, &member.client_host];
    let options = [&member.instance_id, &member.rack_id, &member.subscribed_topic_regex];
    let names = member.subscribed_topic_names.iter().map(|name| size_of_val(name) + name.len());
    let assigned = [&member.assignment, &member.target_assignment].into_iter();
    let topics = assigned
        .flat_map(|assignment| &assignment.topic_partitions)
        .map(|topic| size_of_val(topic) + topic.topic_name.len() + size_of_val(topic.partitions.as_slice()));
    size_of_val(member)
        + texts.map(|text| text.len()).iter().sum::<usize>()
        + options.map(|text| text.as_ref().map_or(0, |text| text.len())).iter().sum::<usize>()
        + names.chain(topics).sum::<usize>()
}

/// Topics that are gone have no name to be shown under.
fn shown(image: &Image, partitions: &Partitions) -> Assignment<'static> {
    let topics = partitions.iter().filter_map(|(id, list)| {
        let name = image.topic_by_id(id)?.name.clone().into();
        Some(TopicPartitions { topic_id: id.0, topic_name: name, partitions: list.clone() })
    });
    Assignment { topic_partitions: topics.collect() }
}
