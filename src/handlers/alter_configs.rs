//! AlterConfigs v0-v2, of topics, of brokers and of groups: what a request does not list goes back to its default. v2:
//! flexible.

use net::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};

use super::create_topics::unavailable;
use super::{Reply, Request, Unanswerable};
use crate::controller::{AlterResource, Alteration, ControllerAnswer, ControllerRequest};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: AlterConfigsRequest = request.decode()?;
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
    request.answer(&AlterConfigsResponse { responses: responses.collect(), ..Default::default() })
}

fn owned(resource: &AlterConfigsResource<'_>) -> AlterResource {
    let configs = resource.configs.iter();
    let configs = configs.map(|config| (config.name.to_string(), config.value.as_deref().map(str::to_owned)));
    AlterResource {
        resource_type: resource.resource_type,
        name: resource.resource_name.to_string(),
        alteration: Alteration::Replace(configs.collect()),
    }
}
