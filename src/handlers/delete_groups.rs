//! DeleteGroups v0-v2. v2: flexible.

use coord::group::Answer;
use net::messages::delete_groups::DeleteGroupsResponse;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let mut results = Vec::new();
    for answer in groups::ask(request).await? {
        let Answer::Delete(result) = answer else { return Err(Unanswerable) };
        results.push(result);
    }
    request.answer(&DeleteGroupsResponse { results, ..Default::default() })
}
