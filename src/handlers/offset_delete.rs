//! OffsetDelete v0.

use coord::group::Answer;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    match groups::ask_one(request).await? {
        Answer::DeleteOffsets(answer) => request.answer(&answer),
        _ => Err(Unanswerable),
    }
}
