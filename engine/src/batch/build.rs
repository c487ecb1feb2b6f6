//! Builds record batches as a client would: for the load generator, the command line, internal topics and tests.
//!
//! Records are written once, right behind the room for the header; only a codec makes a second buffer. A load generator
//! builds a batch once and re-stamps it with `batch::set_producer`, which costs a CRC pass.

use super::compress::compress;
use super::walk::{Records, WalkError, decompress_records};
use super::{
    Batch, CODEC_MASK, CONTROL, Codec, HEADER_BYTES, LOG_OVERHEAD, NO_SEQUENCE, NO_TIMESTAMP, TRANSACTIONAL,
    reseal, write_field,
};
use crate::ids::{LeaderEpoch, Offset, ProducerId};
use crate::varint;

/// A batch in the making. Everything about it but the records may be set in any order before `finish`.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    level: Option<i32>,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer: (ProducerId, i16, i32),
    flags: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    record_count: i32,
    last_offset_delta: i32,
    /// Room for the header, then the records.
    bytes: Vec<u8>,
}

/// A record's header: a key, and a value that may be null.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

impl BatchBuilder {
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder::with_capacity(codec, 0)
    }

    /// With room for `records_bytes` of records.
    pub fn with_capacity(codec: Codec, records_bytes: usize) -> BatchBuilder {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + records_bytes);
        bytes.resize(HEADER_BYTES, 0);
        BatchBuilder {
            codec,
            level: None,
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::UNKNOWN,
            producer: (ProducerId::NONE, -1, NO_SEQUENCE),
            flags: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            record_count: 0,
            last_offset_delta: -1,
            bytes,
        }
    }

    pub fn level(mut self, level: i32) -> BatchBuilder {
        self.level = Some(level);
        self
    }

    /// Makes the batch idempotent.
    pub fn producer(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> BatchBuilder {
        self.producer = (id, epoch, base_sequence);
        self
    }

    pub fn transactional(mut self) -> BatchBuilder {
        self.flags |= TRANSACTIONAL;
        self
    }

    /// Makes it a transaction marker's batch. No client may send one.
    pub fn control(mut self) -> BatchBuilder {
        self.flags |= CONTROL;
        self
    }

    pub fn base_offset(mut self, offset: Offset) -> BatchBuilder {
        self.base_offset = offset;
        self
    }

    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> BatchBuilder {
        self.leader_epoch = epoch;
        self
    }

    /// Adds a record at the next offset.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> &mut BatchBuilder {
        self.append_at(self.last_offset_delta + 1, timestamp, key, value, headers)
    }

    /// Adds a record at an offset of its own, which compaction and tests of hostile batches need.
    pub fn append_at(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> &mut BatchBuilder {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.record_count += 1;
        self.last_offset_delta = offset_delta;
        self.write(offset_delta, timestamp, key, value, headers);
        self
    }

    fn write(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let body = 1
            + varint::len_i64(timestamp_delta)
            + varint::len_i32(offset_delta)
            + len_of_nullable(key)
            + len_of_nullable(value)
            + varint::len_i32(length_of(headers.len()))
            + headers
                .iter()
                .map(|(key, value)| len_of_nullable(Some(key)) + len_of_nullable(*value))
                .sum::<usize>();
        let out = &mut self.bytes;
        varint::write_i32(out, length_of(body));
        out.push(0);
        varint::write_i64(out, timestamp_delta);
        varint::write_i32(out, offset_delta);
        write_nullable(out, key);
        write_nullable(out, value);
        varint::write_i32(out, length_of(headers.len()));
        for (key, value) in headers {
            write_nullable(out, Some(key));
            write_nullable(out, *value);
        }
    }

    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// The size of the batch if it were finished now without compression.
    pub fn uncompressed_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The whole batch.
    pub fn finish(self) -> Vec<u8> {
        let mut batch = match self.codec {
            Codec::None => self.bytes,
            Codec::Gzip | Codec::Snappy | Codec::Lz4 | Codec::Zstd => {
                let (header, records) = self.bytes.split_at(HEADER_BYTES);
                let mut batch = header.to_vec();
                batch.extend_from_slice(&compress(self.codec, records, self.level));
                batch
            }
        };
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let attributes = i16::from(self.codec.id()) | self.flags;
        write_field(&mut batch, 0, self.base_offset.0.to_be_bytes());
        let length = length_of(batch.len() - LOG_OVERHEAD);
        write_field(&mut batch, 8, length.to_be_bytes());
        write_field(&mut batch, 12, self.leader_epoch.0.to_be_bytes());
        write_field(&mut batch, 16, [2]);
        write_field(&mut batch, 21, attributes.to_be_bytes());
        write_field(&mut batch, 23, self.last_offset_delta.to_be_bytes());
        write_field(&mut batch, 27, self.base_timestamp.to_be_bytes());
        write_field(&mut batch, 35, self.max_timestamp.to_be_bytes());
        write_field(&mut batch, 43, producer_id.0.to_be_bytes());
        write_field(&mut batch, 51, producer_epoch.to_be_bytes());
        write_field(&mut batch, 53, base_sequence.to_be_bytes());
        write_field(&mut batch, 57, self.record_count.to_be_bytes());
        reseal(&mut batch);
        batch
    }
}

/// The batch packed with another codec. Its records are as they were, unless inner offsets have gaps: then, as in Kafka,
/// they are written anew, dense. Everything else of the header stays. The batch was walked before.
pub fn recompress(
    batch: &Batch<'_>,
    codec: Codec,
    level: Option<i32>,
    limit: usize,
) -> Result<Vec<u8>, WalkError> {
    let records = decompress_records(batch, limit)?;
    let records = dense(batch, records)?;
    let (header, _) = batch.bytes().split_at(HEADER_BYTES);
    let mut out = header.to_vec();
    out.extend_from_slice(&compress(codec, &records, level));
    let length = length_of(out.len() - LOG_OVERHEAD);
    write_field(&mut out, 8, length.to_be_bytes());
    let attributes = (batch.attributes() & !CODEC_MASK) | i16::from(codec.id());
    write_field(&mut out, 21, attributes.to_be_bytes());
    reseal(&mut out);
    Ok(out)
}

/// The same records at the offset deltas 0, 1, 2, ...
fn dense(batch: &Batch<'_>, records: Vec<u8>) -> Result<Vec<u8>, WalkError> {
    let mut builder = BatchBuilder::with_capacity(Codec::None, records.len());
    builder.base_timestamp = batch.base_timestamp();
    let mut is_dense = true;
    for (index, record) in (0..).zip(Records::with_claimed_times(batch, &records)) {
        let record = record.map_err(|fault| WalkError::Malformed { index, fault })?;
        is_dense &= record.offset_delta == index;
    }
    if is_dense {
        return Ok(records);
    }
    for (index, record) in (0..).zip(Records::with_claimed_times(batch, &records)) {
        let record = record.map_err(|fault| WalkError::Malformed { index, fault })?;
        let headers: Vec<Header<'_>> = record.headers.collect();
        builder.write(index, record.timestamp, record.key, record.value, &headers);
    }
    Ok(builder.bytes.split_off(HEADER_BYTES))
}

fn len_of_nullable(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len_i32(length_of(bytes.len())) + bytes.len())
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::write_i32(out, length_of(bytes.len()));
            out.extend_from_slice(bytes);
        }
        None => varint::write_i32(out, -1),
    }
}

fn length_of(length: usize) -> i32 {
    i32::try_from(length).expect("a batch has less than 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::super::TimestampType;
    use super::super::walk::{Checks, walk};
    use super::*;

    #[test]
    fn recompression_keeps_the_records_and_closes_gaps() {
        for (from, to) in Codec::ALL.into_iter().flat_map(|from| Codec::ALL.map(|to| (from, to))) {
            for gap in [0, 5] {
                let mut builder = BatchBuilder::new(from).producer(ProducerId(1), 0, 7);
                builder.append(50, Some(b"a"), Some(b"b"), &[(b"h", Some(b"v"))]);
                builder.append_at(1 + gap, 40, None, None, &[]);
                let mut bytes = builder.finish();
                write_field(&mut bytes, 23, 1i32.to_be_bytes());
                let batch = Batch::parse(&bytes).unwrap().0;
                let packed = recompress(&batch, to, None, 1 << 20).unwrap();
                let packed = Batch::parse(&packed).unwrap().0;
                assert!(packed.crc_is_valid());
                assert_eq!((packed.compression(), packed.base_sequence()), (Some(to), 7));
                let mut expect = BatchBuilder::new(Codec::None);
                expect.append(50, Some(b"a"), Some(b"b"), &[(b"h", Some(b"v"))]).append(40, None, None, &[]);
                let expect = expect.finish();
                let records = decompress_records(&packed, 1 << 20).unwrap();
                assert_eq!(records, expect[HEADER_BYTES..], "{from:?} {to:?} {gap}");
            }
        }
    }

    #[test]
    fn what_was_built_reads_back_with_every_codec() {
        let headers: [Header<'_>; 3] = [(b"a", Some(b"1")), (b"a", None), (b"", Some(b""))];
        for codec in Codec::ALL {
            let mut builder = BatchBuilder::new(codec)
                .producer(ProducerId(9), 2, i32::MAX)
                .base_offset(Offset(100))
                .leader_epoch(LeaderEpoch(4));
            builder.append(1000, Some(b"key"), None, &headers);
            builder.append(900, None, Some(&[7; 300]), &[]);
            let bytes = builder.finish();
            let (batch, total) = Batch::parse(&bytes).unwrap();
            assert_eq!(total, bytes.len());
            assert!(batch.crc_is_valid());
            assert_eq!(batch.check_client_header(), Ok(()));
            assert_eq!((batch.last_offset(), batch.last_sequence()), (Offset(101), 0));
            assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (1000, 1000));
            assert_eq!(batch.timestamp_type(), TimestampType::CreateTime);
            let records = decompress_records(&batch, 1 << 20).unwrap();
            let records: Vec<_> = Records::new(&batch, &records).map(Result::unwrap).collect();
            assert_eq!((records[0].offset, records[0].timestamp), (Offset(100), 1000));
            assert_eq!((records[0].key, records[0].value), (Some(&b"key"[..]), None));
            assert_eq!(records[0].headers.collect::<Vec<_>>(), headers);
            assert_eq!((records[1].offset, records[1].timestamp), (Offset(101), 900));
            assert_eq!((records[1].key, records[1].value), (None, Some(&[7; 300][..])));
            let checks = Checks { compacted: false, timestamps: None, decompressed_bytes_max: 1 << 20 };
            assert_eq!(walk(&batch, &checks).unwrap().max_timestamp, 1000);
        }
    }
}
