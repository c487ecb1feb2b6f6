//! DescribeGroups v0-v6. v3: authorized operations. v4: instance ids. v5: flexible. v6: GROUP_ID_NOT_FOUND, messages.

use coord::group::Answer;
use net::messages::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::{Reply, Request, Unanswerable, groups, operations};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: DescribeGroupsRequest = request.decode()?;
    let mut described = Vec::with_capacity(body.groups.len());
    for answer in groups::ask(request).await? {
        let Answer::Describe(mut group) = answer else { return Err(Unanswerable) };
        if body.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = operations::OF_GROUP;
        }
        described.push(group);
    }
    request.answer(&DescribeGroupsResponse { groups: described, ..Default::default() })
}
