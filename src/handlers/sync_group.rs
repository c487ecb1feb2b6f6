//! SyncGroup v0-v5. v3: instance ids. v4: flexible. v5: protocol type and name. Parked until the leader has brought its plan.

use coord::group::Answer;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    match groups::ask_one(request).await? {
        Answer::Sync(answer) => request.answer(&answer),
        _ => Err(Unanswerable),
    }
}
