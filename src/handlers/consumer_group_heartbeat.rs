//! ConsumerGroupHeartbeat v0-v1. v1: regular expressions, ids from the client (KIP-848).

use coord::group::Answer;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    match groups::ask_one(request).await? {
        Answer::ConsumerHeartbeat(answer) => request.answer(&answer),
        _ => Err(Unanswerable),
    }
}
