//! Whether a batch may enter the log, before anything of the log's state is looked at. Pure.
//!
//! The order of the checks is Kafka's; the first that fails decides. An uncompressed batch is walked; a compressed one
//! is opened only where the answer depends on it (compacted topic, untrue `max_timestamp`, recompression, strict
//! validation), and then off the core ([`opens_batch`]). What is written differs from what was sent only in the header
//! that is carried beside the records, unless the topic recompresses.

use super::{AppendError, AppendKind, LogConfig};
use crate::batch::compress;
use crate::batch::walk::{self, Checks, Refusal, TimestampBounds, WalkError};
use crate::batch::{self, Batch, Codec, TimestampType};
use crate::ids::Offset;
use rt::Slice;

/// A batch that may be appended: its records, and the header that will stand before them.
pub(super) struct Admitted {
    pub header: [u8; batch::HEADER_BYTES],
    /// The whole batch as it came; its first 61 bytes are replaced by `header`.
    pub bytes: Slice,
    /// What LogAppendTime answers; -1 otherwise.
    pub log_append_time_ms: i64,
}

impl Admitted {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Cuts the one batch out of what a client sent: a fragment behind it is trimmed, a second batch is refused.
pub(super) fn single_batch(records: &Slice) -> Result<Slice, AppendError> {
    let total = match Batch::parse(records) {
        Ok((_, total)) => total,
        Err(batch::Error::Incomplete { .. }) => return Err(not_one("The request holds no whole batch.")),
        Err(batch::Error::OldMagic(magic)) => {
            return Err(not_one(&format!("Record format v{magic} is not supported, only v2.")));
        }
        Err(batch::Error::Length(_) | batch::Error::Magic(_)) => return Err(AppendError::Corrupt),
    };
    match Batch::parse(&records[total..]) {
        Err(batch::Error::Incomplete { .. }) => Ok(records.slice(0..total)),
        Ok(_) => Err(not_one("A partition of a request holds exactly one batch.")),
        Err(batch::Error::OldMagic(_) | batch::Error::Length(_) | batch::Error::Magic(_)) => {
            Err(AppendError::Corrupt)
        }
    }
}

/// Whether the records must be unpacked, which takes too long for the core.
pub(super) fn opens_batch(batch: &Batch<'_>, config: &LogConfig) -> bool {
    let codec = batch.compression();
    let packed = codec.is_some_and(|codec| codec != Codec::None);
    let recompressed = config.compression.is_some() && config.compression != codec;
    // The first record's time is in the header too: a largest time below it was never set, or set wrongly.
    let untrue = batch.max_timestamp() < batch.base_timestamp().max(0);
    let untrue = config.timestamp_type == TimestampType::CreateTime && untrue;
    recompressed || (packed && (config.compacted || config.strict || untrue))
}

/// Every check that needs no state, and the header to store.
pub(super) fn admit(
    bytes: Slice,
    kind: AppendKind,
    config: &LogConfig,
    decompressed_bytes_max: usize,
    now_ms: i64,
) -> Result<Admitted, AppendError> {
    let (batch, total) = Batch::parse(&bytes).map_err(|_| AppendError::Corrupt)?;
    assert!(total == bytes.len());
    if kind == AppendKind::Client && batch.base_offset() != Offset::ZERO {
        return Err(invalid("The base offset of a produced batch is 0."));
    }
    check_size(total, config)?;
    if !batch.crc_is_valid() {
        return Err(AppendError::Corrupt);
    }
    if kind == AppendKind::Client {
        batch.check_client_header().map_err(|fault| invalid(&fault.to_string()))?;
        if batch.is_transactional() {
            return Err(invalid("Transactional batches are not supported."));
        }
    }
    let opens = opens_batch(&batch, config);
    let packed = batch.compression() != Some(Codec::None);
    let mut max_timestamp = batch.max_timestamp();
    if kind == AppendKind::Client && (opens || !packed) {
        max_timestamp = walked(&batch, config, decompressed_bytes_max, now_ms)?;
    } else if kind == AppendKind::Client {
        check_time(batch.max_timestamp(), config, now_ms)?;
    }
    if config.timestamp_type == TimestampType::LogAppendTime
        && batch.timestamp_type() == TimestampType::LogAppendTime
        && kind == AppendKind::Client
    {
        return Err(AppendError::InvalidTimestamp {
            message: "The batch claims log append time.".into(),
            // Kafka looks at the first record and goes no further.
            record_errors: vec![(0, "The batch claims log append time.".into())],
        });
    }
    let stored = match config.compression {
        Some(codec) if batch.compression() != Some(codec) && kind == AppendKind::Client => {
            let packed = recompressed(&batch, codec, decompressed_bytes_max)?;
            check_size(packed.len(), config)?;
            Slice::from(packed)
        }
        Some(_) | None => bytes,
    };
    if stored.len() as u64 > config.segment_bytes {
        return Err(AppendError::RecordListTooLarge);
    }
    Ok(finished(stored, config, max_timestamp, now_ms))
}

/// The same records in the topic's own packing, under a header that says so.
fn recompressed(batch: &Batch<'_>, codec: Codec, unpacked_bytes_max: usize) -> Result<Vec<u8>, AppendError> {
    let records = walk::decompress_records(batch, unpacked_bytes_max).map_err(refused)?;
    let packed = compress::compress(codec, &records, None);
    let mut whole = batch.bytes()[..batch::HEADER_BYTES].to_vec();
    whole.extend_from_slice(&packed);
    let length =
        i32::try_from(whole.len() - batch::LOG_OVERHEAD).map_err(|_| AppendError::MessageTooLarge)?;
    whole[8..12].copy_from_slice(&length.to_be_bytes());
    whole[22] = whole[22] & !0x07 | codec.id();
    batch::reseal(&mut whole);
    Ok(whole)
}

fn check_size(bytes: usize, config: &LogConfig) -> Result<(), AppendError> {
    match bytes as u64 > u64::from(config.max_message_bytes) {
        true => Err(AppendError::MessageTooLarge),
        false => Ok(()),
    }
}

/// The largest time of the records, after they were walked.
fn walked(
    batch: &Batch<'_>,
    config: &LogConfig,
    decompressed_bytes_max: usize,
    now_ms: i64,
) -> Result<i64, AppendError> {
    let timestamps = (config.timestamp_type == TimestampType::CreateTime).then_some(bounds(config, now_ms));
    let checks = Checks { compacted: config.compacted, timestamps, decompressed_bytes_max };
    let walked = walk::walk(batch, &checks).map_err(refused)?;
    Ok(walked.max_timestamp)
}

fn bounds(config: &LogConfig, now_ms: i64) -> TimestampBounds {
    TimestampBounds { now_ms, before_max_ms: config.before_max_ms, after_max_ms: config.after_max_ms }
}

fn refused(error: WalkError) -> AppendError {
    let message = error.to_string();
    let record_errors = error.record_errors().iter().map(|record| {
        let why = match record.reason {
            Refusal::NullKey => "a compacted topic needs a key".to_owned(),
            Refusal::Timestamp { timestamp, earliest, latest } => {
                format!("the time {timestamp} lies outside of {earliest} to {latest}")
            }
        };
        (record.index, why)
    });
    let record_errors = record_errors.collect();
    match error.is_timestamp() {
        true => AppendError::InvalidTimestamp { message, record_errors },
        false => AppendError::InvalidRecord { message, record_errors },
    }
}

/// A packed batch that is not opened is judged by what its header says.
fn check_time(timestamp: i64, config: &LogConfig, now_ms: i64) -> Result<(), AppendError> {
    let early = now_ms.saturating_sub(timestamp) > config.before_max_ms;
    let late = timestamp.saturating_sub(now_ms) > config.after_max_ms;
    if config.timestamp_type == TimestampType::LogAppendTime || timestamp < 0 || !(early || late) {
        return Ok(());
    }
    let message = format!("The time {timestamp} is out of the range that the topic accepts at {now_ms}.");
    Err(AppendError::InvalidTimestamp { message, record_errors: Vec::new() })
}

/// The header as it will be stored, but for base offset and epoch. Redoes the CRC only if something under it changed.
fn finished(bytes: Slice, config: &LogConfig, max_timestamp: i64, now_ms: i64) -> Admitted {
    let mut header = *bytes.first_chunk().expect("the batch was parsed");
    let log_append_time = config.timestamp_type == TimestampType::LogAppendTime;
    let wanted = if log_append_time { now_ms } else { max_timestamp };
    let flagged = header[22] & 0x08 != 0;
    let stored = i64::from_be_bytes(std::array::from_fn(|at| header[35 + at]));
    if stored != wanted || flagged != log_append_time {
        header[22] = if log_append_time { header[22] | 0x08 } else { header[22] & !0x08 };
        header[35..43].copy_from_slice(&wanted.to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[21..]), &bytes[batch::HEADER_BYTES..]);
        header[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    Admitted { header, bytes, log_append_time_ms: if log_append_time { now_ms } else { -1 } }
}

fn not_one(message: &str) -> AppendError {
    AppendError::NotOneBatch(message.to_owned())
}

fn invalid(message: &str) -> AppendError {
    AppendError::InvalidRecord { message: message.to_owned(), record_errors: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::build::BatchBuilder;

    const EARLY: i64 = 1_000;
    const LATE: i64 = 2_000;

    /// Two records, of `EARLY` and `LATE`, under a header that says `sent`. What is stored as the largest time, and
    /// whether the batch was opened for it.
    fn check(codec: Codec, sent: i64, strict: bool, expect: (i64, bool)) {
        let mut builder = BatchBuilder::new(codec);
        builder.append(EARLY, None, Some(b"a"), &[]);
        builder.append(LATE, None, Some(b"b"), &[]);
        let mut bytes = builder.finish();
        bytes[35..43].copy_from_slice(&sent.to_be_bytes());
        batch::reseal(&mut bytes);
        let config = LogConfig { strict, after_max_ms: i64::MAX, ..LogConfig::default() };
        let opens = opens_batch(&Batch::parse(&bytes).expect("whole").0, &config);
        let admitted = admit(Slice::from(bytes), AppendKind::Client, &config, 1 << 20, 0).expect("admitted");
        let mut stored = admitted.header.to_vec();
        stored.extend_from_slice(&admitted.bytes[batch::HEADER_BYTES..]);
        let (stored, _) = Batch::parse(&stored).expect("whole");
        assert!(stored.crc_is_valid());
        assert_eq!((stored.max_timestamp(), opens), expect, "{codec:?}, {sent} sent, strict {strict}");
    }

    #[test]
    fn the_largest_time_is_made_true_where_it_cannot_be() {
        for sent in [-1, 0, EARLY, LATE, 9_000] {
            check(Codec::None, sent, false, (LATE, false));
            check(Codec::Zstd, sent, true, (LATE, true));
        }
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            check(codec, -1, false, (LATE, true));
            check(codec, EARLY - 1, false, (LATE, true));
            // What could be true is believed.
            check(codec, EARLY, false, (EARLY, false));
            check(codec, 9_000, false, (9_000, false));
        }
    }

    #[test]
    fn only_strict_validation_finds_a_lie_inside_a_compressed_batch() {
        let mut builder = BatchBuilder::new(Codec::Gzip);
        builder.append(EARLY, None, Some(b"a"), &[]);
        let mut bytes = builder.finish();
        // Two records claimed, one there.
        bytes[23..27].copy_from_slice(&1i32.to_be_bytes());
        bytes[57..61].copy_from_slice(&2i32.to_be_bytes());
        batch::reseal(&mut bytes);
        for strict in [false, true] {
            let config = LogConfig { strict, after_max_ms: i64::MAX, ..LogConfig::default() };
            let admitted = admit(Slice::from(bytes.clone()), AppendKind::Client, &config, 1 << 20, 0);
            assert_eq!(matches!(admitted, Err(AppendError::InvalidRecord { .. })), strict);
        }
    }
}
