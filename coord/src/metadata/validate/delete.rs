//! DeleteTopics.

use std::collections::BTreeSet;

use engine::ids::TopicId;

use super::super::command::Command;
use super::super::image::Image;
use super::{duplicate_name, repeated};
use crate::error_code::{ErrorCode, Refusal};

/// One topic of the request: its name (all versions) or its id (v6), 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeleteTopic<'a> {
    pub name: Option<&'a str>,
    pub id: TopicId,
}

/// Plans every deletion by itself, in the order of the request. A topic that is listed twice is deleted by none.
pub fn plan_delete_topics(image: &Image, topics: &[DeleteTopic<'_>]) -> Vec<Result<Command, Refusal>> {
    let names = repeated(topics.iter().filter_map(|topic| topic.name));
    let mut given = BTreeSet::new();
    let ids: BTreeSet<TopicId> = topics.iter().map(|t| t.id).filter(|id| !given.insert(*id)).collect();
    let named = topics.iter().filter_map(|topic| image.topic(topic.name?)).map(|topic| topic.id).collect();
    let given = Given { names, ids: given, repeated_ids: ids, named };
    topics.iter().map(|topic| plan_one(image, *topic, &given)).collect()
}

/// What else the request lists.
struct Given<'a> {
    /// Names that are there twice.
    names: BTreeSet<&'a str>,
    ids: BTreeSet<TopicId>,
    repeated_ids: BTreeSet<TopicId>,
    /// The ids of the topics that are listed by name.
    named: BTreeSet<TopicId>,
}

fn plan_one(image: &Image, topic: DeleteTopic<'_>, given: &Given<'_>) -> Result<Command, Refusal> {
    let refuse = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    match (topic.name, topic.id == TopicId::default()) {
        (Some(_), false) => refuse("You may not specify both topic name and topic id."),
        (None, true) => refuse("Neither topic name nor id were specified."),
        (Some(name), true) => {
            if given.names.contains(name) {
                return Err(duplicate_name());
            }
            let id = match image.topic(name) {
                Some(found) => found.id,
                None => {
                    let message = "This server does not host this topic-partition.";
                    return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, message));
                }
            };
            if given.ids.contains(&id) {
                return refuse("The provided topic name maps to an ID that was already supplied.");
            }
            Ok(Command::DeleteTopic { id })
        }
        (None, false) if given.repeated_ids.contains(&topic.id) => refuse("Duplicate topic id."),
        (None, false) if given.named.contains(&topic.id) => {
            refuse("The provided topic id is that of a name that was already supplied.")
        }
        (None, false) if image.topic_by_id(topic.id).is_none() => {
            Err(Refusal::new(ErrorCode::UnknownTopicId, "This server does not host this topic ID."))
        }
        (None, false) => Ok(Command::DeleteTopic { id: topic.id }),
    }
}
