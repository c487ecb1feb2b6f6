//! Where in a segment an offset or a time is found: sparse entries, looked up and then scanned from.
//!
//! One kind of entry serves both: a batch's last offset, its position, and the largest timestamp of everything *before*
//! it. The last is monotonic whatever order producers' clocks have, so the first batch with a time of at least `t` lies
//! at or behind the last entry whose `max_before` is below `t`.
//!
//! The active segment's index (`SparseIndex`) lives in memory and in checkpoints. It never has more than
//! `ENTRIES_MAX` entries: when it is full every second one goes and the interval doubles (hazard B2).
//!
//! A sealed segment's index (`SealedIndex`) is a file that is written once and holds a CRC-32C of every 64 KiB of the
//! segment as well, because a batch's own CRC covers neither its base offset nor its epoch (hazard A4). It is a frame
//! (see `docs/internals/disk-format.md`), magic `CLIX`, version 1, whose body is an rkyv 0.8 archive with little-endian
//! numbers, aligned, and 32-bit relative pointers. Every bit of the file is under a checksum or must be zero, the archive
//! is validated as a whole, and then its content:
//!
//! ```text
//!  Body:  base i64 | end i64 | segment bytes u64 | first timestamp i64 | max timestamp i64
//!         | entries: vector of { last i64 | position u64 | max before i64 }
//!         | chunk CRCs: vector of u32, one per 64 KiB begun
//! ```

use crate::batch::NO_TIMESTAMP;
use crate::fields::{Damage, Fields, open, put_count, seal};
use crate::ids::{FilePos, Offset};
use crate::varint;
use rkyv::{Archive, Deserialize, Serialize};

/// What one checksum of a sealed segment covers.
pub const CHUNK_BYTES: u64 = 64 * 1024;
/// How many entries an index has at most.
pub const ENTRIES_MAX: usize = 4096;
/// The least that three varints take.
const ENCODED_ENTRY_BYTES_MIN: usize = 3;

const MAGIC: [u8; 4] = *b"CLIX";
const VERSION: u16 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
struct Entry {
    last: i64,
    position: u64,
    max_before: i64,
}

const _: () = assert!(size_of::<Entry>() == 24);
const _: () = assert!(size_of::<ArchivedEntry>() == 24);

/// The index of a segment that is appended to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SparseIndex {
    base: Offset,
    interval_bytes: u64,
    max_timestamp: i64,
    entries: Vec<Entry>,
}

impl SparseIndex {
    /// For the segment that begins at `base`, with an entry per `interval_bytes` at most.
    pub fn new(base: Offset, interval_bytes: u32) -> SparseIndex {
        let interval_bytes = u64::from(interval_bytes.max(1));
        SparseIndex { base, interval_bytes, max_timestamp: NO_TIMESTAMP, entries: Vec::new() }
    }

    pub fn base(&self) -> Offset {
        self.base
    }

    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Of all batches that were noted; -1 before the first with a time.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Takes note of a batch of `bytes` at `position`. Batches come in the order of the file.
    pub fn note(&mut self, last: Offset, position: FilePos, bytes: u64, max_timestamp: i64) {
        assert!(bytes > 0);
        if self.is_due(position) && self.entries.len() == ENTRIES_MAX {
            self.thin_out();
        }
        if self.is_due(position) {
            assert!(self.entries.last().is_none_or(|before| before.last < last.0));
            self.entries.push(Entry { last: last.0, position: position.0, max_before: self.max_timestamp });
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }

    /// The position of a batch at or before the one that holds `offset`.
    pub fn lookup(&self, offset: Offset) -> FilePos {
        lookup(&self.entries, offset)
    }

    /// A position at or before the first batch with a time of at least `timestamp`.
    pub fn lookup_time(&self, timestamp: i64) -> FilePos {
        lookup_time(&self.entries, timestamp)
    }

    /// The log now ends at `end`. Forgets the last interval before it as well and returns where the batches begin that
    /// the caller must note again: what is forgotten of their times is in no entry.
    #[must_use = "the batches from there on must be noted again"]
    pub fn truncate(&mut self, end: Offset) -> FilePos {
        let kept = self.entries.partition_point(|entry| entry.last < end.0);
        self.entries.truncate(kept);
        let (position, max_before) =
            self.entries.pop().map_or((0, NO_TIMESTAMP), |entry| (entry.position, entry.max_before));
        self.max_timestamp = max_before;
        FilePos(position)
    }

    /// Whether every entry lies before this end of the segment.
    pub(crate) fn lies_within(&self, end: Offset, position: u64) -> bool {
        self.entries.last().is_none_or(|last| last.last < end.0 && last.position < position)
    }

    fn is_due(&self, position: FilePos) -> bool {
        let before = self.entries.last().map_or(0, |entry| entry.position);
        position.0.saturating_sub(before) >= self.interval_bytes
    }

    fn thin_out(&mut self) {
        let mut index = 0usize;
        self.entries.retain(|_| {
            index += 1;
            index.is_multiple_of(2)
        });
        self.interval_bytes = self.interval_bytes.saturating_mul(2);
    }

    /// For a checkpoint: differences as varints, a third of their size.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.base.0.to_le_bytes());
        out.extend_from_slice(&self.interval_bytes.to_le_bytes());
        out.extend_from_slice(&self.max_timestamp.to_le_bytes());
        put_count(out, self.entries.len());
        let mut before = Entry { last: self.base.0, position: 0, max_before: NO_TIMESTAMP };
        for entry in &self.entries {
            varint::write_i64(out, entry.last.wrapping_sub(before.last));
            varint::write_i64(out, entry.position.wrapping_sub(before.position).cast_signed());
            varint::write_i64(out, entry.max_before.wrapping_sub(before.max_before));
            before = *entry;
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<SparseIndex, Damage> {
        let base = Offset(fields.i64()?);
        let interval_bytes = fields.u64()?;
        let max_timestamp = fields.i64()?;
        let count = fields.count(ENCODED_ENTRY_BYTES_MIN)?;
        let mut entries = Vec::with_capacity(count);
        let mut before = Entry { last: base.0, position: 0, max_before: NO_TIMESTAMP };
        for _ in 0..count {
            before = Entry {
                last: before.last.wrapping_add(fields.varint()?),
                position: before.position.wrapping_add(fields.varint()?.cast_unsigned()),
                max_before: before.max_before.wrapping_add(fields.varint()?),
            };
            entries.push(before);
        }
        check_entries(&entries, base.0, i64::MAX, u64::MAX)?;
        if interval_bytes == 0 {
            return Err(Damage::Content("an index has no interval"));
        }
        if entries.last().is_some_and(|last| last.max_before > max_timestamp) {
            return Err(Damage::Content("an index knows times beyond its largest"));
        }
        Ok(SparseIndex { base, interval_bytes, max_timestamp, entries })
    }
}

/// What is archived of a sealed segment.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
struct Body {
    base: i64,
    end: i64,
    segment_bytes: u64,
    first_timestamp: i64,
    max_timestamp: i64,
    entries: Vec<Entry>,
    chunk_crcs: Vec<u32>,
}

/// The index of a sealed segment, read and verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedIndex {
    body: Body,
}

impl SealedIndex {
    /// The bytes of an index file for a segment that ends before the offset `end` and has `segment_bytes`.
    pub fn encode(
        index: &SparseIndex,
        end: Offset,
        segment_bytes: u64,
        first_timestamp: i64,
        max_timestamp: i64,
        chunk_crcs: &[u32],
    ) -> Vec<u8> {
        let body = Body {
            base: index.base.0,
            end: end.0,
            segment_bytes,
            first_timestamp,
            max_timestamp,
            entries: index.entries.clone(),
            chunk_crcs: chunk_crcs.to_vec(),
        };
        // What is written must be readable: a bug here would show only at the next start.
        assert_eq!(body.check(), Ok(()));
        let archived =
            rkyv::to_bytes::<rkyv::rancor::Error>(&body).expect("an archive in memory takes every write");
        seal(MAGIC, VERSION, &archived)
    }

    /// Reads an index file. Anything behind the frame must be zero.
    pub fn decode(bytes: &[u8]) -> Result<SealedIndex, Damage> {
        let (archived, after) = open(MAGIC, VERSION, bytes)?;
        if after.iter().any(|byte| *byte != 0) {
            return Err(Damage::Content("bytes follow the index"));
        }
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(archived.len());
        aligned.extend_from_slice(archived);
        let body = rkyv::from_bytes::<Body, rkyv::rancor::Error>(&aligned)
            .map_err(|_| Damage::Content("the archive is not valid"))?;
        body.check()?;
        Ok(SealedIndex { body })
    }

    pub fn base(&self) -> Offset {
        Offset(self.body.base)
    }

    /// The offset after the segment's last.
    pub fn end(&self) -> Offset {
        Offset(self.body.end)
    }

    pub fn segment_bytes(&self) -> u64 {
        self.body.segment_bytes
    }

    /// The first batch's largest time, by which a segment rolls.
    pub fn first_timestamp(&self) -> i64 {
        self.body.first_timestamp
    }

    pub fn max_timestamp(&self) -> i64 {
        self.body.max_timestamp
    }

    /// The position of a batch at or before the one that holds `offset`.
    pub fn lookup(&self, offset: Offset) -> FilePos {
        lookup(&self.body.entries, offset)
    }

    /// A position at or before the first batch with a time of at least `timestamp`.
    pub fn lookup_time(&self, timestamp: i64) -> FilePos {
        lookup_time(&self.body.entries, timestamp)
    }

    /// Whether `chunk` is what was sealed as the segment's 64 KiB number `number`; only the last one may be shorter.
    pub fn chunk_is_valid(&self, number: u64, chunk: &[u8]) -> bool {
        let Some(crc) = usize::try_from(number).ok().and_then(|at| self.body.chunk_crcs.get(at)) else {
            return false;
        };
        let start = number.saturating_mul(CHUNK_BYTES);
        let expected = self.body.segment_bytes.saturating_sub(start).min(CHUNK_BYTES);
        u64::try_from(chunk.len()) == Ok(expected) && crc32c::crc32c(chunk) == *crc
    }
}

impl Body {
    fn check(&self) -> Result<(), Damage> {
        if self.base < 0 || self.end < self.base {
            return Err(Damage::Content("a segment ends before it begins"));
        }
        if u64::try_from(self.chunk_crcs.len()) != Ok(self.segment_bytes.div_ceil(CHUNK_BYTES)) {
            return Err(Damage::Content("the checksums are not those of the segment's length"));
        }
        check_entries(&self.entries, self.base, self.end, self.segment_bytes)
    }
}

fn check_entries(entries: &[Entry], base: i64, end: i64, segment_bytes: u64) -> Result<(), Damage> {
    if entries.len() > ENTRIES_MAX {
        return Err(Damage::Content("an index has too many entries"));
    }
    let in_bounds = |entry: &Entry| (base..end).contains(&entry.last) && entry.position < segment_bytes;
    if !entries.iter().all(in_bounds) {
        return Err(Damage::Content("an entry lies outside its segment"));
    }
    let rise = |pair: &[Entry]| match pair {
        [before, after] => {
            before.last < after.last
                && before.position < after.position
                && before.max_before <= after.max_before
        }
        _ => false,
    };
    if entries.windows(2).all(rise) { Ok(()) } else { Err(Damage::Content("the entries do not rise")) }
}

fn lookup(entries: &[Entry], offset: Offset) -> FilePos {
    let after = entries.partition_point(|entry| entry.last <= offset.0);
    position_before(entries, after)
}

fn lookup_time(entries: &[Entry], timestamp: i64) -> FilePos {
    let after = entries.partition_point(|entry| entry.max_before < timestamp);
    position_before(entries, after)
}

fn position_before(entries: &[Entry], after: usize) -> FilePos {
    let entry = after.checked_sub(1).and_then(|index| entries.get(index));
    FilePos(entry.map_or(0, |entry| entry.position))
}

#[cfg(test)]
mod tests;
