//! One Kafka record batch (format v2) as a view over the bytes a producer sent or a disk gave back.
//!
//! Nothing here is trusted: `Batch::parse` proves that the header is whole and that the batch ends inside the bytes, so
//! every accessor after it is infallible. It does not prove that the content is right: `crc_is_valid` does that for
//! what the CRC covers, `check_client_header` for what Kafka demands of a producer, `walk` for the records.
//!
//! The CRC-32C covers everything from `attributes` on. Base offset, length, leader epoch and magic lie before it: a
//! broker writes the first and third without touching the CRC, and damage to those four shows only in the segment's own
//! checksums (see `index`).
//!
//! ```text
//!  0        8       12       16 17      21   23           27
//!  +--------+--------+--------+--+-------+----+------------+
//!  | base   | length | leader |mg| crc   |attr| last offset|   all big-endian; length counts
//!  | offset |        | epoch  |=2|       |    | delta      |   the bytes after itself
//!  +--------+--------+--------+--+-------+----+------------+
//!  27             35             43         51    53      57      61
//!  +--------------+--------------+----------+-----+-------+-------+---------
//!  | base         | max          | producer |prod.| base  | record| records,
//!  | timestamp    | timestamp    | id       |epoch| seq.  | count | maybe compressed
//!  +--------------+--------------+----------+-----+-------+-------+---------
//!  attributes: bits 0-2 codec, 3 log append time, 4 transactional, 5 control, 6 base timestamp is a delete horizon
//! ```

pub mod build;
pub mod compress;
pub mod rewrite;
pub mod walk;

use crate::ids::{LeaderEpoch, Offset, ProducerId};
use std::fmt;

/// Bytes of base offset and length: what must be there to know how long a batch is.
pub const LOG_OVERHEAD: usize = 12;
/// Bytes up to and including the magic.
const UP_TO_MAGIC: usize = 17;
/// Bytes of a whole v2 header.
pub const HEADER_BYTES: usize = 61;
/// Kafka calls a shorter batch corrupt whatever its magic says.
const LENGTH_MIN: i32 = 14;
/// Where the bytes begin that the CRC covers.
pub const CRC_COVERS_FROM: usize = 21;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// What a field reads when it is not set: no producer, no sequence, no timestamp.
pub const NO_TIMESTAMP: i64 = -1;
pub const NO_SEQUENCE: i32 = -1;

/// Why bytes are not a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The bytes end before the batch does; `needed` is how many there must be to know more.
    Incomplete { needed: usize },
    /// The length field cannot be right. Zeros behind the end of a log read as this, with length 0.
    Length(i32),
    /// Messages of Kafka before 0.11, which a producer is told apart from damage (INVALID_RECORD).
    OldMagic(i8),
    /// No magic that ever was.
    Magic(i8),
}

/// Which codec packed the records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// Why Kafka refuses the header of a batch that a client sent. All of them answer INVALID_RECORD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    LastOffsetDelta(i32),
    RecordCount(i32),
    CountAgainstDelta { record_count: i32, last_offset_delta: i32 },
    Control,
    Sequence { producer_id: i64, base_sequence: i32 },
    ProducerEpoch { producer_id: i64, producer_epoch: i16 },
    TransactionalWithoutProducer,
    Codec(u8),
}

/// A whole batch: exactly its bytes, header and records.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    header: &'a [u8; HEADER_BYTES],
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch that `bytes` begin with, and its size. What follows it is not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<(Batch<'a>, usize), Error> {
        let total = total_bytes(bytes)?;
        let Some(bytes) = bytes.get(..total) else {
            return Err(Error::Incomplete { needed: total });
        };
        // `total_bytes` refused every batch that is shorter than its header.
        let header = bytes.first_chunk().ok_or(Error::Incomplete { needed: HEADER_BYTES })?;
        Ok((Batch { header, bytes }, total))
    }

    /// A header alone, for those who keep it beside the records: its fields read as ever, but it is 61 bytes long, has
    /// no records and its CRC cannot be checked. Nothing about it is proven.
    pub fn header_of(header: &'a [u8; HEADER_BYTES]) -> Batch<'a> {
        Batch { header, bytes: header }
    }

    pub fn base_offset(&self) -> Offset {
        Offset(i64::from_be_bytes(self.field::<0, 8>()))
    }

    /// The length of the whole batch, header included.
    pub fn length_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(i32::from_be_bytes(self.field::<12, 4>()))
    }

    /// Always 2: `parse` refuses the others.
    pub fn magic(&self) -> i8 {
        i8::from_be_bytes(self.field::<16, 1>())
    }

    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field::<17, 4>())
    }

    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field::<21, 2>())
    }

    /// `None` for the ids 5 to 7, which name no codec.
    pub fn compression(&self) -> Option<Codec> {
        Codec::from_id(self.codec_id())
    }

    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes() & LOG_APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// Compaction keeps the time after which a tombstone goes in `base_timestamp` (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes() & DELETE_HORIZON != 0
    }

    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field::<23, 4>())
    }

    /// Inclusive. Saturates, because a damaged header may name anything.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset().0.saturating_add(i64::from(self.last_offset_delta())))
    }

    /// The offset after this batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field::<27, 8>())
    }

    /// What the header says. Some clients leave it unset: `walk` finds the real one.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field::<35, 8>())
    }

    /// The largest time of the records that are here: compaction leaves batches without any, whose header still says when
    /// their producer wrote.
    pub fn records_max_timestamp(&self) -> i64 {
        if self.record_count() == 0 { NO_TIMESTAMP } else { self.max_timestamp() }
    }

    pub fn producer_id(&self) -> ProducerId {
        ProducerId(i64::from_be_bytes(self.field::<43, 8>()))
    }

    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field::<51, 2>())
    }

    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field::<53, 4>())
    }

    /// Inclusive. Sequences wrap from `i32::MAX` to 0, inside a batch too; -1 where the batch has none.
    pub fn last_sequence(&self) -> i32 {
        let base = self.base_sequence();
        if base < 0 { NO_SEQUENCE } else { advance_sequence(base, self.last_offset_delta()) }
    }

    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(self.field::<57, 4>())
    }

    /// The records as they lie here, compressed or not.
    pub fn records_bytes(&self) -> &'a [u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or(&[])
    }

    /// One pass over the batch.
    pub fn crc_is_valid(&self) -> bool {
        crc_of(self.bytes) == self.crc()
    }

    /// What Kafka's `LogValidator.validateBatch` demands of a client's batch (hazard A13), and producer fields that
    /// agree with each other. The base offset, the size and the CRC come before it and are the caller's.
    pub fn check_client_header(&self) -> Result<(), HeaderFault> {
        let (record_count, last_offset_delta) = (self.record_count(), self.last_offset_delta());
        if last_offset_delta < 0 {
            return Err(HeaderFault::LastOffsetDelta(last_offset_delta));
        }
        if record_count <= 0 {
            return Err(HeaderFault::RecordCount(record_count));
        }
        if record_count - 1 != last_offset_delta {
            return Err(HeaderFault::CountAgainstDelta { record_count, last_offset_delta });
        }
        if self.is_control() {
            return Err(HeaderFault::Control);
        }
        self.check_client_producer()?;
        if self.compression().is_none() {
            return Err(HeaderFault::Codec(self.codec_id()));
        }
        Ok(())
    }

    fn check_client_producer(&self) -> Result<(), HeaderFault> {
        let producer_id = self.producer_id();
        if producer_id.is_none() {
            return match self.is_transactional() {
                true => Err(HeaderFault::TransactionalWithoutProducer),
                false => Ok(()),
            };
        }
        if self.base_sequence() < 0 {
            let base_sequence = self.base_sequence();
            return Err(HeaderFault::Sequence { producer_id: producer_id.0, base_sequence });
        }
        if self.producer_epoch() < 0 {
            let producer_epoch = self.producer_epoch();
            return Err(HeaderFault::ProducerEpoch { producer_id: producer_id.0, producer_epoch });
        }
        Ok(())
    }

    fn codec_id(&self) -> u8 {
        // The mask leaves three bits.
        (self.attributes() & CODEC_MASK).to_be_bytes()[1]
    }

    fn field<const AT: usize, const LEN: usize>(&self) -> [u8; LEN] {
        const { assert!(AT + LEN <= HEADER_BYTES) };
        std::array::from_fn(|index| self.header[AT + index])
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("base_offset", &self.base_offset().0)
            .field("last_offset", &self.last_offset().0)
            .field("length_bytes", &self.length_bytes())
            .field("leader_epoch", &self.leader_epoch().0)
            .field("record_count", &self.record_count())
            .finish_non_exhaustive()
    }
}

impl Codec {
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    pub fn from_id(id: u8) -> Option<Codec> {
        Codec::ALL.get(usize::from(id)).copied()
    }

    pub fn id(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    /// Kafka's name, as in `compression.type`. A topic says "uncompressed" where a producer says "none".
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    pub fn from_name(name: &str) -> Option<Codec> {
        match name {
            "uncompressed" => Some(Codec::None),
            _ => Codec::ALL.into_iter().find(|codec| codec.name() == name),
        }
    }
}

/// How many bytes the batch at the start of `bytes` has, from its first 17, and that its length and magic can be right.
/// The batch need not be there as a whole: recovery and read-ahead ask this of a prefix.
pub fn total_bytes(bytes: &[u8]) -> Result<usize, Error> {
    let Some(prefix) = bytes.first_chunk::<LOG_OVERHEAD>() else {
        return Err(Error::Incomplete { needed: LOG_OVERHEAD });
    };
    let length = i32::from_be_bytes(std::array::from_fn(|index| prefix[8 + index]));
    if length < LENGTH_MIN {
        return Err(Error::Length(length));
    }
    let Some(prefix) = bytes.first_chunk::<UP_TO_MAGIC>() else {
        return Err(Error::Incomplete { needed: UP_TO_MAGIC });
    };
    match i8::from_be_bytes([prefix[16]]) {
        2 => {}
        magic @ 0..=1 => return Err(Error::OldMagic(magic)),
        magic => return Err(Error::Magic(magic)),
    }
    let total = usize::try_from(length).map_err(|_| Error::Length(length))? + LOG_OVERHEAD;
    if total < HEADER_BYTES { Err(Error::Length(length)) } else { Ok(total) }
}

/// The whole batches that `bytes` begin with. Ends silently at a fragment or at the end; anything else that is not a
/// batch is one last error.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match Batch::parse(self.rest) {
            Ok((batch, total)) => {
                self.rest = self.rest.get(total..).unwrap_or(&[]);
                Some(Ok(batch))
            }
            Err(Error::Incomplete { .. }) => None,
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// The sequence `count` records after `sequence`, which must not be negative. A negative count is a damaged header's
/// and counts as 0.
pub fn advance_sequence(sequence: i32, count: i32) -> i32 {
    assert!(sequence >= 0);
    let sum = i64::from(sequence) + i64::from(count.max(0));
    // Sequences are the residues of 2^31.
    i32::try_from(sum & i64::from(i32::MAX)).expect("31 bits fit")
}

/// Writes the offset of the batch's first record. The CRC does not cover it.
pub fn set_base_offset(batch: &mut [u8], base_offset: Offset) {
    write_field(batch, 0, base_offset.0.to_be_bytes());
}

/// Writes the epoch of the leader that appends the batch. The CRC does not cover it.
pub fn set_leader_epoch(batch: &mut [u8], epoch: LeaderEpoch) {
    write_field(batch, 12, epoch.0.to_be_bytes());
}

/// Repairs a `max_timestamp` that a client left unset, and the CRC with it. Clears the log-append-time flag: on a
/// CreateTime topic Kafka accepts such a batch and takes the flag away.
pub fn set_max_timestamp(batch: &mut [u8], max_timestamp: i64) {
    write_field(batch, 35, max_timestamp.to_be_bytes());
    let attributes = read_attributes(batch) & !LOG_APPEND_TIME;
    write_field(batch, 21, attributes.to_be_bytes());
    reseal(batch);
}

/// Makes the broker's time the time of every record: sets the flag and `max_timestamp`, redoes the CRC, and leaves
/// records and base timestamp as they are.
pub fn set_log_append_time(batch: &mut [u8], now_ms: i64) {
    write_field(batch, 35, now_ms.to_be_bytes());
    let attributes = read_attributes(batch) | LOG_APPEND_TIME;
    write_field(batch, 21, attributes.to_be_bytes());
    reseal(batch);
}

/// Stamps a batch with a producer's id, epoch and sequence, and redoes the CRC.
pub fn set_producer(batch: &mut [u8], id: ProducerId, epoch: i16, base_sequence: i32) {
    write_field(batch, 43, id.0.to_be_bytes());
    write_field(batch, 51, epoch.to_be_bytes());
    write_field(batch, 53, base_sequence.to_be_bytes());
    reseal(batch);
}

/// Redoes the CRC after something it covers was written.
pub fn reseal(batch: &mut [u8]) {
    let crc = crc_of(batch);
    write_field(batch, 17, crc.to_be_bytes());
}

fn read_attributes(batch: &mut [u8]) -> i16 {
    let header: &mut [u8; HEADER_BYTES] = batch.first_chunk_mut().expect("the batch was parsed");
    i16::from_be_bytes([header[21], header[22]])
}

fn write_field<const LEN: usize>(batch: &mut [u8], at: usize, value: [u8; LEN]) {
    let header: &mut [u8; HEADER_BYTES] = batch.first_chunk_mut().expect("the batch was parsed");
    header[at..at + LEN].copy_from_slice(&value);
}

fn crc_of(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(CRC_COVERS_FROM..).unwrap_or(&[]))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Incomplete { needed } => {
                write!(f, "the batch is not whole: at least {needed} bytes are needed")
            }
            Error::Length(length) => write!(f, "the batch's length {length} cannot be right"),
            Error::OldMagic(magic) => write!(f, "record format v{magic} is not supported, only v2"),
            Error::Magic(magic) => write!(f, "record format v{magic} does not exist"),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderFault::LastOffsetDelta(delta) => write!(f, "the last offset delta {delta} is negative"),
            HeaderFault::RecordCount(count) => write!(f, "the batch claims {count} records"),
            HeaderFault::CountAgainstDelta { record_count, last_offset_delta } => {
                write!(f, "{record_count} records do not end at offset delta {last_offset_delta}")
            }
            HeaderFault::Control => write!(f, "clients may not write control records"),
            HeaderFault::Sequence { producer_id, base_sequence } => {
                write!(f, "producer {producer_id} sent the sequence {base_sequence}")
            }
            HeaderFault::ProducerEpoch { producer_id, producer_epoch } => {
                write!(f, "producer {producer_id} sent the epoch {producer_epoch}")
            }
            HeaderFault::TransactionalWithoutProducer => {
                write!(f, "a transactional batch needs a producer id")
            }
            HeaderFault::Codec(id) => write!(f, "compression type {id} does not exist"),
        }
    }
}

impl std::error::Error for HeaderFault {}

#[cfg(test)]
mod tests;
