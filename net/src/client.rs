//! The other end of a connection: a Kafka client for the load generator, the command line and tests.
//!
//! What is decided is pure: [`Versions`] agrees on versions, [`Calls`] matches answers to requests,
//! [`MetadataCache`] knows who leads what. [`Client`] puts them on a stream of `rt`: many requests in flight
//! per connection, each `call` waiting for its own answer. It never tries again and never follows a leader:
//! whoever uses it decides that.

mod cache;
mod calls;
mod link;
mod records;

pub use cache::MetadataCache;
pub use calls::{Calls, Strayed};
pub use link::{Client, Options};
pub use records::{Fetched, Produced};

use crate::api::{Api, ApiKey};
use crate::error_code::ErrorCode;
use crate::messages::api_versions::ApiVersionsResponse;
use crate::wire::{Decode, EncodeError, Reader};
use crate::{frame, wire};
use rt::Slice;
use std::fmt;
use std::io;
use std::marker::PhantomData;

/// Why a call brought no answer.
#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    /// The connection ended before the answer came.
    Closed,
    /// The broker sent what is no frame, or more than this client takes.
    Frame(frame::Error),
    /// The answer cannot be read.
    Wire(wire::Error),
    /// The request cannot be said in the version agreed on.
    Encode(EncodeError),
    /// No version that both sides speak.
    NoVersion(ApiKey),
    /// The broker answered with an error code.
    Broker(ErrorCode),
    /// The answer lacks what was asked for, or has a code that is not known.
    Unexpected(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(why) => why.fmt(f),
            Error::Closed => f.write_str("the broker closed the connection"),
            Error::Frame(why) => write!(f, "the broker sent {why}"),
            Error::Wire(why) => write!(f, "the answer cannot be read: {why}"),
            Error::Encode(why) => write!(f, "the request cannot be written: {why}"),
            Error::NoVersion(key) => {
                write!(f, "the broker serves no version of {} that we speak", key.name())
            }
            Error::Broker(code) => code.fmt(f),
            Error::Unexpected(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(why: io::Error) -> Error {
        Error::Io(why)
    }
}

impl From<wire::Error> for Error {
    fn from(why: wire::Error) -> Error {
        Error::Wire(why)
    }
}

impl From<EncodeError> for Error {
    fn from(why: EncodeError) -> Error {
        Error::Encode(why)
    }
}

/// The answer to a call; owns its bytes, so that what is decoded can borrow from it.
#[derive(Debug, Clone)]
pub struct Reply<A> {
    body: Slice,
    version: i16,
    api: PhantomData<fn() -> A>,
}

impl<A: Api> Reply<A> {
    /// `body` is what follows the response header.
    pub fn new(body: Slice, version: i16) -> Reply<A> {
        Reply { body, version, api: PhantomData }
    }

    pub fn version(&self) -> i16 {
        self.version
    }

    pub fn decode(&self) -> Result<A::Response<'_>, wire::Error> {
        A::Response::decode(&mut Reader::new(&self.body), self.version)
    }

    /// All of the answer behind its header.
    pub(crate) fn whole(&self) -> Slice {
        self.body.clone()
    }

    /// A part of the answer as shared bytes: records that outlive it without a copy.
    pub fn slice_ref(&self, part: &[u8]) -> Slice {
        self.body.slice_ref(part)
    }
}

/// Which versions the broker serves, from its ApiVersions answer.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    served: Vec<(i16, i16, i16)>,
}

impl Versions {
    pub fn from_response(response: &ApiVersionsResponse<'_>) -> Versions {
        let served = response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version));
        Versions { served: served.collect() }
    }

    /// The newest version that the broker serves, our codec knows, and `newest` allows.
    pub fn choose<A: Api>(&self, newest: i16) -> Result<i16, Error> {
        let found = self.served.iter().find(|(key, _, _)| *key == A::KEY.as_i16());
        let (_, first, last) = *found.ok_or(Error::NoVersion(A::KEY))?;
        let version = last.min(*A::VERSIONS.end()).min(newest);
        if version < first.max(*A::VERSIONS.start()) { Err(Error::NoVersion(A::KEY)) } else { Ok(version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::api_versions::ApiVersion;
    use crate::messages::produce;

    #[test]
    fn the_newest_common_version_is_chosen() {
        fn check(broker: (i16, i16), newest: i16, expect: Option<i16>) {
            let api = ApiVersion { api_key: 0, min_version: broker.0, max_version: broker.1 };
            let response = ApiVersionsResponse { api_keys: vec![api], ..Default::default() };
            let got = Versions::from_response(&response).choose::<produce::Api>(newest);
            assert_eq!(got.ok(), expect, "{broker:?} {newest}");
        }
        check((0, 13), i16::MAX, Some(13));
        check((0, 99), i16::MAX, Some(13));
        check((0, 9), i16::MAX, Some(9));
        check((0, 13), 12, Some(12));
        check((0, 2), i16::MAX, None);
        check((14, 20), i16::MAX, None);
        assert!(Versions::default().choose::<produce::Api>(9).is_err());
    }
}
