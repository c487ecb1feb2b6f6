//! The bodies of the fuzz targets, here so that an ordinary test replays their corpus on any toolchain.
//!
//! Each takes bytes from an attacker and asserts what must hold for all of them. Not called by the broker.

use crate::api::{Api, Data, DataVisitor, Visitor};
use crate::frame::{Cut, Error, FrameCutter};
use crate::header::RequestHeader;
use crate::messages;
use crate::wire::{Decode, Encode, Reader, Writer};

/// Small, so that fuzzing meets the limit.
const FRAME_BYTES_MAX: usize = 4096;

/// A stream of frames: however the bytes arrive, the same frames come out and the same error ends them.
pub fn frames(bytes: &[u8]) {
    let Some((step, stream)) = bytes.split_first() else { return };
    let whole = cut_all(stream, stream.len().max(1));
    let in_pieces = cut_all(stream, usize::from(*step).max(1));
    assert_eq!(whole, in_pieces);
}

/// The lengths of the frames, and what ended them, when `step` bytes arrive at a time.
fn cut_all(stream: &[u8], step: usize) -> (Vec<usize>, Option<Error>) {
    let cutter = FrameCutter::new(FRAME_BYTES_MAX);
    let mut lengths = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        match cutter.cut(&stream[start..end]) {
            Err(why) => return (lengths, Some(why)),
            Ok(Cut::Frame(content)) => {
                assert!(content.len() <= FRAME_BYTES_MAX);
                lengths.push(content.len());
                start += content.end;
            }
            Ok(Cut::Missing(bytes)) => {
                assert!(bytes > 0);
                if end == stream.len() {
                    return (lengths, None);
                }
                end = (end + step).min(stream.len());
            }
        }
    }
}

/// A frame's content: a request header and a body, read as the request and as the response of that version.
pub fn requests(bytes: &[u8]) {
    let mut r = Reader::new(bytes);
    let Ok(header) = RequestHeader::decode(&mut r) else { return };
    messages::visit(header.key, Body { version: header.version, bytes: r.rest() });
}

struct Body<'b> {
    version: i16,
    bytes: &'b [u8],
}

impl Visitor for Body<'_> {
    type Output = ();

    fn visit<A: Api>(self) {
        self.settles(|bytes, version| again::<A::Request<'_>>(bytes, version));
        self.settles(|bytes, version| again::<A::Response<'_>>(bytes, version));
    }
}

impl Body<'_> {
    /// What can be decoded can be encoded, and from there on the bytes stay the same.
    fn settles(&self, again: fn(&[u8], i16) -> Option<Vec<u8>>) {
        let Some(once) = again(self.bytes, self.version) else { return };
        let twice = again(&once, self.version);
        assert_eq!(twice, Some(once));
    }
}

/// What travels inside of records and fields: a byte that chooses the format, one for its version, and the content.
pub fn formats(bytes: &[u8]) {
    let [format, version, content @ ..] = bytes else { return };
    let name = messages::FORMATS[usize::from(*format) % messages::FORMATS.len()];
    let body = Body { version: i16::from(*version % 8), bytes: content };
    messages::visit_data(name, body).expect("every listed format has a schema");
}

impl DataVisitor for Body<'_> {
    type Output = ();

    fn visit<D: Data>(self) {
        self.settles(|bytes, version| again::<D::Content<'_>>(bytes, version));
    }
}

/// The bytes our encoder makes of a body; None where the decoder refuses it.
fn again<'a, M: Decode<'a> + Encode>(bytes: &'a [u8], version: i16) -> Option<Vec<u8>> {
    let message = M::decode(&mut Reader::new(bytes), version).ok()?;
    let mut w = Writer::new();
    message.encode(&mut w, version).expect("a decoded message has only what its version can say");
    w.into_body().ok()
}
