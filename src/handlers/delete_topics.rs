//! DeleteTopics v1-v6. v4: flexible. v5: error messages. v6: topic ids.

use std::collections::BTreeSet;

use engine::ids::TopicId;
use net::messages::delete_topics::{DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse};

use super::create_topics::unavailable;
use super::{Reply, Request, Unanswerable};
use crate::controller::{ControllerAnswer, ControllerRequest, OldTopic};

/// From this version on, topics are named by name or by id.
const BY_ID_FROM: i16 = 6;

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: DeleteTopicsRequest = request.decode()?;
    let topics = asked(&body, request.version);
    let count = topics.len();
    let ask = ControllerRequest::DeleteTopics { topics: topics.clone() };
    let outcomes = match request.shard.ask_controller(ask).await {
        ControllerAnswer::DeletedTopics(outcomes) => outcomes,
        _ => (0..count).map(|_| Err(unavailable())).collect(),
    };
    // A topic that is listed twice was refused, and is told so once.
    let mut told = BTreeSet::new();
    let once = topics.into_iter().zip(outcomes);
    let once = once.filter(|(asked, _)| told.insert((asked.name.clone(), asked.id)));
    let results = once.map(|(asked, outcome)| match outcome {
        Ok((name, id)) => {
            DeletableTopicResult { name: Some(name.into()), topic_id: id.0, ..Default::default() }
        }
        Err(refused) => DeletableTopicResult {
            name: asked.name.map(Into::into),
            topic_id: asked.id.0,
            error_code: refused.code,
            error_message: Some(refused.message.into()),
        },
    });
    request.answer(&DeleteTopicsResponse { responses: results.collect(), ..Default::default() })
}

fn asked(body: &DeleteTopicsRequest<'_>, version: i16) -> Vec<OldTopic> {
    if version >= BY_ID_FROM {
        let topics = body.topics.iter();
        return topics
            .map(|topic| OldTopic {
                name: topic.name.as_deref().map(str::to_owned),
                id: TopicId(topic.topic_id),
            })
            .collect();
    }
    let names = body.topic_names.iter();
    names.map(|name| OldTopic { name: Some(name.to_string()), id: TopicId([0; 16]) }).collect()
}
