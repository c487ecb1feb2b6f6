//! What several handlers ask about topics: names to ids, ids to owners.

use std::rc::Rc;

use engine::ids::{PartitionId, TopicId};
use net::error_code::ErrorCode;
use rt::CoreId;

use crate::shard::Shard;

/// The id of the topic with this name.
///
/// # Errors
/// UNKNOWN_TOPIC_OR_PARTITION.
pub fn by_name(shard: &Rc<Shard>, name: &str) -> Result<TopicId, ErrorCode> {
    let metadata = shard.metadata.borrow();
    metadata.topic(name).map(|topic| topic.id).ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// A topic id that the metadata knows.
///
/// # Errors
/// UNKNOWN_TOPIC_ID.
pub fn by_id(shard: &Rc<Shard>, id: [u8; 16]) -> Result<TopicId, ErrorCode> {
    let metadata = shard.metadata.borrow();
    metadata.topic_by_id(TopicId(id)).map(|topic| topic.id).ok_or(ErrorCode::UnknownTopicId)
}

/// The core of this broker that leads the partition.
///
/// # Errors
/// UNKNOWN_TOPIC_OR_PARTITION.
pub fn owner(shard: &Rc<Shard>, partition: PartitionId) -> Result<CoreId, ErrorCode> {
    shard.ownership.borrow().owner(partition).ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// Only the broker itself writes to internal topics.
///
/// # Errors
/// INVALID_TOPIC_EXCEPTION.
pub fn check_writable(shard: &Rc<Shard>, id: TopicId) -> Result<(), ErrorCode> {
    let metadata = shard.metadata.borrow();
    let internal = metadata.topic_by_id(id).is_some_and(|topic| topic.is_internal());
    if internal { Err(ErrorCode::InvalidTopicException) } else { Ok(()) }
}
