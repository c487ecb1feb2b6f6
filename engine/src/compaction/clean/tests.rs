//! Batches in, batches out: what stays, what goes, and what stands for it.

use super::super::keys::Secret;
use super::*;
use crate::batch::Codec;
use crate::batch::build::BatchBuilder;
use crate::ids::ProducerId;

const PLACES: usize = 1 << 12;

/// Key and value of a record; `None` is a tombstone.
type KeyValue = (&'static str, Option<&'static str>);

struct Sketch {
    records: Vec<KeyValue>,
    producer: Option<(i64, i32)>,
    epoch: i32,
    codec: Codec,
}

fn of(records: &[KeyValue]) -> Sketch {
    Sketch { records: records.to_vec(), producer: None, epoch: 1, codec: Codec::None }
}

/// The batches one behind the other from offset 0; the time of each record is its offset.
fn log(sketches: &[Sketch]) -> Vec<u8> {
    let (mut bytes, mut offset) = (Vec::new(), 0);
    for sketch in sketches {
        let mut builder = BatchBuilder::new(sketch.codec)
            .base_offset(Offset(offset))
            .leader_epoch(LeaderEpoch(sketch.epoch));
        if let Some((id, sequence)) = sketch.producer {
            builder = builder.producer(ProducerId(id), 0, sequence);
        }
        for (key, value) in &sketch.records {
            let key = (!key.is_empty()).then_some(key.as_bytes());
            builder.append(offset, key, value.map(str::as_bytes), &[]);
            offset += 1;
        }
        bytes.extend(builder.finish());
    }
    bytes
}

struct Run {
    from: i64,
    places: usize,
    now_ms: i64,
    delete_retention_ms: i64,
    windows: Vec<i64>,
}

const RUN: Run = Run { from: 0, places: PLACES, now_ms: 1000, delete_retention_ms: 100, windows: Vec::new() };

impl Run {
    fn compact(&self, bytes: &[u8]) -> (Vec<u8>, Cleaned) {
        let mut learner = Learner::new(KeyMap::new(Secret(1, 2), self.places), Offset(self.from), 1 << 20);
        learner.learn(bytes).expect("sound");
        let (keys, learned_to) = learner.finish();
        let rules = Rules {
            keys,
            learned_to,
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
            windows: self.windows.iter().copied().map(Offset).collect(),
            unpacked_bytes_max: 1 << 20,
            has_unopened: false,
        };
        let end = batch::batches(bytes).last().expect("some").expect("whole").next_offset();
        let mut cleaner = Cleaner::new(rules, Offset(0), 1);
        let mut out = Vec::new();
        for batch in batch::batches(bytes) {
            cleaner.clean(batch.expect("whole").bytes(), &mut out).expect("sound");
        }
        let cleaned = cleaner.finish(end, &mut out).expect("whole");
        check_output(&out, &cleaned);
        (out, cleaned)
    }
}

/// Whatever went, the batches follow each other, and the index is that of the bytes.
fn check_output(out: &[u8], cleaned: &Cleaned) {
    let mut next = cleaned.base;
    for batch in batch::batches(out) {
        let batch = batch.expect("whole");
        assert!(batch.crc_is_valid());
        assert_eq!(batch.base_offset(), next);
        next = batch.next_offset();
    }
    assert_eq!((next, out.len() as u64), (cleaned.end, cleaned.bytes));
    let index = SealedIndex::decode(&cleaned.index).expect("valid");
    assert_eq!((index.base(), index.end()), (cleaned.base, cleaned.end));
    assert_eq!(index.segment_bytes(), cleaned.bytes);
    for (number, chunk) in out.chunks(crate::index::CHUNK_BYTES as usize).enumerate() {
        assert!(index.chunk_is_valid(number as u64, chunk));
    }
}

/// As (offset, key, value), and in brackets the batches that hold none: `[base-last e<epoch> p<producer>]`.
fn told(bytes: &[u8]) -> String {
    let mut told = Vec::new();
    for batch in batch::batches(bytes) {
        let batch = batch.expect("whole");
        if batch.record_count() == 0 {
            let producer = batch.producer_id().0;
            let (base, last, epoch) = (batch.base_offset(), batch.last_offset(), batch.leader_epoch());
            told.push(format!("[{base}-{last} e{epoch} p{producer}]"));
        }
        for (record, _) in Opened::of(batch, 1 << 20).expect("sound").records() {
            assert_eq!(record.timestamp, record.offset.0, "times stay");
            let text = |bytes: Option<&[u8]>| bytes.map_or("-".into(), String::from_utf8_lossy).into_owned();
            told.push(format!("{}:{}={}", record.offset, text(record.key), text(record.value)));
        }
    }
    told.join(" ")
}

#[track_caller]
fn check(run: &Run, sketches: &[Sketch], expect: &str) -> Vec<u8> {
    let (out, _) = run.compact(&log(sketches));
    assert_eq!(told(&out), expect);
    out
}

#[test]
fn the_newest_record_of_each_key_stays_where_it_was() {
    for codec in Codec::ALL {
        let of = |records: &[KeyValue]| Sketch { codec, ..of(records) };
        let sketches = [
            of(&[("a", Some("1")), ("b", Some("1"))]),
            of(&[("a", Some("2"))]),
            of(&[("c", Some("1")), ("a", Some("3")), ("d", Some("1"))]),
            of(&[("d", Some("2"))]),
        ];
        check(&RUN, &sketches, "1:b=1 [2-2 e1 p-1] 3:c=1 4:a=3 6:d=2");
    }
}

#[test]
fn what_does_not_change_is_copied_and_said_not_to_have_changed() {
    let sketches = [of(&[("a", Some("1")), ("b", Some("1"))]), of(&[("c", Some("1"))])];
    let bytes = log(&sketches);
    let (out, cleaned) = RUN.compact(&bytes);
    assert_eq!(out, bytes);
    assert!(!cleaned.changed);
    let (out, cleaned) = RUN.compact(&log(&[of(&[("a", Some("1"))]), of(&[("a", Some("2"))])]));
    assert!(cleaned.changed);
    assert_eq!((cleaned.counts.records_kept, cleaned.counts.records_removed), (1, 1));
    // A second time over the same changes nothing, fillers included.
    let (again, cleaned) = RUN.compact(&out);
    assert_eq!(again, out);
    assert!(!cleaned.changed);
}

#[test]
fn only_keys_from_the_dirty_part_count_and_only_as_far_as_the_map_went() {
    let sketches =
        [of(&[("a", Some("1")), ("b", Some("1"))]), of(&[("b", Some("2"))]), of(&[("a", Some("2"))])];
    // The clean part's keys are not learned, but its records are judged.
    check(&Run { from: 2, ..RUN }, &sketches, "[0-1 e1 p-1] 2:b=2 3:a=2");
    check(&Run { from: 3, ..RUN }, &sketches, "1:b=1 2:b=2 3:a=2");
    // Four places hold three keys.
    let many = [
        of(&[("a", Some("1")), ("a", Some("2")), ("b", Some("1"))]),
        of(&[("c", Some("1")), ("b", Some("2")), ("d", Some("1")), ("a", Some("3"))]),
        of(&[("a", Some("4"))]),
    ];
    check(&Run { places: 4, ..RUN }, &many, "1:a=2 3:c=1 4:b=2 5:d=1 6:a=3 7:a=4");
}

#[test]
fn a_tombstone_goes_one_pass_after_its_horizon() {
    let sketches = [of(&[("a", Some("1"))]), of(&[("a", None), ("b", Some("1"))]), of(&[("c", Some("1"))])];
    let once = check(&RUN, &sketches, "[0-0 e1 p-1] 1:a=- 2:b=1 3:c=1");
    let horizons = |bytes: &[u8]| -> Vec<Option<i64>> {
        let batches = batch::batches(bytes).map(Result::unwrap);
        batches.map(|batch| batch.has_delete_horizon().then(|| batch.base_timestamp())).collect()
    };
    assert_eq!(horizons(&once), [None, Some(1100), None]);
    let again = |now_ms, from| Run { now_ms, from, ..RUN }.compact(&once).0;
    assert_eq!(told(&again(1099, 3)), "[0-0 e1 p-1] 1:a=- 2:b=1 3:c=1");
    assert_eq!(horizons(&again(1099, 0)), [None, Some(1100), None], "it is set once");
    assert_eq!(told(&again(1100, 3)), "[0-0 e1 p-1] 2:b=1 3:c=1");
    // A tombstone behind what was learned is not judged yet, nor does its time begin.
    let behind = [of(&[("a", Some("1")), ("b", Some("1"))]), of(&[("c", None)])];
    let (out, _) = Run { places: 2, ..RUN }.compact(&log(&behind));
    assert_eq!(horizons(&out), [None, Some(1100)]);
    let many = [of(&[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]), of(&[("d", None)])];
    let (out, _) = Run { places: 4, ..RUN }.compact(&log(&many));
    assert_eq!(horizons(&out), [None, None]);
}

#[test]
fn a_producers_window_and_every_epochs_beginning_are_left() {
    let by = |producer, sequence, epoch, records: &[KeyValue]| Sketch {
        producer: Some((producer, sequence)),
        epoch,
        ..of(records)
    };
    let sketches = [
        by(7, 0, 1, &[("a", Some("1"))]),
        by(7, 1, 1, &[("a", Some("2"))]),
        by(7, 2, 1, &[("a", Some("3"))]),
        by(8, 0, 2, &[("a", Some("4"))]),
        by(8, 1, 3, &[("a", Some("5"))]),
        by(8, 2, 3, &[("a", Some("6"))]),
        by(8, 3, 3, &[("", Some("no key")), ("a", Some("7"))]),
    ];
    let run = Run { windows: vec![1, 2, 7], ..RUN };
    let out = check(&run, &sketches, "[0-0 e1 p-1] [1-1 e1 p7] [2-2 e1 p7] [3-3 e2 p-1] [4-5 e3 p-1] 7:a=7");
    let last = batch::batches(&out).nth(2).unwrap().unwrap();
    assert_eq!((last.base_sequence(), last.last_sequence()), (2, 2));
    // Once the producer is forgotten its headers go too, into the filler beside them.
    let (out, _) = RUN.compact(&out);
    assert_eq!(told(&out), "[0-2 e1 p-1] [3-3 e2 p-1] [4-5 e3 p-1] 7:a=7");
}

#[test]
fn what_is_not_sound_is_left_alone_or_ends_it() {
    let mut bytes = log(&[of(&[("a", Some("1"))]), of(&[("a", Some("2"))]), of(&[("b", Some("1"))])]);
    let first = Batch::parse(&bytes).unwrap().1;
    // A record that claims an offset far ahead would hide whatever its key gets later.
    let mut builder = BatchBuilder::new(Codec::None).base_offset(Offset(1)).leader_epoch(LeaderEpoch(1));
    builder.append_at(100, 1, Some(b"b"), Some(b"x"), &[]);
    let mut lying = builder.finish();
    lying[23..27].copy_from_slice(&0i32.to_be_bytes());
    batch::reseal(&mut lying);
    let second = Batch::parse(&bytes[first..]).unwrap().1;
    bytes.splice(first..first + second, lying);
    let (out, cleaned) = RUN.compact(&bytes);
    assert_eq!(out, bytes);
    assert_eq!(cleaned.counts.batches_unopened, 1);
    // It may hold what a tombstone behind it deletes: that one stays beyond its horizon.
    let deleted = log(&[of(&[("b", Some("1"))]), of(&[("a", None), ("c", Some("1"))])]);
    let is_shorter = |before: Vec<u8>| {
        let (with_horizon, _) = RUN.compact(&before);
        let (after, _) = Run { now_ms: 10_000, ..RUN }.compact(&with_horizon);
        after.len() < with_horizon.len()
    };
    let mut behind_it = deleted.clone();
    behind_it[23..27].copy_from_slice(&0i32.to_be_bytes());
    behind_it[57..61].copy_from_slice(&2i32.to_be_bytes());
    batch::reseal(&mut behind_it[..Batch::parse(&deleted).unwrap().1]);
    assert_eq!((is_shorter(deleted), is_shorter(behind_it)), (true, false));

    let mut flipped = log(&[of(&[("a", Some("1"))]), of(&[("a", Some("2"))])]);
    flipped[first + 65] ^= 1;
    let mut learner = Learner::new(KeyMap::new(Secret(1, 2), PLACES), Offset(0), 1 << 20);
    assert!(learner.learn(&flipped).is_err());
    let rules = || Rules {
        keys: KeyMap::new(Secret(1, 2), PLACES),
        learned_to: Offset(0),
        now_ms: 0,
        delete_retention_ms: 0,
        windows: Vec::new(),
        unpacked_bytes_max: 1 << 20,
        has_unopened: false,
    };
    let mut out = Vec::new();
    assert!(Cleaner::new(rules(), Offset(0), 1).clean(&flipped, &mut out).is_err());
    // A batch that is missing is damage, never a gap.
    assert!(Cleaner::new(rules(), Offset(0), 1).clean(&bytes[first..], &mut out).is_err());
    let short = Cleaner::new(rules(), Offset(0), 1).finish(Offset(1), &mut out);
    assert!(short.is_err());
}
