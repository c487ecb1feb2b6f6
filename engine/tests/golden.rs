//! Kafka's own batches and key hashes (`tests/golden/`) against this crate.

use engine::batch::build::{BatchBuilder, Header};
use engine::batch::walk::{Checks, Record, Records, decompress_records, walk};
use engine::batch::{Batch, Codec, TimestampType, batches};
use engine::murmur2::{murmur2, partition_of};
use serde_json::Value;

const BATCHES: &str = include_str!("../../tests/golden/batches.tsv");
const MURMUR2: &str = include_str!("../../tests/golden/murmur2.tsv");
const UNPACKED_MAX: usize = 16 << 20;

fn from_hex(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn rows() -> impl Iterator<Item = (&'static str, Vec<u8>, Value)> {
    BATCHES.lines().skip(1).map(|line| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().expect("three columns");
        (next(), from_hex(next()), serde_json::from_str(next()).unwrap())
    })
}

fn nullable(value: &Value) -> Option<Vec<u8>> {
    value.as_str().map(from_hex)
}

fn check_record(record: &Record<'_>, expect: &Value) {
    assert_eq!(record.offset.0, expect["offset"].as_i64().unwrap());
    assert_eq!(record.timestamp, expect["timestamp"].as_i64().unwrap());
    assert_eq!(record.key.map(<[u8]>::to_vec), nullable(&expect["key"]));
    assert_eq!(record.value.map(<[u8]>::to_vec), nullable(&expect["value"]));
    let headers = expect["headers"].as_array().unwrap();
    assert_eq!(usize::try_from(record.headers.left()).unwrap(), headers.len());
    for ((key, value), expect) in record.headers.zip(headers) {
        let name = &expect[0];
        assert_eq!(key, name.as_str().unwrap().as_bytes());
        assert_eq!(value.map(<[u8]>::to_vec), nullable(&expect[1]));
    }
}

fn check_batch(batch: &Batch<'_>, expect: &Value) {
    assert!(batch.crc_is_valid());
    assert_eq!(batch.base_offset().0, expect["baseOffset"].as_i64().unwrap());
    assert_eq!(batch.last_offset().0, expect["lastOffset"].as_i64().unwrap());
    assert_eq!(batch.length_bytes() as u64, expect["sizeInBytes"].as_u64().unwrap());
    assert_eq!(i64::from(batch.leader_epoch().0), expect["partitionLeaderEpoch"].as_i64().unwrap());
    assert_eq!(u64::from(batch.crc()), expect["crc"].as_u64().unwrap());
    assert_eq!(batch.compression().unwrap().name(), expect["compression"].as_str().unwrap());
    let create_time = batch.timestamp_type() == TimestampType::CreateTime;
    assert_eq!(
        if create_time { "CreateTime" } else { "LogAppendTime" },
        expect["timestampType"].as_str().unwrap()
    );
    assert_eq!(batch.max_timestamp(), expect["maxTimestamp"].as_i64().unwrap());
    assert_eq!(batch.producer_id().0, expect["producerId"].as_i64().unwrap());
    assert_eq!(i64::from(batch.producer_epoch()), expect["producerEpoch"].as_i64().unwrap());
    assert_eq!(i64::from(batch.base_sequence()), expect["baseSequence"].as_i64().unwrap());
    assert_eq!(batch.is_transactional(), expect["transactional"].as_bool().unwrap());
    assert_eq!(batch.is_control(), expect["control"].as_bool().unwrap());
    let unpacked = decompress_records(batch, UNPACKED_MAX).unwrap();
    let mut records = Records::new(batch, &unpacked);
    let expect = expect["records"].as_array().unwrap();
    assert_eq!(usize::try_from(batch.record_count()).unwrap(), expect.len());
    for expect in expect {
        check_record(&records.next().unwrap().unwrap(), expect);
    }
    assert!(records.next().is_none());
    assert!(records.rest().is_empty());
}

#[test]
fn every_batch_of_kafka_reads_as_kafka_reads_it() {
    let mut count = 0;
    for (case, bytes, expect) in rows() {
        let expect = expect.as_array().unwrap();
        let found: Vec<_> = batches(&bytes).map(Result::unwrap).collect();
        assert_eq!(found.len(), expect.len(), "{case}");
        for (batch, expect) in found.iter().zip(expect) {
            check_batch(batch, expect);
            if !batch.is_control() {
                assert_eq!(batch.check_client_header(), Ok(()), "{case}");
            }
            let checks = Checks { compacted: false, timestamps: None, decompressed_bytes_max: UNPACKED_MAX };
            let walked = walk(batch, &checks).unwrap();
            assert_eq!(walked.max_timestamp, batch.max_timestamp(), "{case}");
            assert!(walked.offsets_are_dense, "{case}");
            count += 1;
        }
    }
    assert!(count >= 42, "{count} batches");
}

/// Uncompressed, the builder writes the very bytes that Kafka's does.
#[test]
fn the_builder_writes_what_kafka_writes() {
    let mut count = 0;
    for (case, bytes, _) in rows() {
        let (batch, _) = Batch::parse(&bytes).unwrap();
        if batch.compression() != Some(Codec::None) {
            continue;
        }
        let mut builder = BatchBuilder::new(Codec::None)
            .base_offset(batch.base_offset())
            .leader_epoch(batch.leader_epoch())
            .producer(batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
        builder = if batch.is_transactional() { builder.transactional() } else { builder };
        builder = if batch.is_control() { builder.control() } else { builder };
        for record in Records::new(&batch, batch.records_bytes()).map(Result::unwrap) {
            let headers: Vec<Header<'_>> = record.headers.collect();
            builder.append(record.timestamp, record.key, record.value, &headers);
        }
        assert_eq!(builder.finish(), bytes, "{case}");
        count += 1;
    }
    assert!(count >= 10, "{count} batches");
}

#[test]
fn keys_hash_as_kafkas_do() {
    let mut count = 0;
    for line in MURMUR2.lines().skip(1) {
        let fields: Vec<_> = line.split('\t').collect();
        let key = from_hex(fields[0]);
        assert_eq!(murmur2(&key), fields[1].parse::<i32>().unwrap(), "{line}");
        assert_eq!(partition_of(&key, 12), fields[2].parse::<i32>().unwrap(), "{line}");
        count += 1;
    }
    assert!(count >= 30, "{count} keys");
}
