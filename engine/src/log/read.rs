//! What a fetch gets: references to the buffers just appended, or to chunks of segment files. No batch is
//! opened, copied or encoded anew; only a look-up by time looks inside one.

use super::cold::{self, Source, Wanted};
use super::scan::{Scan, Step, Window};
use super::{Poisoned, Shared, State, behind};
use crate::batch::{Batch, TimestampType, walk};
use crate::ids::{LeaderEpoch, Offset};
use crate::names;
use crate::segment::Index;
use rt::{Reservation, Slice};
use std::rc::Rc;

#[derive(Default, Debug)]
pub struct ReadOut {
    /// The bytes in order; a batch may lie across two of them.
    pub slices: Vec<Slice>,
    pub bytes: usize,
    /// The offset behind the last batch; what was asked for if there is none.
    pub next: Offset,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// Below the log start or above the log end.
    OutOfRange,
    Storage(String),
}

pub(super) async fn read(
    shared: &Rc<Shared>,
    from: Offset,
    max_bytes: usize,
    min_one: bool,
    up_to: Offset,
    may_wait: bool,
) -> Result<ReadOut, ReadError> {
    {
        let state = shared.state.borrow();
        check(&state, from)?;
        if from >= up_to.min(state.end) {
            return Ok(ReadOut { next: from, ..ReadOut::default() });
        }
    }
    if let Some(found) = shared.tail.read(from, up_to, max_bytes, min_one) {
        shared.count(|counters| counters.reads_from_tail += 1);
        let next = found.next.unwrap_or(from);
        return Ok(ReadOut { slices: found.slices, bytes: found.bytes, next });
    }
    if from >= shared.state.borrow().filed_end {
        // Memory was short and the tail gave way: what is in the journal must be in the file first.
        settle(shared).await?;
    }
    let wanted = Wanted { from, up_to, max_bytes, min_one, may_wait };
    // The batches of a log follow each other without a gap, compacted or not: the segment that holds `from` has it.
    let Some((source, pos)) = source(shared, from) else {
        return Ok(ReadOut { next: from, ..ReadOut::default() });
    };
    let out = cold::read(shared, &source, pos, wanted).await;
    let out = out.map_err(|why| of_segment(shared, source.base, &why))?;
    Ok(out.unwrap_or(ReadOut { next: from, ..ReadOut::default() }))
}

async fn settle(shared: &Rc<Shared>) -> Result<(), ReadError> {
    behind::settle(shared).await.map_err(|Poisoned(why)| ReadError::Storage(why))
}

/// What went wrong with which file.
fn of_segment(shared: &Shared, base: Offset, why: &str) -> ReadError {
    ReadError::Storage(format!("{}: {why}", shared.dir.join(names::segment(base)).display()))
}

fn check(state: &State, from: Offset) -> Result<(), ReadError> {
    if let Err(poisoned) = state.check_open() {
        return Err(ReadError::Storage(poisoned.0));
    }
    if from < state.log_start || from > state.end {
        return Err(ReadError::OutOfRange);
    }
    Ok(())
}

/// The segment that holds `from`, and where in it to begin.
fn source(shared: &Shared, from: Offset) -> Option<(Source, u64)> {
    let state = shared.state.borrow();
    let behind = state.segments.partition_point(|segment| segment.base <= from);
    let segment = state.segments.get(behind.saturating_sub(1))?;
    Some((Source::of(segment), segment.floor(from)))
}

fn scan_of(shared: &Shared, segment: &crate::segment::Segment, pos: u64) -> Scan {
    let crcs = match &segment.index {
        Index::Sealed(index) => Some(index.clone()),
        Index::Active(_) => None,
    };
    Scan {
        file: segment.file.clone(),
        pos,
        end: if crcs.is_some() { segment.position } else { segment.durable },
        window_bytes: shared.limits.read_bytes_max,
        window_bytes_max: shared.limits.read_bytes_max,
        reservation: Reservation::Fetch,
        crcs,
        window: Window::default(),
    }
}

pub(super) fn available(shared: &Shared, from: Offset, up_to: Offset, cap: usize) -> usize {
    if from >= up_to {
        return 0;
    }
    if let Some(bytes) = shared.tail.available(from, up_to, cap) {
        return bytes;
    }
    let state = shared.state.borrow();
    let first = state.segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
    let mut bytes = 0;
    for (at, segment) in state.segments.iter().enumerate().skip(first) {
        let skip = if at == first { segment.floor(from) } else { 0 };
        let journaled = state.behind.as_ref().filter(|behind| behind.segment == segment.base);
        let durable = journaled.map_or(segment.durable, |behind| behind.end);
        bytes += durable.saturating_sub(skip) as usize;
        if bytes >= cap {
            return cap;
        }
    }
    bytes
}

pub(super) async fn offset_for_timestamp(
    shared: &Rc<Shared>,
    timestamp: i64,
) -> Result<Option<(Offset, i64, LeaderEpoch)>, ReadError> {
    find_by_time(shared, timestamp).await
}

pub(super) async fn offset_of_max_timestamp(
    shared: &Rc<Shared>,
) -> Result<Option<(Offset, i64, LeaderEpoch)>, ReadError> {
    let largest = {
        let state = shared.state.borrow();
        check(&state, state.log_start)?;
        state.segments.iter().map(|segment| segment.max_timestamp).max().unwrap_or(-1)
    };
    if largest < 0 {
        return Ok(None);
    }
    find_by_time(shared, largest).await
}

/// The first record by offset whose time is at least `timestamp`. Times need not rise: every batch is judged by its
/// largest.
async fn find_by_time(
    shared: &Rc<Shared>,
    timestamp: i64,
) -> Result<Option<(Offset, i64, LeaderEpoch)>, ReadError> {
    settle(shared).await?;
    let mut from = {
        let state = shared.state.borrow();
        check(&state, state.log_start)?;
        state.log_start
    };
    // What was looked at may be another segment's part when the next one's turn comes: compaction merges them.
    while let Some((base, end, mut scan)) = fitting(shared, from, timestamp) {
        let failed = |why: String| of_segment(shared, base, &why);
        loop {
            let bytes = match scan.next().await.map_err(|error| failed(error.to_string()))? {
                Step::Batch { bytes, .. } => bytes,
                Step::End => break,
                Step::Bad { pos, why } => return Err(failed(format!("damaged at {pos}: {why}"))),
            };
            let (batch, _) = Batch::parse(&bytes).map_err(|error| failed(error.to_string()))?;
            if batch.records_max_timestamp() < timestamp || batch.last_offset() < from {
                continue;
            }
            let epoch = batch.leader_epoch();
            if let Some((offset, time)) = record_by_time(shared, bytes.clone(), timestamp, from).await? {
                return Ok(Some((offset, time, epoch)));
            }
        }
        from = end;
    }
    Ok(None)
}

/// The first segment with anything at or behind `from` that may have a record of such a time: its base, its end, and
/// its batches.
fn fitting(shared: &Shared, from: Offset, timestamp: i64) -> Option<(Offset, Offset, Scan)> {
    let state = shared.state.borrow();
    let ends = state.segments.iter().skip(1).map(|next| next.base).chain([state.end]);
    let mut behind = state.segments.iter().zip(ends).filter(|(_, end)| *end > from);
    let (segment, end) = behind.find(|(segment, _)| segment.max_timestamp >= timestamp)?;
    Some((segment.base, end, scan_of(shared, segment, segment.floor_by_time(timestamp))))
}

/// The first record of a batch that fits; a packed batch is opened on a helper thread.
async fn record_by_time(
    shared: &Shared,
    bytes: Slice,
    timestamp: i64,
    from: Offset,
) -> Result<Option<(Offset, i64)>, ReadError> {
    let limit = shared.limits.decompressed_bytes_max;
    let work = move || -> Result<Option<(Offset, i64)>, String> {
        let (batch, _) = Batch::parse(&bytes).map_err(|error| error.to_string())?;
        if batch.timestamp_type() == TimestampType::LogAppendTime {
            return Ok(Some((batch.base_offset().max(from), batch.max_timestamp())));
        }
        let records = walk::decompress_records(&batch, limit).map_err(|error| error.to_string())?;
        for record in walk::Records::new(&batch, &records) {
            let record = record.map_err(|_| "a record is malformed".to_owned())?;
            if record.timestamp >= timestamp && record.offset >= from {
                return Ok(Some((record.offset, record.timestamp)));
            }
        }
        Ok(None)
    };
    match shared.core.offload(work).await {
        Ok(found) => found.map_err(ReadError::Storage),
        Err(_) => Err(ReadError::Storage("looking into a batch failed".into())),
    }
}
