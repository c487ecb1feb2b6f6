//! Produce v3-v13. v7: zstd. v8: record errors. v9: flexible. v10: current leader. v13: topic ids.
//!
//! Of a partition that is listed twice the last entry counts, and is answered alone, as in Kafka.

use std::collections::{BTreeMap, HashSet};
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
use crate::metrics::Stage;
use crate::shard::join::join_boxed;
use crate::shard::mail::{Answer, Ask, ProduceAsk, ProducePart, Produced, Wait};

const ACKS_NONE: i16 = 0;
const ACKS_LEADER: i16 = 1;
/// zstd may be sent from this version on.
const ZSTD_FROM: i16 = 7;
/// Where a batch says its codec, and whether it is of a transaction.
const ATTRIBUTES_LOW_BYTE: usize = 22;

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: ProduceRequest = request.decode()?;
    let counts = last_of_each(&body);
    let (mut outcomes, asked) = ask_owners(request, &body, &counts);
    let answers = asked.await;
    place(answers, &mut outcomes);
    let unanswered = |(place, outcome): (usize, Option<Produced>)| {
        outcome.unwrap_or_else(|| Produced::failed(place, ErrorCode::KafkaStorageError, None))
    };
    let produced: Vec<Produced> = outcomes.into_iter().enumerate().map(unanswered).collect();
    if body.acks == ACKS_NONE {
        let failed = produced.iter().any(|one| one.error != ErrorCode::None);
        return Ok(if failed { Reply::Close } else { Reply::Nothing });
    }
    request.answer(&response(&body, &counts, produced))
}

/// Which entries of the request count, in its order: of those for one partition the last one.
fn last_of_each(body: &ProduceRequest<'_>) -> Vec<bool> {
    let entries = body.topic_data.iter().flat_map(|topic| {
        let key = (topic.name.as_ref(), topic.topic_id);
        topic.partition_data.iter().map(move |partition| (key, partition.index))
    });
    let entries: Vec<_> = entries.collect();
    if entries.len() == 1 {
        return vec![true];
    }
    let mut seen = HashSet::with_capacity_and_hasher(entries.len(), ahash::RandomState::new());
    let mut counts: Vec<bool> = entries.into_iter().rev().map(|entry| seen.insert(entry)).collect();
    counts.reverse();
    counts
}

/// The outcome for every entry that counts, in the order of the request, where there is one already; and the others' owners,
/// asked.
fn ask_owners<'a>(
    request: &Request<'a>,
    body: &ProduceRequest<'_>,
    counts: &[bool],
) -> (Vec<Option<Produced>>, impl Future<Output = Vec<Answer>> + use<'a>) {
    let shard = request.shard;
    let mut outcomes: Vec<Option<Produced>> = Vec::new();
    let mut by_owner: BTreeMap<CoreId, Vec<ProducePart>> = BTreeMap::new();
    let mut counts = counts.iter();
    let denied = lacks_transactional_id(body);
    for topic in &body.topic_data {
        let known = match denied {
            true => Err(ErrorCode::TransactionalIdAuthorizationFailed),
            false => topic_id(request, topic),
        };
        for partition in topic.partition_data.iter().filter(|_| counts.next() == Some(&true)) {
            let place = outcomes.len();
            let checked = known.and_then(|id| {
                check_acks(body.acks)?;
                let id = PartitionId { topic: id, index: partition.index };
                let owner = topics::owner(shard, id)?;
                topics::check_writable(shard, id.topic)?;
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
        }
    }
    let wait = match body.acks {
        ACKS_NONE => Wait::Not,
        ACKS_LEADER => Wait::UntilDurable,
        _ => Wait::AtMost(Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0))),
    };
    request.parsed(Stage::ProduceParse);
    let asks = by_owner
        .into_iter()
        .map(move |(owner, parts)| shard.ask(owner, Ask::Produce(ProduceAsk { wait, parts })));
    (outcomes, join_boxed(asks))
}

fn place(answers: Vec<Answer>, outcomes: &mut [Option<Produced>]) {
    for answer in answers {
        let Answer::Produce(parts) = answer else { continue };
        parts.into_iter().for_each(|part| {
            let place = part.place;
            outcomes[place] = Some(part);
        });
    }
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
    const CODEC_MASK: u8 = 7;
    const ZSTD: u8 = 4;
    match records.get(ATTRIBUTES_LOW_BYTE) {
        Some(byte) if byte & CODEC_MASK == ZSTD && version < ZSTD_FROM => {
            Err(ErrorCode::UnsupportedCompressionType)
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether a batch says that it belongs to a transaction.
fn is_transactional(records: &[u8]) -> bool {
    const MAGIC: usize = 16;
    const TRANSACTIONAL: u8 = 1 << 4;
    records.get(MAGIC) == Some(&2)
        && records.get(ATTRIBUTES_LOW_BYTE).is_some_and(|byte| byte & TRANSACTIONAL != 0)
}

/// Whether a request without a transactional id has such a batch: then all of it is refused.
fn lacks_transactional_id(body: &ProduceRequest<'_>) -> bool {
    let mut partitions = body.topic_data.iter().flat_map(|topic| &topic.partition_data);
    body.transactional_id.is_none()
        && partitions.any(|one| matches!(one.records, Records::Bytes(records) if is_transactional(records)))
}

fn response<'a>(
    body: &'a ProduceRequest<'a>,
    counts: &[bool],
    produced: Vec<Produced>,
) -> ProduceResponse<'a> {
    let (mut counts, mut produced) = (counts.iter(), produced.into_iter());
    let mut responses = Vec::with_capacity(body.topic_data.len());
    for topic in &body.topic_data {
        let answered = topic.partition_data.iter().filter(|_| counts.next() == Some(&true));
        let partition_responses: Vec<_> =
            answered.zip(&mut produced).map(|(asked, one)| partition_response(asked.index, one)).collect();
        if partition_responses.is_empty() {
            continue;
        }
        responses.push(TopicProduceResponse {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partition_responses,
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

#[cfg(test)]
mod tests {
    use super::*;
    use net::messages::produce::PartitionProduceData;

    /// Topics by name with their partitions; the base offsets of the answer stand for the entries that were answered.
    fn check(topics: &[(&'static str, &[i32])], counts: &[bool], answered: &[(&str, &[(i32, i64)])]) {
        let partition = |&index: &i32| PartitionProduceData { index, ..Default::default() };
        let topic = |&(name, partitions): &(&'static str, &[i32])| TopicProduceData {
            name: name.into(),
            partition_data: partitions.iter().map(partition).collect(),
            ..Default::default()
        };
        let body = ProduceRequest { topic_data: topics.iter().map(topic).collect(), ..Default::default() };
        assert_eq!(last_of_each(&body), counts);
        let places = counts.iter().zip(0..).filter(|(counts, _)| **counts).map(|(_, place)| place);
        let produced = places
            .map(|place: i64| Produced { base_offset: place, ..Produced::failed(0, ErrorCode::None, None) });
        let response = response(&body, counts, produced.collect());
        let got: Vec<(String, Vec<(i32, i64)>)> = response
            .responses
            .iter()
            .map(|topic| {
                let parts = topic.partition_responses.iter().map(|one| (one.index, one.base_offset));
                (topic.name.to_string(), parts.collect())
            })
            .collect();
        let wanted: Vec<(String, Vec<(i32, i64)>)> =
            answered.iter().map(|(name, parts)| (name.to_string(), parts.to_vec())).collect();
        assert_eq!(got, wanted);
    }

    #[test]
    fn of_a_partition_listed_twice_the_last_entry_counts() {
        check(&[("a", &[0, 1])], &[true, true], &[("a", &[(0, 0), (1, 1)])]);
        check(&[("a", &[0, 1, 0])], &[false, true, true], &[("a", &[(1, 1), (0, 2)])]);
        check(
            &[("a", &[0]), ("b", &[0]), ("a", &[0])],
            &[false, true, true],
            &[("b", &[(0, 1)]), ("a", &[(0, 2)])],
        );
        check(&[], &[], &[]);
    }
}
