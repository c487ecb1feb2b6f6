//! Reads behind the tail: chunks of the segment file, shared between readers and read ahead of them.
//!
//! Batches are handed out as references into chunks; one that lies across two is two references. Only the 61 bytes of a
//! header are looked at, and copied where they lie across. Chunks of a sealed segment are checked against the CRCs of
//! its index when they are read; behind the sealed ones each batch's own CRC speaks. Nothing at or behind the durable
//! end of the active segment is read.

use super::read::ReadOut;
use super::scan::check_chunks;
use super::{Shared, append};
use crate::batch::{self, Batch, CRC_COVERS_FROM, HEADER_BYTES};
use crate::chunks::{CHUNK_BYTES, Found, Key};
use crate::ids::Offset;
use crate::index::SealedIndex;
use crate::segment::{Index, Segment};
use crate::space::block_ceil;
use rt::{BufMut, Class, File, Reservation, Slice, Task};
use std::io;
use std::ops::Range;
use std::rc::Rc;

/// How many chunks are read ahead of one that continues what was read before.
const AHEAD_CHUNKS: u64 = 2;

/// One segment, as far as it may be read now.
#[derive(Clone)]
pub(super) struct Source {
    pub base: Offset,
    file: File,
    /// Where its readable bytes end.
    end: u64,
    sealed: Option<Rc<SealedIndex>>,
}

/// What one read may take.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub from: Offset,
    pub up_to: Offset,
    pub max_bytes: usize,
    pub min_one: bool,
}

impl Source {
    pub(super) fn of(segment: &Segment) -> Source {
        let sealed = match &segment.index {
            Index::Sealed(index) => Some(index.clone()),
            Index::Active(_) => None,
        };
        let end = if sealed.is_some() { segment.position } else { segment.durable };
        Source { base: segment.base, file: segment.file.clone(), end, sealed }
    }

    fn key(&self, shared: &Shared, number: u64) -> Key {
        Key { partition: shared.id, segment: self.base, number }
    }

    /// Chunks that will not change any more; the last one of an active segment still grows and is not kept.
    fn is_whole(&self, number: u64) -> bool {
        (number + 1) * CHUNK_BYTES <= self.end || self.sealed.is_some()
    }
}

/// Whole batches from the one that holds `wanted.from` on; `pos` is at or before it. Nothing found and the end of the
/// source reached: `None`.
pub(super) async fn read(
    shared: &Rc<Shared>,
    source: &Source,
    pos: u64,
    wanted: Wanted,
) -> Result<Option<ReadOut>, String> {
    let mut out = ReadOut { next: wanted.from, ..ReadOut::default() };
    let mut pieces = Pieces { start: pos - pos % CHUNK_BYTES, chunks: Vec::new() };
    let first = pos + wanted.max_bytes.min(shared.limits.read_bytes_max) as u64;
    pieces.extend(shared, source, first.min(source.end)).await?;
    read_ahead(shared, source, &pieces);
    let (mut pos, mut served_from) = (pos, None);
    while pos < source.end {
        let missing = match pieces.batch_at(pos, source.end)? {
            At::Batch { header, bytes } => {
                let header = Batch::header_of(&header);
                let next = pos + bytes as u64;
                if header.last_offset() < wanted.from {
                    pos = next;
                    continue;
                }
                if next <= pieces.end() {
                    if !take(&mut out, &pieces, source, pos, &header, bytes, wanted)? {
                        break;
                    }
                    served_from.get_or_insert(pos);
                    pos = next;
                    continue;
                }
                next
            }
            At::Missing(until) => until,
        };
        if out.bytes > 0 {
            break;
        }
        pieces.extend(shared, source, missing).await?;
    }
    pieces.note_served(shared, source, served_from.unwrap_or(pos)..pos);
    Ok((out.bytes > 0 || pos < source.end).then_some(out))
}

/// Adds one batch; false if it is not for this read.
fn take(
    out: &mut ReadOut,
    pieces: &Pieces,
    source: &Source,
    pos: u64,
    header: &Batch<'_>,
    bytes: usize,
    wanted: Wanted,
) -> Result<bool, String> {
    let fits = out.bytes + bytes <= wanted.max_bytes || (wanted.min_one && out.bytes == 0);
    if header.last_offset() >= wanted.up_to || !fits {
        return Ok(false);
    }
    if out.bytes > 0 && header.base_offset() < out.next {
        return Err(format!("damaged at {pos}: offsets go backwards"));
    }
    let parts = pieces.cut(pos, bytes);
    if source.sealed.is_none() && crc_of(&parts) != header.crc() {
        return Err(format!("damaged at {pos}: wrong checksum"));
    }
    out.bytes += bytes;
    out.next = header.next_offset();
    out.slices.extend(parts);
    Ok(true)
}

fn crc_of(parts: &[Slice]) -> u32 {
    let mut skip = CRC_COVERS_FROM;
    parts.iter().fold(0, |crc, part| {
        let covered = &part[skip.min(part.len())..];
        skip -= skip.min(part.len());
        crc32c::crc32c_append(crc, covered)
    })
}

/// Neighbouring chunks of one file, from `start` on.
struct Pieces {
    start: u64,
    chunks: Vec<Slice>,
}

enum At {
    Batch {
        header: [u8; HEADER_BYTES],
        /// Of the whole batch.
        bytes: usize,
    },
    /// The bytes up to here are needed first.
    Missing(u64),
}

impl Pieces {
    fn end(&self) -> u64 {
        self.start + self.chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>()
    }

    /// Reads on until the bytes up to `until` are here.
    async fn extend(&mut self, shared: &Rc<Shared>, source: &Source, until: u64) -> Result<(), String> {
        let first = self.start / CHUNK_BYTES + self.chunks.len() as u64;
        let last = until.max(1).div_ceil(CHUNK_BYTES);
        let mut tasks: Vec<Task<io::Result<Slice>>> = Vec::new();
        // All that are absent are on their way before one is waited for.
        for number in first..last {
            if source.is_whole(number)
                && matches!(shared.chunks.find(source.key(shared, number)), Found::Absent)
            {
                tasks.push(start(shared, source, number, None));
            }
        }
        for task in tasks {
            let read = task.await.map_err(|_| "reading a chunk failed".to_owned())?;
            read.map_err(|error| error.to_string())?;
        }
        for number in first..last {
            let chunk = one(shared, source, number).await.map_err(|error| error.to_string())?;
            self.chunks.push(chunk);
        }
        Ok(())
    }

    fn batch_at(&self, pos: u64, end: u64) -> Result<At, String> {
        let damaged = |why: &str| Err(format!("damaged at {pos}: {why}"));
        if pos + HEADER_BYTES as u64 > end {
            return damaged("a fragment of a batch ends the file");
        }
        if pos + HEADER_BYTES as u64 > self.end() {
            return Ok(At::Missing(pos + HEADER_BYTES as u64));
        }
        let mut header = [0; HEADER_BYTES];
        let mut filled = 0;
        for part in self.cut(pos, HEADER_BYTES) {
            header[filled..filled + part.len()].copy_from_slice(&part);
            filled += part.len();
        }
        match batch::total_bytes(&header) {
            Ok(bytes) if pos + bytes as u64 > end => damaged("a batch ends behind the file's end"),
            Ok(bytes) => Ok(At::Batch { header, bytes }),
            Err(error) => damaged(&error.to_string()),
        }
    }

    /// References to `bytes` at `pos`, all of which must be here.
    fn cut(&self, pos: u64, bytes: usize) -> Vec<Slice> {
        let mut skip = usize::try_from(pos - self.start).expect("pieces fit in memory");
        let mut left = bytes;
        let mut parts = Vec::with_capacity(2);
        for chunk in &self.chunks {
            if left == 0 {
                break;
            }
            if skip >= chunk.len() {
                skip -= chunk.len();
                continue;
            }
            let now = left.min(chunk.len() - skip);
            parts.push(chunk.slice(skip..skip + now));
            (skip, left) = (0, left - now);
        }
        assert!(left == 0, "the caller saw that they are here");
        parts
    }

    fn note_served(&self, shared: &Shared, source: &Source, served: Range<u64>) {
        let mut at = self.start;
        for chunk in &self.chunks {
            let within =
                |pos: u64| usize::try_from(pos.saturating_sub(at)).unwrap_or(usize::MAX).min(chunk.len());
            let part = within(served.start)..within(served.end);
            if !part.is_empty() {
                shared.chunks.served(source.key(shared, at / CHUNK_BYTES), part);
            }
            at += CHUNK_BYTES;
        }
    }
}

/// One chunk: from the cache, from whoever reads it already, or from the disk.
async fn one(shared: &Rc<Shared>, source: &Source, number: u64) -> io::Result<Slice> {
    if !source.is_whole(number) {
        return load(shared, source, number, None).await;
    }
    loop {
        let coming = match shared.chunks.find(source.key(shared, number)) {
            Found::Here(chunk) => return Ok(chunk),
            Found::Coming(event) => event.listen(),
            Found::Absent => {
                let task = start(shared, source, number, None);
                return task.await.unwrap_or_else(|_| Err(io::Error::other("reading a chunk failed")));
            }
        };
        coming.await;
    }
}

/// Reads a chunk in a task of its own, so that it ends even if who wanted it has gone. `ahead`: the memory of one that
/// nobody waits for.
fn start(
    shared: &Rc<Shared>,
    source: &Source,
    number: u64,
    ahead: Option<BufMut>,
) -> Task<io::Result<Slice>> {
    let key = source.key(shared, number);
    shared.chunks.begin(key);
    let class = if ahead.is_some() { Class::CatchUp } else { Class::Fetch };
    let (shared, source) = (shared.clone(), source.clone());
    let core = shared.core.clone();
    core.spawn(class, async move {
        let guard = EndsReading { shared: &shared, key };
        let chunk = load(&shared, &source, number, ahead).await;
        shared.chunks.end(key, chunk.as_ref().ok().cloned());
        drop(guard);
        chunk
    })
}

/// A reading that panics must not leave others waiting.
struct EndsReading<'a> {
    shared: &'a Shared,
    key: Key,
}

impl Drop for EndsReading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.chunks.end(self.key, None);
        }
    }
}

async fn load(shared: &Shared, source: &Source, number: u64, buf: Option<BufMut>) -> io::Result<Slice> {
    let start = number * CHUNK_BYTES;
    let bytes = source.end.saturating_sub(start).min(CHUNK_BYTES);
    let padded = usize::try_from(block_ceil(bytes)).expect("a chunk fits in memory");
    let buf = match buf {
        Some(buf) => buf,
        None => append::take(shared, padded, Reservation::Fetch).await,
    };
    let chunk = source.file.read_into(buf, start, padded, Reservation::Fetch).await?;
    let bytes = usize::try_from(bytes).expect("a chunk fits in memory");
    if chunk.len() < bytes {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the file ends before {}", source.end),
        ));
    }
    let chunk = chunk.slice(0..bytes);
    if let Some(index) = &source.sealed {
        check_chunks(index, start, &chunk)?;
    }
    shared.count(|counters| {
        counters.reads_from_disk += 1;
        counters.bytes_from_disk += bytes as u64;
    });
    Ok(chunk)
}

/// Starts reading what comes next, if this read continued an earlier one and memory is at hand.
fn read_ahead(shared: &Rc<Shared>, source: &Source, pieces: &Pieces) {
    let first = pieces.start / CHUNK_BYTES;
    let next = first + pieces.chunks.len() as u64;
    let continues = first == 0
        || pieces.chunks.len() > 1
        || matches!(shared.chunks.find(source.key(shared, first - 1)), Found::Here(_));
    if !continues {
        return;
    }
    for number in next..next + AHEAD_CHUNKS {
        let lies_within = (number + 1) * CHUNK_BYTES <= source.end;
        if !lies_within || !matches!(shared.chunks.find(source.key(shared, number)), Found::Absent) {
            continue;
        }
        let buf = shared.core.buffers().try_take(CHUNK_BYTES as usize, Reservation::CatchUp);
        let Some(buf) = buf else { return };
        drop(start(shared, source, number, Some(buf)));
    }
}
