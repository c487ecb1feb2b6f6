//! Bytes that no honest client sends: every prefix of every golden message, and messages with bits turned over.
//! Nothing may panic, and nothing may allocate more than the decode budget allows.

mod format_rows;
mod golden_rows;
mod watched;

use format_rows::{FormatRow, format_rows};
use golden_rows::{Row, rows};
use net::api::{Api, Data, DataVisitor, Visitor};
use net::frame::{Cut, FrameCutter};
use net::header::RequestHeader;
use net::messages;
use net::wire::{DECODE_BYTES_MAX, Decode, Encode, Reader, Writer};
use watched::allocations;

/// The largest single allocation while `work` runs.
fn largest_allocation(work: impl FnOnce()) -> usize {
    let seen = allocations(work);
    // What a message's arrays occupy together is bounded too; twice, for what the writer makes of it again.
    assert!(seen.total <= 2 * DECODE_BYTES_MAX, "{seen:?}");
    seen.largest
}

/// Decodes; what can be decoded must be encodable again and then come back as it is.
struct Feed<'r> {
    row: &'r Row,
    body: &'r [u8],
}

impl Visitor for Feed<'_> {
    type Output = bool;

    fn visit<A: Api>(self) -> bool {
        let Feed { row, body } = self;
        if row.is_request {
            feed::<A::Request<'_>>(body, row.version)
        } else {
            feed::<A::Response<'_>>(body, row.version)
        }
    }
}

fn feed<'a, M: Decode<'a> + Encode>(body: &'a [u8], version: i16) -> bool {
    let mut r = Reader::new(body);
    let Ok(message) = M::decode(&mut r, version) else { return false };
    let mut w = Writer::new();
    message.encode(&mut w, version).expect("what was decoded has only what its version can say");
    r.is_empty()
}

fn decodes(row: &Row, body: &[u8]) -> bool {
    messages::visit(row.key, Feed { row, body }).unwrap()
}

#[test]
fn every_prefix_of_every_message_is_refused() {
    for row in rows() {
        for end in 0..row.body.len() {
            let whole = decodes(&row, &row.body[..end]);
            // Before flexible versions a message may be a prefix of a longer one only by chance; none is here.
            assert!(!whole, "{row}: {end} bytes of {}", row.body.len());
        }
    }
}

#[test]
fn flipped_bits_never_panic_nor_allocate_beyond_the_message() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for row in rows() {
        for _ in 0..40 {
            let mut body = row.body.clone();
            for _ in 0..1 + random(4) {
                let at = random(body.len().max(1));
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << random(8);
                }
            }
            let largest = largest_allocation(|| {
                decodes(&row, &body);
            });
            // No structure is larger than 256 bytes in memory for each byte on the wire.
            assert!(largest <= 512 + body.len() * 256, "{row}: {largest} for {} bytes", body.len());
        }
    }
}

#[test]
fn a_length_of_four_bytes_reserves_nothing() {
    for row in rows().iter().filter(|row| row.is_request) {
        for filler in [0x7f, 0xff, 0x80, 0xfe] {
            for bytes in [4, 5, 9, 64] {
                let body = vec![filler; bytes];
                let largest = largest_allocation(|| {
                    decodes(row, &body);
                });
                assert!(largest <= 512 + bytes * 256, "{row}: {largest}");
            }
        }
    }
}

#[test]
fn a_frame_full_of_tiny_elements_stays_in_the_budget() {
    // Topics of Metadata version 1 are two bytes each here, and larger in memory.
    let count = 8 << 20;
    let mut body = i32::try_from(count).unwrap().to_be_bytes().to_vec();
    body.resize(4 + 2 * count, 0);
    let largest = largest_allocation(|| {
        let mut r = Reader::new(&body);
        assert!(messages::metadata::MetadataRequest::decode(&mut r, 1).is_err());
    });
    assert!(largest <= DECODE_BYTES_MAX);
}

#[test]
fn headers_and_frames_of_noise_never_panic() {
    let mut seed = 42_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let cutter = FrameCutter::new(1 << 20);
    for _ in 0..20_000 {
        let mut noise: Vec<u8> = (0..random() % 40).map(|_| random() as u8).collect();
        if let Some(first) = noise.first_mut() {
            *first = 0;
        }
        if let Ok(Cut::Frame(range)) = cutter.cut(&noise) {
            assert!(range.end <= noise.len());
        }
        if let Some(key) = noise.get_mut(1) {
            *key %= 96;
        }
        let mut r = Reader::new(&noise);
        drop(RequestHeader::decode(&mut r));
        assert!(r.remaining() <= noise.len());
    }
}

/// As [`Feed`], for what travels inside of records and fields.
struct FeedFormat<'r> {
    row: &'r FormatRow,
    bytes: &'r [u8],
}

impl DataVisitor for FeedFormat<'_> {
    type Output = bool;

    fn visit<D: Data>(self) -> bool {
        feed::<D::Content<'_>>(self.bytes, self.row.version)
    }
}

fn format_decodes(row: &FormatRow, bytes: &[u8]) -> bool {
    messages::visit_data(&row.name, FeedFormat { row, bytes }).unwrap()
}

#[test]
fn every_prefix_of_every_format_is_refused() {
    for row in format_rows() {
        for end in 0..row.body.len() {
            assert!(!format_decodes(&row, &row.body[..end]), "{row}: {end} bytes of {}", row.body.len());
        }
    }
}

#[test]
fn flipped_bits_in_formats_never_panic_nor_allocate_beyond_the_content() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for row in format_rows() {
        for round in 0..60 {
            let mut body = row.body.clone();
            for _ in 0..1 + random(4) {
                let at = random(body.len().max(1));
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << random(8);
                }
            }
            if round % 10 == 0 {
                body = vec![[0x7f, 0xff, 0x80, 0xfe][random(4)]; random(64)];
            }
            let largest = largest_allocation(|| {
                format_decodes(&row, &body);
            });
            assert!(largest <= 512 + body.len() * 256, "{row}: {largest} for {} bytes", body.len());
        }
    }
}
