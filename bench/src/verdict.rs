//! Judges what was read back, record by record. Pure: whoever reads hands records in, in the order of each partition's log.
//!
//! Found are: loss (a sequence that never comes, an acknowledged record that is not at its offset), duplication, reordering,
//! corruption, records of others, and holes in the offsets. With a ledger only acknowledged records must be there; without
//! one, every sequence of the run must, from zero.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

use crate::ledger::{Acked, Ledger};
use crate::payload::{self, Filling, Stream};

/// How many findings are kept in words; all are counted.
const EXAMPLES_MAX: usize = 20;
/// How many holes one stream may have before the oldest are given up as lost.
const HOLES_MAX: usize = 1 << 16;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Records read that belong to the runs in question, and the bytes of their values.
    pub records: u64,
    pub bytes: u64,
    pub partitions: u64,
    pub streams: u64,
    /// Sequences between those that came; faults unless a ledger says that they were never acknowledged.
    pub missing: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupt: u64,
    /// Records that are not bench's, or of another run; no faults.
    pub foreign: u64,
    /// Offsets that no record has, between the first and the last.
    pub offset_holes: u64,
    /// With a ledger: how many records it says were acknowledged, how many of them are not at their offsets, and how many
    /// were stored without an acknowledgement having been seen (no fault: the answer may have been lost in a crash).
    pub acknowledged: Option<u64>,
    pub acknowledged_missing: u64,
    pub unacknowledged_stored: u64,
    /// With an expected count: how many fewer there are.
    pub expected_missing: u64,
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether there was nothing to judge: no record of ours, and nothing that says there should be one.
    pub fn is_empty(&self) -> bool {
        self.records == 0 && self.acknowledged.is_none()
    }

    pub fn is_good(&self) -> bool {
        let faults = self.duplicated
            + self.reordered
            + self.corrupt
            + self.offset_holes
            + self.acknowledged_missing
            + self.expected_missing;
        let missing = if self.acknowledged.is_some() { 0 } else { self.missing };
        faults + missing == 0 && !self.is_empty()
    }
}

/// What must be there.
#[derive(Default)]
pub struct Expected {
    /// Only this run is judged.
    pub run: Option<u32>,
    /// So many records in all.
    pub records: Option<u64>,
    pub ledger: Option<Ledger>,
}

#[derive(Default)]
pub struct Judge {
    run: Option<u32>,
    records_expected: Option<u64>,
    acknowledged: Option<u64>,
    filling: BTreeMap<u32, Filling>,
    streams: BTreeMap<Stream, Progress>,
    partitions: BTreeMap<i32, Partition>,
    verdict: Verdict,
}

/// One partition's log.
#[derive(Default)]
struct Partition {
    log_start: i64,
    next_offset: Option<i64>,
    /// The ledger's batches by offset, and how many of each one's records were found.
    acked: Vec<(Acked, u32)>,
    at: usize,
}

#[derive(Default)]
struct Progress {
    next: u64,
    holes: Vec<Range<u64>>,
}

enum Arrival {
    InOrder,
    After { missing: u64 },
    Late,
    Again,
}

impl Judge {
    pub fn new(expected: Expected) -> Judge {
        let mut partitions: BTreeMap<i32, Partition> = BTreeMap::new();
        let run = expected.ledger.as_ref().map(|ledger| ledger.run).or(expected.run);
        let acknowledged = expected.ledger.as_ref().map(Ledger::records);
        for acked in expected.ledger.into_iter().flat_map(|ledger| ledger.acked) {
            partitions.entry(acked.partition).or_default().acked.push((acked, 0));
        }
        let mut judge = Judge {
            run,
            records_expected: expected.records,
            acknowledged,
            filling: BTreeMap::new(),
            streams: BTreeMap::new(),
            partitions: BTreeMap::new(),
            verdict: Verdict::default(),
        };
        for partition in partitions.values_mut() {
            partition.acked.sort_by_key(|(acked, _)| acked.base_offset);
            for pair in partition.acked.windows(2) {
                let (before, after) = (pair[0].0, pair[1].0);
                if before.base_offset + i64::from(before.count) > after.base_offset {
                    judge.verdict.acknowledged_missing += 1;
                    note(&mut judge.verdict, || {
                        format!("two batches were acknowledged for the same offsets: {before}; and {after}")
                    });
                }
            }
        }
        judge.partitions = partitions;
        judge
    }

    /// Says that `partition` will be read from `log_start`, its first offset.
    pub fn partition(&mut self, partition: i32, log_start: i64) {
        self.partitions.entry(partition).or_default().log_start = log_start;
        self.verdict.partitions += 1;
    }

    /// One record of `partition`, in log order.
    pub fn record(&mut self, partition: i32, offset: i64, value: &[u8]) {
        self.offset(partition, offset);
        let head = match payload::read_head(value) {
            Ok(head) if self.run.is_none_or(|run| run == head.stream.run) => head,
            Ok(_) | Err(_) => {
                self.verdict.foreign += 1;
                return;
            }
        };
        self.verdict.records += 1;
        self.verdict.bytes += value.len() as u64;
        if head.stream.partition != partition {
            self.corrupt(partition, offset, "its head names another partition");
            return;
        }
        if self.filling(head.stream.run, value.len()).check(&head, value).is_err() {
            self.corrupt(partition, offset, "its bytes are not what its head says");
            return;
        }
        self.sequence(partition, offset, head.stream, head.sequence);
        self.acknowledgement(partition, offset, head.stream, head.sequence);
    }

    /// A batch that cannot be read, or whose checksum is wrong.
    pub fn damaged_batch(&mut self, partition: i32, offset: i64, why: &str) {
        self.corrupt(partition, offset, why);
    }

    /// Offsets `from..next` are taken by something that is no record of a client, such as a transaction's marker.
    pub fn not_ours(&mut self, partition: i32, from: i64, next: i64) {
        self.offset(partition, from);
        self.partitions.entry(partition).or_default().next_offset = Some(next);
        self.verdict.foreign += 1;
    }

    pub fn finish(mut self) -> Verdict {
        self.verdict.streams = self.streams.len() as u64;
        self.verdict.acknowledged = self.acknowledged;
        for partition in self.partitions.values() {
            for (acked, found) in &partition.acked {
                let missing = acked.count.saturating_sub(*found);
                if missing > 0 {
                    self.verdict.acknowledged_missing += u64::from(missing);
                    note(&mut self.verdict, || {
                        let count = acked.count;
                        format!("{missing} of the {count} records acknowledged as {acked} are not there")
                    });
                }
            }
        }
        if let Some(expected) = self.records_expected {
            self.verdict.expected_missing = expected.saturating_sub(self.verdict.records);
        }
        self.verdict
    }

    fn offset(&mut self, partition: i32, offset: i64) {
        let state = self.partitions.entry(partition).or_default();
        let expected = state.next_offset.unwrap_or(state.log_start);
        if offset != expected {
            let (holes, what) = if offset > expected {
                (offset - expected, "offsets are missing before")
            } else {
                (1, "the offset goes back to")
            };
            self.verdict.offset_holes += holes as u64;
            note(&mut self.verdict, || {
                format!("partition {partition}: {what} {offset}, {expected} was next")
            });
        }
        state.next_offset = Some(offset + 1);
    }

    fn sequence(&mut self, partition: i32, offset: i64, stream: Stream, sequence: u64) {
        // A log whose beginning was deleted may begin with any sequence.
        let begins_cut = self.partitions.get(&partition).is_some_and(|state| state.log_start > 0);
        let progress = self
            .streams
            .entry(stream)
            .or_insert_with(|| Progress { next: if begins_cut { sequence } else { 0 }, holes: Vec::new() });
        let (count, what) = match progress.arrive(sequence) {
            Arrival::InOrder => return,
            Arrival::After { missing } => {
                self.verdict.missing += missing;
                if self.acknowledged.is_some() {
                    return;
                }
                (missing, "records missing before")
            }
            Arrival::Late => {
                self.verdict.missing = self.verdict.missing.saturating_sub(1);
                self.verdict.reordered += 1;
                (1, "record comes too late:")
            }
            Arrival::Again => {
                self.verdict.duplicated += 1;
                (1, "record is there again:")
            }
        };
        note(&mut self.verdict, || {
            format!(
                "partition {partition} offset {offset} writer {}: {count} {what} sequence {sequence}",
                stream.writer
            )
        });
    }

    fn acknowledgement(&mut self, partition: i32, offset: i64, stream: Stream, sequence: u64) {
        if self.acknowledged.is_none() {
            return;
        }
        let state = self.partitions.entry(partition).or_default();
        while state.acked.get(state.at).is_some_and(|(acked, _)| end_of(acked) <= offset) {
            state.at += 1;
        }
        let Some((acked, found)) =
            state.acked.get_mut(state.at).filter(|(acked, _)| acked.base_offset <= offset)
        else {
            self.verdict.unacknowledged_stored += 1;
            return;
        };
        let expected = acked.first_sequence + (offset - acked.base_offset) as u64;
        if acked.writer == stream.writer && expected == sequence {
            *found += 1;
        } else {
            note(&mut self.verdict, || {
                format!(
                    "partition {partition} offset {offset}: sequence {expected} was acknowledged there, {sequence} of writer {} is there",
                    stream.writer
                )
            });
        }
    }

    fn filling(&mut self, run: u32, value_bytes: usize) -> &Filling {
        let known = self
            .filling
            .entry(run)
            .or_insert_with(|| Filling::new(run, value_bytes.min(payload::RECORD_BYTES_MAX)));
        if known.record_bytes_max() < value_bytes {
            *known = Filling::new(run, value_bytes.min(payload::RECORD_BYTES_MAX));
        }
        known
    }

    fn corrupt(&mut self, partition: i32, offset: i64, why: &str) {
        self.verdict.corrupt += 1;
        note(&mut self.verdict, || format!("partition {partition} offset {offset}: {why}"));
    }
}

impl Progress {
    fn arrive(&mut self, sequence: u64) -> Arrival {
        if sequence == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        if sequence > self.next {
            let hole = self.next..sequence;
            let missing = hole.end - hole.start;
            self.next = sequence + 1;
            if self.holes.len() == HOLES_MAX {
                self.holes.remove(0);
            }
            self.holes.push(hole);
            return Arrival::After { missing };
        }
        let Some(at) = self.holes.iter().position(|hole| hole.contains(&sequence)) else {
            return Arrival::Again;
        };
        let hole = self.holes.swap_remove(at);
        for part in [hole.start..sequence, sequence + 1..hole.end] {
            if !part.is_empty() {
                self.holes.push(part);
            }
        }
        Arrival::Late
    }
}

fn end_of(acked: &Acked) -> i64 {
    acked.base_offset + i64::from(acked.count)
}

fn note(verdict: &mut Verdict, what: impl FnOnce() -> String) {
    if verdict.examples.len() < EXAMPLES_MAX {
        verdict.examples.push(what());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Head;

    const RUN: u32 = 9;

    fn value(partition: i32, sequence: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let stream = Stream { run: RUN, partition, writer: 0 };
        Filling::new(RUN, 64).write(&mut out, Head { stream, sequence, intended: 1 }, 64);
        out
    }

    fn ledger(acked: &[(u64, u32, i64)]) -> Ledger {
        let acked = acked
            .iter()
            .map(|&(first_sequence, count, base_offset)| Acked {
                partition: 0,
                writer: 0,
                first_sequence,
                count,
                base_offset,
            })
            .collect();
        Ledger { run: RUN, topic: "t".into(), acked, ended_in_order: true }
    }

    /// Puts the sequences at offsets 0, 1, 2.. of partition 0.
    fn check(expected: Expected, sequences: &[u64]) -> Verdict {
        let mut judge = Judge::new(expected);
        judge.partition(0, 0);
        for (offset, sequence) in sequences.iter().enumerate() {
            judge.record(0, offset as i64, &value(0, *sequence));
        }
        judge.finish()
    }

    #[test]
    fn a_whole_stream_is_good() {
        let verdict = check(Expected { records: Some(4), ..Expected::default() }, &[0, 1, 2, 3]);
        assert!(verdict.is_good(), "{verdict:?}");
        assert_eq!((verdict.records, verdict.bytes, verdict.streams), (4, 256, 1));
    }

    #[test]
    fn nothing_to_judge_is_not_good() {
        let mut judge = Judge::new(Expected::default());
        judge.partition(0, 0);
        judge.record(0, 0, b"someone else's");
        let verdict = judge.finish();
        assert_eq!((verdict.is_empty(), verdict.is_good()), (true, false));
        // A ledger of nothing asks for nothing.
        let nothing = check(Expected { ledger: Some(ledger(&[])), ..Expected::default() }, &[]);
        assert_eq!((nothing.is_empty(), nothing.is_good()), (false, true));
    }

    #[test]
    fn loss_duplication_and_reordering_are_told_apart() {
        let verdict = check(Expected::default(), &[0, 1, 4, 5]);
        assert_eq!((verdict.missing, verdict.duplicated, verdict.reordered), (2, 0, 0));
        let verdict = check(Expected::default(), &[0, 1, 1, 2]);
        assert_eq!((verdict.missing, verdict.duplicated, verdict.reordered), (0, 1, 0));
        let verdict = check(Expected::default(), &[0, 2, 1, 3]);
        assert_eq!((verdict.missing, verdict.duplicated, verdict.reordered), (0, 0, 1));
        let verdict = check(Expected { records: Some(5), ..Expected::default() }, &[0, 1, 2]);
        assert_eq!(verdict.expected_missing, 2);
        for sequences in [&[0, 2][..], &[1], &[0, 0], &[0, 2, 1]] {
            assert!(!check(Expected::default(), sequences).is_good(), "{sequences:?}");
        }
    }

    #[test]
    fn corruption_strangers_and_holes_in_the_offsets() {
        let mut judge = Judge::new(Expected::default());
        judge.partition(0, 0);
        let mut broken = value(0, 0);
        broken[50] ^= 4;
        judge.record(0, 0, &broken);
        judge.record(0, 1, b"someone else's");
        judge.record(0, 3, &value(1, 0));
        let verdict = judge.finish();
        assert_eq!((verdict.corrupt, verdict.foreign, verdict.offset_holes), (2, 1, 1));
        assert_eq!(verdict.examples.len(), 3);
    }

    #[test]
    fn a_log_with_its_beginning_deleted_may_begin_with_any_sequence() {
        let mut judge = Judge::new(Expected::default());
        judge.partition(0, 100);
        judge.record(0, 100, &value(0, 70));
        judge.record(0, 101, &value(0, 71));
        assert!(judge.finish().is_good());
    }

    #[test]
    fn with_a_ledger_only_acknowledged_records_must_be_there_and_at_their_offsets() {
        let expect =
            |acked: &[(u64, u32, i64)]| Expected { ledger: Some(ledger(acked)), ..Expected::default() };
        // Sequences 2 and 3 were never acknowledged and did not survive; 6 was stored, its answer lost.
        let good = check(expect(&[(0, 2, 0), (4, 2, 2)]), &[0, 1, 4, 5, 6]);
        assert!(good.is_good(), "{good:?}");
        assert_eq!((good.acknowledged, good.unacknowledged_stored, good.missing), (Some(4), 1, 2));
        // The tail is gone.
        let cut = check(expect(&[(0, 2, 0), (2, 2, 2)]), &[0, 1, 2]);
        assert_eq!((cut.acknowledged_missing, cut.is_good()), (1, false));
        assert_eq!(
            cut.examples,
            [
                "1 of the 2 records acknowledged as sequences 2 to 4 of writer 0 at offsets 2 to 4 of partition 0 are not there"
            ]
        );
        // Something else is at an acknowledged offset.
        let moved = check(expect(&[(0, 2, 0), (2, 2, 2)]), &[0, 1, 3, 4]);
        assert_eq!((moved.acknowledged_missing, moved.is_good()), (2, false));
        // One offset was given out twice.
        assert!(!check(expect(&[(0, 2, 0), (2, 2, 1)]), &[0, 1, 2]).is_good());
    }
}
