use super::*;

/// Batches of ten offsets and 100 bytes, with times that go up and down.
fn timestamp(number: i64) -> i64 {
    1000 + number * 10 - if number % 3 == 0 { 25 } else { 0 }
}

fn noted(batches: i64, interval_bytes: u32) -> SparseIndex {
    let mut index = SparseIndex::new(Offset(50), interval_bytes);
    note(&mut index, 0, batches);
    index
}

fn note(index: &mut SparseIndex, from: i64, to: i64) {
    for number in from..to {
        let position = FilePos(number.cast_unsigned() * 100);
        index.note(Offset(50 + number * 10 + 9), position, 100, timestamp(number));
    }
}

/// Every look-up lands at or before the right batch, and not further before it than `slack` bytes.
fn check_lookups(index: &SparseIndex, batches: i64, slack: u64) {
    for number in 0..batches {
        let position = number.cast_unsigned() * 100;
        for offset in [50 + number * 10, 50 + number * 10 + 9] {
            let found = index.lookup(Offset(offset)).0;
            assert!(found <= position && position - found <= slack, "{offset}: {found} for {position}");
        }
        let time = timestamp(number);
        let first = (0..batches).find(|earlier| timestamp(*earlier) >= time).unwrap();
        assert!(index.lookup_time(time).0 <= first.cast_unsigned() * 100, "time {time}");
    }
    assert_eq!(index.lookup(Offset(0)), FilePos(0));
    assert_eq!(index.lookup_time(i64::MIN), FilePos(0));
}

#[test]
fn lookups_land_at_or_before_the_batch() {
    for interval in [0, 1, 100, 250, 1000, u32::MAX] {
        check_lookups(&noted(200, interval), 200, 2 * u64::from(interval.max(100)));
    }
}

#[test]
fn hazard_b2_a_full_index_doubles_its_interval() {
    let mut index = SparseIndex::new(Offset(0), 100);
    for number in 0..50_000 {
        let at = FilePos(number * 100);
        index.note(Offset(number.cast_signed()), at, 100, 0);
        assert!(index.entry_count() <= ENTRIES_MAX);
    }
    assert_eq!(index.interval_bytes, 1600);
    assert!(index.entry_count() > ENTRIES_MAX / 2);
    assert_eq!(index.lookup(Offset(49_999)).0 / 1600, 49_999 * 100 / 1600);
}

#[test]
fn truncation_forgets_times_and_says_where_to_note_again() {
    for end in [0, 50, 51, 300, 1040, 2050, 9999] {
        let mut index = noted(200, 450);
        let from = index.truncate(Offset(end));
        let batches = ((end - 50).max(0) / 10).min(200);
        let from = from.0.cast_signed() / 100;
        assert!(from <= batches, "{end}: {from}");
        note(&mut index, from, batches);
        assert_eq!(index, noted(batches, 450), "{end}");
    }
}

fn sealed() -> (Vec<u8>, Vec<u8>) {
    let segment: Vec<u8> = (0..200_000u32).flat_map(|number| (number % 251).to_le_bytes()).collect();
    let crcs: Vec<u32> = segment.chunks(65_536).map(crc32c::crc32c).collect();
    let mut index = SparseIndex::new(Offset(50), 1000);
    for number in 0..8_000u64 {
        index.note(Offset(50 + number.cast_signed()), FilePos(number * 100), 100, number.cast_signed());
    }
    let bytes = SealedIndex::encode(&index, Offset(8_050), 800_000, 0, 7_999, &crcs);
    (bytes, segment)
}

#[test]
fn a_sealed_index_answers_as_the_active_one_did_and_knows_its_segment() {
    let (bytes, segment) = sealed();
    let index = SealedIndex::decode(&bytes).unwrap();
    assert_eq!((index.base(), index.end(), index.segment_bytes()), (Offset(50), Offset(8_050), 800_000));
    assert_eq!((index.first_timestamp(), index.max_timestamp()), (0, 7_999));
    assert_eq!(index.lookup(Offset(1_060)), FilePos(101_000));
    assert_eq!(index.lookup_time(1_010), FilePos(101_000));
    for (number, chunk) in (0u64..).zip(segment.chunks(65_536)) {
        assert!(index.chunk_is_valid(number, chunk));
        assert!(!index.chunk_is_valid(number + 1, chunk));
        assert!(!index.chunk_is_valid(number, &chunk[1..]));
        let mut rotten = chunk.to_vec();
        rotten[chunk.len() / 2] ^= 4;
        assert!(!index.chunk_is_valid(number, &rotten));
    }
    assert!(!index.chunk_is_valid(u64::MAX, &segment[..65_536]));
}

#[test]
fn hazard_a4_no_bit_of_an_index_file_flips_unnoticed() {
    let mut small = SparseIndex::new(Offset(5), 10);
    small.note(Offset(5), FilePos(0), 100, 3);
    small.note(Offset(6), FilePos(100), 100, 3);
    let bytes = SealedIndex::encode(&small, Offset(7), 200, 3, 3, &[0xdead_beef]);
    let padded = [bytes.clone(), vec![0; 64]].concat();
    assert!(SealedIndex::decode(&padded).is_ok());
    for bit in 0..padded.len() * 8 {
        let mut flipped = padded.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(SealedIndex::decode(&flipped).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(SealedIndex::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_sealed_index_that_lies_under_a_true_checksum_is_refused() {
    let good = SealedIndex::decode(&sealed().0).unwrap().body;
    let check = |change: &dyn Fn(&mut Body)| {
        let mut body = good.clone();
        change(&mut body);
        let archived = rkyv::to_bytes::<rkyv::rancor::Error>(&body).unwrap();
        let found = SealedIndex::decode(&seal(MAGIC, VERSION, &archived));
        assert!(matches!(found, Err(Damage::Content(_))), "{found:?}");
    };
    check(&|body| body.base = -1);
    check(&|body| body.end = 49);
    check(&|body| body.segment_bytes += 65_536);
    check(&|body| body.chunk_crcs.clear());
    check(&|body| body.entries[3].position = u64::MAX);
    check(&|body| body.entries[3].last = body.entries[2].last);
    check(&|body| body.entries[3].max_before = -1);
    let archive_of_nothing = seal(MAGIC, VERSION, &[0xff; 64]);
    assert!(matches!(SealedIndex::decode(&archive_of_nothing), Err(Damage::Content(_))));
}

/// The layout of version 1, once and for all: a change here needs another version.
#[test]
fn the_format_is_fixed() {
    let mut index = SparseIndex::new(Offset(5), 10);
    index.note(Offset(5), FilePos(0), 100, 3);
    index.note(Offset(6), FilePos(100), 100, 3);
    let bytes = SealedIndex::encode(&index, Offset(7), 200, 3, 4, &[0xdead_beef]);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = "434c495801000000580000005d78170c060000000000000064000000000000000300000000000000efbeadde00000000\
    05000000000000000700000000000000c80000000000000003000000000000000400000000000000b8ffffff01000000\
    c8ffffff01000000";
