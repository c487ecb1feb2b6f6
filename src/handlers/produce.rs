//! Produce v3-v13. v7: zstd. v8: record errors. v9: flexible. v10: current leader. v13: topic ids.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::ids::PartitionId;
use net::error_code::ErrorCode;
use net::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use net::wire::Records;
use rt::CoreId;

use super::{Reply, Request, Unanswerable, topics};
use crate::shard::join::join_all;
use crate::shard::mail::{Answer, Ask, ProduceAsk, ProducePart, Produced};

const ACKS_NONE: i16 = 0;
/// zstd may be sent from this version on.
const ZSTD_FROM: i16 = 7;

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: ProduceRequest = request.decode()?;
    let produced = produce(request, &body).await;
    if body.acks == ACKS_NONE {
        let failed = produced.iter().any(|one| one.error != ErrorCode::None);
        return Ok(if failed { Reply::Close } else { Reply::Nothing });
    }
    request.answer(&response(&body, produced))
}

/// The outcome for every partition of the request, in its order.
async fn produce(request: &Request<'_>, body: &ProduceRequest<'_>) -> Vec<Produced> {
    let shard = request.shard;
    let mut outcomes: Vec<Option<Produced>> = Vec::new();
    let mut by_owner: BTreeMap<CoreId, Vec<ProducePart>> = BTreeMap::new();
    let mut place = 0;
    for topic in &body.topic_data {
        let known = topic_id(request, topic);
        for partition in &topic.partition_data {
            let checked = known.and_then(|id| {
                check_acks(body.acks)?;
                let id = PartitionId { topic: id, index: partition.index };
                let owner = topics::owner(shard, id)?;
                let Records::Bytes(records) = partition.records else { return Err(ErrorCode::InvalidRecord) };
                check_codec(records, request.version)?;
                Ok((owner, ProducePart { place, partition: id, records: request.frame.slice_ref(records) }))
            });
            match checked {
                Ok((owner, part)) => {
                    by_owner.entry(owner).or_default().push(part);
                    outcomes.push(None);
                }
                Err(code) => outcomes.push(Some(Produced::failed(place, code, None))),
            }
            place += 1;
        }
    }
    let timeout = Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0));
    let wait = body.acks != ACKS_NONE;
    let asks = by_owner
        .into_iter()
        .map(|(owner, parts)| shard.ask(owner, Ask::Produce(ProduceAsk { wait, timeout, parts })));
    for answer in join_all(asks).await {
        if let Answer::Produce(parts) = answer {
            for part in parts {
                let place = part.place;
                outcomes[place] = Some(part);
            }
        }
    }
    let unanswered = |(place, outcome): (usize, Option<Produced>)| {
        outcome.unwrap_or_else(|| Produced::failed(place, ErrorCode::KafkaStorageError, None))
    };
    outcomes.into_iter().enumerate().map(unanswered).collect()
}

fn topic_id(request: &Request<'_>, topic: &TopicProduceData<'_>) -> Result<engine::ids::TopicId, ErrorCode> {
    if request.version >= 13 {
        topics::by_id(request.shard, topic.topic_id)
    } else {
        topics::by_name(request.shard, &topic.name)
    }
}

fn check_acks(acks: i16) -> Result<(), ErrorCode> {
    if (-1..=1).contains(&acks) { Ok(()) } else { Err(ErrorCode::InvalidRequiredAcks) }
}

/// A codec that the version does not know. Anything else about the batch is the log's business.
fn check_codec(records: &[u8], version: i16) -> Result<(), ErrorCode> {
    const ATTRIBUTES_LOW_BYTE: usize = 22;
    const CODEC_MASK: u8 = 7;
    const ZSTD: u8 = 4;
    match records.get(ATTRIBUTES_LOW_BYTE) {
        Some(byte) if byte & CODEC_MASK == ZSTD && version < ZSTD_FROM => {
            Err(ErrorCode::UnsupportedCompressionType)
        }
        Some(_) => Ok(()),
        None => Err(ErrorCode::InvalidRecord),
    }
}

fn response<'a>(body: &'a ProduceRequest<'a>, produced: Vec<Produced>) -> ProduceResponse<'a> {
    let mut produced = produced.into_iter();
    let mut responses = Vec::with_capacity(body.topic_data.len());
    for topic in &body.topic_data {
        let partitions = topic.partition_data.iter().zip(&mut produced);
        responses.push(TopicProduceResponse {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partition_responses: partitions
                .map(|(asked, one)| partition_response(asked.index, one))
                .collect(),
        });
    }
    ProduceResponse { responses, ..Default::default() }
}

fn partition_response<'a>(index: i32, one: Produced) -> PartitionProduceResponse<'a> {
    let record_errors = one.record_errors.into_iter().map(|(batch_index, why)| BatchIndexAndErrorMessage {
        batch_index,
        batch_index_error_message: Some(why.into()),
    });
    PartitionProduceResponse {
        index,
        error_code: one.error as i16,
        base_offset: one.base_offset,
        log_append_time_ms: one.log_append_time_ms,
        log_start_offset: one.log_start_offset,
        record_errors: record_errors.collect(),
        error_message: one.message.map(Into::into),
        ..Default::default()
    }
}
