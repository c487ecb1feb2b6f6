//! One segment file as a log sees it: how far it is assigned, written, allocated, and how its batches are found.
//!
//! Positions: `durable <= position <= allocated`; `written` is the end of the region whose blocks hold data or zeros
//! (behind it lie unwritten extents, which cost twice). Only the last segment of a log is open; the others are sealed:
//! truncated to their length, with an index file that also holds a CRC32C per 64 KiB.

use crate::ids::{FilePos, Offset};
use crate::index::{SealedIndex, SparseIndex};
use rt::File;
use std::rc::Rc;

/// What one CRC of a sealed segment covers.
pub const CRC_CHUNK_BYTES: u64 = 64 * 1024;

pub struct Segment {
    pub base: Offset,
    pub file: File,
    /// Which file of that name this is: compaction puts others in its place.
    pub generation: u32,
    pub position: u64,
    pub durable: u64,
    pub allocated: u64,
    pub written: u64,
    pub index: Index,
    pub crcs: ChunkCrcs,
    /// The first batch's largest time, by which a segment rolls; -1 before it.
    pub first_timestamp: i64,
    pub max_timestamp: i64,
    pub created_ms: i64,
    /// A step is being allocated in the background.
    pub growing: bool,
    /// Zeros are being written behind `written`.
    pub zeroing: bool,
    pub sealing: bool,
}

pub enum Index {
    Active(SparseIndex),
    Sealed(Rc<SealedIndex>),
}

impl Segment {
    pub fn new(base: Offset, file: File, created_ms: i64, index_interval_bytes: u32) -> Segment {
        Segment {
            base,
            file,
            generation: 0,
            position: 0,
            durable: 0,
            allocated: 0,
            written: 0,
            index: Index::Active(SparseIndex::new(base, index_interval_bytes)),
            crcs: ChunkCrcs::default(),
            first_timestamp: -1,
            max_timestamp: -1,
            created_ms,
            growing: false,
            zeroing: false,
            sealing: false,
        }
    }

    /// Another segment follows: what is allocated behind its end is not written any more.
    pub fn take_no_more(&mut self) {
        (self.written, self.allocated) = (self.position, self.position);
    }

    pub fn is_sealed(&self) -> bool {
        matches!(self.index, Index::Sealed(_))
    }

    /// The position of a batch at or before the one that holds `offset`.
    pub fn floor(&self, offset: Offset) -> u64 {
        let FilePos(pos) = match &self.index {
            Index::Active(index) => index.lookup(offset),
            Index::Sealed(index) => index.lookup(offset),
        };
        pos.min(self.position)
    }

    /// The position behind which the first batch with a time of at least `timestamp` lies.
    pub fn floor_by_time(&self, timestamp: i64) -> u64 {
        let FilePos(pos) = match &self.index {
            Index::Active(index) => index.lookup_time(timestamp),
            Index::Sealed(index) => index.lookup_time(timestamp),
        };
        pos.min(self.position)
    }

    /// Takes note of a batch that now lies at `position`.
    pub fn note(&mut self, last: Offset, bytes: u64, max_timestamp: i64) {
        if let Index::Active(index) = &mut self.index {
            index.note(last, FilePos(self.position), bytes, max_timestamp);
        }
        if self.first_timestamp < 0 {
            self.first_timestamp = max_timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
        self.position += bytes;
    }

    /// The time by which retention judges this segment.
    pub fn age_timestamp(&self) -> i64 {
        if self.max_timestamp >= 0 { self.max_timestamp } else { self.created_ms }
    }
}

/// Whether an append rolls the segment first, as Kafka decides it.
pub struct Roll {
    pub position: u64,
    pub batch_bytes: u64,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub first_timestamp: i64,
    pub batch_timestamp: i64,
    pub created_ms: i64,
    pub now_ms: i64,
    /// The batch's last offset, counted from the segment's base.
    pub relative_offset: i64,
}

impl Roll {
    pub fn is_due(&self) -> bool {
        if self.position == 0 {
            return false;
        }
        let full = self.position + self.batch_bytes > self.segment_bytes;
        let age = match self.first_timestamp >= 0 && self.batch_timestamp >= 0 {
            true => self.batch_timestamp.saturating_sub(self.first_timestamp),
            false => self.now_ms.saturating_sub(self.created_ms),
        };
        full || age > self.segment_ms || self.relative_offset > i64::from(i32::MAX)
    }
}

/// CRCs of a file that is written from front to back. What lies before `from` was written by an earlier incarnation
/// and is read when the segment is sealed.
#[derive(Default, Clone)]
pub struct ChunkCrcs {
    from: u64,
    at: u64,
    crcs: Vec<u32>,
    open: u32,
}

impl ChunkCrcs {
    /// Starts at `at`, which earlier incarnations wrote up to.
    pub fn resume(at: u64) -> ChunkCrcs {
        let from = at.next_multiple_of(CRC_CHUNK_BYTES);
        ChunkCrcs { from, at, crcs: Vec::new(), open: 0 }
    }

    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = CRC_CHUNK_BYTES - self.at % CRC_CHUNK_BYTES;
            let take = bytes.len().min(room as usize);
            let (now, rest) = bytes.split_at(take);
            if self.at >= self.from {
                self.open = crc32c::crc32c_append(self.open, now);
            }
            self.at += take as u64;
            if self.at.is_multiple_of(CRC_CHUNK_BYTES) && self.at > self.from {
                self.crcs.push(std::mem::take(&mut self.open));
            }
            bytes = rest;
        }
    }

    /// Where the known CRCs begin; everything before it must be read.
    pub fn known_from(&self) -> u64 {
        self.from.min(self.at)
    }

    /// The CRCs of all chunks, those before `known_from` given by the caller.
    pub fn finish(&self, before: Vec<u32>) -> Vec<u32> {
        let mut all = before;
        if self.at < self.from {
            return all;
        }
        all.extend_from_slice(&self.crcs);
        if !self.at.is_multiple_of(CRC_CHUNK_BYTES) {
            all.push(self.open);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks(CRC_CHUNK_BYTES as usize).map(crc32c::crc32c).collect()
    }

    #[test]
    fn chunk_crcs_are_those_of_the_file_whatever_the_pieces() {
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        for pieces in [1, 7, 4096, 65536, 100_000] {
            for resumed in [0usize, 1, 65536, 70_000, 299_999] {
                let mut crcs = ChunkCrcs::resume(resumed as u64);
                bytes[resumed..].chunks(pieces).for_each(|piece| crcs.feed(piece));
                let known = crcs.known_from() as usize;
                assert_eq!(crcs.finish(whole(&bytes[..known])), whole(&bytes), "{pieces} {resumed}");
            }
        }
    }

    #[test]
    fn a_segment_rolls_by_size_time_and_offsets_and_never_when_empty() {
        let roll = |change: fn(&mut Roll)| {
            let mut roll = Roll {
                position: 100,
                batch_bytes: 10,
                segment_bytes: 1000,
                segment_ms: 50,
                first_timestamp: 5,
                batch_timestamp: 6,
                created_ms: 0,
                now_ms: 10,
                relative_offset: 3,
            };
            change(&mut roll);
            roll.is_due()
        };
        assert!(!roll(|_| {}));
        assert!(roll(|r| r.batch_bytes = 901));
        assert!(!roll(|r| r.batch_bytes = 900));
        assert!(roll(|r| r.batch_timestamp = 56));
        assert!(roll(|r| (r.batch_timestamp, r.now_ms) = (-1, 51)));
        assert!(roll(|r| r.relative_offset = 1 << 31));
        assert!(!roll(|r| (r.position, r.batch_bytes) = (0, 5000)));
    }
}
