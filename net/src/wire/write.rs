//! The writer: one growing buffer for what is made here, and marks where slices of others go between.

use super::{EncodeError, Records, Uuid};
use rt::Slice;

/// Bytes of the length in front of every frame.
const LENGTH_BYTES: usize = 4;

/// Writes one frame. The 4-byte length in front is reserved at the start and filled in by [`Writer::finish`].
#[derive(Default)]
pub struct Writer {
    /// Everything written here, the length included.
    made: Vec<u8>,
    /// Slices, each with the position in `made` that it goes in front of.
    given: Vec<(usize, Slice)>,
    given_bytes: usize,
    errors: Vec<i16>,
}

/// The position where a tagged field's payload began.
#[must_use]
pub struct Tag {
    start: usize,
}

impl Writer {
    pub fn new() -> Writer {
        Writer::with_capacity(256)
    }

    /// `bytes` is what the frame will hold besides record slices.
    pub fn with_capacity(bytes: usize) -> Writer {
        let mut made = Vec::with_capacity(LENGTH_BYTES + bytes);
        made.extend_from_slice(&[0; LENGTH_BYTES]);
        Writer { made, given: Vec::new(), given_bytes: 0, errors: Vec::new() }
    }

    /// Bytes of the frame so far, its length field not counted.
    pub fn len(&self) -> usize {
        self.made.len() - LENGTH_BYTES + self.given_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole frame, its length in front: ready for one vectored send.
    pub fn finish(mut self) -> Result<Vec<Slice>, EncodeError> {
        self.fill_in_length()?;
        let mut pieces = Vec::with_capacity(self.given.len() * 2 + 1);
        let made = Slice::from(self.made);
        let mut at = 0;
        for (before, slice) in self.given {
            if before > at {
                pieces.push(made.slice(at..before));
                at = before;
            }
            pieces.push(slice);
        }
        if at == 0 {
            pieces.push(made);
        } else if at < made.len() {
            pieces.push(made.slice(at..made.len()));
        }
        Ok(pieces)
    }

    /// The whole frame in one piece; copies record slices, so it is for tools and tests.
    pub fn finish_to_vec(mut self) -> Result<Vec<u8>, EncodeError> {
        self.fill_in_length()?;
        let mut frame = Vec::with_capacity(self.made.len() + self.given_bytes);
        let mut at = 0;
        for (before, slice) in &self.given {
            frame.extend_from_slice(&self.made[at..*before]);
            frame.extend_from_slice(slice);
            at = *before;
        }
        frame.extend_from_slice(&self.made[at..]);
        Ok(frame)
    }

    /// What was written, without the length in front; copies record slices. For content that is not a frame.
    pub fn into_body(self) -> Result<Vec<u8>, EncodeError> {
        let mut frame = self.finish_to_vec()?;
        frame.drain(..LENGTH_BYTES);
        Ok(frame)
    }

    fn fill_in_length(&mut self) -> Result<(), EncodeError> {
        let length = i32::try_from(self.len()).map_err(|_| EncodeError::TooLong)?;
        self.made[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    pub fn i8(&mut self, value: i8) {
        self.made.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u8(&mut self, value: u8) {
        self.made.push(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.made.extend_from_slice(&value.to_be_bytes());
    }

    /// The outcome of what a response speaks of; what went wrong is kept for whoever counts errors.
    pub fn error_code(&mut self, code: i16) {
        self.i16(code);
        if code != 0 {
            self.errors.push(code);
        }
    }

    /// Every error code written so far, in order.
    pub fn errors(&self) -> &[i16] {
        &self.errors
    }

    pub fn u16(&mut self, value: u16) {
        self.made.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.made.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.made.extend_from_slice(&value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.made.extend_from_slice(&value.to_be_bytes());
    }

    pub fn f64(&mut self, value: f64) {
        self.made.extend_from_slice(&value.to_be_bytes());
    }

    pub fn bool(&mut self, value: bool) {
        self.made.push(u8::from(value));
    }

    pub fn uuid(&mut self, value: &Uuid) {
        self.made.extend_from_slice(value);
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.made.extend_from_slice(bytes);
    }

    /// A slice as it is, without a length and without a copy.
    pub fn slice(&mut self, slice: Slice) {
        if !slice.is_empty() {
            self.given_bytes += slice.len();
            self.given.push((self.made.len(), slice));
        }
    }

    pub fn uvarint(&mut self, value: u32) {
        let (bytes, count) = uvarint(value);
        self.made.extend_from_slice(&bytes[..count]);
    }

    /// The length of bytes or the count of an array; None is null.
    fn length(&mut self, length: Option<usize>, flexible: bool) -> Result<(), EncodeError> {
        let length = match length {
            None => -1,
            Some(length) => i32::try_from(length).map_err(|_| EncodeError::TooLong)?,
        };
        if flexible {
            // i32::MAX + 1 fits; the null of -1 becomes 0.
            self.uvarint(length.wrapping_add(1).cast_unsigned());
        } else {
            self.i32(length);
        }
        Ok(())
    }

    pub fn string(&mut self, text: &str, flexible: bool) -> Result<(), EncodeError> {
        // Kafka's compact strings are held to the same length as the others.
        let length = i16::try_from(text.len()).map_err(|_| EncodeError::TooLong)?;
        if flexible {
            self.uvarint(u32::from(length.cast_unsigned()) + 1);
        } else {
            self.i16(length);
        }
        self.raw(text.as_bytes());
        Ok(())
    }

    pub fn nullable_string(&mut self, text: Option<&str>, flexible: bool) -> Result<(), EncodeError> {
        match text {
            Some(text) => self.string(text, flexible)?,
            None if flexible => self.uvarint(0),
            None => self.i16(-1),
        }
        Ok(())
    }

    pub fn bytes(&mut self, bytes: &[u8], flexible: bool) -> Result<(), EncodeError> {
        self.length(Some(bytes.len()), flexible)?;
        self.raw(bytes);
        Ok(())
    }

    pub fn nullable_bytes(&mut self, bytes: Option<&[u8]>, flexible: bool) -> Result<(), EncodeError> {
        self.length(bytes.map(<[u8]>::len), flexible)?;
        self.raw(bytes.unwrap_or_default());
        Ok(())
    }

    pub fn records(&mut self, records: &Records<'_>, flexible: bool) -> Result<(), EncodeError> {
        match records {
            Records::Null => self.length(None, flexible),
            Records::Bytes(bytes) => self.bytes(bytes, flexible),
            Records::Slices(slices) => {
                self.length(Some(records.len()), flexible)?;
                for slice in slices {
                    self.slice(slice.clone());
                }
                Ok(())
            }
        }
    }

    pub fn array<T>(
        &mut self,
        elements: &[T],
        flexible: bool,
        mut element: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.length(Some(elements.len()), flexible)?;
        for one in elements {
            element(self, one)?;
        }
        Ok(())
    }

    pub fn nullable_array<T>(
        &mut self,
        elements: Option<&[T]>,
        flexible: bool,
        element: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        match elements {
            Some(elements) => self.array(elements, flexible, element),
            None => self.length(None, flexible),
        }
    }

    /// Starts a tagged field. The payload follows, then [`Writer::end_tag`]; payloads are small and hold no
    /// slices, so their length is put in front afterwards.
    pub fn begin_tag(&mut self, tag: u32) -> Tag {
        self.uvarint(tag);
        Tag { start: self.made.len() }
    }

    pub fn end_tag(&mut self, tag: Tag) -> Result<(), EncodeError> {
        assert!(tag.start <= self.made.len());
        assert!(self.given.last().is_none_or(|(before, _)| *before <= tag.start));
        let length = u32::try_from(self.made.len() - tag.start).map_err(|_| EncodeError::TooLong)?;
        let (bytes, count) = uvarint(length);
        self.made.splice(tag.start..tag.start, bytes[..count].iter().copied());
        Ok(())
    }
}

fn uvarint(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut count = 0;
    loop {
        // The lowest seven bits; the cast keeps exactly them.
        bytes[count] = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return (bytes, count + 1);
        }
        bytes[count] |= 0x80;
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;

    #[test]
    fn variable_length_numbers_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 1 << 28, u32::MAX] {
            let mut w = Writer::new();
            w.uvarint(value);
            let body = w.into_body().unwrap();
            let mut r = Reader::new(&body);
            assert_eq!(r.uvarint(), Ok(value));
            assert!(r.is_empty());
        }
    }

    #[test]
    fn what_went_wrong_is_kept_in_order() {
        let mut w = Writer::new();
        [3, 0, -1].into_iter().for_each(|code| w.error_code(code));
        assert_eq!(w.errors(), [3, -1]);
        assert_eq!(w.into_body().unwrap(), [0, 3, 0, 0, 0xff, 0xff]);
    }

    #[test]
    fn slices_lie_between_what_is_made_and_are_not_copied() {
        let records = Slice::from(vec![7u8; 1000]);
        let at = records.as_ptr();
        let mut w = Writer::new();
        w.i8(1);
        w.slice(records.slice(0..10));
        w.slice(records.slice(10..1000));
        w.i8(2);
        assert_eq!(w.len(), 1002);
        let pieces = w.finish().unwrap();
        assert_eq!(pieces.len(), 4);
        assert_eq!(&*pieces[0], &[0, 0, 3, 0xea, 1]);
        assert_eq!(pieces[1].as_ptr(), at);
        assert_eq!(pieces[2].len(), 990);
        assert_eq!(&*pieces[3], &[2]);
    }

    #[test]
    fn a_frame_of_one_piece_and_a_frame_that_ends_in_a_slice() {
        assert_eq!(Writer::new().finish().unwrap().len(), 1);
        let mut w = Writer::new();
        w.slice(Slice::from(vec![1, 2]));
        assert_eq!(w.finish_to_vec().unwrap(), [0, 0, 0, 2, 1, 2]);
        let mut w = Writer::new();
        w.slice(Slice::from(vec![1, 2]));
        assert_eq!(w.finish().unwrap().len(), 2);
    }

    #[test]
    fn a_tag_gets_its_length_in_front() {
        let mut w = Writer::new();
        w.slice(Slice::from(vec![9]));
        let tag = w.begin_tag(3);
        w.raw(&[5; 200]);
        w.end_tag(tag).unwrap();
        let body = w.into_body().unwrap();
        assert_eq!(&body[..5], &[9, 3, 0xc8, 1, 5]);
        assert_eq!(body.len(), 204);
    }

    #[test]
    fn what_does_not_fit_its_length_is_an_error() {
        let text = "x".repeat(32_768);
        assert_eq!(Writer::new().string(&text, false), Err(EncodeError::TooLong));
        assert_eq!(Writer::new().string(&text, true), Err(EncodeError::TooLong));
        assert_eq!(Writer::new().string(&text[1..], true), Ok(()));
    }
}
