//! Bytes of commands and snapshots: Kafka's primitive types, read within bounds and written into one vector.
//!
//! Every structure ends in a tagged section, so that a newer release may add fields which an older one skips. Nothing
//! read here is trusted: a count may not exceed the bytes left, a string must be UTF-8, and no length reserves memory
//! before its bytes are there.

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The bytes end inside a field.
    Short,
    /// A length or a count is impossible for the bytes that are left.
    Length,
    /// A string is not UTF-8.
    Utf8,
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
            Error::Short => f.write_str("the bytes end inside a field"),
            Error::Length => f.write_str("a length exceeds the bytes that are left"),
            Error::Utf8 => f.write_str("a string is not UTF-8"),
            Error::Value => f.write_str("a field holds a value that has no meaning"),
            Error::Trailing => f.write_str("bytes are left behind the last field"),
            Error::Unsupported { kind, version } => {
                write!(f, "kind {kind} version {version} was written by a later release")
            }
        }
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// A cursor over untrusted bytes.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(bytes).ok_or(Error::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn i8(&mut self) -> Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub fn bool(&mut self) -> Result<bool> {
        match self.i8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::Value),
        }
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn uuid(&mut self) -> Result<[u8; 16]> {
        self.array()
    }

    pub fn uvarint(&mut self) -> Result<u32> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array::<1>()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                return Err(Error::Length);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Length)
    }

    /// Kafka's compact length: 0 is null, n + 1 is n.
    fn compact_length(&mut self) -> Result<Option<usize>> {
        let raw = self.uvarint()?;
        let Some(length) = raw.checked_sub(1) else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| Error::Length)?;
        if length > self.rest.len() { Err(Error::Length) } else { Ok(Some(length)) }
    }

    pub fn nullable_string(&mut self) -> Result<Option<String>> {
        let Some(length) = self.compact_length()? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Error::Utf8)?;
        Ok(Some(text.to_owned()))
    }

    pub fn string(&mut self) -> Result<String> {
        self.nullable_string()?.ok_or(Error::Length)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.compact_length()?.ok_or(Error::Length)?;
        self.take(length)
    }

    /// A vector whose every element takes at least one byte: the count is bounded by what is left.
    pub fn vec<T>(&mut self, mut element: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.compact_length()?.ok_or(Error::Length)?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// The tagged section: `known` takes a tag and its bytes and says whether it knew the tag. Unknown ones are skipped.
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
            let mut field = Reader::new(self.take(length)?);
            known(tag, &mut field)?;
        }
        Ok(())
    }

    pub fn no_tagged(&mut self) -> Result<()> {
        self.tagged(|_, _| Ok(()))
    }

    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::Trailing) }
    }
}

/// Appends to one vector. What it writes came from this process, so nothing here can fail but by exceeding Kafka's own
/// limits, which the commands' builders have checked.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    pub fn uuid(&mut self, value: &[u8; 16]) {
        self.raw(value);
    }

    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.raw(&[low | 0x80]);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.raw(&[low]);
    }

    fn compact_length(&mut self, length: usize) {
        let length = u32::try_from(length).ok().and_then(|n| n.checked_add(1));
        self.uvarint(length.expect("a metadata field is far below 4 GiB"));
    }

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
        self.raw(value);
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
        let cases: &[(&[u8], Error)] = &[
            (&[], Error::Short),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], Error::Length),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Error::Length),
            (&[0x05, b'a'], Error::Length),
            (&[0x02, 0xff], Error::Utf8),
            (&[0x00], Error::Length),
        ];
        for (bytes, expect) in cases {
            assert_eq!(Reader::new(bytes).string(), Err(*expect), "{bytes:?}");
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
