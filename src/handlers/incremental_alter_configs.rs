//! IncrementalAlterConfigs v0-v1, of topics, of brokers and of groups. v1: flexible.

use coord::metadata::validate::Operation;
use net::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::create_topics::unavailable;
use super::{Reply, Request, Unanswerable};
use crate::controller::{AlterResource, Alteration, ControllerAnswer, ControllerRequest};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: IncrementalAlterConfigsRequest = request.decode()?;
    let resources = body.resources.iter().map(owned).collect();
    let ask = ControllerRequest::AlterConfigs { resources, validate_only: body.validate_only };
    let outcomes = match request.shard.ask_controller(ask).await {
        ControllerAnswer::AlteredConfigs(outcomes) => outcomes,
        _ => body.resources.iter().map(|_| Err(unavailable())).collect(),
    };
    let responses = body.resources.iter().zip(outcomes).map(|(resource, outcome)| {
        let refused = outcome.err();
        AlterConfigsResourceResponse {
            error_code: refused.as_ref().map_or(0, |refused| refused.code),
            error_message: refused.map(|refused| refused.message.into()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        }
    });
    request.answer(&IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() })
}

fn owned(resource: &AlterConfigsResource<'_>) -> AlterResource {
    let ops = resource.configs.iter().map(|config| {
        let value = config.value.as_deref().map(str::to_owned);
        (config.name.to_string(), Operation::from_code(config.config_operation), value)
    });
    AlterResource {
        resource_type: resource.resource_type,
        name: resource.resource_name.to_string(),
        alteration: Alteration::Incremental(ops.collect()),
    }
}
