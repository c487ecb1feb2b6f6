use super::*;
use crate::batch::Codec;
use crate::batch::build::BatchBuilder;
use crate::ids::ProducerId;

/// A log of one-partition appends: checks a batch, and applies it if it is in sequence.
#[derive(Default)]
struct Model {
    states: ProducerStates,
    end: i64,
}

fn batch(id: i64, epoch: i16, first_sequence: i32, count: i32, base_offset: i64, timestamp: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None)
        .producer(ProducerId(id), epoch, first_sequence)
        .base_offset(Offset(base_offset));
    for _ in 0..count {
        builder.append(timestamp, None, None, &[]);
    }
    builder.finish()
}

impl Model {
    fn append(&mut self, id: i64, epoch: i16, first: i32, count: i32) -> Result<Check, SequenceError> {
        let bytes = batch(id, epoch, first, count, self.end, 1000 + self.end);
        let (batch, _) = Batch::parse(&bytes).unwrap();
        let check = self.states.check(&batch)?;
        if check == Check::InSequence {
            self.states.apply(&batch);
            self.end += i64::from(count);
        }
        Ok(check)
    }

    fn appended(&mut self, id: i64, epoch: i16, first: i32, count: i32) {
        assert_eq!(
            self.append(id, epoch, first, count),
            Ok(Check::InSequence),
            "{id} {epoch} {first} {count}"
        );
    }

    fn duplicate(&mut self, id: i64, epoch: i16, first: i32, count: i32) -> i64 {
        match self.append(id, epoch, first, count) {
            Ok(Check::Duplicate(seen)) => seen.base_offset.0,
            other => panic!("{first}: {other:?}"),
        }
    }

    fn out_of_order(&mut self, id: i64, epoch: i16, first: i32, count: i32) {
        let found = self.append(id, epoch, first, count);
        assert!(matches!(found, Err(SequenceError::OutOfOrder { .. })), "{found:?}");
    }
}

#[test]
fn the_last_five_batches_are_recognised_and_only_exactly() {
    let mut log = Model::default();
    for index in 0..7 {
        log.appended(1, 0, index * 10, 10);
    }
    for index in 2..7 {
        assert_eq!(log.duplicate(1, 0, index * 10, 10), i64::from(index) * 10);
    }
    log.out_of_order(1, 0, 10, 10); // older than the window
    log.out_of_order(1, 0, 60, 9); // a part of one
    log.out_of_order(1, 0, 55, 10); // over two
    log.out_of_order(1, 0, 71, 1); // a gap
    log.appended(1, 0, 70, 1);
}

#[test]
fn an_unknown_producer_may_start_anywhere() {
    let mut log = Model::default();
    log.appended(1, 3, 4711, 2);
    log.appended(1, 3, 4713, 1);
}

#[test]
fn sequences_wrap_between_and_inside_batches() {
    let mut log = Model::default();
    log.appended(1, 0, i32::MAX - 1, 2);
    log.appended(1, 0, 0, 1);
    log.appended(2, 0, i32::MAX - 1, 4);
    log.out_of_order(2, 0, i32::MAX, 1);
    log.appended(2, 0, 2, 1);
    assert_eq!(log.duplicate(2, 0, i32::MAX - 1, 4), 3);
}

#[test]
fn epochs_only_rise_and_begin_at_zero() {
    let mut log = Model::default();
    log.appended(1, 5, 0, 3);
    assert_eq!(log.append(1, 4, 0, 3), Err(SequenceError::InvalidEpoch { current: 5, found: 4 }));
    log.out_of_order(1, 9, 3, 1);
    log.appended(1, 9, 0, 1);
    // A former duplicate of the old epoch is fenced.
    assert_eq!(log.append(1, 5, 0, 3), Err(SequenceError::InvalidEpoch { current: 9, found: 5 }));
}

#[test]
fn batches_without_a_producer_are_always_in_sequence() {
    let mut log = Model::default();
    for _ in 0..3 {
        log.appended(-1, -1, -1, 2);
    }
    assert_eq!((log.states.producer_count(), log.states.covered_end()), (0, Offset(6)));
}

#[test]
fn all_five_batches_survive_a_snapshot() {
    let mut log = Model::default();
    for id in [7, 1 << 40, 3] {
        for index in 0..6 {
            log.appended(id, 2, index * 2, 2);
        }
    }
    let bytes = log.states.encode();
    let loaded = ProducerStates::decode(&bytes, Offset(log.end)).unwrap();
    assert_eq!(loaded, log.states);
    log.states = loaded;
    for index in 1..6 {
        assert_eq!(log.duplicate(7, 2, index * 2, 2), i64::from(index) * 2);
    }
    assert_eq!(log.states.encode(), bytes, "one state, one content");
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(ProducerStates::decode(&flipped, Offset(i64::MAX)).is_err());
    }
}

#[test]
fn hazard_a6_a_snapshot_never_speaks_beyond_the_recovered_end() {
    let mut log = Model::default();
    for index in 0..12 {
        log.appended(1, 0, index * 10, 10);
    }
    let bytes = log.states.encode();
    let beyond = SnapshotError::BeyondEnd { covered_end: Offset(120), recovered_end: Offset(110) };
    assert_eq!(ProducerStates::decode(&bytes, Offset(110)), Err(beyond));
    assert!(ProducerStates::decode(&bytes, Offset(120)).is_ok());
}

#[test]
fn hazard_a6_truncation_forgets_later_batches_and_says_that_it_did() {
    let mut log = Model::default();
    for index in 0..5 {
        log.appended(1, 0, index * 10, 10);
    }
    let at_50 = log.states.clone();
    log.appended(2, 0, 0, 10);
    assert!(log.states.clone().truncate(Offset(60)));
    assert!(!log.states.truncate(Offset(50)));
    assert_eq!(log.states, at_50);
    // The retry of a batch that was cut is appended again, not answered.
    assert!(!log.states.truncate(Offset(40)));
    log.end = 40;
    log.appended(1, 0, 40, 10);
}

#[test]
fn producers_expire_by_the_time_of_their_last_batch() {
    let mut log = Model::default();
    log.appended(1, 0, 0, 10); // at 1000
    log.appended(2, 0, 0, 10); // at 1010
    assert_eq!(log.states.expire(1099, 100), 0);
    assert_eq!(log.states.expire(1100, 100), 1);
    log.appended(1, 0, 55, 1);
    log.out_of_order(2, 0, 55, 1);
}

#[test]
fn a_marker_ends_the_transaction_and_a_newer_epoch_clears_the_window() {
    let marker = |epoch: i16, offset: i64| {
        let mut builder = BatchBuilder::new(Codec::None)
            .producer(ProducerId(1), epoch, -1)
            .base_offset(Offset(offset))
            .transactional()
            .control();
        builder.append(5, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 9]), &[]);
        builder.finish()
    };
    let mut data = BatchBuilder::new(Codec::None).producer(ProducerId(1), 0, 0).transactional();
    data.append(5, None, None, &[]);
    let data = data.finish();
    let data = Batch::parse(&data).unwrap().0;
    for (marker_epoch, sequence) in [(0, 1), (1, 0)] {
        let mut log = Model { end: 1, ..Model::default() };
        log.states.apply(&data);
        assert_eq!(log.states.first_open_transaction(), Some(Offset(0)));
        assert_eq!(log.append(1, 0, 1, 1), Err(SequenceError::OpenTransaction));
        assert_eq!(log.states.expire(i64::MAX, 1), 0, "an open transaction holds its producer");
        let marker = marker(marker_epoch, 1);
        log.states.apply(&Batch::parse(&marker).unwrap().0);
        assert_eq!(log.states.first_open_transaction(), None);
        log.end = 2;
        log.appended(1, marker_epoch, sequence, 1);
    }
}

#[test]
fn there_is_a_bound_on_remembered_producers() {
    let mut states = ProducerStates::new();
    for id in 0..=i64::try_from(PRODUCERS_MAX).unwrap() {
        let bytes = batch(id, 0, 0, 1, id, 0);
        states.apply(&Batch::parse(&bytes).unwrap().0);
    }
    assert_eq!(states.producer_count(), PRODUCERS_MAX - FORGET_AT_ONCE + 1);
    assert!(states.producers.contains_key(&i64::try_from(PRODUCERS_MAX).unwrap()));
    assert!(!states.producers.contains_key(&0));
}

#[test]
fn the_format_is_fixed() {
    let mut log = Model::default();
    log.appended(258, 3, 7, 2);
    let hex: String = log.states.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = "434c50530100000053000000ab34b3e002000000000000000100000002010000000000000300ffffffffe80300000000\
    00000100000000000000ffffffffffffffff01070000000800000000000000000000000100000000000000e803000000\
    000000";
