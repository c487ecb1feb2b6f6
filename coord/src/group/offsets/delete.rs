//! OffsetDelete v0, and the tombstones of a group's offsets.

use net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};

use super::super::settings::OFFSETS_PER_STEP_MAX;
use super::super::{Answer, Call, Core, Group, Shard, Text};
use super::OffsetStore;
use crate::error_code::ErrorCode;

impl Shard {
    pub(in super::super) fn delete_offsets(&mut self, call: &Call<'_>, request: &OffsetDeleteRequest<'_>) {
        let answer = match self.subscriptions(&request.group_id) {
            Err(why) => OffsetDeleteResponse { error_code: why as i16, ..OffsetDeleteResponse::default() },
            Ok((group, subscribed)) => OffsetDeleteResponse {
                topics: request
                    .topics
                    .iter()
                    .map(|topic| self.delete_of_topic(&group, topic, &subscribed))
                    .collect(),
                ..OffsetDeleteResponse::default()
            },
        };
        self.core.answer(call.id, Answer::DeleteOffsets(answer));
    }

    /// The topics whose offsets must stay: its own name and the question whether a topic is among them.
    fn subscriptions(&self, group: &str) -> Result<(Text, Subscribed), ErrorCode> {
        if group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        match self.groups.get(group) {
            None => Err(ErrorCode::GroupIdNotFound),
            Some(Group::Classic(group)) => {
                if !group.is_empty() && !group.is_consumer_type() {
                    return Err(ErrorCode::NonEmptyGroup);
                }
                Ok((group.id.clone(), Subscribed(group.subscribed_topics())))
            }
            Some(Group::Consumer(group)) => {
                Ok((group.id.clone(), Subscribed(Some(group.subscribed_topics()))))
            }
        }
    }

    fn delete_of_topic(
        &mut self,
        group: &Text,
        topic: &OffsetDeleteRequestTopic<'_>,
        subscribed: &Subscribed,
    ) -> OffsetDeleteResponseTopic<'static> {
        let is_subscribed = subscribed.contains(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            if !is_subscribed && self.offsets.get(group, &topic.name, index).is_some() {
                self.offsets.put(&mut self.core, group, &topic.name, index, None);
            }
            let why = if is_subscribed { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            partitions.push(OffsetDeleteResponsePartition { partition_index: index, error_code: why as i16 });
        }
        OffsetDeleteResponseTopic { name: topic.name.to_string().into(), partitions }
    }
}

/// The topics that a group reads; None where that cannot be known, which counts as all.
pub(in super::super) struct Subscribed(pub Option<std::collections::BTreeSet<Text>>);

impl Subscribed {
    pub fn contains(&self, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|topics| topics.contains(topic))
    }
}

impl OffsetStore {
    /// Deletes every offset of a group: in several appends where they are many, since each is of use alone.
    pub(in super::super) fn delete_all(&mut self, core: &mut Core, group: &Text) {
        let all: Vec<(Text, i32)> =
            self.of_group(group, None).map(|(_, seen)| (seen.topic.clone(), seen.partition)).collect();
        for (at, (topic, partition)) in all.into_iter().enumerate() {
            if at > 0 && at % OFFSETS_PER_STEP_MAX == 0 {
                core.cut();
            }
            self.put(core, group, &topic, partition, None);
        }
    }
}
