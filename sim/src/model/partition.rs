//! What is known of one partition, from acknowledgements and from reads alike: whoever was shown a record may rely on it.
//!
//! - An offset that was acknowledged or read keeps its record, unless the host lost power under `write`; then a suffix
//!   may be gone, and nothing else.
//! - (leader epoch, offset) names one record for ever.
//! - A record is in the log once, at offsets without a gap, in epochs that do not fall.
//! - No epoch belongs to two lives, and what an older epoch had behind the point where a newer one began never returns.
//! - The high watermark does not fall, and nothing beyond it is shown.
//! - In a compacted topic a record may be missing, if one of its key is there behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use engine::batch::walk::{Records, decompress_records};
use engine::batch::{Batch, batches};

use crate::value;

const UNPACKED_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
pub struct Partition {
    /// Numbers of all records that were ever sent here.
    sent: BTreeSet<u64>,
    /// Offsets whose record is known.
    known: BTreeMap<i64, u64>,
    offset_of: BTreeMap<u64, i64>,
    contents: BTreeMap<(i32, i64), u64>,
    /// Each life's leader epoch, and where the log ended when it began, once that was read.
    begun: Vec<(i32, Option<i64>)>,
    high_watermark: i64,
    may_have_lost: bool,
    compacted: bool,
    /// Of each key the last record that was missing, until one is seen behind it.
    owed: BTreeMap<[u8; 1], i64>,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    pub next: i64,
    pub records: u64,
}

impl Partition {
    pub fn new(compacted: bool) -> Partition {
        Partition { compacted, ..Partition::default() }
    }

    pub fn sending(&mut self, number: u64) {
        self.sent.insert(number);
    }

    /// Records were acknowledged from this offset on.
    pub fn acknowledged(&mut self, base_offset: i64, numbers: &[u64]) -> Result<(), String> {
        (base_offset..).zip(numbers).try_for_each(|(offset, number)| self.learn(offset, *number))
    }

    /// A new life leads in this epoch.
    pub fn begin_epoch(&mut self, epoch: i32) -> Result<(), String> {
        let last = self.begun.last().map_or(-1, |(epoch, _)| *epoch);
        self.begun.push((epoch, None));
        if epoch > last { Ok(()) } else { Err(format!("epoch {epoch} follows {last}")) }
    }

    /// The power went, and this partition was promised less.
    pub fn may_have_lost(&mut self) {
        self.may_have_lost = true;
    }

    /// The end of the log as the broker tells it.
    pub fn heard_of_end(&mut self, high_watermark: i64) -> Result<(), String> {
        let before = self.high_watermark;
        if high_watermark < before && !self.may_have_lost {
            return Err(format!("the high watermark fell from {before} to {high_watermark}"));
        }
        self.high_watermark = high_watermark;
        Ok(())
    }

    /// A life's first look: the whole log lies before `end`. To be followed by reads of all of it.
    pub fn started_at(&mut self, end: i64) -> Result<(), String> {
        self.heard_of_end(end)?;
        let lost = self.known.split_off(&end);
        if let Some((offset, _)) = lost.first_key_value().filter(|_| !self.may_have_lost) {
            return Err(format!("offset {offset} was promised; the log ends at {end}"));
        }
        self.offset_of.retain(|_, offset| *offset < end);
        self.may_have_lost = false;
        if let Some((_, begun_at)) = self.begun.last_mut() {
            begun_at.get_or_insert(end);
        }
        Ok(())
    }

    /// All of the log was read.
    pub fn read_to_its_end(&self) -> Result<(), String> {
        match self.owed.first_key_value() {
            Some((key, offset)) => {
                let key = char::from(key[0]);
                Err(format!(
                    "the record of key {key} at {offset} is missing, and none of its key is behind it"
                ))
            }
            None => Ok(()),
        }
    }

    /// Records that a fetch from `from` brought, while the broker said that readers may go to `high_watermark`.
    pub fn read(&mut self, from: i64, high_watermark: i64, bytes: &[u8]) -> Result<Seen, String> {
        self.heard_of_end(high_watermark.max(self.high_watermark))?;
        let mut seen = Seen { next: from, records: 0 };
        let (mut first, mut epoch) = (true, -1);
        for found in batches(bytes) {
            let batch =
                found.map_err(|why| format!("a fetch from {from} brought what is no batch: {why:?}"))?;
            let (base, next) = (batch.base_offset().0, batch.next_offset().0);
            let continues = if first { base <= from && from < next } else { base == seen.next };
            if !continues {
                return Err(format!("batch {base}..{next} where {} belongs", seen.next));
            }
            if next > high_watermark {
                return Err(format!("batch {base}..{next} beyond the high watermark {high_watermark}"));
            }
            if batch.leader_epoch().0 < epoch {
                return Err(format!("epoch {} at {base} follows epoch {epoch}", batch.leader_epoch().0));
            }
            epoch = batch.leader_epoch().0;
            seen.records += self.read_batch(&batch)?;
            (seen.next, first) = (next, false);
        }
        Ok(seen)
    }

    fn read_batch(&mut self, batch: &Batch<'_>) -> Result<u64, String> {
        let (base, epoch) = (batch.base_offset().0, batch.leader_epoch().0);
        if !batch.crc_is_valid() {
            return Err(format!("the batch at {base} has a wrong checksum"));
        }
        let (mut expected, mut count) = (base, 0);
        let records = decompress_records(batch, UNPACKED_BYTES_MAX)
            .map_err(|why| format!("the batch at {base} cannot be opened: {why}"))?;
        for record in Records::new(batch, &records) {
            let record = record.map_err(|why| format!("a record at {expected} is broken: {why}"))?;
            let is_next = record.offset.0 == expected || (self.compacted && record.offset.0 > expected);
            if !is_next {
                return Err(format!("offset {} where {expected} belongs", record.offset.0));
            }
            self.misses(expected..record.offset.0);
            expected = record.offset.0;
            let number = record.value.and_then(value::number);
            let number = number.ok_or_else(|| format!("the record at {expected} was altered"))?;
            self.saw(epoch, expected, number)?;
            if record.key != Some(&value::key(number)) {
                return Err(format!("the record at {expected} has another's key"));
            }
            (expected, count) = (expected + 1, count + 1);
        }
        let next = batch.next_offset().0;
        if expected != next && !self.compacted {
            return Err(format!("the batch at {base} lacks records from {expected} on"));
        }
        self.misses(expected..next);
        Ok(count)
    }

    /// Nothing is at these offsets.
    fn misses(&mut self, offsets: Range<i64>) {
        for (offset, number) in self.known.range(offsets) {
            let key = value::key(*number);
            let behind = self.known.range(offset + 1..).any(|(_, later)| value::key(*later) == key);
            if !behind {
                self.owed.insert(key, *offset);
            }
        }
    }

    fn saw(&mut self, epoch: i32, offset: i64, number: u64) -> Result<(), String> {
        if !self.sent.contains(&number) {
            return Err(format!("record {number} at {offset} was never sent to this partition"));
        }
        let before = *self.contents.entry((epoch, offset)).or_insert(number);
        if before != number {
            return Err(format!("epoch {epoch}, offset {offset} names record {before} and record {number}"));
        }
        let returned =
            self.begun.iter().find(|(later, at)| *later > epoch && at.is_some_and(|at| offset >= at));
        if let Some((later, _)) = returned {
            return Err(format!(
                "offset {offset} of epoch {epoch} came back after epoch {later} began before it"
            ));
        }
        self.learn(offset, number)
    }

    fn learn(&mut self, offset: i64, number: u64) -> Result<(), String> {
        let before = *self.known.entry(offset).or_insert(number);
        if before != number {
            return Err(format!("offset {offset} was record {before} and is record {number}"));
        }
        let elsewhere = *self.offset_of.entry(number).or_insert(offset);
        if elsewhere != offset {
            return Err(format!("record {number} is at {elsewhere} and at {offset}"));
        }
        let key = value::key(number);
        if self.owed.get(&key).is_some_and(|missing| *missing < offset) {
            self.owed.remove(&key);
        }
        Ok(())
    }
}
