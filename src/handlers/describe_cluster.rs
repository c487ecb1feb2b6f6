//! DescribeCluster v0-v2. v1: endpoint type. v2: fenced brokers.

use net::error_code::ErrorCode;
use net::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

use super::{Reply, Request, Unanswerable, operations};

const ENDPOINT_BROKERS: i8 = 1;
const ENDPOINT_CONTROLLERS: i8 = 2;

pub fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: DescribeClusterRequest = request.decode()?;
    if let Some((code, why)) = refuse(request.version, body.endpoint_type) {
        let response = DescribeClusterResponse {
            error_code: code as i16,
            error_message: Some(why.into()),
            ..Default::default()
        };
        return request.answer(&response);
    }
    let metadata = request.shard.metadata.borrow();
    let listed = metadata.brokers().filter(|broker| body.include_fenced_brokers || !broker.fenced);
    let brokers = listed.filter_map(|broker| {
        let listener = broker.listeners.first()?;
        Some(DescribeClusterBroker {
            broker_id: broker.node.0,
            host: listener.host.clone().into(),
            port: i32::from(listener.port),
            rack: broker.rack.clone().map(Into::into),
            is_fenced: broker.fenced,
        })
    });
    let mut response = DescribeClusterResponse {
        endpoint_type: ENDPOINT_BROKERS,
        cluster_id: metadata.cluster_id().to_owned().into(),
        controller_id: request.shard.settings.node_id.0,
        brokers: brokers.collect(),
        ..Default::default()
    };
    if body.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::OF_CLUSTER;
    }
    request.answer(&response)
}

fn refuse(version: i16, endpoint_type: i8) -> Option<(ErrorCode, &'static str)> {
    match endpoint_type {
        ENDPOINT_BROKERS => None,
        _ if version == 0 => {
            Some((ErrorCode::InvalidRequest, "Version 0 knows only the endpoint type of brokers."))
        }
        ENDPOINT_CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
        )),
        _ => Some((ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type.")),
    }
}
