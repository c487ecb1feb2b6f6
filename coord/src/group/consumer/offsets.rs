//! Who may commit and fetch offsets.

use net::messages::offset_commit::OffsetCommitRequest;
use net::messages::offset_fetch::OffsetFetchRequestGroup;

use engine::ids::TopicId;

use super::super::Core;
use super::{ConsumerGroup, Member};
use crate::error_code::ErrorCode;

/// Before this version a commit cannot tell a member epoch.
const MEMBER_EPOCH_VERSION: i16 = 9;

impl ConsumerGroup {
    /// A member that is behind may still commit what it had at its epoch (KIP-1251).
    pub fn may_commit(
        &self,
        core: &Core,
        version: i16,
        request: &OffsetCommitRequest<'_>,
    ) -> Result<(), ErrorCode> {
        let epoch = request.generation_id_or_member_epoch;
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(&*request.member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if member.value.classic.is_some() {
            return if epoch == member.current.epoch { Ok(()) } else { Err(ErrorCode::IllegalGeneration) };
        }
        if version < MEMBER_EPOCH_VERSION {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if epoch == member.current.epoch {
            return Ok(());
        }
        let was_its_own = |id: TopicId, name: &str, partition: i32| {
            let id = match core.image.borrow().topic(name) {
                Some(topic) if id == TopicId::default() => topic.id,
                Some(_) | None => id,
            };
            assigned_at(member, id, partition).is_some_and(|assigned| epoch >= assigned)
        };
        let is_old = epoch < member.current.epoch
            && request.topics.iter().all(|topic| {
                let id = TopicId(topic.topic_id);
                topic.partitions.iter().all(|p| was_its_own(id, &topic.name, p.partition_index))
            });
        if is_old { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
    }

    /// Who says who it is must be up to date.
    pub fn may_fetch(&self, request: &OffsetFetchRequestGroup<'_>) -> Result<(), ErrorCode> {
        let id = request.member_id.as_deref();
        if id.is_none() && request.member_epoch < 0 {
            return Ok(());
        }
        let member = id.and_then(|id| self.members.get(id)).ok_or(ErrorCode::UnknownMemberId)?;
        let is_current = request.member_epoch == member.current.epoch;
        match (is_current, member.value.classic.is_some()) {
            (true, _) => Ok(()),
            (false, true) => Err(ErrorCode::IllegalGeneration),
            (false, false) => Err(ErrorCode::StaleMemberEpoch),
        }
    }
}

/// The epoch at which a partition became the member's, which may have yet to give it up.
fn assigned_at(member: &Member, topic: TopicId, partition: i32) -> Option<i32> {
    let current = &member.current;
    current.assigned.epoch(topic, partition).or_else(|| current.revoking.epoch(topic, partition))
}
