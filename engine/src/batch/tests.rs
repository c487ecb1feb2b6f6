use super::*;

/// `none/nulls` of `tests/golden/batches.tsv`: four records at offset 306.
const NULLS: &str = "0000000000000132000000550000002e029dea3f600000000000030000018bcfe568000000018bcfe56800ffff\
                     ffffffffffffffffffffffff000000041400000001080b31250600140000020844157ced01000c0000040101000c\
                     000006000000";

fn nulls() -> Vec<u8> {
    (0..NULLS.len() / 2)
        .map(|index| u8::from_str_radix(&NULLS[2 * index..2 * index + 2], 16).unwrap())
        .collect()
}

fn parse(bytes: &[u8]) -> Batch<'_> {
    Batch::parse(bytes).unwrap().0
}

#[test]
fn the_header_reads_as_kafka_wrote_it() {
    let bytes = nulls();
    let batch = parse(&bytes);
    assert_eq!(batch.base_offset(), Offset(306));
    assert_eq!(batch.last_offset(), Offset(309));
    assert_eq!(batch.length_bytes(), 97);
    assert_eq!(batch.leader_epoch(), LeaderEpoch(46));
    assert_eq!(batch.magic(), 2);
    assert_eq!(batch.crc(), 2_649_374_560);
    assert_eq!(batch.compression(), Some(Codec::None));
    assert_eq!(batch.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(batch.max_timestamp(), 1_700_000_000_000);
    assert_eq!(batch.producer_id(), ProducerId::NONE);
    assert_eq!(batch.producer_epoch(), -1);
    assert_eq!(batch.last_sequence(), NO_SEQUENCE);
    assert_eq!(batch.record_count(), 4);
    assert!(batch.crc_is_valid());
    assert_eq!(batch.check_client_header(), Ok(()));
}

#[test]
fn offset_and_epoch_do_not_touch_the_crc_and_everything_after_it_does() {
    let mut bytes = nulls();
    set_base_offset(&mut bytes, Offset(7));
    set_leader_epoch(&mut bytes, LeaderEpoch(9));
    assert!(parse(&bytes).crc_is_valid());
    assert_eq!((parse(&bytes).base_offset(), parse(&bytes).leader_epoch()), (Offset(7), LeaderEpoch(9)));
    for at in CRC_COVERS_FROM - 4..bytes.len() {
        bytes[at] ^= 0x10;
        assert!(!parse(&bytes).crc_is_valid(), "byte {at}");
        bytes[at] ^= 0x10;
    }
}

#[test]
fn log_append_time_is_set_and_taken_away_with_a_true_crc() {
    let mut bytes = nulls();
    set_log_append_time(&mut bytes, 42);
    assert_eq!(parse(&bytes).timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(parse(&bytes).max_timestamp(), 42);
    assert_eq!(parse(&bytes).base_timestamp(), 1_700_000_000_000);
    assert!(parse(&bytes).crc_is_valid());
    set_max_timestamp(&mut bytes, 1_700_000_000_000);
    assert!(parse(&bytes).crc_is_valid());
    assert_eq!(bytes, nulls());
}

#[test]
fn what_is_not_a_batch_says_why() {
    let check = |change: &dyn Fn(&mut Vec<u8>), expect: Error| {
        let mut bytes = nulls();
        change(&mut bytes);
        assert_eq!(Batch::parse(&bytes).map(|found| found.1), Err(expect));
    };
    check(&|bytes| bytes.truncate(11), Error::Incomplete { needed: 12 });
    check(&|bytes| bytes.truncate(16), Error::Incomplete { needed: 17 });
    check(&|bytes| bytes.truncate(96), Error::Incomplete { needed: 97 });
    check(&|bytes| bytes[8..12].copy_from_slice(&13i32.to_be_bytes()), Error::Length(13));
    check(&|bytes| bytes[8..12].copy_from_slice(&(-1i32).to_be_bytes()), Error::Length(-1));
    check(&|bytes| bytes[8..12].copy_from_slice(&48i32.to_be_bytes()), Error::Length(48));
    check(
        &|bytes| bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes()),
        Error::Incomplete { needed: 12 + i32::MAX as usize },
    );
    check(&|bytes| bytes[16] = 1, Error::OldMagic(1));
    check(&|bytes| bytes[16] = 3, Error::Magic(3));
    check(&|bytes| bytes[16] = 0xff, Error::Magic(-1));
    check(&|bytes| bytes.fill(0), Error::Length(0));
}

#[test]
fn hazard_a13_a_client_cannot_corrupt_offsets() {
    let check = |at: usize, value: &[u8], expect: HeaderFault| {
        let mut bytes = nulls();
        bytes[at..at + value.len()].copy_from_slice(value);
        assert_eq!(parse(&bytes).check_client_header(), Err(expect));
    };
    check(23, &(-1i32).to_be_bytes(), HeaderFault::LastOffsetDelta(-1));
    check(57, &0i32.to_be_bytes(), HeaderFault::RecordCount(0));
    check(57, &(-4i32).to_be_bytes(), HeaderFault::RecordCount(-4));
    check(
        57,
        &1000i32.to_be_bytes(),
        HeaderFault::CountAgainstDelta { record_count: 1000, last_offset_delta: 3 },
    );
    check(22, &[0x20], HeaderFault::Control);
    check(22, &[0x10], HeaderFault::TransactionalWithoutProducer);
    check(22, &[0x05], HeaderFault::Codec(5));
    check(43, &7i64.to_be_bytes(), HeaderFault::Sequence { producer_id: 7, base_sequence: -1 });
    let producer_without_epoch = [&7i64.to_be_bytes()[..], &[0xff, 0xff], &[0; 4]].concat();
    check(43, &producer_without_epoch, HeaderFault::ProducerEpoch { producer_id: 7, producer_epoch: -1 });
}

#[test]
fn a_run_of_batches_ends_at_a_fragment_or_at_damage() {
    let one = nulls();
    let three = one.repeat(3);
    assert_eq!(batches(&three).map(Result::unwrap).count(), 3);
    assert_eq!(batches(&three[..three.len() - 1]).map(Result::unwrap).count(), 2);
    let zeros_behind = [three, vec![0; 100]].concat();
    let found: Vec<_> = batches(&zeros_behind).map(|batch| batch.map(|batch| batch.length_bytes())).collect();
    assert_eq!(found, [Ok(97), Ok(97), Ok(97), Err(Error::Length(0))]);
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(advance_sequence(0, 4), 4);
    assert_eq!(advance_sequence(i32::MAX, 0), i32::MAX);
    assert_eq!(advance_sequence(i32::MAX, 1), 0);
    assert_eq!(advance_sequence(i32::MAX - 1, 4), 2);
    assert_eq!(advance_sequence(i32::MAX, i32::MAX), i32::MAX - 1);
    assert_eq!(advance_sequence(5, -3), 5);
}

#[test]
fn codecs_have_kafkas_ids_and_names() {
    for (id, codec) in (0u8..).zip(Codec::ALL) {
        assert_eq!(
            (codec.id(), Codec::from_id(id), Codec::from_name(codec.name())),
            (id, Some(codec), Some(codec))
        );
    }
    assert_eq!((Codec::from_id(5), Codec::from_name("producer")), (None, None));
    assert_eq!(Codec::from_name("uncompressed"), Some(Codec::None));
}
