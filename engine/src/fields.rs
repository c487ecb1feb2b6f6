//! The small format under every format of ours: a checked frame, and little-endian fields inside it.
//!
//! ```text
//!  0         4       6        8        12      16
//!  +---------+-------+--------+--------+-------+------------
//!  | magic   |version| zero   | body   | crc32c| body
//!  |         | u16   | u16    | bytes  | u32   |
//!  +---------+-------+--------+--------+-------+------------
//! ```
//! Little-endian. The CRC-32C covers bytes 0..12 and the body, so that no bit of a frame can flip unnoticed. What
//! follows the body (zeros up to a device block) is the caller's.

use crate::varint;
use std::fmt;

pub(crate) const FRAME_BYTES: usize = 16;
const COVERED_BYTES: usize = 12;

/// Why bytes from a disk are refused. No detail is needed beyond this: nothing refused is used in part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The bytes end before the frame does.
    Short,
    /// Something else lies here.
    Magic,
    /// Written by another release; the version it wrote is named.
    Version(u16),
    Checksum,
    /// The checksum is right and the content contradicts itself: a bug of whoever wrote it.
    Content(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Short => write!(f, "it is cut off"),
            Damage::Magic => write!(f, "something else lies there"),
            Damage::Version(version) => {
                write!(f, "version {version} of its format is not known to this release")
            }
            Damage::Checksum => write!(f, "its checksum does not match"),
            Damage::Content(what) => write!(f, "its content contradicts itself: {what}"),
        }
    }
}

impl std::error::Error for Damage {}

/// Puts `body` into a frame.
pub(crate) fn seal(magic: [u8; 4], version: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_BYTES + body.len());
    out.resize(FRAME_BYTES, 0);
    out.extend_from_slice(body);
    seal_in_place(magic, version, &mut out);
    out
}

/// Makes a frame of `out`: the body is there already, behind the room for what comes before it.
pub(crate) fn seal_in_place(magic: [u8; 4], version: u16, out: &mut [u8]) {
    let (frame, body) = out.split_at_mut(FRAME_BYTES);
    let length = u32::try_from(body.len()).expect("a body has less than 4 GiB");
    frame[0..4].copy_from_slice(&magic);
    frame[4..6].copy_from_slice(&version.to_le_bytes());
    frame[6..8].fill(0);
    frame[8..12].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..COVERED_BYTES]), body);
    frame[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// The body of the frame that `bytes` begin with, and what follows the frame.
pub(crate) fn open(magic: [u8; 4], version: u16, bytes: &[u8]) -> Result<(&[u8], &[u8]), Damage> {
    let (frame, rest) = bytes.split_first_chunk::<FRAME_BYTES>().ok_or(Damage::Short)?;
    let (covered, crc) = frame.split_last_chunk::<4>().ok_or(Damage::Short)?;
    let mut fields = Fields { rest: covered };
    if fields.array()? != magic {
        return Err(Damage::Magic);
    }
    let found = u16::from_le_bytes(fields.array()?);
    let _zero: [u8; 2] = fields.array()?;
    let length = usize::try_from(u32::from_le_bytes(fields.array()?)).map_err(|_| Damage::Short)?;
    let (body, after) = rest.split_at_checked(length).ok_or(Damage::Short)?;
    debug_assert_eq!(covered.len(), COVERED_BYTES);
    if crc32c::crc32c_append(crc32c::crc32c(covered), body) != u32::from_le_bytes(*crc) {
        return Err(Damage::Checksum);
    }
    // A version is believed only under its checksum.
    if found == version { Ok((body, after)) } else { Err(Damage::Version(found)) }
}

/// Reads fields off the front of a body; running out of bytes is damage.
pub(crate) struct Fields<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Fields<'a> {
        Fields { rest: body }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Damage::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Damage> {
        self.array().map(i16::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Damage> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Damage> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<i64, Damage> {
        let (value, length) = varint::read_i64(self.rest).ok_or(Damage::Short)?;
        self.rest = self.rest.get(length..).ok_or(Damage::Short)?;
        Ok(value)
    }

    /// How many elements follow, each of at least `element_bytes_min`: no more than the bytes can hold.
    pub(crate) fn count(&mut self, element_bytes_min: usize) -> Result<usize, Damage> {
        let count = usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| Damage::Short)?;
        let holds = self.rest.len() / element_bytes_min.max(1);
        if count > holds { Err(Damage::Short) } else { Ok(count) }
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.count(1)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Damage::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Every body is read to its last byte.
    pub(crate) fn finish(self) -> Result<(), Damage> {
        if self.rest.is_empty() { Ok(()) } else { Err(Damage::Content("bytes are left over")) }
    }
}

pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("counts are bounded far below 2^32");
    out.extend_from_slice(&count.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_of_a_frame_flips_unnoticed() {
        let bytes = seal(*b"TEST", 3, b"body");
        assert_eq!(open(*b"TEST", 3, &bytes), Ok((&b"body"[..], &b""[..])));
        assert_eq!(open(*b"TEST", 4, &bytes), Err(Damage::Version(3)));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(*b"TEST", 3, &flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(open(*b"TEST", 3, &bytes[..length]), Err(Damage::Short));
        }
    }

    #[test]
    fn a_count_is_bounded_by_the_bytes_there_are() {
        let mut bytes = Vec::new();
        put_count(&mut bytes, 3);
        bytes.extend_from_slice(&[0; 11]);
        assert_eq!(Fields::new(&bytes).count(3), Ok(3));
        assert_eq!(Fields::new(&bytes).count(4), Err(Damage::Short));
        assert_eq!(Fields::new(&u32::MAX.to_le_bytes()).count(1), Err(Damage::Short));
    }
}
