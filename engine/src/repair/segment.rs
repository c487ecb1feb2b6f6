//! What a segment file holds, batch by batch, and where it is damaged. Pure: bytes in, findings out.
//!
//! It judges as a start does (`log/tear.rs`): what a power cut leaves behind the last batch is no damage. Behind damage
//! the search goes on at the next batch that is whole and can belong there, so that one bad sector costs one batch. The
//! first 21 bytes of a batch lie outside its checksum; where the neighbours leave no choice they are restored, and the
//! checksum of the rest proves it: then nothing is lost.

use crate::batch::{self, Batch, HEADER_BYTES};
use crate::ids::{LeaderEpoch, Offset};
use crate::index::SealedIndex;
use crate::log::tear::{self, Behind, Stop};
use crate::segment::CRC_CHUNK_BYTES;
use std::ops::{Range, RangeInclusive};

/// Base offset, length, epoch, magic and checksum: what lies before the bytes that the checksum covers.
pub const PREFIX_BYTES: usize = 21;

/// One good batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFacts {
    pub position: u64,
    pub bytes: u64,
    pub base: Offset,
    pub next: Offset,
    pub epoch: LeaderEpoch,
    pub records: i32,
    pub codec: &'static str,
    pub producer: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub max_timestamp: i64,
}

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub range: Range<u64>,
    /// The offsets that lie in it. Empty where nothing follows that says how many there were.
    pub offsets: Range<i64>,
    pub why: String,
    /// The epoch of the batch before it, or of the one behind where there is none.
    pub epoch: LeaderEpoch,
    /// The batch's first bytes as they must have been; with them it is whole again.
    pub restored: Option<[u8; PREFIX_BYTES]>,
}

impl Damaged {
    /// Only a checksum over the file is wrong: the batches in it are good.
    pub fn is_of_whole_batches(&self) -> bool {
        self.offsets.is_empty() && self.epoch == LeaderEpoch::UNKNOWN && self.offsets.start == NO_OFFSET
    }
}

/// How many zeros a batch may end in: an uncompressed one in the empty value and no headers of its last record.
const ZEROS_AT_ITS_END_MAX: usize = 16;
/// For damage that is not of certain offsets.
const NO_OFFSET: i64 = i64::MAX;

/// What was found, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    pub batches: Vec<BatchFacts>,
    pub damaged: Vec<Damaged>,
    /// What a power cut left of the last flush: a start removes it by itself.
    pub torn: Option<Range<u64>>,
    /// Behind the last good batch.
    pub position: u64,
    pub end: i64,
    pub last_epoch: i32,
}

/// Where a segment is examined from, and what bounds it.
#[derive(Clone, Copy)]
pub struct From {
    pub base: Offset,
    /// The epoch of the batch before it, and the highest that any batch can have.
    pub epoch: LeaderEpoch,
    pub epoch_max: LeaderEpoch,
    /// How far a torn flush can reach.
    pub torn_bytes_max: u64,
    /// Where the next segment begins, if there is one.
    pub next: Option<Offset>,
}

pub fn examine(bytes: &[u8], from: From, index: Option<&SealedIndex>) -> Examined {
    let mut examining =
        Examining { bytes, from, at: 0, end: from.base, epoch: from.epoch, found: Examined::default() };
    while examining.step() {}
    let Examining { at, end, epoch, mut found, .. } = examining;
    (found.position, found.end, found.last_epoch) = (at as u64, end.0, epoch.0);
    if let Some(next) = from.next
        && end < next
    {
        let behind = at as u64..found.torn.take().map_or(at as u64, |torn| torn.end);
        let why = format!("the next segment begins at offset {next}, this one is good to {end}");
        found.damaged.push(Damaged { range: behind, offsets: end.0..next.0, why, epoch, restored: None });
        found.end = next.0;
    }
    if let Some(index) = index {
        found.check_chunks(bytes, index);
    }
    found
}

struct Examining<'a> {
    bytes: &'a [u8],
    from: From,
    at: usize,
    end: Offset,
    epoch: LeaderEpoch,
    found: Examined,
}

impl<'a> Examining<'a> {
    /// Takes the next batch, or what is wrong before it. False at the end.
    fn step(&mut self) -> bool {
        let rest = &self.bytes[self.at..];
        if let Some((batch, total)) = self.good(self.at)
            && batch.base_offset() == self.end
            && !self.is_contradicted(&batch, self.at + total)
        {
            self.take(&batch, total);
            return true;
        }
        if tear::is_zero(rest) {
            return false;
        }
        match self.next_good() {
            Some(next) => {
                self.skip_to(next);
                true
            }
            None => {
                self.judge_rest();
                false
            }
        }
    }

    /// A whole valid batch at `at` that may follow what was taken.
    fn good(&self, at: usize) -> Option<(Batch<'a>, usize)> {
        good(self.bytes.get(at..)?, self.end, self.epoch..=self.from.epoch_max)
    }

    /// Whether the batch behind this one continues it in an earlier epoch: epochs never fall, so this one's is wrong.
    fn is_contradicted(&self, batch: &Batch<'_>, at: usize) -> bool {
        let next = self
            .bytes
            .get(at..)
            .and_then(|bytes| good(bytes, batch.next_offset(), self.epoch..=self.from.epoch_max));
        next.is_some_and(|(next, _)| {
            next.base_offset() == batch.next_offset() && next.leader_epoch() < batch.leader_epoch()
        })
    }

    fn take(&mut self, batch: &Batch<'_>, total: usize) {
        self.found.batches.push(BatchFacts {
            position: self.at as u64,
            bytes: total as u64,
            base: batch.base_offset(),
            next: batch.next_offset(),
            epoch: batch.leader_epoch(),
            records: batch.record_count(),
            codec: batch.compression().map_or("unknown", crate::batch::Codec::name),
            producer: batch.producer_id().0,
            producer_epoch: batch.producer_epoch(),
            base_sequence: batch.base_sequence(),
            max_timestamp: batch.max_timestamp(),
        });
        self.at += total;
        (self.end, self.epoch) = (batch.next_offset(), batch.leader_epoch());
    }

    /// Where the next batch lies that can belong to this log. The place that the damaged batch's own length names is
    /// looked at first: what is inside a batch is chosen by its producer and may look like one.
    fn next_good(&self) -> Option<usize> {
        let rest = &self.bytes[self.at..];
        let fits = |at: usize| self.good(self.at + at).map(|_| at);
        let named =
            rest.first_chunk::<12>().map(|head| i32::from_be_bytes(std::array::from_fn(|i| head[8 + i])));
        let named = named
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length >= HEADER_BYTES - 12);
        let gap = fits(0).filter(|_| self.is_gap());
        gap.or_else(|| named.and_then(|length| fits(length + 12))).or_else(|| {
            let last = rest.len().saturating_sub(HEADER_BYTES);
            (1..=last).filter(|&at| rest.get(at + 16) == Some(&2)).find_map(fits)
        })
    }

    /// Whether offsets are missing before the batch that lies here: the one behind it agrees with its base offset, which
    /// no checksum covers.
    fn is_gap(&self) -> bool {
        let Some((batch, total)) = self.good(self.at) else { return false };
        let next = self.good(self.at + total);
        batch.base_offset() > self.end
            && next.is_some_and(|(next, _)| next.base_offset() == batch.next_offset())
    }

    fn skip_to(&mut self, next: usize) {
        let damaged = &self.bytes[self.at..self.at + next];
        let Some((batch, _)) = self.good(self.at + next) else { return };
        let (base, epoch) = (batch.base_offset(), batch.leader_epoch());
        let restored = restore(damaged, self.end..base, (self.epoch, epoch));
        let why = match damaged.is_empty() {
            true => "offsets are missing".to_owned(),
            false => what_is_wrong(damaged),
        };
        let known = if self.epoch.0 >= 0 { self.epoch } else { epoch };
        let range = self.at as u64..(self.at + next) as u64;
        self.found.damaged.push(Damaged { range, offsets: self.end.0..base.0, why, epoch: known, restored });
        self.at += next;
        self.end = base;
    }

    fn judge_rest(&mut self) {
        let rest = &self.bytes[self.at..];
        let stop = Stop {
            pos: self.at as u64,
            end: self.end,
            epoch: self.epoch,
            torn_bytes_max: Some(self.from.torn_bytes_max),
        };
        let last = rest.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let range = self.at as u64..(self.at + last) as u64;
        match tear::judge(rest, &stop) {
            Behind::Clean => {}
            Behind::Torn => self.found.torn = Some(range),
            Behind::Damaged { why, .. } => {
                let epochs = (self.epoch, self.from.epoch_max);
                // Its length is what it says, or what lies before the zeros; a batch may end in some of its own.
                let own = batch::total_bytes(rest).ok();
                let found = own.into_iter().chain(last..=last + ZEROS_AT_ITS_END_MAX).find_map(|total| {
                    let (restored, count) = restore_last(rest.get(..total)?, self.end, epochs)?;
                    Some((restored, count, total))
                });
                let (restored, count) =
                    found.map_or((None, 0), |(restored, count, _)| (Some(restored), count));
                let range = range.start..found.map_or(range.end, |(_, _, total)| range.start + total as u64);
                let offsets = self.end.0..self.end.0 + count;
                self.found.damaged.push(Damaged { range, offsets, why, epoch: self.epoch, restored });
            }
        }
    }
}

impl Examined {
    /// A sealed segment's chunks have checksums that cover what those of its batches do not: the epochs.
    fn check_chunks(&mut self, bytes: &[u8], index: &SealedIndex) {
        let sealed = usize::try_from(index.segment_bytes()).unwrap_or(usize::MAX).min(bytes.len());
        for (number, chunk) in bytes[..sealed].chunks(CRC_CHUNK_BYTES as usize).enumerate() {
            let start = number as u64 * CRC_CHUNK_BYTES;
            let range = start..start + chunk.len() as u64;
            let known =
                |damaged: &Damaged| damaged.range.start < range.end && damaged.range.end > range.start;
            if index.chunk_is_valid(number as u64, chunk) || self.damaged.iter().any(known) {
                continue;
            }
            let damaged = self.wrong_epoch(chunk, start, |chunk| index.chunk_is_valid(number as u64, chunk));
            self.damaged.push(damaged.unwrap_or_else(|| Damaged {
                range: range.clone(),
                offsets: NO_OFFSET..NO_OFFSET,
                why: "its checksum is wrong, though every batch in it passes its own".to_owned(),
                epoch: LeaderEpoch::UNKNOWN,
                restored: None,
            }));
        }
    }

    /// The batch whose epoch, taken from a neighbour, makes the chunk valid again.
    fn wrong_epoch(&self, chunk: &[u8], start: u64, is_valid: impl Fn(&[u8]) -> bool) -> Option<Damaged> {
        let end = start + chunk.len() as u64;
        self.batches.iter().enumerate().find_map(|(number, batch)| {
            let at = usize::try_from(batch.position.checked_sub(start)?).ok()?;
            if batch.position + PREFIX_BYTES as u64 > end {
                return None;
            }
            let before = number.checked_sub(1).and_then(|before| self.batches.get(before));
            [before, self.batches.get(number + 1)].into_iter().flatten().find_map(|neighbour| {
                let mut mended = chunk.to_vec();
                batch::set_leader_epoch(mended.get_mut(at..)?, neighbour.epoch);
                is_valid(&mended).then(|| Damaged {
                    range: batch.position..batch.position + batch.bytes,
                    offsets: batch.base.0..batch.next.0,
                    why: "its leader epoch is not the one that was sealed".to_owned(),
                    epoch: neighbour.epoch,
                    restored: mended.get(at..).and_then(|bytes| bytes.first_chunk().copied()),
                })
            })
        })
    }
}

/// A whole valid batch that may follow `end` in this log.
fn good(bytes: &[u8], end: Offset, epochs: RangeInclusive<LeaderEpoch>) -> Option<(Batch<'_>, usize)> {
    let (batch, total) = Batch::parse(bytes).ok()?;
    let limit = end.0.saturating_add(i64::from(i32::MAX));
    let fits = (end.0..=limit).contains(&batch.base_offset().0) && epochs.contains(&batch.leader_epoch());
    (fits && batch.leader_epoch().0 >= 0 && batch.last_offset_delta() >= 0 && batch.crc_is_valid())
        .then_some((batch, total))
}

/// The first bytes of a batch that fills `bytes` and `offsets` exactly, if its checksum agrees.
fn restore(
    bytes: &[u8],
    offsets: Range<Offset>,
    (before, behind): (LeaderEpoch, LeaderEpoch),
) -> Option<[u8; PREFIX_BYTES]> {
    let mut mended = bytes.to_vec();
    let found = i32::from_be_bytes(std::array::from_fn(|at| mended.get(12 + at).copied().unwrap_or(0)));
    let epoch = match (before.0..=behind.0).contains(&found) {
        true => LeaderEpoch(found),
        false if before == behind => behind,
        false => return None,
    };
    let length = i32::try_from(mended.len().checked_sub(12)?).ok()?;
    mended.get_mut(8..12)?.copy_from_slice(&length.to_be_bytes());
    *mended.get_mut(16)? = 2;
    batch::set_base_offset(&mut mended, offsets.start);
    batch::set_leader_epoch(&mut mended, epoch);
    let (batch, total) = Batch::parse(&mended).ok()?;
    let whole = total == mended.len() && batch.crc_is_valid() && batch.next_offset() == offsets.end;
    whole.then(|| mended.first_chunk().copied()).flatten()
}

/// The same for the last batch, which nothing follows, with how many offsets it has.
fn restore_last(
    bytes: &[u8],
    end: Offset,
    epochs: (LeaderEpoch, LeaderEpoch),
) -> Option<([u8; PREFIX_BYTES], i64)> {
    let header = bytes.first_chunk()?;
    let count = i64::from(Batch::header_of(header).last_offset_delta()).checked_add(1)?;
    let next = Offset(end.0.checked_add(count)?);
    let restored = if count > 0 { restore(bytes, end..next, epochs) } else { None };
    restored.map(|prefix| (prefix, count))
}

fn what_is_wrong(bytes: &[u8]) -> String {
    match Batch::parse(bytes) {
        Err(error) => error.to_string(),
        Ok((batch, total)) if total == bytes.len() && !batch.crc_is_valid() => {
            "a checksum does not match".to_owned()
        }
        Ok((_, total)) if total == bytes.len() => "a batch does not continue the log".to_owned(),
        Ok(_) => "what lies there is no run of batches".to_owned(),
    }
}
