//! ListConfigResources v0-v1: what has configs, or can have them. v0: client metrics. v1: every type (KIP-1142).
//!
//! There are no client metrics and no broker loggers here, so of these there is nothing to list.

use coord::metadata::ConfigResource as Known;
use coord::metadata::validate::{BROKER, GROUP, TOPIC};
use net::error_code::ErrorCode;
use net::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};

use super::{Reply, Request, Unanswerable};

const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
/// The first version that asks for types.
const TYPES_FROM: i16 = 1;

pub fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: ListConfigResourcesRequest = request.decode()?;
    let all = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let types = match body.resource_types.as_slice() {
        _ if request.version < TYPES_FROM => &[CLIENT_METRICS],
        [] => &all[..],
        some => some,
    };
    if types.iter().any(|one| !all.contains(one)) {
        return request.answer(&ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion as i16,
            ..Default::default()
        });
    }
    let metadata = request.shard.metadata.borrow();
    let mut config_resources = Vec::new();
    let mut list = |resource_type, name: &str| {
        config_resources.push(ConfigResource { resource_name: name.to_owned().into(), resource_type });
    };
    if types.contains(&GROUP) {
        // A group without configs of its own is none of these.
        for (resource, _) in metadata.all_configs() {
            if let Known::Group(name) = resource {
                list(GROUP, name);
            }
        }
    }
    if types.contains(&BROKER) {
        let live = metadata.brokers().filter(|broker| !broker.fenced);
        live.for_each(|broker| list(BROKER, &broker.node.to_string()));
    }
    if types.contains(&TOPIC) {
        metadata.topics().for_each(|topic| list(TOPIC, &topic.name));
    }
    request.answer(&ListConfigResourcesResponse { config_resources, ..Default::default() })
}
