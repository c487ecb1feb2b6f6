//! OffsetForLeaderEpoch v2-v4. v2: current leader epoch. v3: replica id. v4: flexible.

use std::collections::BTreeMap;

use engine::ids::PartitionId;
use net::error_code::ErrorCode;
use net::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use rt::CoreId;

use super::{Reply, Request, Unanswerable, topics};
use crate::shard::join::join_boxed;
use crate::shard::mail::{Answer, Ask, EpochEndAsk, EpochEndFound};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: OffsetForLeaderEpochRequest = request.decode()?;
    let mut by_owner: BTreeMap<CoreId, Vec<EpochEndAsk>> = BTreeMap::new();
    let mut found: Vec<EpochEndFound> = Vec::new();
    for topic in &body.topics {
        let id = topics::by_name(request.shard, &topic.topic);
        for partition in &topic.partitions {
            let place = found.len();
            let located = id.and_then(|topic| {
                let id = PartitionId { topic, index: partition.partition };
                Ok((topics::owner(request.shard, id)?, id))
            });
            let error = match located {
                Ok((owner, id)) => {
                    by_owner.entry(owner).or_default().push(EpochEndAsk {
                        place,
                        partition: id,
                        current_leader_epoch: partition.current_leader_epoch,
                        epoch: partition.leader_epoch,
                    });
                    ErrorCode::UnknownServerError
                }
                Err(code) => code,
            };
            found.push(EpochEndFound { place, error, epoch: -1, end_offset: -1 });
        }
    }
    let asks = by_owner.into_iter().map(|(owner, asks)| request.shard.ask(owner, Ask::EpochEnds(asks)));
    for answer in join_boxed(asks).await {
        if let Answer::EpochEnds(parts) = answer {
            for part in parts {
                let place = part.place;
                found[place] = part;
            }
        }
    }
    request.answer(&response(&body, found))
}

fn response<'a>(
    body: &'a OffsetForLeaderEpochRequest<'a>,
    found: Vec<EpochEndFound>,
) -> OffsetForLeaderEpochResponse<'a> {
    let mut found = found.into_iter();
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in &body.topics {
        let parts = topic.partitions.iter().zip(&mut found).map(|(asked, one)| EpochEndOffset {
            error_code: one.error as i16,
            partition: asked.partition,
            leader_epoch: one.epoch,
            end_offset: one.end_offset,
        });
        topics.push(OffsetForLeaderTopicResult { topic: topic.topic.clone(), partitions: parts.collect() });
    }
    OffsetForLeaderEpochResponse { topics, ..Default::default() }
}
