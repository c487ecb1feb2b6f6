//! The coordinator's decisions on their way into the log: one task appends them in order, another sees them become
//! durable. Many are in flight at a time; the log puts those that arrive together into one flush.

use std::rc::Rc;

use coord::group::{Input, RecordBytes};
use engine::batch::Codec;
use engine::batch::build::BatchBuilder;
use engine::log::{AppendError, AppendKind};
use net::error_code::ErrorCode;
use rt::Slice;

use super::host::Host;
use crate::shard::{Shard, space};

/// Appends what was decided, until the host ends.
pub async fn append(shard: Rc<Shard>, host: Rc<Host>) {
    while !host.is_over() {
        let more = host.appends.listen();
        let next = host.to_append.borrow_mut().pop_front();
        let Some((seq, batch)) = next else {
            more.await;
            continue;
        };
        match host.log.append(batch, AppendKind::Internal).await {
            Ok(_) if shard.settings.faults.hasty_coordinator => {
                host.step(Input::Durable { seq });
            }
            Ok(appended) => {
                host.to_commit.borrow_mut().push_back((seq, appended.last_offset));
                host.commits.notify_all();
            }
            Err(error) => {
                match &error {
                    AppendError::NoSpace(_) => space::ran_out(&shard),
                    // A log that failed, or closes, is told of by those who see to that.
                    AppendError::Storage(_) => {}
                    other => rt::say!("corelog: groups could not be recorded in {}: {other:?}", host.name),
                }
                host.failed(seq, code_of(&error));
            }
        }
    }
}

/// Tells the coordinator what became durable, until the host ends.
pub async fn commit(host: Rc<Host>) {
    while !host.is_over() {
        let more = host.commits.listen();
        let next = host.to_commit.borrow().front().copied();
        let Some((seq, last)) = next else {
            more.await;
            continue;
        };
        match host.log.committed(last).await {
            Ok(()) => {
                // One flush commits many.
                let end = host.log.high_watermark();
                let durable = {
                    let mut to_commit = host.to_commit.borrow_mut();
                    let count = to_commit.partition_point(|(_, last)| *last < end);
                    to_commit.drain(..count).next_back().map_or(seq, |(seq, _)| seq)
                };
                host.step(Input::Durable { seq: durable });
            }
            Err(_) => {
                // The log failed or was closed, and said so itself. None of what waits will ever be durable.
                host.to_commit.borrow_mut().clear();
                host.failed(seq, ErrorCode::KafkaStorageError);
            }
        }
    }
}

pub fn batch_of(records: &[RecordBytes], now_ms: i64) -> Slice {
    let bytes = records.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
    let mut builder = BatchBuilder::with_capacity(Codec::None, bytes.sum());
    for (key, value) in records {
        builder.append(now_ms, Some(key), value.as_deref(), &[]);
    }
    Slice::from(builder.finish())
}

fn code_of(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::MessageTooLarge => ErrorCode::MessageTooLarge,
        AppendError::RecordListTooLarge => ErrorCode::RecordListTooLarge,
        AppendError::NoSpace(_) | AppendError::Storage(_) => ErrorCode::KafkaStorageError,
        // Of a client's batch; ours are none.
        AppendError::NotOneBatch(_)
        | AppendError::InvalidRecord { .. }
        | AppendError::InvalidTimestamp { .. }
        | AppendError::Corrupt
        | AppendError::OutOfOrderSequence
        | AppendError::InvalidProducerEpoch
        | AppendError::UnsupportedCompression
        | AppendError::InvalidTxnState => ErrorCode::UnknownServerError,
    }
}
