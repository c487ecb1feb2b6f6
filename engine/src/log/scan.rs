//! Batches of one segment file, in order, by aligned windows. Cold reads, time look-up, recovery and repair share it.
//!
//! A window of a sealed segment is checked against the CRCs of its index before a byte of it is believed (A4).

use crate::batch;
use crate::index::SealedIndex;
use crate::segment::CRC_CHUNK_BYTES;
use crate::space::{BLOCK_BYTES, block_ceil};
use rt::{File, Reservation, Slice};
use std::io;
use std::rc::Rc;

pub(crate) struct Scan {
    pub file: File,
    /// Where the next batch begins.
    pub pos: u64,
    /// Where the bytes to look at end.
    pub end: u64,
    /// How much the next read takes; doubles from read to read.
    pub window_bytes: usize,
    pub window_bytes_max: usize,
    pub reservation: Reservation,
    pub crcs: Option<Rc<SealedIndex>>,
    pub window: Window,
}

#[derive(Default)]
pub(crate) struct Window {
    start: u64,
    bytes: Slice,
}

pub(crate) enum Step {
    Batch {
        bytes: Slice,
    },
    End,
    /// What lies at `pos` is not a whole batch.
    Bad {
        pos: u64,
        why: String,
    },
}

enum Buffered {
    Step(Step),
    Load(usize),
}

impl Scan {
    pub(crate) async fn next(&mut self) -> io::Result<Step> {
        let mut loaded = 0;
        loop {
            match self.look() {
                Buffered::Step(step) => return Ok(self.advance(step)),
                Buffered::Load(needed) if needed <= loaded => {
                    return Ok(Step::Bad { pos: self.pos, why: "the file ends inside a batch".into() });
                }
                Buffered::Load(needed) => {
                    self.load(needed).await?;
                    loaded = needed;
                }
            }
        }
    }

    fn advance(&mut self, step: Step) -> Step {
        if let Step::Batch { bytes, .. } = &step {
            self.pos += bytes.len() as u64;
        }
        step
    }

    fn look(&self) -> Buffered {
        if self.pos >= self.end {
            return Buffered::Step(Step::End);
        }
        let bad = |why: String| Buffered::Step(Step::Bad { pos: self.pos, why });
        let left = usize::try_from(self.end - self.pos).unwrap_or(usize::MAX);
        let from = self.pos.checked_sub(self.window.start).and_then(|from| usize::try_from(from).ok());
        let from = from.unwrap_or(usize::MAX).min(self.window.bytes.len());
        let here = &self.window.bytes[from..];
        let here = &here[..here.len().min(left)];
        match batch::total_bytes(here) {
            Ok(total) if total <= here.len() => {
                let bytes = self.window.bytes.slice(from..from + total);
                Buffered::Step(Step::Batch { bytes })
            }
            Ok(total) if total > left => bad(format!("a batch of {total} bytes ends behind the file's end")),
            Ok(total) => Buffered::Load(total),
            Err(batch::Error::Incomplete { needed }) if needed > left => {
                bad("a fragment of a batch ends the file".into())
            }
            Err(batch::Error::Incomplete { needed }) => Buffered::Load(needed),
            Err(error) => bad(error.to_string()),
        }
    }

    async fn load(&mut self, needed: usize) -> io::Result<()> {
        let unit = if self.crcs.is_some() { CRC_CHUNK_BYTES } else { BLOCK_BYTES };
        let start = self.pos - self.pos % unit;
        let until = (self.pos + needed as u64).next_multiple_of(unit);
        let whole = until
            .max(start + (self.window_bytes as u64).next_multiple_of(unit))
            .min(block_ceil(self.end))
            .max(block_ceil(self.pos + needed as u64));
        let bytes = usize::try_from(whole - start).map_err(|_| io::ErrorKind::InvalidData)?;
        // Nobody waits for memory while holding some that others may wait for.
        self.window = Window::default();
        let window = self.file.read_exactly(start, bytes, self.reservation).await?;
        if let Some(index) = &self.crcs {
            let content =
                &window[..window.len().min(usize::try_from(self.end - start).unwrap_or(usize::MAX))];
            check_chunks(index, start, content)?;
        }
        self.window = Window { start, bytes: window };
        self.window_bytes = (self.window_bytes * 2).min(self.window_bytes_max);
        Ok(())
    }
}

/// Holds bytes of a sealed segment that begin at `start` to the CRCs of its index. A last piece that is not whole is not
/// judged.
pub(super) fn check_chunks(index: &SealedIndex, start: u64, bytes: &[u8]) -> io::Result<()> {
    for (at, chunk) in bytes.chunks(CRC_CHUNK_BYTES as usize).enumerate() {
        let number = start / CRC_CHUNK_BYTES + at as u64;
        let ends_segment = start + bytes.len() as u64 == index.segment_bytes();
        let whole = chunk.len() as u64 == CRC_CHUNK_BYTES || ends_segment;
        if whole && !index.chunk_is_valid(number, chunk) {
            let pos = number * CRC_CHUNK_BYTES;
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("wrong checksum at {pos}")));
        }
    }
    Ok(())
}
