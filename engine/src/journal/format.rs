//! What a journal file holds: entries, each one write of whole blocks, each with the flushes of several logs. Pure.
//!
//! Everything is a frame (see `docs/internals/disk-format.md`) at the start of a device block, version 1, padded with
//! zeros. Little-endian. The first block is the file's head, magic `CLJF`; each entry has magic `CLJN`.
//!
//! ```text
//!  head:  | key 16 | generation u64
//!  entry: | key 16 | generation u64 | number u32 | count u32 | count times:
//!         |   topic id 16 | partition index i32 | segment base i64 | position u64 | truncations u32
//!         |   batches as the segment gets them, behind their length u32
//! ```
//! The key is random, made with the file: bytes of a producer that look like an entry are none. A file is used again from
//! its front, with a higher generation, which the head says before the first entry is written; what an older one left behind
//! the newer entries is read too, and does no harm: it is in the segments. The entries of one generation are numbered from 0, so that
//! one that went bad between others is noticed.

use crate::batch::Batch;
use crate::fields::{Damage, FRAME_BYTES, Fields, open, seal, seal_in_place};
use crate::ids::{Offset, PartitionId, TopicId};
use crate::space::BLOCK_BYTES;
use std::collections::BTreeSet;

const HEAD_MAGIC: [u8; 4] = *b"CLJF";
const MAGIC: [u8; 4] = *b"CLJN";
const VERSION: u16 = 1;
/// Bytes of an entry before its first flush.
pub(crate) const ENTRY_BYTES: usize = FRAME_BYTES + 32;
/// Bytes of a flush before its batches.
pub(crate) const FLUSH_BYTES: usize = 16 + 4 + 8 + 8 + 4 + 4;

/// `segment.bytes` is less than 2^31, and so is a batch.
const POSITION_MAX: u64 = u32::MAX as u64;

/// Which bytes of which file a flush is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub id: PartitionId,
    /// The base offset of the segment.
    pub segment: Offset,
    /// Where in the segment its first batch lies.
    pub position: u64,
    /// How often the log had been truncated. After another time this speaks of a log that is no more (names.rs).
    pub truncations: u32,
}

/// A flush as a start reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Journaled {
    pub place: Place,
    /// Whole batches that follow each other.
    pub batches: Vec<u8>,
    /// The first offset, and the one behind the last.
    pub base: Offset,
    pub end: Offset,
}

/// What no producer can know of a file.
pub(crate) type Key = [u8; 16];

/// Which entry of which file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub key: Key,
    pub generation: u64,
    pub number: u32,
}

/// The first block of a file that begins with this entry.
pub(crate) fn head(first: &Entry) -> Vec<u8> {
    let body = [&first.key[..], &first.generation.to_le_bytes()].concat();
    let mut block = seal(HEAD_MAGIC, VERSION, &body);
    block.resize(BLOCK_BYTES as usize, 0);
    block
}

/// Begins an entry in `out`, which is long enough; gives where the first flush goes.
pub(crate) fn begin(out: &mut [u8], entry: &Entry, count: usize) -> usize {
    let count = u32::try_from(count).expect("an entry has few flushes");
    let out = &mut out[FRAME_BYTES..ENTRY_BYTES];
    out[0..16].copy_from_slice(&entry.key);
    out[16..24].copy_from_slice(&entry.generation.to_le_bytes());
    out[24..28].copy_from_slice(&entry.number.to_le_bytes());
    out[28..32].copy_from_slice(&count.to_le_bytes());
    ENTRY_BYTES
}

/// Puts one flush at `at`; gives where the next one goes.
pub(crate) fn put<'a>(
    out: &mut [u8],
    at: usize,
    place: &Place,
    batches: impl Iterator<Item = &'a [u8]>,
) -> usize {
    let mut end = at + FLUSH_BYTES;
    for part in batches {
        out[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    let length = u32::try_from(end - at - FLUSH_BYTES).expect("a flush is bounded");
    let head = &mut out[at..at + FLUSH_BYTES];
    head[0..16].copy_from_slice(&place.id.topic.0);
    head[16..20].copy_from_slice(&place.id.index.to_le_bytes());
    head[20..28].copy_from_slice(&place.segment.0.to_le_bytes());
    head[28..36].copy_from_slice(&place.position.to_le_bytes());
    head[36..40].copy_from_slice(&place.truncations.to_le_bytes());
    head[40..44].copy_from_slice(&length.to_le_bytes());
    end
}

/// Closes the entry that fills `out`.
pub(crate) fn finish(out: &mut [u8]) {
    seal_in_place(MAGIC, VERSION, out);
}

/// What a file holds.
#[derive(Default, Debug)]
pub(crate) struct Content {
    /// By generation and number of their entries: as they were written.
    pub flushes: Vec<(u64, u32, Journaled)>,
    /// The head, or an entry in front of a later one, is there no more.
    pub is_damaged: bool,
    /// Written by another release.
    pub newer: Option<u16>,
}

/// Reads every entry of a file's bytes, whichever generation it is of.
pub(crate) fn read(bytes: &[u8]) -> Content {
    let mut content = Content::default();
    let (head, entries) = bytes.split_at(bytes.len().min(BLOCK_BYTES as usize));
    let (key, generation) = match open(HEAD_MAGIC, VERSION, head).and_then(|(body, _)| decode_head(body)) {
        Ok(head) => head,
        Err(Damage::Version(version)) => {
            content.newer = Some(version);
            return content;
        }
        Err(_) => {
            // A file that was never finished begins with zeros, and nothing was written to it.
            content.is_damaged = head.iter().any(|byte| *byte != 0);
            // What stands first behind the head was written by a broker.
            match open(MAGIC, VERSION, entries).and_then(|(body, _)| decode(body)) {
                Ok((first, _)) if content.is_damaged => (first.key, first.generation),
                Ok(_) | Err(_) => return content,
            }
        }
    };
    let mut numbers = BTreeSet::new();
    let mut at = 0;
    while at < entries.len() {
        let rest = &entries[at..];
        let mut length = rest.len().min(BLOCK_BYTES as usize);
        if let Ok((body, after)) = open(MAGIC, VERSION, rest)
            && let Ok((entry, flushes)) = decode(body)
            && entry.key == key
        {
            numbers.insert((entry.generation, entry.number));
            content.flushes.extend(flushes.into_iter().map(|one| (entry.generation, entry.number, one)));
            length = (rest.len() - after.len()).next_multiple_of(BLOCK_BYTES as usize);
        }
        at += length;
    }
    // The newest generation begins at the front: one of its entries without the one before it lost that one.
    let newest = numbers.last().map_or(generation, |(newest, _)| generation.max(*newest));
    let of_newest = numbers.range((newest, 0)..);
    content.is_damaged |= of_newest.zip(0..).any(|((_, number), expected)| *number != expected);
    content.flushes.sort_by_key(|(generation, number, _)| (*generation, *number));
    content
}

fn decode_head(body: &[u8]) -> Result<(Key, u64), Damage> {
    let mut fields = Fields::new(body);
    let head = (fields.array()?, fields.u64()?);
    fields.finish()?;
    Ok(head)
}

fn decode(body: &[u8]) -> Result<(Entry, Vec<Journaled>), Damage> {
    let mut fields = Fields::new(body);
    let entry = Entry {
        key: fields.array()?,
        generation: fields.u64()?,
        number: u32::from_le_bytes(fields.array()?),
    };
    let count = fields.count(FLUSH_BYTES)?;
    let mut flushes = Vec::with_capacity(count);
    for _ in 0..count {
        let id = PartitionId { topic: TopicId(fields.array()?), index: fields.i32()? };
        let (segment, position) = (Offset(fields.i64()?), fields.u64()?);
        if position > POSITION_MAX {
            return Err(Damage::Content("no segment is so long"));
        }
        let truncations = u32::from_le_bytes(fields.array()?);
        let batches = fields.bytes()?;
        let (base, end) = offsets(batches)?;
        let place = Place { id, segment, position, truncations };
        flushes.push(Journaled { place, batches: batches.to_vec(), base, end });
    }
    fields.finish()?;
    Ok((entry, flushes))
}

/// The first offset of `batches` and the one behind the last.
pub(crate) fn offsets(batches: &[u8]) -> Result<(Offset, Offset), Damage> {
    let mut found: Option<(Offset, Offset)> = None;
    let mut rest = batches;
    while !rest.is_empty() {
        let (batch, total) = Batch::parse(rest).map_err(|_| Damage::Content("a batch is none"))?;
        let base = found.map_or(batch.base_offset(), |(base, _)| base);
        found = Some((base, batch.next_offset()));
        rest = &rest[total..];
    }
    found.ok_or(Damage::Content("a flush of no batches"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaderEpoch;
    use crate::log::tests::batch_of;

    fn place(index: i32, position: u64) -> Place {
        let id = PartitionId { topic: TopicId([3; 16]), index };
        Place { id, segment: Offset(5), position, truncations: 2 }
    }

    const KEY: Key = [8; 16];

    fn head_of(key: Key, generation: u64) -> Vec<u8> {
        head(&Entry { key, generation, number: 0 })
    }

    fn entry(generation: u64, number: u32, flushes: &[(Place, Vec<u8>)]) -> Vec<u8> {
        let bytes: usize = flushes.iter().map(|(_, batches)| FLUSH_BYTES + batches.len()).sum();
        let mut out = vec![0; ENTRY_BYTES + bytes];
        let mut at = begin(&mut out, &Entry { key: KEY, generation, number }, flushes.len());
        for (place, batches) in flushes {
            at = put(&mut out, at, place, batches.chunks(100));
        }
        assert_eq!(at, out.len());
        finish(&mut out);
        out.resize(out.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        out
    }

    fn batches(base: i64, count: i64, value: usize) -> Vec<u8> {
        (base..base + count).flat_map(|offset| batch_of(Offset(offset), LeaderEpoch(1), value)).collect()
    }

    fn summary(content: &Content) -> Vec<(u64, u32, i32, i64, i64)> {
        let of = |(generation, number, found): &(u64, u32, Journaled)| {
            (*generation, *number, found.place.id.index, found.base.0, found.end.0)
        };
        content.flushes.iter().map(of).collect()
    }

    #[test]
    fn what_was_written_is_read_in_the_order_of_writing() {
        let first = [(place(0, 0), batches(5, 2, 10)), (place(1, 700), batches(90, 1, 10))];
        let large = [(place(0, 300), batches(7, 3, 3000))];
        let old = entry(6, 3, &[(place(2, 0), batches(0, 1, 10))]);
        let file = [head_of(KEY, 7), entry(7, 0, &first), entry(7, 1, &large), vec![0; 8192], old].concat();
        let content = read(&file);
        assert_eq!(
            summary(&content),
            [(6, 3, 2, 0, 1), (7, 0, 0, 5, 7), (7, 0, 1, 90, 91), (7, 1, 0, 7, 10)]
        );
        assert_eq!((content.flushes[1].2.place, &content.flushes[1].2.batches), (first[0].0, &first[0].1));
        assert!(!content.is_damaged);
        assert_eq!(content.newer, None);
    }

    #[test]
    fn an_entry_that_went_bad_takes_no_other_with_it_and_is_noticed() {
        let one = |number: u32| entry(7, number, &[(place(0, 0), batches(i64::from(number), 1, 10))]);
        let whole = [head_of(KEY, 7), one(0), one(1), one(2)].concat();
        for bit in (0..whole.len() * 8).step_by(37) {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let content = read(&bad);
            let left: Vec<u32> = content.flushes.iter().map(|(_, number, _)| *number).collect();
            let block = u32::try_from(bit / 8 / 4096).expect("small");
            if left.len() == 3 && (block > 0 || !content.is_damaged) {
                continue; // The padding.
            }
            let expected: Vec<u32> = (0..3).filter(|number| *number + 1 != block).collect();
            assert_eq!(left, expected, "bit {bit}");
            assert_eq!(content.is_damaged, block < 3, "bit {bit}");
        }
        assert_eq!(read(&whole[..4096 * 3 + 100]).flushes.len(), 2);
        assert!(!read(&vec![0; whole.len()]).is_damaged, "it was never used");
    }

    #[test]
    fn a_torn_first_entry_of_a_file_that_is_used_again_is_no_damage() {
        let mut torn = entry(8, 0, &[(place(0, 0), batches(0, 3, 3000))]);
        torn[4096..].fill(0);
        for (generation, is_damaged) in [(7, true), (8, false)] {
            let file =
                [head_of(KEY, generation), torn.clone(), entry(7, 3, &[(place(0, 0), batches(9, 1, 9))])];
            let content = read(&file.concat());
            assert_eq!((summary(&content), content.is_damaged), (vec![(7, 3, 0, 9, 10)], is_damaged));
        }
    }

    #[test]
    fn a_record_that_looks_like_an_entry_is_none() {
        let forged = entry(9, 0, &[(place(7, 0), batches(0, 1, 10))]);
        let file = [head_of([1; 16], 9), forged].concat();
        assert!(read(&file).flushes.is_empty());
    }

    #[test]
    fn the_layout_is_pinned() {
        let bytes = entry(1, 0, &[(place(9, 4096), batches(5, 1, 4))]);
        assert_eq!(&bytes[..8], b"CLJN\x01\0\0\0");
        let mut expected = KEY.to_vec();
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend([3; 16]);
        expected.extend([9, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(&bytes[FRAME_BYTES..FRAME_BYTES + expected.len()], expected);
        assert_eq!(&head_of(KEY, 7)[..8], b"CLJF\x01\0\0\0");
    }
}
