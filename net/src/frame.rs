//! Frames: an i32 length, big endian, and that many bytes.
//!
//! The cutter looks at bytes that were received and says where the first frame lies in them, or how many more
//! are needed, so that its caller can receive a large frame into memory of its own. It keeps nothing and
//! allocates nothing: a length is only believed up to the limit it was made with.

use std::fmt;
use std::ops::Range;

/// Bytes of the length in front of a frame.
pub const LENGTH_BYTES: usize = 4;

/// Why the peer's bytes are no frame; the connection is closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The length is zero or less.
    Negative(i32),
    /// The length is above the limit.
    TooLarge(i32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Negative(length) => write!(f, "a frame of {length} bytes"),
            Error::TooLarge(length) => write!(f, "a frame of {length} bytes, which is above the limit"),
        }
    }
}

impl std::error::Error for Error {}

/// What the bytes at hand begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// A whole frame: its content, without the length in front. The next frame begins at `end`.
    Frame(Range<usize>),
    /// A frame's beginning. This many bytes more, at least, make the next step; all of the frame once its
    /// length is known.
    Missing(usize),
}

#[derive(Debug, Clone, Copy)]
pub struct FrameCutter {
    bytes_max: usize,
}

impl FrameCutter {
    /// `bytes_max` bounds the content of a frame.
    pub fn new(bytes_max: usize) -> FrameCutter {
        FrameCutter { bytes_max }
    }

    /// Looks at received bytes that start where a frame starts.
    pub fn cut(&self, received: &[u8]) -> Result<Cut, Error> {
        let Some(length) = received.first_chunk::<LENGTH_BYTES>() else {
            return Ok(Cut::Missing(LENGTH_BYTES - received.len()));
        };
        let length = i32::from_be_bytes(*length);
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes > 0).ok_or(Error::Negative(length))?;
        if bytes > self.bytes_max {
            return Err(Error::TooLarge(length));
        }
        let end = LENGTH_BYTES + bytes;
        if received.len() < end {
            return Ok(Cut::Missing(end - received.len()));
        }
        Ok(Cut::Frame(LENGTH_BYTES..end))
    }

    /// How many bytes more are needed before [`FrameCutter::cut`] gives a frame, as far as is known.
    pub fn want(&self, received: &[u8]) -> Result<usize, Error> {
        Ok(match self.cut(received)? {
            Cut::Frame(_) => 0,
            Cut::Missing(bytes) => bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_and_limits_hold() {
        fn check(received: &[u8], expect: Result<Cut, Error>) {
            assert_eq!(FrameCutter::new(5).cut(received), expect, "{received:02x?}");
        }
        check(&[], Ok(Cut::Missing(4)));
        check(&[0, 0, 0], Ok(Cut::Missing(1)));
        check(&[0, 0, 0, 5], Ok(Cut::Missing(5)));
        check(&[0, 0, 0, 2, 7], Ok(Cut::Missing(1)));
        check(&[0, 0, 0, 2, 7, 8], Ok(Cut::Frame(4..6)));
        check(&[0, 0, 0, 2, 7, 8, 0, 0], Ok(Cut::Frame(4..6)));
        check(&[0, 0, 0, 0, 7], Err(Error::Negative(0)));
        check(&[0xff, 0xff, 0xff, 0xff], Err(Error::Negative(-1)));
        check(&[0x80, 0, 0, 0], Err(Error::Negative(i32::MIN)));
        check(&[0, 0, 0, 6], Err(Error::TooLarge(6)));
        check(&[0x7f, 0xff, 0xff, 0xff], Err(Error::TooLarge(i32::MAX)));
    }

    #[test]
    fn an_http_request_is_no_frame() {
        assert!(matches!(FrameCutter::new(100 << 20).want(b"GET / HTTP/1.1\r\n"), Err(Error::TooLarge(_))));
    }
}
