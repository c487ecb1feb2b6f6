//! Groups and records as bytes. Pure; nothing read is trusted.

use super::{Entry, HardState, RaftSnapshot};
use crate::space::BLOCK_BYTES;

const MAGIC: &[u8; 4] = b"CLRG";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 28;
const SECTOR_BYTES: usize = 512;
const BLOCK: usize = BLOCK_BYTES as usize;

const HARD_STATE: u8 = 1;
const ENTRY: u8 = 2;
const SNAPSHOT: u8 = 3;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    HardState(HardState),
    Entry(Entry),
    Snapshot(RaftSnapshot),
}

pub(super) struct Group<'a> {
    pub body: &'a [u8],
    /// Of the whole group, padding included.
    pub length: usize,
    pub crc: u32,
}

pub(super) enum Look<'a> {
    Group(Group<'a>),
    /// Anything but the group that is due here.
    Other,
}

pub(super) fn put(body: &mut Vec<u8>, record: &Record) {
    let (kind, words, data): (u8, &[u64], &[u8]) = match record {
        Record::HardState(h) => (HARD_STATE, &[h.term, h.vote, h.commit], &[]),
        Record::Entry(e) => (ENTRY, &[e.index, e.term], &e.data),
        Record::Snapshot(s) => (SNAPSHOT, &[s.index, s.term], &s.data),
    };
    let bytes =
        u32::try_from(words.len() * 8 + data.len()).expect("entries and snapshots are bounded by the caller");
    body.push(kind);
    body.extend_from_slice(&bytes.to_le_bytes());
    words.iter().for_each(|word| body.extend_from_slice(&word.to_le_bytes()));
    body.extend_from_slice(data);
}

/// The bytes of a group and its CRC; `None` if the body is too long.
pub(crate) fn group(sequence: u64, chain: u32, body: &[u8]) -> Option<(Vec<u8>, u32)> {
    let length = u32::try_from(body.len()).ok()?;
    let mut bytes = Vec::with_capacity((HEADER_BYTES + body.len()).next_multiple_of(BLOCK));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let crc = checksum(&bytes, chain, body);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&chain.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    Some((bytes, crc))
}

fn checksum(header: &[u8], chain: u32, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(header), &chain.to_le_bytes());
    crc32c::crc32c_append(crc, body)
}

/// The valid group at the start of `bytes`, whichever it is: its sequence and itself.
fn any_group(bytes: &[u8]) -> Option<(u64, u32, Group<'_>)> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| header[at + index]));
    if &header[0..4] != MAGIC || u16::from_le_bytes([header[4], header[5]]) != VERSION {
        return None;
    }
    let sequence = u64::from_le_bytes(std::array::from_fn(|index| header[8 + index]));
    let body_bytes = usize::try_from(word(16)).ok()?;
    let body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(body_bytes)?)?;
    let (crc, chain) = (word(20), word(24));
    if checksum(&header[..20], chain, body) != crc {
        return None;
    }
    let length = (HEADER_BYTES + body_bytes).next_multiple_of(BLOCK);
    Some((sequence, chain, Group { body, length: length.min(bytes.len()), crc }))
}

pub(super) fn look(bytes: &[u8], sequence: u64, chain: u32) -> Look<'_> {
    match any_group(bytes) {
        Some((found, before, group)) if found == sequence && before == chain => Look::Group(group),
        Some(_) | None => Look::Other,
    }
}

/// Why the bytes behind the last good group cannot be a torn write; `None` where they can.
pub(super) fn damage_behind(bytes: &[u8], sequence: u64) -> Option<String> {
    let later = bytes.chunks(BLOCK).enumerate().skip(1).find_map(|(block, _)| {
        let (found, _, _) = any_group(&bytes[block * BLOCK..])?;
        (found > sequence && found >> 32 == sequence >> 32).then_some(found)
    });
    if let Some(found) = later {
        return Some(format!("group {sequence} is not readable, but group {found} is there behind it"));
    }
    // A tear leaves sectors that were never written. A whole group that fails without one has rotted.
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let body_bytes = u32::from_le_bytes(std::array::from_fn(|index| header[16 + index])) as usize;
    let whole = bytes.get(..HEADER_BYTES.checked_add(body_bytes)?)?;
    let zero = |sector: &[u8]| sector.iter().all(|&byte| byte == 0);
    let missing = whole.chunks(SECTOR_BYTES).any(zero);
    (!missing).then(|| format!("group {sequence} fails its checksum, and none of it is missing"))
}

/// The records of a group, all or none.
pub(super) fn records(mut body: &[u8]) -> Option<Vec<Record>> {
    let mut found = Vec::new();
    while !body.is_empty() {
        let (kind, rest) = body.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (mut content, rest) =
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let mut word = || {
            let (word, after) = content.split_first_chunk::<8>()?;
            content = after;
            Some(u64::from_le_bytes(*word))
        };
        let record = match *kind {
            HARD_STATE => Record::HardState(HardState { term: word()?, vote: word()?, commit: word()? }),
            ENTRY => {
                let (index, term) = (word()?, word()?);
                Record::Entry(Entry { index, term, data: content.to_vec() })
            }
            SNAPSHOT => {
                let (index, term) = (word()?, word()?);
                Record::Snapshot(RaftSnapshot { index, term, data: content.to_vec() })
            }
            _ => return None,
        };
        found.push(record);
        body = rest;
    }
    Some(found)
}
