//! Batches of equal records, made with as little work per record as there can be.
//!
//! A batch of n records of one size always has the same bytes between its values: lengths, offset deltas, no key, no
//! headers. The engine's builder makes it once for each n; from then on a batch is those pieces with the values copied in
//! between, its times and sequence set, and its checksum taken once.

use std::collections::HashMap;
use std::ops::Range;

use engine::batch::build::BatchBuilder;
use engine::batch::walk::Records;
use engine::batch::{self, Batch, Codec, HEADER_BYTES};
use engine::ids::ProducerId;

use crate::payload::{Filling, Head, Stream};

/// Shapes kept; beyond that the cache starts afresh (an open-loop run has batches of many sizes).
const SHAPES_MAX: usize = 256;
/// Fields of the batch header that the engine never changes, and so has no setters for.
const BASE_TIMESTAMP: Range<usize> = 27..35;
const PRODUCER_ID: Range<usize> = 43..51;
const PRODUCER_EPOCH: Range<usize> = 51..53;
const BASE_SEQUENCE: Range<usize> = 53..57;

/// Which records go into a batch, and when they were due.
pub struct Contents<D: Fn(u64) -> u64> {
    pub stream: Stream,
    pub first_sequence: u64,
    pub count: u64,
    pub now_ms: i64,
    /// The due time of the i-th record of this batch.
    pub due: D,
    pub producer: Option<Producer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: i16,
}

/// Makes the batches of one run.
pub struct Maker {
    filling: Filling,
    record_bytes: usize,
    codec: Codec,
    shapes: HashMap<u64, Shape>,
}

/// The bytes of a batch that are the same whatever its values are.
struct Shape {
    /// Everything before each value, in one piece, the header first.
    framing: Vec<u8>,
    /// Where in `framing` each value comes in.
    cuts: Vec<usize>,
}

impl Maker {
    pub fn new(run: u32, record_bytes: usize, codec: Codec) -> Maker {
        Maker { filling: Filling::new(run, record_bytes), record_bytes, codec, shapes: HashMap::new() }
    }

    /// How many records fit into a batch of `batch_bytes`; at least one.
    pub fn records_per_batch(&self, batch_bytes: usize) -> u64 {
        let two = Shape::new(2, self.record_bytes).bytes(self.record_bytes);
        let one = Shape::new(1, self.record_bytes).bytes(self.record_bytes);
        // Later records have longer offset deltas: up to two bytes more below a million records.
        let record = two - one + 2;
        (batch_bytes.saturating_sub(HEADER_BYTES) / record).clamp(1, 1_000_000) as u64
    }

    pub fn make<D: Fn(u64) -> u64>(&mut self, contents: &Contents<D>) -> Vec<u8> {
        assert!(contents.count > 0);
        let mut bytes = self.uncompressed(contents);
        if self.codec != Codec::None {
            bytes = self.compressed(&bytes, contents.now_ms);
        }
        bytes[BASE_TIMESTAMP].copy_from_slice(&contents.now_ms.to_be_bytes());
        if let Some(producer) = contents.producer {
            // Sequences of the protocol are 31 bits and wrap to zero.
            let base = (contents.first_sequence & 0x7fff_ffff) as i32;
            bytes[PRODUCER_ID].copy_from_slice(&producer.id.0.to_be_bytes());
            bytes[PRODUCER_EPOCH].copy_from_slice(&producer.epoch.to_be_bytes());
            bytes[BASE_SEQUENCE].copy_from_slice(&base.to_be_bytes());
        }
        batch::set_max_timestamp(&mut bytes, contents.now_ms);
        batch::reseal(&mut bytes);
        bytes
    }

    fn uncompressed<D: Fn(u64) -> u64>(&mut self, contents: &Contents<D>) -> Vec<u8> {
        if self.shapes.len() >= SHAPES_MAX && !self.shapes.contains_key(&contents.count) {
            self.shapes.clear();
        }
        let record_bytes = self.record_bytes;
        let shape =
            self.shapes.entry(contents.count).or_insert_with(|| Shape::new(contents.count, record_bytes));
        let mut out = Vec::with_capacity(shape.bytes(record_bytes));
        let mut from = 0;
        for (index, cut) in (0..).zip(&shape.cuts) {
            out.extend_from_slice(&shape.framing[from..*cut]);
            from = *cut;
            let head = Head {
                stream: contents.stream,
                sequence: contents.first_sequence + index,
                intended: (contents.due)(index),
            };
            self.filling.write(&mut out, head, record_bytes);
        }
        out.extend_from_slice(&shape.framing[from..]);
        out
    }

    fn compressed(&self, plain: &[u8], now_ms: i64) -> Vec<u8> {
        let (batch, _) = Batch::parse(plain).expect("a batch made here");
        let mut builder = BatchBuilder::with_capacity(self.codec, plain.len());
        for record in Records::new(&batch, batch.records_bytes()) {
            builder.append(now_ms, None, record.expect("a record made here").value, &[]);
        }
        builder.finish()
    }
}

impl Shape {
    fn new(count: u64, record_bytes: usize) -> Shape {
        let value = vec![0; record_bytes];
        let room = usize::try_from(count).expect("a batch in memory") * (record_bytes + 16);
        let mut builder = BatchBuilder::with_capacity(Codec::None, room);
        for _ in 0..count {
            builder.append(0, None, Some(&value), &[]);
        }
        let whole = builder.finish();
        let (batch, _) = Batch::parse(&whole).expect("the builder makes whole batches");
        let (mut framing, mut cuts, mut from) = (Vec::new(), Vec::new(), 0);
        for record in Records::new(&batch, batch.records_bytes()) {
            let value = record.expect("the builder makes whole records").value.expect("each has a value");
            let at = value.as_ptr().addr() - whole.as_ptr().addr();
            framing.extend_from_slice(&whole[from..at]);
            cuts.push(framing.len());
            from = at + value.len();
        }
        framing.extend_from_slice(&whole[from..]);
        assert_eq!(cuts.len() as u64, count);
        Shape { framing, cuts }
    }

    fn bytes(&self, record_bytes: usize) -> usize {
        self.framing.len() + self.cuts.len() * record_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::read_head;
    use engine::batch::walk::decompress_records;

    fn contents(count: u64) -> Contents<impl Fn(u64) -> u64> {
        Contents {
            stream: Stream { run: 5, partition: 3, writer: 2 },
            first_sequence: 1_000,
            count,
            now_ms: 1_700_000_000_000,
            due: |index| 77 + index,
            producer: Some(Producer { id: ProducerId(9), epoch: 1 }),
        }
    }

    #[test]
    fn batches_are_whole_and_hold_what_was_asked_for() {
        for codec in Codec::ALL {
            let mut maker = Maker::new(5, 100, codec);
            for count in [1, 2, 64, 65, 200] {
                let bytes = maker.make(&contents(count));
                let (batch, total) = Batch::parse(&bytes).expect("whole");
                assert_eq!(total, bytes.len());
                assert!(batch.crc_is_valid());
                assert!(batch.check_client_header().is_ok());
                assert_eq!(batch.compression(), Some(codec));
                assert_eq!((batch.record_count() as u64, batch.base_sequence()), (count, 1_000));
                assert_eq!((batch.producer_id(), batch.producer_epoch()), (ProducerId(9), 1));
                assert_eq!(
                    (batch.base_timestamp(), batch.max_timestamp()),
                    (1_700_000_000_000, 1_700_000_000_000)
                );
                let plain = match codec {
                    Codec::None => batch.records_bytes().to_vec(),
                    _ => decompress_records(&batch, 1 << 20).expect("unpacks"),
                };
                for (index, record) in (0..).zip(Records::new(&batch, &plain)) {
                    let value = record.expect("a record").value.expect("a value");
                    let head = read_head(value).expect("ours");
                    assert_eq!((head.sequence, head.intended), (1_000 + index, 77 + index));
                    assert_eq!(maker.filling.check(&head, value), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_full_batch_stays_within_its_bytes() {
        for (record_bytes, batch_bytes) in [(100, 16_384), (1_024, 65_536), (1_024, 1 << 20), (16_384, 4_096)]
        {
            let mut maker = Maker::new(5, record_bytes, Codec::None);
            let count = maker.records_per_batch(batch_bytes);
            let bytes = maker.make(&contents(count)).len();
            assert!(count == 1 || bytes <= batch_bytes, "{bytes} of {batch_bytes}");
            assert!(
                count == 1 || bytes + 2 * (record_bytes + 20) > batch_bytes * 97 / 100,
                "{bytes} of {batch_bytes}"
            );
        }
    }
}
