//! OffsetFetch v1-v10, one group at a time. v2: all topics by null. v7: require_stable. v8: many groups. v9: member epochs.
//! v10: topic ids.
//!
//! A commit that is not durable yet is not told: the answer waits for it. So require_stable has nothing to add as long
//! as offsets are not committed by transactions.

use net::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};

use engine::ids::TopicId;

use super::super::{Answer, Budget, Call, Group, Shard, Text};
use super::{OffsetStore, Seen};
use crate::error_code::ErrorCode;

impl Shard {
    pub(in super::super) fn fetch_offsets(&mut self, call: &Call<'_>, request: &OffsetFetchRequestGroup<'_>) {
        let mut answer = OffsetFetchResponseGroup {
            group_id: request.group_id.to_string().into(),
            topics: Vec::new(),
            error_code: ErrorCode::None as i16,
        };
        match self.may_fetch(request) {
            Err(why) => answer.error_code = why as i16,
            Ok(()) => {
                let topics = match &request.topics {
                    Some(topics) => topics
                        .iter()
                        .map(|topic| self.offsets.asked(&request.group_id, topic, call.budget))
                        .collect(),
                    None => self.offsets.all(&request.group_id, call.budget),
                };
                match topics {
                    Some(topics) => answer.topics = topics,
                    None => answer.error_code = ErrorCode::InvalidRequest as i16,
                }
            }
        }
        self.core.answer(call.id, Answer::FetchOffsets(answer));
    }

    /// An unknown group has no offsets, and a classic one asks nobody who they are.
    fn may_fetch(&self, request: &OffsetFetchRequestGroup<'_>) -> Result<(), ErrorCode> {
        match self.groups.get(&*request.group_id) {
            None | Some(Group::Classic(_)) => Ok(()),
            Some(Group::Consumer(group)) => group.may_fetch(request),
        }
    }
}

impl OffsetStore {
    /// None where the budget does not allow it.
    fn asked(
        &self,
        group: &str,
        topic: &OffsetFetchRequestTopics<'_>,
        budget: &Budget,
    ) -> Option<OffsetFetchResponseTopics<'static>> {
        let unknown = TopicId::default();
        let asked = TopicId(topic.topic_id);
        let partition = |index: &i32| {
            let seen = self.get(group, &topic.name, *index);
            // What was committed for a deleted topic is nothing to the one that has its name now.
            let is_other =
                |seen: &Seen<'_>| asked != unknown && seen.topic_id != unknown && seen.topic_id != asked;
            let seen = seen.filter(|seen| !is_other(seen));
            let metadata = seen.as_ref().map_or("", |seen| seen.metadata);
            budget.take(bytes(metadata)).then(|| match seen {
                Some(seen) => told(&seen),
                None => OffsetFetchResponsePartitions {
                    partition_index: *index,
                    committed_offset: -1,
                    committed_leader_epoch: -1,
                    metadata: Some("".into()),
                    error_code: ErrorCode::None as i16,
                },
            })
        };
        Some(OffsetFetchResponseTopics {
            name: topic.name.to_string().into(),
            topic_id: topic.topic_id,
            partitions: topic.partition_indexes.iter().map(partition).collect::<Option<_>>()?,
        })
    }

    /// None where the budget does not allow it.
    fn all(&self, group: &str, budget: &Budget) -> Option<Vec<OffsetFetchResponseTopics<'static>>> {
        let mut topics: Vec<OffsetFetchResponseTopics<'static>> = Vec::new();
        let mut last: Option<&Text> = None;
        for (_, seen) in self.of_group(group, None) {
            if !budget.take(bytes(seen.metadata)) {
                return None;
            }
            if last != Some(seen.topic) {
                topics.push(OffsetFetchResponseTopics {
                    name: seen.topic.to_string().into(),
                    topic_id: seen.topic_id.0,
                    partitions: Vec::new(),
                });
            }
            last = Some(seen.topic);
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(told(&seen));
            }
        }
        Some(topics)
    }
}

fn bytes(metadata: &str) -> usize {
    size_of::<OffsetFetchResponsePartitions<'_>>() + metadata.len()
}

fn told(seen: &Seen<'_>) -> OffsetFetchResponsePartitions<'static> {
    OffsetFetchResponsePartitions {
        partition_index: seen.partition,
        committed_offset: seen.offset,
        committed_leader_epoch: seen.leader_epoch,
        metadata: Some(seen.metadata.to_owned().into()),
        error_code: ErrorCode::None as i16,
    }
}
