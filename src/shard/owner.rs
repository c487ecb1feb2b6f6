//! The owner's side of every question between cores.

use std::rc::Rc;

use engine::ids::{LeaderEpoch, Offset, PartitionId};
use engine::log::{AppendError, AppendKind, Log, ReadError};
use net::error_code::ErrorCode;
use rt::Instant;
use rt::sync::Event;

use crate::controller::ControllerAnswer;
use crate::groups;
use crate::metrics::{CoreMetrics, Stage};
use crate::shard::hosted::Hosted;
use crate::shard::join::{before, join_all};
use crate::shard::mail::{
    Answer, Ask, DeleteAsk, Deleted, EpochEndAsk, EpochEndFound, FetchAsk, FetchPart, Fetched, OffsetAsk,
    OffsetFound, ProduceAsk, ProducePart, Produced, Wait, WantedOffset, WatchAsk,
};
use crate::shard::space;
use crate::shard::{Asking, Shard};

/// Each question has a box of its own, so that one which waits is as large as it must be and no larger.
pub(super) fn answer(shard: Rc<Shard>, ask: Ask) -> Asking<'static> {
    match ask {
        Ask::Produce(ask) => Box::pin(async move { Answer::Produce(produce(&shard, ask).await) }),
        Ask::Fetch(ask) => Box::pin(async move { Answer::Fetch(fetch(&shard, ask).await) }),
        Ask::Watch(ask) => Box::pin(async move {
            watch(&shard, ask).await;
            Answer::Ready
        }),
        Ask::Offsets(asks) => Box::pin(async move {
            Answer::Offsets(join_all(asks.into_iter().map(|ask| offset(&shard, ask))).await)
        }),
        Ask::EpochEnds(asks) => Box::pin(async move {
            Answer::EpochEnds(join_all(asks.into_iter().map(|ask| epoch_end(&shard, ask))).await)
        }),
        Ask::DeleteRecords(asks) => Box::pin(async move {
            Answer::DeletedRecords(join_all(asks.into_iter().map(|ask| delete_records(&shard, ask))).await)
        }),
        Ask::Group(ask) => Box::pin(async move { Answer::Group(groups::answer(&shard, ask).await) }),
        Ask::Control(request) => Box::pin(async move {
            Answer::Control(match shard.controller() {
                Some(controller) => controller.handle(request).await,
                None => ControllerAnswer::Unavailable,
            })
        }),
        // The change itself was applied when the mail was read; what is left is to wait for the logs it opened.
        Ask::Apply(changes) => Box::pin(async move {
            shard.brought_open(&changes).await;
            Answer::Applied
        }),
        Ask::Stop => Box::pin(async move { Answer::Stopped { clean: shard.stop().await } }),
        Ask::Metrics => Box::pin(async move { Answer::Metrics(Box::new(CoreMetrics::of(&shard))) }),
        // A shard has begun already.
        Ask::Begin(_) => Box::pin(std::future::ready(Answer::Failed)),
    }
}

/// The parts side by side, each drawing its turn before any of them waits: one that waits for a roll or for memory holds
/// up no other, and two requests keep their order in every partition.
async fn produce(shard: &Rc<Shard>, ask: ProduceAsk) -> Vec<Produced> {
    let appends = ask.parts.into_iter().map(|part| append(shard, part));
    let mut produced = Vec::new();
    let mut waiting = Vec::new();
    for (place, appended) in join_all(appends).await.into_iter().enumerate() {
        match appended {
            Ok((log, done, last, placed)) => {
                waiting.push((place, log, last, placed));
                produced.push(done);
            }
            Err(failed) => produced.push(failed),
        }
    }
    if ask.wait == Wait::Not || shard.settings.faults.ack_before_durable {
        return produced;
    }
    let commits = waiting.into_iter().map(|(place, log, last, placed)| async move {
        let committed = log.committed(last);
        let outcome = match ask.wait {
            Wait::AtMost(limit) => before(committed, shard.core.sleep(limit)).await,
            Wait::Not | Wait::UntilDurable => Some(committed.await),
        };
        if let Some(Ok(())) = outcome {
            shard.metrics.stage(Stage::ProduceDisk, placed, shard.core.now());
        }
        (place, outcome)
    });
    for (place, outcome) in join_all(commits).await {
        match outcome {
            Some(Ok(())) => {}
            Some(Err(_)) => {
                produced[place] = Produced::failed(produced[place].place, ErrorCode::KafkaStorageError, None);
            }
            None => produced[place].error = ErrorCode::RequestTimedOut,
        }
    }
    produced
}

/// The answer so far, the last offset to wait for, and when the batch had its place.
async fn append(shard: &Rc<Shard>, part: ProducePart) -> Result<(Log, Produced, Offset, Instant), Produced> {
    let began = shard.core.now();
    let ProducePart { place, partition, records } = part;
    let hosted = shard
        .hosted(partition)
        .ok_or_else(|| Produced::failed(place, ErrorCode::NotLeaderOrFollower, None))?;
    let log = hosted.log().await.map_err(|code| Produced::failed(place, code, hosted.failure()))?;
    let appended = log.append(records, AppendKind::Client).await;
    let appended = appended.map_err(|error| refused(shard, place, &log, error))?;
    let placed = shard.core.now();
    shard.metrics.stage(Stage::ProduceQueue, began, placed);
    let done = Produced {
        place,
        error: ErrorCode::None,
        base_offset: appended.base_offset.0,
        log_append_time_ms: appended.log_append_time_ms,
        log_start_offset: appended.log_start_offset.0,
        message: None,
        record_errors: Vec::new(),
    };
    Ok((log, done, appended.last_offset, placed))
}

/// The answer for a batch that was not appended. Kafka gives the log's start for what the log itself refused, and -1
/// for what it refused before it looked at the log.
fn refused(shard: &Rc<Shard>, place: usize, log: &Log, error: AppendError) -> Produced {
    let plain = |code, early| (code, early, None, Vec::new());
    let (code, early, message, record_errors) = match error {
        AppendError::NotOneBatch(message) => (ErrorCode::InvalidRecord, true, Some(message), Vec::new()),
        AppendError::InvalidRecord { message, record_errors } => {
            (ErrorCode::InvalidRecord, false, Some(message), record_errors)
        }
        AppendError::InvalidTimestamp { message, record_errors } => {
            (ErrorCode::InvalidTimestamp, false, Some(message), record_errors)
        }
        AppendError::Corrupt => plain(ErrorCode::CorruptMessage, true),
        AppendError::MessageTooLarge => plain(ErrorCode::MessageTooLarge, true),
        AppendError::RecordListTooLarge => plain(ErrorCode::RecordListTooLarge, true),
        AppendError::OutOfOrderSequence => plain(ErrorCode::OutOfOrderSequenceNumber, false),
        AppendError::InvalidProducerEpoch => plain(ErrorCode::InvalidProducerEpoch, false),
        AppendError::UnsupportedCompression => plain(ErrorCode::UnsupportedCompressionType, true),
        AppendError::InvalidTxnState => plain(ErrorCode::InvalidTxnState, false),
        AppendError::NoSpace(why) => {
            space::ran_out(shard);
            (ErrorCode::KafkaStorageError, true, Some(why), Vec::new())
        }
        // The broker stops: clients ask for the leader again, and quietly.
        AppendError::Storage(_) if log.is_closed() => plain(ErrorCode::NotLeaderOrFollower, true),
        AppendError::Storage(why) => (ErrorCode::KafkaStorageError, true, Some(why), Vec::new()),
    };
    let log_start_offset = if early { -1 } else { log.log_start_offset().0 };
    Produced { log_start_offset, record_errors, ..Produced::failed(place, code, message) }
}

async fn fetch(shard: &Rc<Shard>, ask: FetchAsk) -> Vec<Fetched> {
    let began = shard.core.now();
    let mut left = ask.max_bytes;
    let (mut min_one, mut holds_some) = (ask.min_one, false);
    let mut found = Vec::with_capacity(ask.parts.len());
    for part in ask.parts {
        let one = fetch_part(shard, &part, left, min_one, holds_some).await;
        holds_some |= one.bytes > 0;
        left = match fills_the_answer(&one, part.partition_max_bytes, left) {
            true => 0,
            false => left.saturating_sub(one.bytes),
        };
        min_one &= one.bytes == 0;
        found.push(one);
    }
    shard.metrics.stage(Stage::FetchRead, began, shard.core.now());
    found
}

/// Whether it ended where the answer's room does: the others' batches would be read only to find that they do not fit.
fn fills_the_answer(one: &Fetched, partition_max_bytes: usize, room: usize) -> bool {
    room < partition_max_bytes && one.available > one.bytes
}

/// Reads for one partition.
async fn fetch_part(
    shard: &Rc<Shard>,
    part: &FetchPart,
    left: usize,
    min_one: bool,
    holds_some: bool,
) -> Fetched {
    let log = match leader_log(shard, part.partition, part.current_leader_epoch).await {
        Ok(log) => log,
        Err(code) => return Fetched::failed(part.place, code),
    };
    let high_watermark = log.high_watermark();
    let mut fetched = Fetched {
        high_watermark: high_watermark.0,
        log_start_offset: log.log_start_offset().0,
        ..Fetched::failed(part.place, ErrorCode::None)
    };
    if part.last_fetched_epoch >= 0 {
        match log.end_offset_for_epoch(LeaderEpoch(part.last_fetched_epoch)) {
            Some((epoch, end)) if epoch.0 < part.last_fetched_epoch || end.0 < part.fetch_offset => {
                fetched.diverging = Some((epoch.0, end.0));
                return fetched;
            }
            Some(_) => {}
            None => return Fetched::failed(part.place, ErrorCode::OffsetOutOfRange),
        }
    }
    let in_range = log.log_start_offset().0..=log.log_end_offset().0;
    if !in_range.contains(&part.fetch_offset) {
        return Fetched::failed(part.place, ErrorCode::OffsetOutOfRange);
    }
    let from = Offset(part.fetch_offset);
    let readable_end =
        if shard.settings.faults.read_uncommitted { log.log_end_offset() } else { high_watermark };
    if from >= readable_end {
        return fetched;
    }
    fetched.available = log.bytes_available(from, readable_end, part.partition_max_bytes).max(1);
    let bytes_max = part.partition_max_bytes.min(left);
    if bytes_max == 0 && !min_one {
        return fetched;
    }
    // Who holds records already must not wait for the memory of more.
    let read = match holds_some {
        true => log.read_at_hand(from, bytes_max, readable_end).await,
        false => log.read(from, bytes_max, min_one, readable_end).await,
    };
    match read {
        Ok(read) => {
            fetched.bytes = read.bytes;
            if min_one && read.bytes == 0 {
                // Nothing could be given, however much was allowed: it must not count as data.
                fetched.available = 0;
            }
            fetched.records = read.slices;
            fetched
        }
        Err(ReadError::OutOfRange) => Fetched::failed(part.place, ErrorCode::OffsetOutOfRange),
        Err(ReadError::Storage(why)) => {
            Fetched::failed(part.place, unreadable(shard, part.partition, &log, &why))
        }
    }
}

/// The log of a partition led here, after the check of the epoch that the client believes in (KIP-320).
async fn leader_log(
    shard: &Rc<Shard>,
    partition: engine::ids::PartitionId,
    epoch_of_client: i32,
) -> Result<Log, ErrorCode> {
    let hosted = shard.hosted(partition).ok_or(ErrorCode::NotLeaderOrFollower)?;
    let log = hosted.log().await?;
    if log.is_poisoned() {
        // It serves nothing, and a long poll that waited for it to move would never end.
        return Err(ErrorCode::KafkaStorageError);
    }
    let epoch = log.leader_epoch().0;
    if epoch_of_client >= 0 && epoch_of_client < epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if epoch_of_client > epoch {
        return Err(ErrorCode::UnknownLeaderEpoch);
    }
    Ok(log)
}

async fn watch(shard: &Rc<Shard>, ask: WatchAsk) {
    let event = Rc::new(Event::new());
    let mut guards = Vec::with_capacity(ask.seen.len());
    for (partition, seen) in &ask.seen {
        let Some(hosted) = shard.hosted(*partition) else { return };
        if !unchanged(&hosted, *seen) {
            return;
        }
        guards.push(hosted.watch(event.clone()));
    }
    let moved = async {
        loop {
            event.wait().await;
            let still = |(partition, seen): &(_, i64)| {
                shard.hosted(*partition).is_some_and(|hosted| unchanged(&hosted, *seen))
            };
            if !ask.seen.iter().all(still) {
                return;
            }
        }
    };
    before(moved, shard.core.sleep(ask.timeout)).await;
}

fn unchanged(hosted: &Hosted, seen: i64) -> bool {
    hosted.open_log().is_some_and(|log| !log.is_poisoned() && log.high_watermark().0 == seen)
}

async fn offset(shard: &Rc<Shard>, ask: OffsetAsk) -> OffsetFound {
    let nothing =
        |error| OffsetFound { place: ask.place, error, timestamp: -1, offset: -1, leader_epoch: -1 };
    let log = match leader_log(shard, ask.partition, ask.current_leader_epoch).await {
        Ok(log) => log,
        Err(code) => return nothing(code),
    };
    let found = match ask.wanted {
        WantedOffset::Latest => Ok(Some((log.high_watermark(), -1, log.leader_epoch()))),
        WantedOffset::Earliest => {
            let start = log.log_start_offset();
            Ok(Some((start, -1, log.epoch_at(start).unwrap_or(log.leader_epoch()))))
        }
        WantedOffset::Tiered => Ok(None),
        WantedOffset::MaxTimestamp => log.offset_of_max_timestamp().await,
        WantedOffset::AtTimestamp(timestamp) => log.offset_for_timestamp(timestamp).await,
    };
    match found {
        Ok(Some((offset, timestamp, epoch))) => OffsetFound {
            place: ask.place,
            error: ErrorCode::None,
            timestamp,
            offset: offset.0,
            leader_epoch: epoch.0,
        },
        Ok(None) => nothing(ErrorCode::None),
        Err(ReadError::OutOfRange) => nothing(ErrorCode::KafkaStorageError),
        Err(ReadError::Storage(why)) => nothing(unreadable(shard, ask.partition, &log, &why)),
    }
}

/// Tells the operator what could not be read, and which code the client gets.
fn unreadable(shard: &Rc<Shard>, partition: PartitionId, log: &Log, why: &str) -> ErrorCode {
    if log.is_closed() {
        return ErrorCode::NotLeaderOrFollower;
    }
    if let Some(hosted) = shard.hosted(partition) {
        hosted.tell_unreadable(shard.core.now(), why);
    }
    ErrorCode::KafkaStorageError
}

async fn epoch_end(shard: &Rc<Shard>, ask: EpochEndAsk) -> EpochEndFound {
    let answer = |error, epoch, end_offset| EpochEndFound { place: ask.place, error, epoch, end_offset };
    match leader_log(shard, ask.partition, ask.current_leader_epoch).await {
        Err(code) => answer(code, -1, -1),
        Ok(log) => match log.end_offset_for_epoch(LeaderEpoch(ask.epoch)) {
            Some((epoch, end)) => answer(ErrorCode::None, epoch.0, end.0),
            None => answer(ErrorCode::None, -1, -1),
        },
    }
}

async fn delete_records(shard: &Rc<Shard>, ask: DeleteAsk) -> Deleted {
    Deleted { place: ask.place, outcome: raise_start(shard, &ask).await }
}

async fn raise_start(shard: &Rc<Shard>, ask: &DeleteAsk) -> Result<i64, ErrorCode> {
    let log = leader_log(shard, ask.partition, -1).await?;
    let config = log.config();
    if config.compacted && !config.deletes {
        return Err(ErrorCode::PolicyViolation);
    }
    let high_watermark = log.high_watermark();
    let to = if ask.offset == -1 { high_watermark } else { Offset(ask.offset) };
    if to < Offset::ZERO || to > high_watermark {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    match log.delete_records(to).await {
        Ok(log_start) => Ok(log_start.0),
        Err(AppendError::Storage(_)) if log.is_closed() => Err(ErrorCode::NotLeaderOrFollower),
        Err(why) => {
            rt::say!("corelog: the log start in {} stays: {why:?}", log.dir().display());
            Err(ErrorCode::KafkaStorageError)
        }
    }
}
