//! Which answer belongs to which request.

use crate::api::ApiKey;
use crate::header::ResponseHeader;
use crate::wire::{self, Reader};
use std::collections::BTreeMap;

/// Requests in flight on one connection; `W` is whatever waits for the answer.
#[derive(Debug)]
pub struct Calls<W> {
    next: i32,
    open: BTreeMap<i32, (ApiKey, i16, W)>,
}

/// An answer nobody asked for: the connection cannot be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strayed(pub wire::Error);

impl<W> Default for Calls<W> {
    fn default() -> Calls<W> {
        Calls { next: 0, open: BTreeMap::new() }
    }
}

impl<W> Calls<W> {
    /// Gives the request its correlation id.
    pub fn begin(&mut self, key: ApiKey, version: i16, waiter: W) -> i32 {
        let id = self.skip_id();
        let before = self.open.insert(id, (key, version, waiter));
        assert!(before.is_none());
        id
    }

    /// An id for a request that gets no answer.
    pub fn skip_id(&mut self) -> i32 {
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        id
    }

    /// Takes the waiter for this response frame, with the version of the body and where it begins.
    pub fn finish(&mut self, frame: &[u8]) -> Result<(W, i16, usize), Strayed> {
        let mut r = Reader::new(frame);
        let id = r.clone().i32().map_err(Strayed)?;
        let (key, version, waiter) = self.open.remove(&id).ok_or(Strayed(wire::Error::Null))?;
        ResponseHeader::decode(&mut r, key, version).map_err(Strayed)?;
        Ok((waiter, version, frame.len() - r.remaining()))
    }

    /// The request was not sent after all.
    pub fn forget(&mut self, id: i32) {
        self.open.remove(&id);
    }

    /// The connection is gone: drops every waiter.
    pub fn abandon(&mut self) {
        self.open.clear();
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_requests_in_any_order() {
        let mut calls = Calls::default();
        assert_eq!(calls.begin(ApiKey::Metadata, 9, "metadata"), 0);
        assert_eq!(calls.begin(ApiKey::ApiVersions, 3, "versions"), 1);
        assert_eq!(calls.finish(&[0, 0, 0, 1, 7]), Ok(("versions", 3, 4)));
        assert_eq!(calls.finish(&[0, 0, 0, 0, 0, 7]), Ok(("metadata", 9, 5)));
        assert!(calls.finish(&[0, 0, 0, 0, 0]).is_err(), "answered twice");
        assert!(calls.finish(&[0, 0]).is_err());
        assert!(calls.is_empty());
    }

    #[test]
    fn an_id_in_flight_is_not_given_again() {
        let mut calls = Calls { next: i32::MAX, open: BTreeMap::new() };
        assert_eq!(calls.begin(ApiKey::Fetch, 4, ()), i32::MAX);
        assert_eq!(calls.begin(ApiKey::Fetch, 4, ()), i32::MIN);
        calls.next = i32::MAX;
        assert_eq!(calls.begin(ApiKey::Fetch, 4, ()), i32::MIN + 1);
    }
}
