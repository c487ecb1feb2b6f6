//! ConsumerGroupDescribe v0-v1. v1: member types (KIP-1099).

use coord::group::Answer;
use net::messages::consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};

use super::{Reply, Request, Unanswerable, groups, operations};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: ConsumerGroupDescribeRequest = request.decode()?;
    let mut described = Vec::with_capacity(body.group_ids.len());
    for answer in groups::ask(request).await? {
        let Answer::ConsumerDescribe(mut group) = answer else { return Err(Unanswerable) };
        if body.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = operations::OF_GROUP;
        }
        described.push(group);
    }
    request.answer(&ConsumerGroupDescribeResponse { groups: described, ..Default::default() })
}
