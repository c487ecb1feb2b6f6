//! Our codec against the `kafka-protocol` crate, for every API key and version both know.
//!
//! What one encodes the other must decode, to a message that it encodes to the same bytes. The messages are
//! the golden ones and those that come of flipping their bits, so lengths, nulls, tags and extreme numbers
//! vary. The crate only ever sees bytes that our encoder made: it sizes vectors by unchecked lengths.

mod golden_rows;

use bytes::{Bytes, BytesMut};
use golden_rows::{Row, rows};
use kafka_protocol::messages::{ApiKey as TheirKey, RequestKind, ResponseKind};
use net::api::{Api, ApiKey, Visitor};
use net::messages;
use net::wire::{Decode, Encode, Reader, Writer};

/// What our codec makes of a body: the same message, in its own bytes; None where it refuses it.
struct Ours<'r> {
    row: &'r Row,
    body: &'r [u8],
}

impl Visitor for Ours<'_> {
    type Output = Option<Vec<u8>>;

    fn visit<A: Api>(self) -> Option<Vec<u8>> {
        let Ours { row, body } = self;
        if row.is_request {
            again::<A::Request<'_>>(body, row.version)
        } else {
            again::<A::Response<'_>>(body, row.version)
        }
    }
}

fn again<'a, M: Decode<'a> + Encode>(body: &'a [u8], version: i16) -> Option<Vec<u8>> {
    let mut r = Reader::new(body);
    let message = M::decode(&mut r, version).ok().filter(|_| r.is_empty())?;
    let mut w = Writer::new();
    message.encode(&mut w, version).unwrap();
    w.into_body().ok()
}

fn ours(row: &Row, body: &[u8]) -> Option<Vec<u8>> {
    messages::visit(row.key, Ours { row, body }).unwrap()
}

/// Versions that the crate lists for a key while its messages stop before.
const LISTED_BUT_UNKNOWN: [(ApiKey, i16); 3] =
    [(ApiKey::InitProducerId, 6), (ApiKey::OffsetCommit, 10), (ApiKey::OffsetFetch, 10)];

/// What the crate makes of a body; None where it does not know the version.
fn theirs(row: &Row, body: &[u8]) -> Option<Vec<u8>> {
    let key = TheirKey::try_from(row.key.as_i16()).unwrap();
    let versions = key.valid_versions();
    let unknown = LISTED_BUT_UNKNOWN.contains(&(row.key, row.version));
    if unknown || row.version < versions.min || row.version > versions.max {
        return None;
    }
    let mut input = Bytes::copy_from_slice(body);
    let mut output = BytesMut::new();
    if row.is_request {
        let message =
            RequestKind::decode(key, &mut input, row.version).unwrap_or_else(|e| panic!("{row}: {e}"));
        message.encode(&mut output, row.version).unwrap_or_else(|e| panic!("{row}: {e}"));
    } else {
        let message =
            ResponseKind::decode(key, &mut input, row.version).unwrap_or_else(|e| panic!("{row}: {e}"));
        message.encode(&mut output, row.version).unwrap_or_else(|e| panic!("{row}: {e}"));
    }
    assert!(input.is_empty(), "{row}: {} bytes left", input.len());
    Some(output.to_vec())
}

fn compare(row: &Row, body: &[u8]) -> bool {
    let Some(ours_made) = ours(row, body) else { return false };
    let Some(theirs_made) = theirs(row, &ours_made) else { return false };
    assert_eq!(theirs_made, ours_made, "{row}");
    assert_eq!(ours(row, &theirs_made), Some(theirs_made), "{row}");
    true
}

#[test]
fn golden_messages_mean_the_same_to_both() {
    let compared = rows().iter().filter(|row| compare(row, &row.body)).count();
    assert!(compared > 1600, "{compared}");
}

#[test]
fn messages_with_flipped_bits_mean_the_same_to_both() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut compared = 0;
    for row in rows() {
        for _ in 0..30 {
            let mut body = row.body.clone();
            let at = random(body.len().max(1));
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1 << random(8);
            }
            compared += usize::from(compare(&row, &body));
        }
    }
    assert!(compared > 20_000, "{compared}");
}
