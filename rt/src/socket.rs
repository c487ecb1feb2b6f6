//! TCP as operations. A stream has one reader and one writer task; neither may have two operations of its own kind in
//! flight, for the kernel would interleave them.

use crate::buf::{BufMut, Slice};
use crate::core::Core;
use crate::file::{VECTORS_MAX, skip};
use crate::op::{Back, Handle, Op, Value};
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

pub struct Listener {
    core: Core,
    handle: Handle,
    local: SocketAddr,
}

/// A connection. Clone is a counter; the last one dropped closes it.
#[derive(Clone)]
pub struct Stream(Rc<Inner>);

struct Inner {
    core: Core,
    handle: Handle,
    local: SocketAddr,
    peer: SocketAddr,
    receiving: Cell<bool>,
    sending: Cell<bool>,
}

impl Core {
    /// Port 0 takes a free one: ask `local_addr`.
    pub async fn listen(&self, addr: SocketAddr) -> io::Result<Listener> {
        self.listener(addr, false).await
    }

    /// One listener per core on the same address; the kernel spreads connections over them (SO_REUSEPORT).
    pub async fn listen_shared(&self, addr: SocketAddr) -> io::Result<Listener> {
        self.listener(addr, true).await
    }

    async fn listener(&self, addr: SocketAddr, shared: bool) -> io::Result<Listener> {
        match self.value(Op::Listen { addr, shared }).await? {
            Value::Listening(handle, local) => Ok(Listener { core: self.clone(), handle, local }),
            _other => unreachable!("listening brings a listener"),
        }
    }

    pub async fn connect(&self, addr: SocketAddr) -> io::Result<Stream> {
        self.connected(Op::Connect { addr }).await.map(|(stream, _)| stream)
    }

    async fn connected(&self, op: Op) -> io::Result<(Stream, SocketAddr)> {
        match self.value(op).await? {
            Value::Connected(handle, local, peer) => {
                let (receiving, sending) = (Cell::new(false), Cell::new(false));
                let inner = Inner { core: self.clone(), handle, local, peer, receiving, sending };
                Ok((Stream(Rc::new(inner)), peer))
            }
            _other => unreachable!("connecting brings a stream"),
        }
    }
}

impl Listener {
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        self.core.connected(Op::Accept { listener: self.handle.clone() }).await
    }
}

/// Marks a direction as busy while its operation runs.
struct Busy<'a>(&'a Cell<bool>);

impl<'a> Busy<'a> {
    fn begin(cell: &'a Cell<bool>) -> Busy<'a> {
        assert!(!cell.replace(true), "a stream has one reader and one writer");
        Busy(cell)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Stream {
    pub fn peer_addr(&self) -> SocketAddr {
        self.0.peer
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Receives into `range` of the buffer, what is there, at least one byte; 0 is the end of the stream.
    pub async fn recv(&self, buf: BufMut, range: Range<usize>) -> (io::Result<usize>, BufMut) {
        assert!(range.start < range.end && range.end <= buf.len(), "{range:?} of {}", buf.len());
        let _busy = Busy::begin(&self.0.receiving);
        let done = self.0.core.run(Op::Recv { socket: self.0.handle.clone(), buf, range }).await;
        match (done.result, done.back) {
            (Ok(Value::Count(n)), Back::Buf(buf)) => (Ok(n), buf),
            (Err(e), Back::Buf(buf)) => (Err(e), buf),
            _other => unreachable!("a receive brings a count and its buffer"),
        }
    }

    /// Sends all bytes, in order. After an error, how much arrived is unknown: close the connection.
    pub async fn send(&self, data: Vec<Slice>) -> io::Result<usize> {
        let _busy = Busy::begin(&self.0.sending);
        let mut rest = data;
        rest.retain(|s| !s.is_empty());
        let mut total = 0;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(VECTORS_MAX));
            let done = self.0.core.run(Op::Send { socket: self.0.handle.clone(), data: rest }).await;
            let (sent, mut now) = match (done.result?, done.back) {
                (Value::Count(n), Back::Data(data)) => (n, data),
                _other => unreachable!("a send brings a count and its slices"),
            };
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            total += sent;
            skip(&mut now, sent);
            now.extend(later);
            rest = now;
        }
        Ok(total)
    }

    /// Ends both directions: the reader sees the end of the stream, the peer too.
    pub fn shutdown(&self) {
        self.0.core.shutdown(&self.0.handle);
    }
}
