use super::super::build::BatchBuilder;
use super::super::{reseal, set_log_append_time};
use super::*;

const LAX: Checks = Checks { compacted: false, timestamps: None, decompressed_bytes_max: 1 << 20 };

fn three(codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    builder.append(10, Some(b"a"), Some(b"x"), &[(b"h", None)]);
    builder.append(30, Some(b"b"), None, &[]);
    builder.append(20, Some(b"c"), Some(b"z"), &[]);
    builder.finish()
}

fn run(bytes: &[u8], checks: &Checks) -> Result<Walked, WalkError> {
    let (batch, _) = Batch::parse(bytes).unwrap();
    walk(&batch, checks)
}

/// A batch of one record whose body is given byte by byte.
fn raw(count: i32, records: &[u8]) -> Vec<u8> {
    let mut bytes = BatchBuilder::new(Codec::None).finish();
    bytes.extend_from_slice(records);
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    reseal(&mut bytes);
    bytes
}

#[test]
fn the_real_maximum_is_found_whatever_the_header_says() {
    for codec in Codec::ALL {
        let mut bytes = three(codec);
        bytes[35..43].copy_from_slice(&(-1i64).to_be_bytes());
        let walked = Walked { max_timestamp: 30, max_timestamp_delta: 1, offsets_are_dense: true };
        assert_eq!(run(&bytes, &LAX), Ok(walked), "{codec:?}");
        // The flag of a client's batch says nothing about the times its records carry.
        set_log_append_time(&mut bytes, 99);
        assert_eq!(run(&bytes, &LAX), Ok(walked), "{codec:?}");
        let (batch, _) = Batch::parse(&bytes).unwrap();
        let records = decompress_records(&batch, 1 << 20).unwrap();
        assert!(Records::new(&batch, &records).all(|record| record.unwrap().timestamp == 99));
    }
}

#[test]
fn the_count_must_be_exact() {
    for codec in Codec::ALL {
        let mut bytes = three(codec);
        bytes[57..61].copy_from_slice(&4i32.to_be_bytes());
        assert_eq!(run(&bytes, &LAX), Err(WalkError::Fewer { claimed: 4, found: 3 }));
        bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(run(&bytes, &LAX), Err(WalkError::Fewer { claimed: i32::MAX, found: 3 }));
        bytes[57..61].copy_from_slice(&2i32.to_be_bytes());
        assert_eq!(run(&bytes, &LAX), Err(WalkError::More { claimed: 2 }));
    }
}

#[test]
fn malformed_records_say_how() {
    // length 12 (zigzag 6): attributes, timestamp delta, offset delta, key length, value length, header count
    let check = |record: &[u8], expect: RecordFault| {
        assert_eq!(
            run(&raw(1, record), &LAX),
            Err(WalkError::Malformed { index: 0, fault: expect }),
            "{record:?}"
        );
    };
    assert!(run(&raw(1, &[12, 0, 0, 0, 1, 1, 0]), &LAX).is_ok());
    check(&[14, 0, 0, 0, 1, 1, 0], RecordFault::Length);
    check(&[1], RecordFault::Length);
    check(&[14, 0, 0, 0, 1, 1, 0, 0], RecordFault::Trailing);
    check(&[12, 0, 0, 0, 1, 1, 1], RecordFault::HeaderCount);
    check(&[12, 0, 0, 0, 1, 1, 2], RecordFault::Varint);
    check(&[12, 0, 0, 0, 1, 2, 0], RecordFault::Varint);
    check(&[12, 0, 0, 0, 1, 4, 0], RecordFault::Length);
    check(&[20, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1, 0], RecordFault::Length);
    check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], RecordFault::Varint);
    check(&[14, 0, 0, 0, 1, 1, 2, 1], RecordFault::Length);
    let claims_many_headers = [20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    check(&claims_many_headers, RecordFault::Varint);
}

#[test]
fn every_null_key_of_a_compacted_topic_is_named() {
    let mut builder = BatchBuilder::new(Codec::Lz4);
    for key in [None, Some(&b"k"[..]), None, None] {
        builder.append(5, key, Some(b"v"), &[]);
    }
    let error = run(&builder.finish(), &Checks { compacted: true, ..LAX }).unwrap_err();
    assert_eq!(error.record_errors().iter().map(|error| error.index).collect::<Vec<_>>(), [0, 2, 3]);
    assert!(!error.is_timestamp());
}

#[test]
fn a_timestamp_outside_the_bounds_wins_over_a_null_key() {
    let timestamps = Some(TimestampBounds { now_ms: 1000, before_max_ms: 100, after_max_ms: 10 });
    let checks = Checks { compacted: true, timestamps, ..LAX };
    let mut builder = BatchBuilder::new(Codec::None);
    for (timestamp, key) in [(900, Some(&b"k"[..])), (1010, Some(b"k")), (-1, Some(b"k"))] {
        builder.append(timestamp, key, None, &[]);
    }
    assert_eq!(run(&builder.clone().finish(), &checks).unwrap().max_timestamp, 1010);
    for (timestamp, key) in [(899, Some(&b"k"[..])), (1011, Some(b"k")), (i64::MIN, None)] {
        builder.append(timestamp, key, None, &[]);
    }
    let error = run(&builder.finish(), &checks).unwrap_err();
    assert!(error.is_timestamp());
    let (earliest, latest) = (900, 1010);
    assert_eq!(
        error.record_errors(),
        [
            RecordError { index: 3, reason: Refusal::Timestamp { timestamp: 899, earliest, latest } },
            RecordError { index: 4, reason: Refusal::Timestamp { timestamp: 1011, earliest, latest } },
            RecordError { index: 5, reason: Refusal::NullKey },
        ]
    );
}

#[test]
fn gaps_between_offsets_are_reported() {
    let mut builder = BatchBuilder::new(Codec::Zstd);
    builder.append_at(0, 5, None, None, &[]);
    builder.append_at(2, 5, None, None, &[]);
    assert!(!run(&builder.finish(), &LAX).unwrap().offsets_are_dense);
}

#[test]
fn a_bomb_is_refused() {
    let mut builder = BatchBuilder::new(Codec::Zstd);
    builder.append(0, None, Some(&vec![0; 2 << 20]), &[]);
    let limit = LAX.decompressed_bytes_max;
    let expect = Err(WalkError::Decompress(compress::Error::TooLarge { limit }));
    assert_eq!(run(&builder.finish(), &LAX), expect);
}
