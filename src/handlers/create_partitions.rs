//! CreatePartitions v0-v3. v2: flexible.

use coord::metadata::NodeId;
use net::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};

use super::create_topics::unavailable;
use super::{Reply, Request, Unanswerable};
use crate::controller::{ControllerAnswer, ControllerRequest, MorePartitions, Refused};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: CreatePartitionsRequest = request.decode()?;
    let topics: Vec<MorePartitions> = body.topics.iter().map(more_partitions).collect();
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let ask = ControllerRequest::CreatePartitions { topics, validate_only: body.validate_only };
    let results = match request.shard.ask_controller(ask).await {
        ControllerAnswer::CreatedPartitions(outcomes) => {
            outcomes.into_iter().map(|(name, outcome)| result(name, outcome)).collect()
        }
        _ => names.into_iter().map(|name| result(name, Err(unavailable()))).collect(),
    };
    request.answer(&CreatePartitionsResponse { results, ..Default::default() })
}

fn more_partitions(topic: &CreatePartitionsTopic<'_>) -> MorePartitions {
    let nodes = |ids: &[i32]| ids.iter().copied().map(NodeId).collect();
    let assignments = topic.assignments.as_ref();
    MorePartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: assignments.map(|all| all.iter().map(|one| nodes(&one.broker_ids)).collect()),
    }
}

fn result(name: String, outcome: Result<(), Refused>) -> CreatePartitionsTopicResult<'static> {
    let (error_code, error_message) = match outcome {
        Ok(()) => (0, None),
        Err(refused) => (refused.code, Some(refused.message.into())),
    };
    CreatePartitionsTopicResult { name: name.into(), error_code, error_message }
}
