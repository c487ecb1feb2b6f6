//! LeaveGroup v0-v5. v3: several members. v4: flexible. v5: reasons.

use coord::group::Answer;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    match groups::ask_one(request).await? {
        Answer::Leave(answer) => request.answer(&answer),
        _ => Err(Unanswerable),
    }
}
