//! ListGroups v0-v5. v3: flexible. v4: states. v5: types.
//!
//! One partition that is still loading fails the whole list, as in Kafka: half a list would look like a whole one.

use coord::group::Answer;
use net::error_code::ErrorCode;
use net::messages::list_groups::{ListGroupsRequest, ListGroupsResponse};

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let _: ListGroupsRequest = request.decode()?;
    let mut listed = Vec::new();
    for answer in groups::ask_all(request).await {
        let error = match answer.map(|answer| *answer) {
            Some(Answer::List { error: ErrorCode::None, groups }) => {
                listed.extend(groups);
                continue;
            }
            Some(Answer::List { error, .. }) => error,
            Some(_) | None => ErrorCode::CoordinatorNotAvailable,
        };
        return request.answer(&ListGroupsResponse { error_code: error as i16, ..Default::default() });
    }
    request.answer(&ListGroupsResponse { groups: listed, ..Default::default() })
}
