//! Simulated TCP: connections in memory, byte by byte in order, with short reads and writes and resets.

use super::disk::errno;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(super) type TokenId = u64;

/// Bytes a connection holds before its sender waits.
pub(super) const WINDOW_BYTES: usize = 128 << 10;
const PORT_FIRST: u16 = 32_768;

struct Endpoint {
    peer: TokenId,
    local: SocketAddr,
    remote: SocketAddr,
    inbox: VecDeque<u8>,
    /// The other side will send no more.
    ended: bool,
    reset: bool,
    /// We said that we are done.
    shut: bool,
}

struct Listener {
    addr: SocketAddr,
    waiting: VecDeque<TokenId>,
}

#[derive(Default)]
pub(super) struct Net {
    endpoints: BTreeMap<TokenId, Endpoint>,
    listeners: BTreeMap<TokenId, Listener>,
    port_next: u16,
}

/// What an attempt brought, or that it must wait for the socket to change.
pub(super) enum Attempt<T> {
    Done(io::Result<T>),
    Wait,
}

impl Net {
    pub(super) fn listen(
        &mut self,
        token: TokenId,
        addr: SocketAddr,
        shared: bool,
    ) -> io::Result<SocketAddr> {
        let mut addr = addr;
        if addr.port() == 0 {
            addr.set_port(self.port());
        } else if !shared && self.listeners.values().any(|l| l.addr == addr) {
            return Err(errno(libc::EADDRINUSE));
        }
        self.listeners.insert(token, Listener { addr, waiting: VecDeque::new() });
        Ok(addr)
    }

    /// Makes both ends; the listener whose turn `choice` draws gets one. Returns the listener to wake.
    pub(super) fn connect(
        &mut self,
        addr: SocketAddr,
        mut token: impl FnMut() -> TokenId,
        choice: u64,
    ) -> io::Result<(TokenId, SocketAddr, TokenId)> {
        let matches =
            |l: &Listener| l.addr == addr || (l.addr.ip().is_unspecified() && l.addr.port() == addr.port());
        let count = self.listeners.values().filter(|l| matches(l)).count() as u64;
        let nth = usize::try_from(choice % count.max(1)).expect("fewer listeners than fit");
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port());
        let found = self.listeners.iter_mut().filter(|(_, l)| matches(l)).nth(nth);
        let (listener, state) = found.ok_or(errno(libc::ECONNREFUSED))?;
        let (ours, theirs) = (token(), token());
        state.waiting.push_back(theirs);
        self.endpoints.insert(ours, Endpoint::new(theirs, local, addr));
        self.endpoints.insert(theirs, Endpoint::new(ours, addr, local));
        Ok((ours, local, *listener))
    }

    pub(super) fn accept(&mut self, listener: TokenId) -> Attempt<(TokenId, SocketAddr, SocketAddr)> {
        let Some(listener) = self.listeners.get_mut(&listener) else {
            return Attempt::Done(Err(errno(libc::EINVAL)));
        };
        match listener.waiting.pop_front().and_then(|t| self.endpoints.get(&t).map(|e| (t, e))) {
            Some((token, end)) => Attempt::Done(Ok((token, end.local, end.remote))),
            None => Attempt::Wait,
        }
    }

    pub(super) fn recv(&mut self, token: TokenId, into: &mut [u8]) -> Attempt<usize> {
        let Some(end) = self.endpoints.get_mut(&token) else {
            return Attempt::Done(Err(errno(libc::ENOTCONN)));
        };
        if end.reset {
            return Attempt::Done(Err(errno(libc::ECONNRESET)));
        }
        let count = into.len().min(end.inbox.len());
        let (front, back) = end.inbox.as_slices();
        let from_front = count.min(front.len());
        into[..from_front].copy_from_slice(&front[..from_front]);
        into[from_front..count].copy_from_slice(&back[..count - from_front]);
        end.inbox.drain(..count);
        match count {
            0 if end.ended || end.shut => Attempt::Done(Ok(0)),
            0 => Attempt::Wait,
            _some => Attempt::Done(Ok(count)),
        }
    }

    pub(super) fn send(&mut self, token: TokenId, bytes: &[u8]) -> Attempt<usize> {
        let Some(end) = self.endpoints.get(&token) else {
            return Attempt::Done(Err(errno(libc::ENOTCONN)));
        };
        if end.reset {
            return Attempt::Done(Err(errno(libc::ECONNRESET)));
        }
        let peer = end.peer;
        if end.shut {
            return Attempt::Done(Err(errno(libc::EPIPE)));
        }
        let Some(peer) = self.endpoints.get_mut(&peer) else {
            return Attempt::Done(Err(errno(libc::EPIPE)));
        };
        let count = bytes.len().min(WINDOW_BYTES - peer.inbox.len().min(WINDOW_BYTES));
        if count == 0 {
            return Attempt::Wait;
        }
        peer.inbox.extend(&bytes[..count]);
        Attempt::Done(Ok(count))
    }

    pub(super) fn shutdown(&mut self, token: TokenId) {
        let Some(end) = self.endpoints.get_mut(&token) else { return };
        end.shut = true;
        let peer = end.peer;
        if let Some(peer) = self.endpoints.get_mut(&peer) {
            peer.ended = true;
        }
    }

    /// Both ends of a connection are cut off.
    pub(super) fn reset(&mut self, token: TokenId) {
        let peer = self.peer(token);
        for token in [Some(token), peer].into_iter().flatten() {
            if let Some(end) = self.endpoints.get_mut(&token) {
                end.reset = true;
            }
        }
    }

    pub(super) fn connections(&self) -> Vec<TokenId> {
        self.endpoints.keys().copied().collect()
    }

    pub(super) fn peer(&self, token: TokenId) -> Option<TokenId> {
        self.endpoints.get(&token).map(|end| end.peer)
    }

    /// The last handle is gone. Returns whoever has something to notice.
    pub(super) fn close(&mut self, token: TokenId) -> Vec<TokenId> {
        if let Some(listener) = self.listeners.remove(&token) {
            return listener.waiting.into_iter().flat_map(|t| self.close(t)).collect();
        }
        let Some(end) = self.endpoints.remove(&token) else { return Vec::new() };
        if let Some(peer) = self.endpoints.get_mut(&end.peer) {
            peer.ended = true;
            // As TCP does when a connection is closed over unread bytes.
            peer.reset |= !end.inbox.is_empty();
        }
        vec![end.peer]
    }

    fn port(&mut self) -> u16 {
        self.port_next = self.port_next.checked_add(1).unwrap_or(PORT_FIRST).max(PORT_FIRST);
        self.port_next
    }
}

impl Endpoint {
    fn new(peer: TokenId, local: SocketAddr, remote: SocketAddr) -> Endpoint {
        Endpoint { peer, local, remote, inbox: VecDeque::new(), ended: false, reset: false, shut: false }
    }
}
