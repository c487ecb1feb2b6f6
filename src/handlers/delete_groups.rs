//! DeleteGroups v0-v2. v2: flexible.

use std::collections::BTreeSet;

use coord::group::Answer;
use net::messages::delete_groups::DeleteGroupsResponse;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let mut results = Vec::new();
    let mut told = BTreeSet::new();
    for answer in groups::ask(request).await? {
        let Answer::Delete(result) = answer else { return Err(Unanswerable) };
        // Of a group that is listed twice the first answer counts.
        if told.insert(result.group_id.clone()) {
            results.push(result);
        }
    }
    request.answer(&DeleteGroupsResponse { results, ..Default::default() })
}
