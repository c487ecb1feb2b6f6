//! The four codecs of Kafka, in memory, with a bound on what comes out.
//!
//! A few bytes can unpack to gigabytes, so whoever decompresses says how much is acceptable, and no length that the
//! bytes claim is believed further than that. What these functions do takes up to milliseconds: shards call them on
//! helper threads.
//!
//! Snappy has two framings. Java writes the xerial one (below), librdkafka and others the bare block; both are read.
//! A bare block cannot begin like the frame, since its first byte would announce a length that the rest contradicts.
//!
//! ```text
//!  0                                8        12         16
//!  +--+--+--+--+--+--+--+--+---------+----------+--------+--------------+--------+---
//!  |82|S |N |A |P |P |Y |00| version | compat   | bytes  | snappy block | bytes  | ...
//!  +--+--+--+--+--+--+--+--+---------+----------+--------+--------------+--------+---
//! ```
//! Numbers are big-endian; both versions are 1.

use super::Codec;
use std::fmt;
use std::io::{Read, Write};

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\x00";
const XERIAL_HEADER_BYTES: usize = 16;
/// How much Java puts into one block.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// A snappy element of three bytes gives at most 64.
const SNAPPY_RATIO_MAX: usize = 64;
/// zstd's own limit, and what its highest level asks for. The window is reserved, but touched only as far as bytes come
/// out, which the caller bounds.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Why bytes did not unpack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// More than `limit` bytes would come out.
    TooLarge {
        limit: usize,
    },
    Malformed(Codec),
}

/// Unpacks `bytes` to at most `limit` bytes.
pub fn decompress(codec: Codec, bytes: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    match codec {
        Codec::None if bytes.len() > limit => Err(Error::TooLarge { limit }),
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(bytes), codec, limit),
        Codec::Snappy => decompress_snappy(bytes, limit),
        Codec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(bytes), codec, limit),
        Codec::Zstd => {
            let malformed = |_| Error::Malformed(codec);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(malformed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(malformed)?;
            read_bounded(decoder, codec, limit)
        }
    }
}

/// Packs `bytes`. Without a level each codec's default holds; a level outside its range is moved to the nearest one
/// inside. Snappy and LZ4 have only one.
pub fn compress(codec: Codec, bytes: &[u8], level: Option<i32>) -> Vec<u8> {
    match codec {
        Codec::None => bytes.to_vec(),
        Codec::Gzip => {
            let level = level.map_or(flate2::Compression::default(), |level| {
                flate2::Compression::new(u32::try_from(level.clamp(1, 9)).expect("clamped"))
            });
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("a vector takes every write");
            encoder.finish().expect("a vector takes every write")
        }
        Codec::Snappy => compress_snappy(bytes),
        Codec::Lz4 => compress_lz4(bytes),
        Codec::Zstd => {
            let levels = zstd::compression_level_range();
            let level =
                level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).clamp(*levels.start(), *levels.end());
            zstd::bulk::compress(bytes, level).expect("packing into memory fails only without memory")
        }
    }
}

fn read_bounded(reader: impl Read, codec: Codec, limit: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    // One byte past the limit tells "exactly the limit" from "more than it".
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(bound).read_to_end(&mut out).map_err(|_| Error::Malformed(codec))?;
    if out.len() > limit { Err(Error::TooLarge { limit }) } else { Ok(out) }
}

fn decompress_snappy(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    if !bytes.starts_with(&XERIAL_MAGIC) {
        decompress_block(bytes, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).ok_or(Error::Malformed(Codec::Snappy))?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk().ok_or(Error::Malformed(Codec::Snappy))?;
        let length =
            usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Error::Malformed(Codec::Snappy))?;
        let (block, after) = after.split_at_checked(length).ok_or(Error::Malformed(Codec::Snappy))?;
        decompress_block(block, limit, &mut out)?;
        rest = after;
    }
    Ok(out)
}

/// Unpacks one bare block behind what `out` holds, `limit` counting both.
fn decompress_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    let claimed = snap::raw::decompress_len(block).map_err(|_| Error::Malformed(Codec::Snappy))?;
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(Error::Malformed(Codec::Snappy));
    }
    let start = out.len();
    if claimed > limit.saturating_sub(start) {
        return Err(Error::TooLarge { limit });
    }
    out.resize(start + claimed, 0);
    let target = out.get_mut(start..).expect("resized past the start");
    let written =
        snap::raw::Decoder::new().decompress(block, target).map_err(|_| Error::Malformed(Codec::Snappy))?;
    if written == claimed { Ok(()) } else { Err(Error::Malformed(Codec::Snappy)) }
}

fn compress_snappy(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_BYTES + bytes.len() / 2);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).expect("the target is sized for the block");
        let length = i32::try_from(packed.len()).expect("a packed block is about as long as the block");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

fn compress_lz4(bytes: &[u8]) -> Vec<u8> {
    // Java's reader takes independent blocks only.
    let info = lz4_flex::frame::FrameInfo::new()
        .block_mode(lz4_flex::frame::BlockMode::Independent)
        .block_size(lz4_flex::frame::BlockSize::Max64KB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).expect("a vector takes every write");
    encoder.finish().expect("a vector takes every write")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::TooLarge { limit } => write!(f, "the records unpack to more than {limit} bytes"),
            Error::Malformed(codec) => write!(f, "the records are not {}", codec.name()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        (0..200_000u32).flat_map(|number| (number % 977).to_be_bytes()).collect()
    }

    #[test]
    fn what_was_packed_unpacks_within_exactly_its_size() {
        for codec in Codec::ALL {
            for bytes in [&b""[..], b"a", &text()] {
                let packed = compress(codec, bytes, None);
                assert_eq!(decompress(codec, &packed, bytes.len()).as_deref(), Ok(bytes), "{codec:?}");
                let Some(limit) = bytes.len().checked_sub(1) else { continue };
                assert_eq!(decompress(codec, &packed, limit), Err(Error::TooLarge { limit }), "{codec:?}");
            }
        }
    }

    #[test]
    fn every_level_is_accepted() {
        for codec in Codec::ALL {
            for level in [i32::MIN, -1, 0, 1, 9] {
                let packed = compress(codec, b"level level level", Some(level));
                assert_eq!(decompress(codec, &packed, 100).as_deref(), Ok(&b"level level level"[..]));
            }
        }
    }

    #[test]
    fn a_bare_snappy_block_is_read_too() {
        let packed = snap::raw::Encoder::new().compress_vec(&text()).unwrap();
        assert_eq!(decompress(Codec::Snappy, &packed, 1 << 20), Ok(text()));
        let malformed = Err(Error::Malformed(Codec::Snappy));
        // 4 GiB claimed by five bytes.
        assert_eq!(decompress(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f], usize::MAX), malformed);
        assert_eq!(decompress(Codec::Snappy, &XERIAL_MAGIC, 100), malformed);
        let endless = [&XERIAL_MAGIC[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 1]].concat();
        assert_eq!(decompress(Codec::Snappy, &endless, 100), malformed);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bomb = compress(codec, &vec![0; 16 << 20], None);
            assert_eq!(decompress(codec, &bomb, 4096), Err(Error::TooLarge { limit: 4096 }), "{codec:?}");
        }
    }

    #[test]
    fn garbage_is_malformed() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            assert_eq!(decompress(codec, &[0xfe; 40], 4096), Err(Error::Malformed(codec)), "{codec:?}");
        }
    }
}
