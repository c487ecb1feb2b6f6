//! Bytes of commands and snapshots, over the codec's primitives.
//!
//! Every structure ends in a tagged section, so that a newer release may add fields which an older one skips. Nothing
//! read here is trusted: a count may not exceed the bytes left, a string must be UTF-8, and no length reserves memory
//! before its bytes are there.
//!
//! Not used from the codec are its arrays, whose budget is that of one client frame: a snapshot may be larger. Strict
//! where the codec follows Kafka's leniency (booleans, the order of tags): equal states must have equal bytes.

use net::wire as codec;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// A primitive is not what it should be.
    Codec(codec::Error),
    /// A length or a count is impossible for the bytes that are left.
    Length,
    /// A field's value is none that this format knows.
    Value,
    /// Bytes are left behind the last field.
    Trailing,
    /// A kind or a version of a later release.
    Unsupported { kind: i16, version: i16 },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Codec(why) => why.fmt(f),
            Error::Length => f.write_str("a length exceeds the bytes that are left"),
            Error::Value => f.write_str("a field holds a value that has no meaning"),
            Error::Trailing => f.write_str("bytes are left behind the last field"),
            Error::Unsupported { kind, version } => {
                write!(f, "kind {kind} version {version} was written by a later release")
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<codec::Error> for Error {
    fn from(why: codec::Error) -> Error {
        Error::Codec(why)
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// A cursor over untrusted bytes.
pub struct Reader<'a> {
    inner: codec::Reader<'a>,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { inner: codec::Reader::new(bytes) }
    }

    pub fn i8(&mut self) -> Result<i8> {
        Ok(self.inner.i8()?)
    }

    pub fn bool(&mut self) -> Result<bool> {
        match self.i8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::Value),
        }
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(self.inner.i16()?)
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(self.inner.u16()?)
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(self.inner.i32()?)
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(self.inner.i64()?)
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(self.inner.i64()?.cast_unsigned())
    }

    pub fn uuid(&mut self) -> Result<[u8; 16]> {
        Ok(self.inner.uuid()?)
    }

    pub fn uvarint(&mut self) -> Result<u32> {
        Ok(self.inner.uvarint()?)
    }

    pub fn nullable_string(&mut self) -> Result<Option<String>> {
        Ok(self.inner.nullable_string(true)?.map(String::from))
    }

    pub fn string(&mut self) -> Result<String> {
        Ok(self.inner.string(true)?.into_owned())
    }

    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        Ok(self.inner.bytes(true)?.into_owned())
    }

    /// A vector whose every element takes at least one byte: the count is bounded by what is left.
    pub fn vec<T>(&mut self, mut element: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.uvarint()?.checked_sub(1).ok_or(Error::Length)?;
        if usize::try_from(count).map_or(true, |count| count > self.inner.remaining()) {
            return Err(Error::Length);
        }
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// The tagged section: `known` reads the tags it knows, the others are skipped.
    pub fn tagged(&mut self, mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<()>) -> Result<()> {
        let count = self.uvarint()?;
        let mut last = None;
        for _ in 0..count {
            let tag = self.uvarint()?;
            if last.is_some_and(|last| tag <= last) {
                return Err(Error::Value);
            }
            last = Some(tag);
            let length = usize::try_from(self.uvarint()?).map_err(|_| Error::Length)?;
            known(tag, &mut Reader::new(self.inner.take(length)?))?;
        }
        Ok(())
    }

    pub fn no_tagged(&mut self) -> Result<()> {
        self.tagged(|_, _| Ok(()))
    }

    pub fn end(self) -> Result<()> {
        if self.inner.is_empty() { Ok(()) } else { Err(Error::Trailing) }
    }
}

/// Writes into one vector. What it writes came from this process and is far below the 2 GiB at which lengths end, so
/// nothing here fails.
#[derive(Default)]
pub struct Writer {
    inner: codec::Writer,
}

impl Writer {
    pub fn new() -> Writer {
        Writer { inner: codec::Writer::new() }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.inner.into_body().expect("metadata is far below 2 GiB")
    }

    pub fn bool(&mut self, value: bool) {
        self.inner.bool(value);
    }

    pub fn i8(&mut self, value: i8) {
        self.inner.i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.inner.i16(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.inner.u16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.inner.i32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.inner.i64(value);
    }

    pub fn u64(&mut self, value: u64) {
        self.inner.i64(value.cast_signed());
    }

    pub fn uuid(&mut self, value: &[u8; 16]) {
        self.inner.uuid(value);
    }

    pub fn uvarint(&mut self, value: u32) {
        self.inner.uvarint(value);
    }

    fn compact_length(&mut self, length: usize) {
        let length = u32::try_from(length).ok().and_then(|n| n.checked_add(1));
        self.uvarint(length.expect("a metadata field is far below 2 GiB"));
    }

    /// Not the codec's, which holds strings to 32 KiB and fails beyond.
    pub fn string(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub fn nullable_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.uvarint(0),
        }
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.compact_length(value.len());
        self.inner.raw(value);
    }

    pub fn vec<T>(&mut self, list: impl ExactSizeIterator<Item = T>, mut element: impl FnMut(&mut Self, T)) {
        self.compact_length(list.len());
        for item in list {
            element(self, item);
        }
    }

    /// An empty tagged section: the room for what later releases add.
    pub fn no_tagged(&mut self) {
        self.uvarint(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut w = Writer::new();
        w.i16(-2);
        w.u64(u64::MAX);
        w.uvarint(u32::MAX);
        w.string("тема");
        w.nullable_string(None);
        w.vec([1i32, 2, 3].iter(), |w, n| w.i32(*n));
        w.no_tagged();
        let bytes = w.into_bytes();
        let mut r = Reader::new(&bytes);
        assert_eq!(r.i16(), Ok(-2));
        assert_eq!(r.u64(), Ok(u64::MAX));
        assert_eq!(r.uvarint(), Ok(u32::MAX));
        assert_eq!(r.string().as_deref(), Ok("тема"));
        assert_eq!(r.nullable_string(), Ok(None));
        assert_eq!(r.vec(Reader::i32), Ok(vec![1, 2, 3]));
        assert_eq!(r.no_tagged(), Ok(()));
        assert_eq!(r.end(), Ok(()));
    }

    #[test]
    fn hostile_lengths_are_refused_before_memory_is_taken() {
        let cases: &[(&[u8], codec::Error)] = &[
            (&[], codec::Error::Truncated),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], codec::Error::TooLong),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], codec::Error::Varint),
            (&[0x05, b'a'], codec::Error::Truncated),
            (&[0x02, 0xff], codec::Error::Utf8),
            (&[0x00], codec::Error::Null),
        ];
        for (bytes, expect) in cases {
            assert_eq!(Reader::new(bytes).string(), Err(Error::Codec(*expect)), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).vec(Reader::i8), Err(Error::Length));
    }

    #[test]
    fn tags_of_a_later_release_are_skipped() {
        let bytes = [2, 0, 1, 9, 7, 2, 1, 1];
        let mut seen = Vec::new();
        let mut r = Reader::new(&bytes);
        let read = r.tagged(|tag, field| {
            if tag == 0 {
                seen.push(field.i8()?);
            }
            Ok(())
        });
        assert_eq!(read, Ok(()));
        assert_eq!(seen, [9]);
        assert_eq!(r.end(), Ok(()));
    }
}
