//! Batches as compaction leaves them: with fewer records, with none, or standing for batches that are gone.
//!
//! A rewritten batch keeps its offsets, base offset, last offset delta, producer, sequence, epoch, codec and the times of
//! its records; count, largest time and CRC are those of what is left. One that holds tombstones says in its base
//! timestamp, under a flag, when they may go (KIP-534); the records' times are counted from there.

use super::compress::{self, compress};
use super::walk::{Record, RecordFault, Records};
use super::{
    Batch, Codec, DELETE_HORIZON, HEADER_BYTES, LOG_APPEND_TIME, LOG_OVERHEAD, NO_TIMESTAMP, TRANSACTIONAL,
    TimestampType, reseal, write_field,
};
use crate::ids::LeaderEpoch;
use crate::varint;
use std::borrow::Cow;
use std::ops::Range;

/// The unpacked records of a batch that are what its header says: as many, rising, within its offsets.
pub struct Opened<'a> {
    batch: Batch<'a>,
    records: Cow<'a, [u8]>,
}

/// Why the records of a batch are not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsound {
    UnknownCodec,
    Packed(compress::Error),
    Record(RecordFault),
    Count,
    /// A record claims an offset that is another batch's, or another record's.
    Offset,
}

impl<'a> Opened<'a> {
    pub fn of(batch: Batch<'a>, limit: usize) -> Result<Opened<'a>, Unsound> {
        let records = match batch.compression() {
            Some(Codec::None) => Cow::Borrowed(batch.records_bytes()),
            // An emptied batch says no codec, but nothing keeps a packed one from having no bytes.
            Some(_) if batch.records_bytes().is_empty() => Cow::Borrowed(batch.records_bytes()),
            Some(codec) => {
                let unpacked = compress::decompress(codec, batch.records_bytes(), limit);
                Cow::Owned(unpacked.map_err(Unsound::Packed)?)
            }
            None => return Err(Unsound::UnknownCodec),
        };
        let opened = Opened { batch, records };
        opened.check()?;
        Ok(opened)
    }

    fn check(&self) -> Result<(), Unsound> {
        let mut next = self.batch.base_offset();
        let mut iter = Records::with_claimed_times(&self.batch, &self.records);
        let mut count = 0;
        for record in iter.by_ref() {
            let record = record.map_err(Unsound::Record)?;
            if record.offset < next || record.offset > self.batch.last_offset() {
                return Err(Unsound::Offset);
            }
            next = record.offset.next();
            count += 1;
        }
        let whole = count == self.batch.record_count() && iter.rest().is_empty();
        if whole { Ok(()) } else { Err(Unsound::Count) }
    }

    /// Each record with its bytes.
    pub fn records(&self) -> impl Iterator<Item = (Record<'_>, &[u8])> {
        let mut iter = Records::with_claimed_times(&self.batch, &self.records);
        std::iter::from_fn(move || {
            let before = iter.rest();
            let record = iter.next()?.ok()?;
            Some((record, &before[..before.len() - iter.rest().len()]))
        })
    }

    /// The batch with those records that `keep` says yes to, of which there must be one, and the time after which its
    /// tombstones may go, if that is new to it.
    pub fn rewritten(&self, mut keep: impl FnMut(&Record<'_>) -> bool, horizon_ms: Option<i64>) -> Vec<u8> {
        let batch = &self.batch;
        let mut kept = Vec::with_capacity(self.records.len());
        let (mut count, mut max_timestamp) = (0, NO_TIMESTAMP);
        for (record, raw) in self.records() {
            if !keep(&record) {
                continue;
            }
            match horizon_ms {
                Some(horizon_ms) => rebase(raw, record.timestamp.wrapping_sub(horizon_ms), &mut kept),
                None => kept.extend_from_slice(raw),
            }
            count += 1;
            max_timestamp = max_timestamp.max(record.timestamp);
        }
        assert!(count > 0);
        if batch.timestamp_type() == TimestampType::LogAppendTime {
            max_timestamp = batch.max_timestamp();
        }
        let codec = batch.compression().expect("it was opened");
        let packed = if codec == Codec::None { kept } else { compress(codec, &kept, None) };
        let mut out = Vec::with_capacity(HEADER_BYTES + packed.len());
        out.extend_from_slice(batch.header);
        out.extend_from_slice(&packed);
        if let Some(horizon_ms) = horizon_ms {
            write_field(&mut out, 21, (batch.attributes() | DELETE_HORIZON).to_be_bytes());
            write_field(&mut out, 27, horizon_ms.to_be_bytes());
        }
        write_field(&mut out, 35, max_timestamp.to_be_bytes());
        sealed(out, count)
    }
}

/// The batch without its records: what its producer's window and the log's end are known by.
pub fn emptied(batch: &Batch<'_>) -> Vec<u8> {
    let mut out = batch.header.to_vec();
    let attributes = batch.attributes() & (LOG_APPEND_TIME | TRANSACTIONAL);
    write_field(&mut out, 21, attributes.to_be_bytes());
    write_field(&mut out, 27, NO_TIMESTAMP.to_be_bytes());
    sealed(out, 0)
}

/// A batch without records that stands for offsets whose batches are gone. One has room for 2^31 of them.
pub fn filler(offsets: &Range<i64>, epoch: LeaderEpoch) -> Vec<u8> {
    assert!(offsets.start < offsets.end);
    let mut out = vec![0; HEADER_BYTES];
    write_field(&mut out, 0, offsets.start.to_be_bytes());
    write_field(&mut out, 12, epoch.0.to_be_bytes());
    write_field(&mut out, 16, [2]);
    let delta = i32::try_from(offsets.end - offsets.start - 1).expect("the caller bounds how many there are");
    write_field(&mut out, 23, delta.to_be_bytes());
    // No time, no producer, no sequence.
    out[27..57].fill(0xff);
    sealed(out, 0)
}

/// Whether the batch is nothing but a stand-in.
pub fn is_filler(batch: &Batch<'_>) -> bool {
    batch.record_count() == 0 && batch.producer_id().is_none() && !batch.is_control()
}

fn sealed(mut batch: Vec<u8>, count: i32) -> Vec<u8> {
    let length = i32::try_from(batch.len() - LOG_OVERHEAD).expect("a batch has less than 2 GiB");
    write_field(&mut batch, 8, length.to_be_bytes());
    write_field(&mut batch, 57, count.to_be_bytes());
    reseal(&mut batch);
    batch
}

/// The record with another timestamp delta; everything else as it was.
fn rebase(raw: &[u8], timestamp_delta: i64, out: &mut Vec<u8>) {
    let skip = |bytes: &[u8]| varint::read_i64(bytes).expect("the record was read before").1;
    // Length, one byte of attributes, the old delta.
    let body = &raw[skip(raw)..];
    let (attributes, timed) = body.split_at(1);
    let rest = &timed[skip(timed)..];
    let length = 1 + varint::len_i64(timestamp_delta) + rest.len();
    varint::write_i32(out, i32::try_from(length).expect("a record has less than 2 GiB"));
    out.extend_from_slice(attributes);
    varint::write_i64(out, timestamp_delta);
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::super::build::BatchBuilder;
    use super::super::set_log_append_time;
    use super::*;
    use crate::ids::{Offset, ProducerId};

    type Seen = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, usize);

    fn seen(batch: Batch<'_>) -> Vec<Seen> {
        let opened = Opened::of(batch, 1 << 20).expect("sound");
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let records = Records::new(&batch, &opened.records).map(Result::unwrap);
        records.map(|r| (r.offset.0, r.timestamp, owned(r.key), owned(r.value), r.headers.count())).collect()
    }

    fn sample(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec)
            .producer(ProducerId(9), 2, 40)
            .base_offset(Offset(100))
            .leader_epoch(LeaderEpoch(4));
        builder.append(1000, Some(b"a"), Some(b"1"), &[(b"h", Some(b"v"))]);
        builder.append(3000, Some(b"b"), Some(&[7; 300]), &[]);
        builder.append(2000, Some(b"c"), None, &[]);
        builder.finish()
    }

    #[test]
    fn a_rewritten_batch_keeps_everything_but_what_went() {
        for codec in Codec::ALL {
            for log_append_time in [false, true] {
                for horizon in [None, Some(1 << 40)] {
                    let mut bytes = sample(codec);
                    if log_append_time {
                        set_log_append_time(&mut bytes, 5000);
                    }
                    let batch = Batch::parse(&bytes).unwrap().0;
                    let opened = Opened::of(batch, 1 << 20).unwrap();
                    let left = opened.rewritten(|record| record.offset != Offset(101), horizon);
                    let left = Batch::parse(&left).unwrap().0;
                    assert!(left.crc_is_valid());
                    let mut expect = seen(batch);
                    expect.remove(1);
                    assert_eq!(seen(left), expect, "{codec:?} {log_append_time} {horizon:?}");
                    let fields = |batch: &Batch<'_>| {
                        let producer = (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
                        let types = (batch.compression(), batch.timestamp_type());
                        (
                            batch.base_offset(),
                            batch.last_offset_delta(),
                            batch.leader_epoch(),
                            producer,
                            types,
                        )
                    };
                    assert_eq!(fields(&left), fields(&batch));
                    assert_eq!(left.record_count(), 2);
                    assert_eq!(left.max_timestamp(), if log_append_time { 5000 } else { 2000 });
                    assert_eq!(left.has_delete_horizon(), horizon.is_some());
                    assert_eq!(left.base_timestamp(), horizon.unwrap_or(1000));
                    // Once it is there it stays, and so do the times.
                    let bytes = left.bytes().to_vec();
                    let again = Opened::of(Batch::parse(&bytes).unwrap().0, 1 << 20).unwrap();
                    let again = again.rewritten(|record| record.offset == Offset(102), None);
                    let again = Batch::parse(&again).unwrap().0;
                    assert_eq!(seen(again), expect[1..]);
                    assert_eq!(again.has_delete_horizon(), horizon.is_some());
                }
            }
        }
    }

    #[test]
    fn an_emptied_batch_still_says_whose_it_was() {
        let bytes = sample(Codec::Zstd);
        let batch = Batch::parse(&bytes).unwrap().0;
        let empty = emptied(&batch);
        let (empty, total) = Batch::parse(&empty).unwrap();
        assert_eq!((total, empty.record_count(), empty.base_timestamp()), (HEADER_BYTES, 0, -1));
        assert!(empty.crc_is_valid() && !is_filler(&empty));
        assert_eq!((empty.last_offset(), empty.last_sequence()), (Offset(102), 42));
        assert_eq!((empty.max_timestamp(), empty.compression()), (3000, Some(Codec::None)));
        assert!(seen(empty).is_empty());
    }

    #[test]
    fn a_filler_stands_for_its_offsets() {
        let bytes = filler(&(7..10), LeaderEpoch(3));
        let (batch, total) = Batch::parse(&bytes).unwrap();
        assert!(batch.crc_is_valid() && is_filler(&batch));
        assert_eq!((total, batch.base_offset(), batch.next_offset()), (HEADER_BYTES, Offset(7), Offset(10)));
        assert_eq!((batch.leader_epoch(), batch.base_timestamp()), (LeaderEpoch(3), -1));
        assert_eq!((batch.max_timestamp(), batch.base_sequence()), (-1, -1));
    }

    #[test]
    fn records_that_are_not_what_the_header_says_are_not_believed() {
        let check = |change: &dyn Fn(&mut Vec<u8>), expect: Unsound| {
            let mut bytes = sample(Codec::None);
            change(&mut bytes);
            reseal(&mut bytes);
            let batch = Batch::parse(&bytes).unwrap().0;
            assert_eq!(Opened::of(batch, 1 << 20).err(), Some(expect));
        };
        check(&|bytes| write_field(bytes, 57, 2i32.to_be_bytes()), Unsound::Count);
        check(&|bytes| write_field(bytes, 57, 4i32.to_be_bytes()), Unsound::Count);
        // The last record lies at 102, which would be the next batch's.
        check(&|bytes| write_field(bytes, 23, 1i32.to_be_bytes()), Unsound::Offset);
        check(&|bytes| write_field(bytes, 21, 7i16.to_be_bytes()), Unsound::UnknownCodec);
        check(&|bytes| bytes[HEADER_BYTES] = 0xff, Unsound::Record(RecordFault::Length));
    }
}
