//! CreateTopics v2-v7. v4: -1 for the broker's defaults. v5: flexible, the configs of what was created. v7: topic ids.

use coord::metadata::NodeId;
use net::error_code::ErrorCode;
use net::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};

use super::{Reply, Request, Unanswerable};
use crate::controller::{
    ControllerAnswer, ControllerRequest, CreatedConfig, CreatedTopic, NewTopic, Refused,
};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: CreateTopicsRequest = request.decode()?;
    let topics: Vec<NewTopic> = body.topics.iter().map(new_topic).collect();
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let ask = ControllerRequest::CreateTopics { topics, validate_only: body.validate_only };
    let topics = match request.shard.ask_controller(ask).await {
        ControllerAnswer::CreatedTopics(created) => {
            created.into_iter().map(|(name, outcome)| result(name, outcome)).collect()
        }
        _ => names.into_iter().map(|name| result(name, Err(unavailable()))).collect(),
    };
    request.answer(&CreateTopicsResponse { topics, ..Default::default() })
}

fn new_topic(topic: &CreatableTopic<'_>) -> NewTopic {
    let nodes = |ids: &[i32]| ids.iter().copied().map(NodeId).collect();
    let assignments = topic.assignments.iter().map(|one| (one.partition_index, nodes(&one.broker_ids)));
    let value = |value: &Option<std::borrow::Cow<'_, str>>| value.as_deref().map(str::to_owned);
    NewTopic {
        name: topic.name.to_string(),
        num_partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments.collect(),
        configs: topic.configs.iter().map(|config| (config.name.to_string(), value(&config.value))).collect(),
    }
}

/// What is said when the controller could not work on a request.
pub(super) fn unavailable() -> Refused {
    Refused {
        code: ErrorCode::KafkaStorageError as i16,
        message: "The metadata log cannot be written to; see the broker's output.".to_owned(),
    }
}

fn result(name: String, outcome: Result<CreatedTopic, Refused>) -> CreatableTopicResult<'static> {
    match outcome {
        Ok(created) => CreatableTopicResult {
            name: name.into(),
            topic_id: created.id.0,
            num_partitions: created.num_partitions,
            replication_factor: created.replication_factor,
            configs: Some(created.configs.into_iter().map(config).collect()),
            ..Default::default()
        },
        Err(refused) => CreatableTopicResult {
            name: name.into(),
            error_code: refused.code,
            error_message: Some(refused.message.into()),
            num_partitions: -1,
            replication_factor: -1,
            ..Default::default()
        },
    }
}

fn config(config: CreatedConfig) -> CreatableTopicConfigs<'static> {
    CreatableTopicConfigs {
        name: config.name.into(),
        value: Some(config.value.into()),
        config_source: config.source,
        ..Default::default()
    }
}
