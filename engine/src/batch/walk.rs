//! The records of a batch: an iterator over them, and the walk that checks a client's.
//!
//! `walk` is Kafka's `LogValidator` for one batch: as many records as the header claims and not a byte more, each
//! ending where its length says, keys where the topic is compacted, timestamps near the broker's clock. It stores
//! nothing; what it found lets the caller repair the header (`max_timestamp`) or rebuild the batch (inner offsets with
//! gaps). Kafka does not check the offset deltas of an uncompressed batch, and neither does this: they are reported.
//!
//! ```text
//!  record:  varint length | i8 attributes | varlong timestamp delta | varint offset delta
//!           | varint key length (-1 null) | key | varint value length | value | varint header count
//!           | headers: varint key length | key | varint value length (-1 null) | value
//! ```

use super::compress;
use super::{Batch, Codec, NO_TIMESTAMP, TimestampType};
use crate::ids::Offset;
use crate::varint;
use std::fmt;

/// What the topic asks of a client's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checks {
    /// Every record needs a key.
    pub compacted: bool,
    /// For a topic that keeps the producer's time: how far it may be from now.
    pub timestamps: Option<TimestampBounds>,
    /// A compressed batch that unpacks to more is refused.
    pub decompressed_bytes_max: usize,
}

/// `message.timestamp.before.max.ms` and `.after.max.ms` around the broker's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampBounds {
    pub now_ms: i64,
    pub before_max_ms: i64,
    pub after_max_ms: i64,
}

/// What a walk over good records found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walked {
    /// The largest timestamp of the records, -1 if none has one. The header's may be unset or wrong.
    pub max_timestamp: i64,
    /// The offset delta of the first record that has it.
    pub max_timestamp_delta: i32,
    /// The deltas are 0, 1, 2, ... Kafka rebuilds a compressed batch where they are not.
    pub offsets_are_dense: bool,
}

/// Why a client's records are refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WalkError {
    Decompress(compress::Error),
    UnknownCodec,
    Malformed {
        index: i32,
        fault: RecordFault,
    },
    /// The bytes end before the claimed count is reached.
    Fewer {
        claimed: i32,
        found: i32,
    },
    /// Bytes are left behind the last claimed record.
    More {
        claimed: i32,
    },
    /// Well-formed records that the topic does not take: every one of them. Answered INVALID_TIMESTAMP if one of the
    /// faults is a timestamp, else INVALID_RECORD.
    Refused(Vec<RecordError>),
}

/// One record that the topic does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordError {
    pub index: i32,
    pub reason: Refusal,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NullKey,
    Timestamp { timestamp: i64, earliest: i64, latest: i64 },
}

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordFault {
    /// A varint is too long or cut off.
    Varint,
    /// A length is negative where it may not be, or points past the record.
    Length,
    /// The record's fields end before its length does.
    Trailing,
    HeaderCount,
}

/// One record, borrowed from the bytes it lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    pub offset_delta: i32,
    pub offset: Offset,
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// The headers of one record, in order; keys may repeat. They were checked when the record was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<'a> {
    count: i32,
    bytes: &'a [u8],
}

/// Iterates over the records of one batch. Ends after the claimed count, at the end of the bytes, or with one error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: i32,
    base_offset: Offset,
    base_timestamp: i64,
    /// In a LogAppendTime batch every record's time is the header's `max_timestamp`.
    append_time: Option<i64>,
}

/// The unpacked records of `batch`, for `Records::new`. An uncompressed batch has its records in place and need not be
/// copied through this.
pub fn decompress_records(batch: &Batch<'_>, limit: usize) -> Result<Vec<u8>, WalkError> {
    let codec = batch.compression().ok_or(WalkError::UnknownCodec)?;
    compress::decompress(codec, batch.records_bytes(), limit).map_err(WalkError::Decompress)
}

/// Checks the records of a client's batch whose header was checked before. Opens a compressed one.
pub fn walk(batch: &Batch<'_>, checks: &Checks) -> Result<Walked, WalkError> {
    match batch.compression() {
        Some(Codec::None) => walk_records(batch, batch.records_bytes(), checks),
        Some(_) => {
            let records = decompress_records(batch, checks.decompressed_bytes_max)?;
            walk_records(batch, &records, checks)
        }
        None => Err(WalkError::UnknownCodec),
    }
}

/// `walk` over records that were unpacked already.
pub fn walk_records(batch: &Batch<'_>, records: &[u8], checks: &Checks) -> Result<Walked, WalkError> {
    let claimed = batch.record_count();
    let mut walked = Walked { max_timestamp: NO_TIMESTAMP, max_timestamp_delta: 0, offsets_are_dense: true };
    let mut refused = Vec::new();
    let mut iter = Records::with_claimed_times(batch, records);
    let mut found = 0i32;
    for record in iter.by_ref() {
        let record = record.map_err(|fault| WalkError::Malformed { index: found, fault })?;
        if let Some(reason) = checks.refusal(&record) {
            refused.push(RecordError { index: found, reason });
        }
        if record.timestamp > walked.max_timestamp {
            walked.max_timestamp = record.timestamp;
            walked.max_timestamp_delta = record.offset_delta;
        }
        walked.offsets_are_dense &= record.offset_delta == found;
        found += 1;
    }
    if found < claimed {
        return Err(WalkError::Fewer { claimed, found });
    }
    if !iter.rest.is_empty() {
        return Err(WalkError::More { claimed });
    }
    if refused.is_empty() { Ok(walked) } else { Err(WalkError::Refused(refused)) }
}

impl Checks {
    /// As in Kafka a missing key hides a wrong timestamp of the same record.
    fn refusal(&self, record: &Record<'_>) -> Option<Refusal> {
        if self.compacted && record.key.is_none() {
            return Some(Refusal::NullKey);
        }
        let bounds = self.timestamps.as_ref()?;
        let timestamp = record.timestamp;
        let (earliest, latest) = (
            bounds.now_ms.saturating_sub(bounds.before_max_ms),
            bounds.now_ms.saturating_add(bounds.after_max_ms),
        );
        let in_range = timestamp == NO_TIMESTAMP || (earliest..=latest).contains(&timestamp);
        if in_range { None } else { Some(Refusal::Timestamp { timestamp, earliest, latest }) }
    }
}

impl WalkError {
    /// Kafka's INVALID_TIMESTAMP wins over INVALID_RECORD where both apply.
    pub fn is_timestamp(&self) -> bool {
        match self {
            WalkError::Refused(errors) => {
                errors.iter().any(|error| matches!(error.reason, Refusal::Timestamp { .. }))
            }
            WalkError::Decompress(_)
            | WalkError::UnknownCodec
            | WalkError::Malformed { .. }
            | WalkError::Fewer { .. }
            | WalkError::More { .. } => false,
        }
    }

    /// The records to name in the answer; only refused ones have an index there.
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            WalkError::Refused(errors) => errors,
            WalkError::Decompress(_)
            | WalkError::UnknownCodec
            | WalkError::Malformed { .. }
            | WalkError::Fewer { .. }
            | WalkError::More { .. } => &[],
        }
    }
}

impl<'a> Records<'a> {
    /// Over `records`: the bytes of an uncompressed batch (`batch.records_bytes()`), or what they unpacked to.
    pub fn new(batch: &Batch<'_>, records: &'a [u8]) -> Records<'a> {
        let mut iter = Records::with_claimed_times(batch, records);
        if batch.timestamp_type() == TimestampType::LogAppendTime {
            iter.append_time = Some(batch.max_timestamp());
        }
        iter
    }

    /// Whatever the flag says, the times that the records themselves carry.
    pub(super) fn with_claimed_times(batch: &Batch<'_>, records: &'a [u8]) -> Records<'a> {
        Records {
            rest: records,
            left: batch.record_count(),
            base_offset: batch.base_offset(),
            base_timestamp: batch.base_timestamp(),
            append_time: None,
        }
    }

    /// The bytes not read yet: empty after the last record of a sound batch.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn read(&mut self) -> Result<Record<'a>, RecordFault> {
        let mut outer = Cursor { rest: self.rest };
        let length = outer.length()?.ok_or(RecordFault::Length)?;
        let mut cursor = Cursor { rest: outer.take(length)? };
        cursor.take(1)?; // Record attributes are unused.
        let timestamp_delta = cursor.varlong()?;
        let offset_delta = cursor.varint()?;
        let key = cursor.nullable_bytes()?;
        let value = cursor.nullable_bytes()?;
        let headers = cursor.headers()?;
        if !cursor.rest.is_empty() {
            return Err(RecordFault::Trailing);
        }
        self.rest = outer.rest;
        let claimed_time = self.base_timestamp.wrapping_add(timestamp_delta);
        Ok(Record {
            offset_delta,
            offset: Offset(self.base_offset.0.wrapping_add(i64::from(offset_delta))),
            timestamp: self.append_time.unwrap_or(claimed_time),
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 || self.rest.is_empty() {
            return None;
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count <= 0 {
            return None;
        }
        self.count -= 1;
        let mut cursor = Cursor { rest: self.bytes };
        let header = cursor.header().ok()?;
        self.bytes = cursor.rest;
        Some(header)
    }
}

impl Headers<'_> {
    /// How many are not read yet.
    pub fn left(&self) -> i32 {
        self.count
    }
}

/// Reads fields off the front of a slice, each bounded by what is left of it.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordFault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(RecordFault::Length)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<i32, RecordFault> {
        let (value, length) = varint::read_i32(self.rest).ok_or(RecordFault::Varint)?;
        self.rest = self.rest.get(length..).ok_or(RecordFault::Varint)?;
        Ok(value)
    }

    fn varlong(&mut self) -> Result<i64, RecordFault> {
        let (value, length) = varint::read_i64(self.rest).ok_or(RecordFault::Varint)?;
        self.rest = self.rest.get(length..).ok_or(RecordFault::Varint)?;
        Ok(value)
    }

    /// A length, `None` if negative: as in Kafka every negative length means null.
    fn length(&mut self) -> Result<Option<usize>, RecordFault> {
        Ok(usize::try_from(self.varint()?).ok())
    }

    fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, RecordFault> {
        match self.length()? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), RecordFault> {
        let key = self.nullable_bytes()?.ok_or(RecordFault::Length)?;
        Ok((key, self.nullable_bytes()?))
    }

    fn headers(&mut self) -> Result<Headers<'a>, RecordFault> {
        let count = self.varint()?;
        if count < 0 {
            return Err(RecordFault::HeaderCount);
        }
        let bytes = self.rest;
        // A claimed count costs nothing: the first header past the end of the record ends the loop.
        for _ in 0..count {
            self.header()?;
        }
        let length = bytes.len() - self.rest.len();
        Ok(Headers { count, bytes: bytes.get(..length).unwrap_or(&[]) })
    }
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalkError::Decompress(error) => error.fmt(f),
            WalkError::UnknownCodec => write!(f, "the batch's compression type does not exist"),
            WalkError::Malformed { index, fault } => write!(f, "record {index} is malformed: {fault}"),
            WalkError::Fewer { claimed, found } => {
                write!(f, "the batch claims {claimed} records and has {found}")
            }
            WalkError::More { claimed } => {
                write!(f, "bytes are left behind the {claimed} records of the batch")
            }
            WalkError::Refused(errors) => match errors.as_slice() {
                [] => write!(f, "no record was refused"),
                [first, ..] => write!(f, "{} records were refused: {}", errors.len(), first.reason),
            },
        }
    }
}

impl std::error::Error for WalkError {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NullKey => write!(f, "Compacted topic cannot accept message without key."),
            Refusal::Timestamp { timestamp, earliest, latest } => write!(
                f,
                "Timestamp {timestamp} of message is out of range. \
                 The timestamp should be within [{earliest}, {latest}]."
            ),
        }
    }
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordFault::Varint => write!(f, "a varint is too long or cut off"),
            RecordFault::Length => write!(f, "a length is negative or points past the record"),
            RecordFault::Trailing => write!(f, "bytes are left behind its fields"),
            RecordFault::HeaderCount => write!(f, "its header count is negative"),
        }
    }
}

#[cfg(test)]
mod tests;
