//! The headers in front of every request and response.
//!
//! ```text
//! request   i16 key | i16 version | i32 correlation id | i16 string client id, nullable | v2: tagged fields
//! response  i32 correlation id | v1: tagged fields
//! ```
//!
//! Key and version are read first and decide which header this is, also for versions the broker does not
//! serve. The client id keeps its fixed-length form in version 2.

use crate::api::{ApiKey, request_header_version, response_header_version};
use crate::wire::{EncodeError, Error, Reader, Writer};
use std::borrow::Cow;
use std::fmt;

/// Why a frame does not begin with a request header; the connection is closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// No such API key, so not even the form of the header is known.
    UnknownKey(i16),
    Wire(Error),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::UnknownKey(key) => write!(f, "there is no API with key {key}"),
            HeaderError::Wire(why) => write!(f, "the request header: {why}"),
        }
    }
}

impl std::error::Error for HeaderError {}

impl From<Error> for HeaderError {
    fn from(why: Error) -> HeaderError {
        HeaderError::Wire(why)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    /// A null client id reads as the empty one, as in Kafka.
    pub client_id: Cow<'a, str>,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header; the body follows in the same reader.
    pub fn decode(r: &mut Reader<'a>) -> Result<RequestHeader<'a>, HeaderError> {
        let key = r.i16()?;
        let key = ApiKey::from_i16(key).ok_or(HeaderError::UnknownKey(key))?;
        let version = r.i16()?;
        let correlation_id = r.i32()?;
        let client_id = r.nullable_string(false)?.unwrap_or_default();
        if request_header_version(key, version) >= 2 {
            r.skip_tagged_fields()?;
        }
        Ok(RequestHeader { key, version, correlation_id, client_id })
    }

    pub fn encode(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.i16(self.key.as_i16());
        w.i16(self.version);
        w.i32(self.correlation_id);
        w.string(&self.client_id, false)?;
        if request_header_version(self.key, self.version) >= 2 {
            w.uvarint(0);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeader {
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header of the response to a request of this key and version.
    pub fn decode(r: &mut Reader<'_>, key: ApiKey, version: i16) -> Result<ResponseHeader, Error> {
        let correlation_id = r.i32()?;
        if response_header_version(key, version) >= 1 {
            r.skip_tagged_fields()?;
        }
        Ok(ResponseHeader { correlation_id })
    }

    pub fn encode(&self, w: &mut Writer, key: ApiKey, version: i16) {
        w.i32(self.correlation_id);
        if response_header_version(key, version) >= 1 {
            w.uvarint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_header_comes_back_in_both_versions() {
        for (key, version, bytes) in [(ApiKey::Produce, 8, 11), (ApiKey::Produce, 9, 12)] {
            let header = RequestHeader { key, version, correlation_id: 77, client_id: Cow::Borrowed("a") };
            let mut w = Writer::new();
            header.encode(&mut w).unwrap();
            let body = w.into_body().unwrap();
            assert_eq!(body.len(), bytes);
            let mut r = Reader::new(&body);
            assert_eq!(RequestHeader::decode(&mut r), Ok(header));
            assert!(r.is_empty());
        }
    }

    #[test]
    fn a_null_client_id_is_empty_and_unknown_tags_are_skipped() {
        let bytes = [0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 1, 99, 1, 0xaa];
        let mut r = Reader::new(&bytes);
        let header = RequestHeader::decode(&mut r).unwrap();
        assert_eq!(header.client_id, "");
        assert_eq!(header.key, ApiKey::ApiVersions);
        assert!(r.is_empty());
    }

    #[test]
    fn a_header_that_is_none() {
        fn check(bytes: &[u8], expect: HeaderError) {
            assert_eq!(RequestHeader::decode(&mut Reader::new(bytes)), Err(expect));
        }
        check(&[], HeaderError::Wire(Error::Truncated));
        check(&[0x7f, 0xff, 0, 0], HeaderError::UnknownKey(i16::MAX));
        check(&[0, 18, 0, 99, 0, 0, 0, 1, 0, 0], HeaderError::Wire(Error::Truncated));
        check(&[0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xfe], HeaderError::Wire(Error::NegativeLength));
    }

    #[test]
    fn api_versions_answers_in_the_oldest_header() {
        let mut w = Writer::new();
        ResponseHeader { correlation_id: 5 }.encode(&mut w, ApiKey::ApiVersions, 4);
        assert_eq!(w.len(), 4);
        let mut w = Writer::new();
        ResponseHeader { correlation_id: 5 }.encode(&mut w, ApiKey::Metadata, 9);
        assert_eq!(w.len(), 5);
    }
}
