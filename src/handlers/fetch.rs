//! Fetch v4-v18. v5: log start. v7: sessions. v9: leader epoch. v11: rack. v12: flexible, last fetched epoch.
//! v13: topic ids. v15: replica state. v16: node endpoints.
//!
//! A fetch reads at once, each owner its part of the bytes; if that is not enough to answer, it asks each owner to tell
//! when one of the partitions has moved, and reads again then. Records are never looked into: they leave as the slices
//! that the log gave.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use engine::ids::{PartitionId, TopicId};
use net::error_code::ErrorCode;
use net::messages::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use net::wire::Records;
use rt::CoreId;

use super::{Reply, Request, Unanswerable, topics};
use crate::fetch_session::{Begin, Context, Interest, Outcome, TopicKey};
use crate::metrics::Stage;
use crate::shard::Shard;
use crate::shard::join::{before, join_boxed};
use crate::shard::mail::{Answer, Ask, FetchAsk, FetchPart, Fetched, WatchAsk};

mod budget;

/// From this version on, topics are named by id only.
const BY_ID_FROM: i16 = 13;

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: FetchRequest = request.decode()?;
    let shard = request.shard;
    let begin = begin(&body, request.version >= BY_ID_FROM);
    let id_new = (shard.core.random_u64() >> 33) as i32;
    let context = match shard.sessions.borrow_mut().begin(shard.core.now(), id_new, begin) {
        Ok(context) => context,
        Err(code) => {
            return request.answer(&FetchResponse { error_code: code as i16, ..Default::default() });
        }
    };
    request.parsed(Stage::FetchParse);
    let found = wait_for_data(shard, &body, &context).await;
    let included = {
        let outcomes: Vec<Outcome> = found.iter().map(outcome).collect();
        shard.sessions.borrow_mut().finish(&context, &outcomes)
    };
    let read_committed = body.isolation_level == 1;
    let bytes =
        found.iter().zip(&included).filter(|(_, included)| **included).map(|(one, _)| one.bytes).sum();
    let reply = request.answer(&response(context, found, included, read_committed))?;
    if let Reply::Bytes(slices) = &reply {
        let referenced = slices.iter().filter(|slice| slice.is_pooled()).map(|slice| slice.len()).sum();
        shard.metrics.fetched(bytes, referenced);
    }
    Ok(reply)
}

fn begin(body: &FetchRequest<'_>, by_id: bool) -> Begin {
    let key = |name: &str, id: [u8; 16]| {
        if by_id { TopicKey::Id(TopicId(id)) } else { TopicKey::Name(Rc::from(name)) }
    };
    let mut interests = Vec::new();
    for topic in &body.topics {
        let topic_key = key(&topic.topic, topic.topic_id);
        interests.extend(topic.partitions.iter().map(|partition| Interest {
            topic: topic_key.clone(),
            partition: partition.partition,
            fetch_offset: partition.fetch_offset,
            partition_max_bytes: partition.partition_max_bytes,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
        }));
    }
    let mut forgotten = Vec::new();
    for topic in &body.forgotten_topics_data {
        let topic_key = key(&topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|&partition| (topic_key.clone(), partition)));
    }
    Begin { session_id: body.session_id, session_epoch: body.session_epoch, by_id, interests, forgotten }
}

/// Reads until there is enough to answer, or the client's patience is over.
async fn wait_for_data(shard: &Rc<Shard>, body: &FetchRequest<'_>, context: &Context) -> Vec<Fetched> {
    let patience = Duration::from_millis(u64::try_from(body.max_wait_ms).unwrap_or(0));
    let deadline = shard.core.now() + patience;
    let max_bytes = usize::try_from(body.max_bytes).unwrap_or(0).min(shard.limits().fetch_bytes_max);
    let min_bytes = usize::try_from(body.min_bytes).unwrap_or(0).min(max_bytes);
    loop {
        let found = read_all(shard, context, max_bytes).await;
        // What is there counts, not what one read of it brought: the rest is asked for by the next fetch.
        let available = found.iter().fold(0, |sum: usize, one| sum.saturating_add(one.available));
        let left = deadline - shard.core.now();
        let urgent = |one: &Fetched| one.error != ErrorCode::None || one.diverging.is_some();
        let idle_session = context.incremental && context.interests.is_empty();
        if available >= min_bytes
            || left.is_zero()
            || found.iter().any(urgent)
            || (found.is_empty() && !idle_session)
        {
            return found;
        }
        let Some(_waiting) = shard.fetches_waiting.try_acquire(1) else { return found };
        let began = shard.core.now();
        let moved = watch_all(shard, context, &found, left).await;
        shard.metrics.stage(Stage::FetchWait, began, shard.core.now());
        if !moved {
            return read_all(shard, context, max_bytes).await;
        }
    }
}

/// Asks the owners for what they have now, in the order of the context.
async fn read_all(shard: &Rc<Shard>, context: &Context, max_bytes: usize) -> Vec<Fetched> {
    let mut by_owner: BTreeMap<CoreId, Vec<FetchPart>> = BTreeMap::new();
    let mut found: Vec<Option<Fetched>> = Vec::with_capacity(context.interests.len());
    for (place, interest) in context.interests.iter().enumerate() {
        match locate(shard, interest) {
            Ok((owner, partition)) => {
                by_owner.entry(owner).or_default().push(part(place, interest, partition));
                found.push(None);
            }
            Err(code) => found.push(Some(Fetched::failed(place, code))),
        }
    }
    let want = |parts: &Vec<FetchPart>| {
        let sum = |sum: usize, part: &FetchPart| sum.saturating_add(part.partition_max_bytes);
        parts.iter().fold(0, sum).min(max_bytes)
    };
    let wants: Vec<usize> = by_owner.values().map(want).collect();
    // Where one core owns all, the order of its reading is the order of the answer.
    let min_one = by_owner.len() == 1;
    let shares = budget::divide(&wants, max_bytes);
    let asks = by_owner.into_iter().zip(shares).map(|((owner, parts), max_bytes)| {
        shard.ask(owner, Ask::Fetch(FetchAsk { max_bytes, min_one, parts }))
    });
    for answer in join_boxed(asks).await {
        if let Answer::Fetch(parts) = answer {
            for part in parts {
                let place = part.place;
                found[place] = Some(part);
            }
        }
    }
    let unanswered = |(place, one): (usize, Option<Fetched>)| {
        one.unwrap_or_else(|| Fetched::failed(place, ErrorCode::KafkaStorageError))
    };
    let mut whole: Vec<Fetched> = found.into_iter().enumerate().map(unanswered).collect();
    if let Some(place) = budget::starved(&whole) {
        feed(shard, &context.interests[place], place, max_bytes, &mut whole).await;
    }
    whole
}

/// Asks again for the first partition that has data and gave none, now alone and with all of the bytes.
async fn feed(shard: &Rc<Shard>, interest: &Interest, place: usize, max_bytes: usize, found: &mut [Fetched]) {
    let Ok((owner, partition)) = locate(shard, interest) else { return };
    let taken = found.iter().fold(0, |sum: usize, one| sum.saturating_add(one.bytes));
    let left = max_bytes.saturating_sub(taken);
    let parts = vec![part(place, interest, partition)];
    let ask = Ask::Fetch(FetchAsk { max_bytes: left, min_one: true, parts });
    if let Answer::Fetch(mut parts) = shard.ask(owner, ask).await
        && let Some(fed) = parts.pop()
    {
        found[place] = fed;
        budget::keep_within(found, max_bytes);
    }
}

fn part(place: usize, interest: &Interest, partition: PartitionId) -> FetchPart {
    FetchPart {
        place,
        partition,
        fetch_offset: interest.fetch_offset,
        partition_max_bytes: usize::try_from(interest.partition_max_bytes).unwrap_or(0),
        current_leader_epoch: interest.current_leader_epoch,
        last_fetched_epoch: interest.last_fetched_epoch,
    }
}

fn locate(shard: &Rc<Shard>, interest: &Interest) -> Result<(CoreId, PartitionId), ErrorCode> {
    let topic = match &interest.topic {
        TopicKey::Name(name) => topics::by_name(shard, name)?,
        TopicKey::Id(id) => topics::by_id(shard, id.0)?,
    };
    let partition = PartitionId { topic, index: interest.partition };
    Ok((topics::owner(shard, partition)?, partition))
}

/// Waits until a partition has moved since it was read. False when the time is over.
async fn watch_all(shard: &Rc<Shard>, context: &Context, found: &[Fetched], left: Duration) -> bool {
    let mut by_owner: BTreeMap<CoreId, Vec<(PartitionId, i64)>> = BTreeMap::new();
    for (interest, one) in context.interests.iter().zip(found) {
        // A partition that is not there any more is found out by the next read.
        let Ok((owner, partition)) = locate(shard, interest) else { return true };
        by_owner.entry(owner).or_default().push((partition, one.high_watermark));
    }
    let watches = by_owner
        .into_iter()
        .map(|(owner, seen)| shard.ask(owner, Ask::Watch(WatchAsk { timeout: left, seen })));
    before(first_of(watches.collect()), shard.core.sleep(left)).await.is_some()
}

/// Ends when the first of the futures ends; never, if there are none.
async fn first_of<F: Future + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|cx| {
        let ready = futures.iter_mut().any(|future| std::pin::Pin::new(future).poll(cx).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn outcome(one: &Fetched) -> Outcome {
    Outcome {
        error: one.error != ErrorCode::None,
        has_records: one.bytes > 0,
        diverging: one.diverging.is_some(),
        high_watermark: one.high_watermark,
        log_start_offset: one.log_start_offset,
    }
}

fn response(
    context: Context,
    found: Vec<Fetched>,
    included: Vec<bool>,
    read_committed: bool,
) -> FetchResponse<'static> {
    let mut responses: Vec<FetchableTopicResponse<'static>> = Vec::new();
    let mut topic_before: Option<TopicKey> = None;
    let parts = context.interests.into_iter().zip(found).zip(included);
    for ((interest, one), _) in parts.filter(|(_, included)| *included) {
        if topic_before.as_ref() != Some(&interest.topic) {
            let (topic, topic_id) = match &interest.topic {
                TopicKey::Name(name) => (name.to_string(), [0; 16]),
                TopicKey::Id(id) => (String::new(), id.0),
            };
            responses.push(FetchableTopicResponse { topic: topic.into(), topic_id, ..Default::default() });
            topic_before = Some(interest.topic);
        }
        let topic = responses.last_mut().expect("one was just pushed or is there");
        topic.partitions.push(partition_data(interest.partition, one, read_committed));
    }
    FetchResponse { session_id: context.session_id, responses, ..Default::default() }
}

/// Without transactions nothing is ever aborted; `read_committed` clients are told so, others must not be (a list makes
/// some of them drop records).
fn partition_data(partition_index: i32, one: Fetched, read_committed: bool) -> PartitionData<'static> {
    let diverging = one.diverging.unwrap_or((-1, -1));
    PartitionData {
        partition_index,
        error_code: one.error as i16,
        high_watermark: one.high_watermark,
        last_stable_offset: one.high_watermark,
        log_start_offset: one.log_start_offset,
        diverging_epoch: EpochEndOffset { epoch: diverging.0, end_offset: diverging.1 },
        aborted_transactions: read_committed.then(Vec::new),
        records: Records::Slices(one.records),
        ..Default::default()
    }
}
