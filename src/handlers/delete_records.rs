//! DeleteRecords v0-v2. v2: flexible.
//!
//! A partition that is named twice counts once, with the offset that came last, as in Kafka. The timeout is for the other
//! replicas, of which there are none: what this broker does itself ends, or fails.

use std::collections::BTreeMap;

use engine::ids::PartitionId;
use net::error_code::ErrorCode;
use net::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use rt::CoreId;

use super::{Reply, Request, Unanswerable, topics};
use crate::shard::join::join_boxed;
use crate::shard::mail::{Answer, Ask, DeleteAsk, Deleted};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: DeleteRecordsRequest = request.decode()?;
    let mut offsets: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            offsets.insert((topic.name.as_ref(), partition.partition_index), partition.offset);
        }
    }
    let mut by_owner: BTreeMap<CoreId, Vec<DeleteAsk>> = BTreeMap::new();
    let mut done: Vec<Deleted> = Vec::with_capacity(offsets.len());
    for (place, (&(name, index), &offset)) in offsets.iter().enumerate() {
        let located = topics::by_name(request.shard, name).and_then(|topic| {
            let partition = PartitionId { topic, index };
            let owner = topics::owner(request.shard, partition)?;
            topics::check_writable(request.shard, topic)?;
            Ok((owner, DeleteAsk { place, partition, offset }))
        });
        let error = match located {
            Ok((owner, ask)) => {
                by_owner.entry(owner).or_default().push(ask);
                ErrorCode::UnknownServerError
            }
            Err(code) => code,
        };
        done.push(Deleted { place, outcome: Err(error) });
    }
    let asks = by_owner.into_iter().map(|(owner, asks)| request.shard.ask(owner, Ask::DeleteRecords(asks)));
    for answer in join_boxed(asks).await {
        if let Answer::DeletedRecords(parts) = answer {
            for part in parts {
                let place = part.place;
                done[place] = part;
            }
        }
    }
    let mut topics: Vec<DeleteRecordsTopicResult<'_>> = Vec::new();
    for (&(name, index), deleted) in offsets.keys().zip(&done) {
        let result = partition_result(index, deleted);
        match topics.last_mut().filter(|topic| topic.name == name) {
            Some(topic) => topic.partitions.push(result),
            None => {
                topics.push(DeleteRecordsTopicResult { name: name.into(), partitions: vec![result] });
            }
        }
    }
    request.answer(&DeleteRecordsResponse { topics, ..Default::default() })
}

fn partition_result(partition_index: i32, deleted: &Deleted) -> DeleteRecordsPartitionResult {
    let (low_watermark, error_code) = match deleted.outcome {
        Ok(low_watermark) => (low_watermark, 0),
        Err(code) => (-1, code as i16),
    };
    DeleteRecordsPartitionResult { partition_index, low_watermark, error_code }
}
