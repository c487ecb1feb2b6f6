//! The cursor that decodes: every length is compared with what is left before it is believed.

use super::{Error, Records, Uuid};
use std::borrow::Cow;

/// What the arrays decoded from one frame may occupy together, in memory. An element is larger in memory than
/// on the wire (an empty string is one byte there and 24 here), so the frame limit alone does not bound it.
pub const DECODE_BYTES_MAX: usize = 64 << 20;

/// A cursor over one frame. Cheap to make; nothing is copied out of the frame but numbers and arrays.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// What arrays may still occupy in memory.
    budget: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, budget: DECODE_BYTES_MAX }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes not read yet; the cursor stays.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self.bytes.split_at_checked(count).ok_or(Error::Truncated)?;
        self.bytes = tail;
        Ok(head)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or(Error::Truncated)?;
        self.bytes = tail;
        Ok(*head)
    }

    pub fn i8(&mut self) -> Result<i8, Error> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_be_bytes(self.fixed()?))
    }

    pub fn i16(&mut self) -> Result<i16, Error> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    pub fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    pub fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    pub fn i64(&mut self) -> Result<i64, Error> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    pub fn f64(&mut self) -> Result<f64, Error> {
        Ok(f64::from_be_bytes(self.fixed()?))
    }

    /// Any byte but zero is true, as Kafka reads it.
    pub fn bool(&mut self) -> Result<bool, Error> {
        Ok(self.u8()? != 0)
    }

    pub fn uuid(&mut self) -> Result<Uuid, Error> {
        self.fixed()
    }

    /// An unsigned variable-length number of at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, Error> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            if shift == 28 && byte > 0x0f {
                return Err(Error::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Varint)
    }

    /// A length of the fixed or the compact kind; None is null.
    fn length(
        &mut self,
        flexible: bool,
        fixed: fn(&mut Self) -> Result<i32, Error>,
    ) -> Result<Option<usize>, Error> {
        if flexible {
            let stored = self.uvarint()?;
            return Ok(stored.checked_sub(1).map(|length| length as usize));
        }
        match fixed(self)? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Error::NegativeLength),
        }
    }

    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<Cow<'a, str>>, Error> {
        let Some(length) = self.length(flexible, |r| r.i16().map(i32::from))? else { return Ok(None) };
        // The compact kind could hold more; Kafka refuses it too.
        i16::try_from(length).map_err(|_| Error::TooLong)?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(|text| Some(Cow::Borrowed(text))).map_err(|_| Error::Utf8)
    }

    pub fn string(&mut self, flexible: bool) -> Result<Cow<'a, str>, Error> {
        self.nullable_string(flexible)?.ok_or(Error::Null)
    }

    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Cow<'a, [u8]>>, Error> {
        let Some(length) = self.length(flexible, Self::i32)? else { return Ok(None) };
        self.take(length).map(|bytes| Some(Cow::Borrowed(bytes)))
    }

    pub fn bytes(&mut self, flexible: bool) -> Result<Cow<'a, [u8]>, Error> {
        self.nullable_bytes(flexible)?.ok_or(Error::Null)
    }

    pub fn records(&mut self, flexible: bool) -> Result<Records<'a>, Error> {
        match self.length(flexible, Self::i32)? {
            None => Ok(Records::Null),
            Some(length) => self.take(length).map(Records::Bytes),
        }
    }

    /// An array whose elements take at least `bytes_min` bytes each on the wire.
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Option<Vec<T>>, Error> {
        let Some(count) = self.length(flexible, Self::i32)? else { return Ok(None) };
        if count > self.remaining() / bytes_min.max(1) {
            return Err(Error::TooMany);
        }
        let memory = count.checked_mul(size_of::<T>()).ok_or(Error::TooMany)?;
        self.budget = self.budget.checked_sub(memory).ok_or(Error::TooMany)?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    pub fn array<T>(
        &mut self,
        flexible: bool,
        bytes_min: usize,
        element: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.nullable_array(flexible, bytes_min, element)?.ok_or(Error::Null)
    }

    /// Hands each tagged field to `known`, which answers whether it read it; the others are skipped.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Self) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            let mut field = Reader { bytes: self.take(length)?, budget: self.budget };
            match known(tag, &mut field) {
                Ok(true) if !field.is_empty() => return Err(Error::TagLength),
                Ok(_) => self.budget = field.budget,
                Err(Error::Truncated | Error::TooMany) => return Err(Error::TagLength),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Tagged fields of a structure that knows none.
    pub fn skip_tagged_fields(&mut self) -> Result<(), Error> {
        self.tagged_fields(|_, _| Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_length_numbers() {
        fn check(input: &[u8], expect: Result<u32, Error>) {
            assert_eq!(Reader::new(input).uvarint(), expect, "{input:02x?}");
        }
        check(&[0x00], Ok(0));
        check(&[0x7f], Ok(127));
        check(&[0x80, 0x01], Ok(128));
        check(&[0xff, 0xff, 0xff, 0xff, 0x0f], Ok(u32::MAX));
        check(&[0x80, 0x80, 0x80, 0x80, 0x00], Ok(0));
        check(&[0xff, 0xff, 0xff, 0xff, 0x10], Err(Error::Varint));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Err(Error::Varint));
        check(&[0x80], Err(Error::Truncated));
        check(&[], Err(Error::Truncated));
    }

    #[test]
    fn strings() {
        fn check(flexible: bool, input: &[u8], expect: Result<Option<&str>, Error>) {
            let got = Reader::new(input).nullable_string(flexible);
            assert_eq!(got, expect.map(|text| text.map(Cow::Borrowed)), "{flexible} {input:02x?}");
        }
        check(false, &[0, 1, b'a'], Ok(Some("a")));
        check(false, &[0xff, 0xff], Ok(None));
        check(false, &[0xff, 0xfe], Err(Error::NegativeLength));
        check(false, &[0, 2, b'a'], Err(Error::Truncated));
        check(false, &[0, 1, 0xc3], Err(Error::Utf8));
        check(true, &[2, b'a'], Ok(Some("a")));
        check(true, &[1], Ok(Some("")));
        check(true, &[0], Ok(None));
        check(true, &[3, b'a'], Err(Error::Truncated));
        check(true, &[0x81, 0x80, 0x02], Err(Error::TooLong));
    }

    #[test]
    fn an_array_count_is_compared_with_what_the_frame_and_the_budget_hold() {
        let count_only = i32::MAX.to_be_bytes();
        assert_eq!(Reader::new(&count_only).array(false, 1, Reader::i8), Err(Error::TooMany));
        let two = [0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(Reader::new(&two).array(false, 4, Reader::i32), Ok(vec![1, 2]));
        assert_eq!(Reader::new(&two).array(false, 5, Reader::i32), Err(Error::TooMany));
        let mut poor = Reader { bytes: &two, budget: 7 };
        assert_eq!(poor.array(false, 4, Reader::i32), Err(Error::TooMany));
    }

    #[test]
    fn tagged_fields_that_nobody_knows_are_skipped_and_known_ones_must_fill_their_length() {
        let two_tags = [2, 9, 2, 0xaa, 0xbb, 1, 1, 7];
        let mut seen = None;
        let mut reader = Reader::new(&two_tags);
        let outcome = reader.tagged_fields(|tag, field| {
            if tag == 1 {
                seen = Some(field.i8()?);
            }
            Ok(tag == 1)
        });
        assert_eq!(outcome, Ok(()));
        assert_eq!(seen, Some(7));
        assert!(reader.is_empty());
        let too_long = [1, 1, 2, 7, 7];
        let outcome = Reader::new(&too_long).tagged_fields(|_, field| field.i8().map(|_| true));
        assert_eq!(outcome, Err(Error::TagLength));
        let too_short = [1, 1, 1, 7, 7];
        let outcome = Reader::new(&too_short).tagged_fields(|_, field| field.i16().map(|_| true));
        assert_eq!(outcome, Err(Error::TagLength));
    }
}
