//! JoinGroup v0-v9. v1: rebalance timeout. v4: MEMBER_ID_REQUIRED. v5: instance ids. v6: flexible. v7: protocol type. v8: reason.
//! v9: skip_assignment. The answer is parked until the join phase ends.

use coord::group::Answer;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    match groups::ask_one(request).await? {
        Answer::Join(answer) => request.answer(&answer),
        _ => Err(Unanswerable),
    }
}
