//! OffsetCommit v2-v10. v5: no retention time. v6: leader epochs. v7: instance ids. v8: flexible. v9: member epochs.
//! v10: topic ids.

use coord::group::Answer;

use super::{Reply, Request, Unanswerable, groups};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    match groups::ask_one(request).await? {
        Answer::Commit(answer) => request.answer(&answer),
        _ => Err(Unanswerable),
    }
}
