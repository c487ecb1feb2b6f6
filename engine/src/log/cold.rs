//! Reads behind the tail: chunks of the segment file, shared between readers and read ahead of them.
//!
//! Batches are handed out as references into chunks; one that lies across two is two references. Only the 61 bytes of a
//! header are looked at, and copied where they lie across. Chunks of a sealed segment are checked against the CRCs of
//! its index when they are read; behind the sealed ones each batch's own CRC speaks. Nothing at or behind the durable
//! end of the active segment is read.
//!
//! Nobody waits for memory while holding chunks: a read takes memory for its first chunk, if its caller holds nothing,
//! and for the others only what is at hand. A chunk that is coming has its memory already, so waiting for one ends.

use super::read::ReadOut;
use super::scan::check_chunks;
use super::{AtWork, Shared, append};
use crate::batch::{self, Batch, CRC_COVERS_FROM, HEADER_BYTES};
use crate::chunks::{CHUNK_BYTES, Found, Key};
use crate::ids::Offset;
use crate::index::SealedIndex;
use crate::segment::{CRC_CHUNK_BYTES, Index, Segment};
use crate::space::block_ceil;
use rt::sync::Listening;
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
    generation: u32,
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
    /// The caller holds no memory that others wait for.
    pub may_wait: bool,
}

impl Wanted {
    /// The batch CRC does not cover the base offset. A reader must neither be given an offset twice nor be kept waiting
    /// at one that never comes.
    fn check_continues(&self, expected: Option<Offset>, header: &Batch<'_>) -> Result<(), String> {
        let base = header.base_offset();
        let continues = match expected {
            Some(expected) => base == expected,
            None => base <= self.from,
        };
        match continues {
            true => Ok(()),
            false => Err(format!("it holds offset {base}, not {}", expected.unwrap_or(self.from))),
        }
    }
}

impl Source {
    pub(super) fn of(segment: &Segment) -> Source {
        let sealed = match &segment.index {
            Index::Sealed(index) => Some(index.clone()),
            Index::Active(_) => None,
        };
        let end = if sealed.is_some() { segment.position } else { segment.durable };
        Source { base: segment.base, file: segment.file.clone(), generation: segment.generation, end, sealed }
    }

    /// Where a chunk lies.
    fn chunk(&self, number: u64) -> Range<u64> {
        let start = number * CHUNK_BYTES;
        start..(start + CHUNK_BYTES).min(self.end.max(start))
    }

    fn key(&self, shared: &Shared, number: u64) -> Key {
        Key { partition: shared.id, segment: self.base, generation: self.generation, number }
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
    pieces.extend(shared, source, first.min(source.end), wanted.may_wait).await?;
    read_ahead(shared, source, &pieces);
    let (mut pos, mut served_from, mut expected) = (pos, None, None);
    while pos < source.end {
        let missing = match pieces.batch_at(pos, source.end)? {
            At::Batch { header, bytes } => {
                let header = Batch::header_of(&header);
                let next = pos + bytes as u64;
                wanted
                    .check_continues(expected, &header)
                    .map_err(|why| format!("damaged at {pos}: {why}"))?;
                if header.last_offset() < wanted.from {
                    expected = Some(header.next_offset());
                    pos = next;
                    continue;
                }
                if next <= pieces.end() {
                    if !take(&mut out, &pieces, source, pos, &header, bytes, wanted)? {
                        break;
                    }
                    served_from.get_or_insert(pos);
                    expected = Some(header.next_offset());
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
        if pieces.extend(shared, source, missing, false).await? {
            continue;
        }
        if !wanted.may_wait {
            return Ok(Some(out));
        }
        drop(pieces);
        pieces = Pieces::alone(shared, source, pos, missing).await?;
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

    /// Reads on until the bytes up to `until` are here; false if memory did not suffice. Waits for memory only for a first
    /// chunk.
    async fn extend(
        &mut self,
        shared: &Rc<Shared>,
        source: &Source,
        until: u64,
        may_wait: bool,
    ) -> Result<bool, String> {
        let first = self.start / CHUNK_BYTES + self.chunks.len() as u64;
        let mut coming = Vec::new();
        // All that are absent are on their way before one is waited for.
        for number in first..until.max(1).div_ceil(CHUNK_BYTES) {
            let wait = may_wait && number == first && self.chunks.is_empty();
            match begin(shared, source, number, wait).await {
                Some(one) => coming.push(one),
                None => break,
            }
        }
        for one in coming {
            let chunk = match one {
                Coming::Here(chunk) => chunk,
                Coming::Task(task) => {
                    let read = task.await.unwrap_or_else(|_| Err(io::Error::other("reading a chunk failed")));
                    read.map_err(|error| error.to_string())?
                }
                Coming::FromOther(key, event) => {
                    event.await;
                    // It failed, or had to make room again.
                    let Found::Here(chunk) = shared.chunks.find(key) else { break };
                    chunk
                }
            };
            self.chunks.push(chunk);
        }
        Ok(self.end() >= until)
    }

    /// The bytes from `pos` to `until` in one piece of their own, whatever it takes.
    async fn alone(shared: &Shared, source: &Source, pos: u64, until: u64) -> Result<Pieces, String> {
        let start = pos - pos % CRC_CHUNK_BYTES;
        let end = until.next_multiple_of(CRC_CHUNK_BYTES).min(source.end);
        let padded = usize::try_from(block_ceil(end) - start).unwrap_or(usize::MAX);
        if padded > shared.core.buffers().largest(Reservation::Fetch) {
            return Err(format!(
                "a batch at {pos} of {} bytes is more than memory.budget allows",
                until - pos
            ));
        }
        let buf = append::take(shared, padded, Reservation::Fetch).await;
        let piece = load(shared, source, start..end, buf).await.map_err(|error| error.to_string())?;
        Ok(Pieces { start, chunks: vec![piece] })
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
        if !self.start.is_multiple_of(CHUNK_BYTES) {
            return;
        }
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

/// A chunk that is here, or will be without anybody's memory.
enum Coming {
    Here(Slice),
    Task(Task<io::Result<Slice>>),
    FromOther(Key, Listening),
}

/// Starts a chunk's coming; none if there is no memory for it.
async fn begin(shared: &Rc<Shared>, source: &Source, number: u64, may_wait: bool) -> Option<Coming> {
    let range = source.chunk(number);
    let padded = usize::try_from(block_ceil(range.end - range.start)).expect("a chunk fits in memory");
    let mut buf = None;
    loop {
        if source.is_whole(number) {
            let key = source.key(shared, number);
            match shared.chunks.find(key) {
                Found::Here(chunk) => return Some(Coming::Here(chunk)),
                Found::Coming(event) => return Some(Coming::FromOther(key, event.listen())),
                Found::Absent => {}
            }
        }
        if let Some(buf) = buf {
            return Some(Coming::Task(start(shared, source, number, buf, Need::Now)));
        }
        // Somebody else may have begun with it meanwhile: look again.
        buf = Some(match may_wait {
            true => append::take(shared, padded, Reservation::Fetch).await,
            false => append::try_take(shared, padded, Reservation::Fetch)?,
        });
    }
}

/// Whether somebody waits for a chunk.
#[derive(Clone, Copy)]
enum Need {
    Now,
    Ahead,
}

/// Reads a chunk in a task of its own, so that it ends even if who wanted it has gone.
fn start(
    shared: &Rc<Shared>,
    source: &Source,
    number: u64,
    buf: BufMut,
    need: Need,
) -> Task<io::Result<Slice>> {
    let key = source.is_whole(number).then(|| source.key(shared, number));
    if let Some(key) = key {
        shared.chunks.begin(key);
    }
    let at_work = AtWork::begin(shared);
    let (shared, source) = (shared.clone(), source.clone());
    let core = shared.core.clone();
    let (class, ahead) = match need {
        Need::Now => (Class::Fetch, false),
        Need::Ahead => (Class::CatchUp, true),
    };
    core.spawn(class, async move {
        let guard = EndsReading { shared: &shared, key };
        let chunk = load(&shared, &source, source.chunk(number), buf).await;
        if let Some(key) = key {
            shared.chunks.end(key, ahead, chunk.as_ref().ok().cloned());
        }
        drop(guard);
        drop(at_work);
        chunk
    })
}

/// A reading that panics must not leave others waiting.
struct EndsReading<'a> {
    shared: &'a Shared,
    key: Option<Key>,
}

impl Drop for EndsReading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(key) = self.key
        {
            self.shared.chunks.end(key, false, None);
        }
    }
}

/// The bytes of `range`, which begins on a block.
async fn load(shared: &Shared, source: &Source, range: Range<u64>, buf: BufMut) -> io::Result<Slice> {
    let bytes = usize::try_from(range.end - range.start).expect("it fits in the buffer");
    let padded = buf.len();
    let (read, buf) = source.file.read_at(buf, range.start).await;
    let chunk = match read? >= bytes {
        true => buf.freeze(0..bytes),
        false => {
            // The kernel cut it short.
            drop(buf);
            source.file.read_exactly(range.start, padded, Reservation::Fetch).await?
        }
    };
    if chunk.len() < bytes {
        let why = format!("the file ends before {}", source.end);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    let chunk = chunk.slice(0..bytes);
    if let Some(index) = &source.sealed {
        check_chunks(index, range.start, &chunk)?;
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
        if !shared.chunks.ahead_pays() {
            return;
        }
        let buf = shared.core.buffers().try_take(CHUNK_BYTES as usize, Reservation::CatchUp);
        let Some(buf) = buf else { return };
        drop(start(shared, source, number, buf, Need::Ahead));
    }
}
