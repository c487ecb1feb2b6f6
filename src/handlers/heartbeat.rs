//! Heartbeat v0-v4. v3: instance ids. v4: flexible.

use coord::group::Answer;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    match groups::ask_one(request).await? {
        Answer::Heartbeat(answer) => request.answer(&answer),
        _ => Err(Unanswerable),
    }
}
