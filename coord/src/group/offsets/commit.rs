//! OffsetCommit v2-v10. v5: no retention time. v6: leader epochs. v7: instance ids. v9: member epochs. v10: topic ids.

use net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};

use engine::ids::TopicId;

use super::super::classic::ClassicGroup;
use super::super::pending::Undo;
use super::super::records::OffsetValue;
use super::super::{Answer, Call, Group, Shard, Text};
use crate::error_code::ErrorCode;

/// From this version on clients know GROUP_ID_NOT_FOUND as an answer to a commit.
const GROUP_NOT_FOUND_VERSION: i16 = 9;

/// As long as the broker's own setting says.
const NO_RETENTION: i64 = -1;

impl Shard {
    pub(in super::super) fn commit_offsets(&mut self, call: &Call<'_>, request: OffsetCommitRequest<'_>) {
        let group = match self.may_commit(call, &request) {
            Ok(group) => group,
            Err(why) => {
                self.core.answer(call.id, Answer::Commit(commit_answer(&request, why)));
                return;
            }
        };
        let mut answer = commit_answer(&request, ErrorCode::None);
        let now = self.core.now.unix_ms;
        let expire_unix_ms = match request.retention_time_ms {
            NO_RETENTION => -1,
            // Less than nothing is over at once.
            ms => now.saturating_add(ms).max(0),
        };
        let units_max = self.core.settings.offset_metadata_max_bytes;
        let mut accepted = Vec::new();
        for (topic, answer) in request.topics.iter().zip(&mut answer.topics) {
            for (partition, answer) in topic.partitions.iter().zip(&mut answer.partitions) {
                let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
                if is_longer(metadata, units_max) {
                    answer.error_code = ErrorCode::OffsetMetadataTooLarge as i16;
                    continue;
                }
                let value = OffsetValue {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: metadata.into(),
                    commit_unix_ms: now,
                    expire_unix_ms,
                    topic_id: TopicId(topic.topic_id),
                };
                accepted.push((&*topic.name, partition.partition_index, value));
            }
        }
        if !accepted.is_empty() {
            self.make_simple_group(&group);
        }
        self.core.counted.offset_commits += accepted.len() as u64;
        for (topic, partition, value) in accepted {
            self.offsets.put(&mut self.core, &group, topic, partition, Some(value));
        }
        self.core.answer(call.id, Answer::Commit(answer));
    }

    /// The group's id, if this request may commit for it. The group need not exist.
    fn may_commit(&mut self, call: &Call<'_>, request: &OffsetCommitRequest<'_>) -> Result<Text, ErrorCode> {
        let Some(group) = self.groups.get_mut(&*request.group_id) else {
            if request.generation_id_or_member_epoch >= 0 {
                let known = call.version >= GROUP_NOT_FOUND_VERSION;
                return Err(if known { ErrorCode::GroupIdNotFound } else { ErrorCode::IllegalGeneration });
            }
            return Ok(Text::from(&*request.group_id));
        };
        match group {
            Group::Classic(group) => {
                group.may_commit(&mut self.core, request)?;
                Ok(group.id.clone())
            }
            Group::Consumer(group) => {
                group.may_commit(&self.core, call.version, request)?;
                Ok(group.id.clone())
            }
        }
    }

    /// A group that lives by its offsets alone, unless there is one. It goes, or stays, with the first offset's append.
    fn make_simple_group(&mut self, id: &Text) {
        if self.groups.contains_key(id) {
            return;
        }
        let group = ClassicGroup::new(id.clone(), self.core.now.unix_ms);
        self.groups.insert(id.clone(), Group::Classic(Box::new(group)));
        self.core.undo.push((self.core.records.len(), Undo::Group { id: id.clone(), was: None }));
    }
}

/// The answer that says the same of every partition.
pub fn commit_answer(request: &OffsetCommitRequest<'_>, why: ErrorCode) -> OffsetCommitResponse<'static> {
    let partition = |partition: &OffsetCommitRequestPartition<'_>| OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code: why as i16,
    };
    OffsetCommitResponse {
        topics: request
            .topics
            .iter()
            .map(|topic| OffsetCommitResponseTopic {
                name: topic.name.to_string().into(),
                topic_id: topic.topic_id,
                partitions: topic.partitions.iter().map(partition).collect(),
            })
            .collect(),
        ..OffsetCommitResponse::default()
    }
}

/// Whether the text has more than so many UTF-16 units, which is what Kafka counts.
fn is_longer(text: &str, units_max: usize) -> bool {
    text.len() > units_max && text.encode_utf16().count() > units_max
}
