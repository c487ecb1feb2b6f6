//! One flush as bytes: forming, while appends join it, and ready, while it waits for the disk.
//!
//! A buffer that was handed to the device is written no more: the last, partly filled block is copied into the next flush
//! (A15).

use crate::cache::Spot;
use crate::ids::Offset;
use crate::space::BLOCK_BYTES;
use rt::{BufMut, File, Slice};

/// The flush that appends still join.
pub(super) struct Forming {
    pub(super) segment: Offset,
    pub(super) file: File,
    /// Block-aligned file position of the first chunk.
    pub(super) start: u64,
    pub(super) chunks: Vec<BufMut>,
    /// Bytes filled over all chunks.
    pub(super) filled: usize,
    pub(super) spots: Vec<Spot>,
    pub(super) end_offset: Offset,
}

/// A flush that waits for the one before it.
pub(super) struct Ready {
    pub(super) segment: Offset,
    pub(super) file: File,
    pub(super) start: u64,
    pub(super) slices: Vec<Slice>,
    /// The file positions of its first batch, and behind its last.
    pub(super) from: u64,
    pub(super) end: u64,
    pub(super) base_offset: Offset,
    pub(super) end_offset: Offset,
    pub(super) batches: u64,
    pub(super) sync_before: Option<File>,
}

/// Pads the last block with zeros and makes the filled part of the chunks immutable.
pub(super) fn freeze(chunks: Vec<BufMut>, filled: usize) -> Vec<Slice> {
    let mut left = filled;
    let mut slices = Vec::with_capacity(chunks.len());
    for mut chunk in chunks {
        let used = left.min(chunk.len());
        left -= used;
        if used == 0 {
            break;
        }
        let padded = used.next_multiple_of(BLOCK_BYTES as usize);
        chunk[used..padded].fill(0);
        slices.push(chunk.freeze(0..padded));
    }
    assert!(left == 0);
    slices
}

impl Forming {
    pub(super) fn capacity(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// How many bytes it copied.
    pub(super) fn copy(&mut self, mut bytes: &[u8]) -> u64 {
        let before = self.filled;
        let mut at = self.filled;
        for chunk in &mut self.chunks {
            if at >= chunk.len() {
                at -= chunk.len();
                continue;
            }
            let take = bytes.len().min(chunk.len() - at);
            let (now, rest) = bytes.split_at(take);
            chunk[at..at + take].copy_from_slice(now);
            self.filled += take;
            bytes = rest;
            at = 0;
            if bytes.is_empty() {
                break;
            }
        }
        assert!(bytes.is_empty(), "memory was reserved before");
        (self.filled - before) as u64
    }

    /// Puts the last, partly filled block into `block`.
    pub(super) fn copy_last_block(&self, block: &mut Vec<u8>) {
        block.clear();
        let mut at = self.filled - self.filled % BLOCK_BYTES as usize;
        let bytes = self.filled - at;
        for chunk in &self.chunks {
            if at < chunk.len() {
                return block.extend_from_slice(&chunk[at..at + bytes]);
            }
            at -= chunk.len();
        }
    }
}

impl Ready {
    pub(super) fn bytes(&self) -> usize {
        self.slices.iter().map(|slice| slice.len()).sum()
    }
}
