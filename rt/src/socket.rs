//! TCP as operations. A stream has one reader and one writer task; neither may have two operations of its own kind in
//! flight, for the kernel would interleave them. A receive or send that was dropped in flight, or a send that failed,
//! has moved an unknown number of bytes: that direction refuses everything afterwards.

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
    receiving: Cell<Direction>,
    sending: Cell<Direction>,
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
                let (receiving, sending) = (Cell::new(Direction::Idle), Cell::new(Direction::Idle));
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

/// One direction of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Idle,
    Busy,
    /// An operation was dropped in flight: how many bytes it moved nobody knows.
    Unknown,
}

/// Marks a direction while its operation runs.
struct Moving<'a>(&'a Cell<Direction>);

impl<'a> Moving<'a> {
    fn begin(cell: &'a Cell<Direction>) -> io::Result<Moving<'a>> {
        match cell.get() {
            Direction::Busy => panic!("a stream has one reader and one writer"),
            Direction::Unknown => {
                let why = "an operation on this connection was dropped in flight; it can only be closed";
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, why))
            }
            Direction::Idle => {
                cell.set(Direction::Busy);
                Ok(Moving(cell))
            }
        }
    }

    fn ended(self) {
        self.0.set(Direction::Idle);
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if self.0.get() == Direction::Busy {
            self.0.set(Direction::Unknown);
        }
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
        let moving = match Moving::begin(&self.0.receiving) {
            Ok(moving) => moving,
            Err(e) => return (Err(e), buf),
        };
        let done = self.0.core.run(Op::Recv { socket: self.0.handle.clone(), buf, range }).await;
        moving.ended();
        match (done.result, done.back) {
            (Ok(Value::Count(n)), Back::Buf(buf)) => (Ok(n), buf),
            (Err(e), Back::Buf(buf)) => (Err(e), buf),
            _other => unreachable!("a receive brings a count and its buffer"),
        }
    }

    /// Sends all bytes, in order. After an error, how much arrived is unknown: close the connection.
    pub async fn send(&self, data: Vec<Slice>) -> io::Result<usize> {
        let moving = Moving::begin(&self.0.sending)?;
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
        moving.ended();
        Ok(total)
    }

    /// Ends both directions: the reader sees the end of the stream, the peer too.
    pub fn shutdown(&self) {
        self.0.core.shutdown(&self.0.handle);
    }
}
