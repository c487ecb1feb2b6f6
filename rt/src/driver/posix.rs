//! The `posix` driver, for hosts that forbid io_uring: sockets by epoll, files by blocking calls on helper threads
//! (`pwritev2` with RWF_DSYNC). Slower, and the same contract.
//!
//! A socket operation is tried at once; what would block waits for the next edge of its socket and is tried again.
//! A file operation lends its buffer to the helper thread and gets it back with the result; it cannot be cancelled.

use crate::buf::{BufMut, Slice};
use crate::driver::{Driver, Wait, helped, sockets};
use crate::file::Sync;
use crate::offload::{Helpers, Length};
use crate::op::{Back, Done, Handle, HelperResult, HelperValue, Op, OpKey, Value};
use crate::ready::Ready;
use crate::stats::Stats;
use crate::time::{Clock, Instant};
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 256;
const BELL: u64 = u64::MAX;

struct Waiting {
    op: Op,
    /// A connection under way.
    connecting: Option<OwnedFd>,
    fd: RawFd,
}

pub(crate) struct Posix {
    epoll: OwnedFd,
    clock: Clock,
    ready: Arc<Ready>,
    helpers: Arc<Helpers>,
    waiting: HashMap<OpKey, Waiting>,
    by_fd: HashMap<RawFd, Vec<OpKey>>,
    events: Vec<epoll::Event>,
    finished: Vec<(OpKey, Done)>,
    returns: Vec<(OpKey, HelperResult)>,
    stats: Stats,
    /// Why it runs, where another driver was tried first.
    why: Option<String>,
}

/// One attempt at a socket operation.
enum Attempt {
    Done(io::Result<Value>),
    WouldBlock,
}

impl Posix {
    pub(crate) fn new(
        clock: Clock,
        ready: Arc<Ready>,
        helpers: Arc<Helpers>,
        why: Option<String>,
    ) -> io::Result<Posix> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        if let Some(bell) = ready.bell() {
            // By edges, so the eventfd need not be read: every ring is an edge.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, bell, epoll::EventData::new_u64(BELL), flags)?;
        }
        Ok(Posix {
            epoll,
            clock,
            ready,
            helpers,
            waiting: HashMap::new(),
            by_fd: HashMap::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            finished: Vec::new(),
            returns: Vec::new(),
            stats: Stats::default(),
            why,
        })
    }

    fn help(&mut self, key: OpKey, length: Length, work: impl FnOnce() -> HelperResult + Send + 'static) {
        self.stats.helped += 1;
        let ready = self.ready.clone();
        self.helpers.run(length, Box::new(move || ready.push_return(key, work())));
    }

    fn begin_connect(&mut self, key: OpKey, op: Op, addr: std::net::SocketAddr) {
        let begun = sockets::stream_for(&addr, SocketFlags::NONBLOCK).and_then(|socket| {
            match rustix::net::connect(&socket, &addr) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
                Err(e) => Err(e.into()),
            }
        });
        match begun {
            Ok(socket) => {
                let fd = socket.as_raw_fd();
                self.wait_for(key, Waiting { op, connecting: Some(socket), fd });
            }
            Err(e) => self.finished.push((key, op.done(Err(e)))),
        }
    }

    fn begin_socket(&mut self, key: OpKey, op: Op) {
        let fd = match &op {
            Op::Accept { listener: on } | Op::Recv { socket: on, .. } | Op::Send { socket: on, .. } => {
                on.fd().as_raw_fd()
            }
            _other => unreachable!("only sockets wait"),
        };
        self.attempt(key, Waiting { op, connecting: None, fd });
    }

    fn attempt(&mut self, key: OpKey, mut waiting: Waiting) {
        self.stats.enters += 1;
        match try_socket(&mut waiting) {
            Attempt::WouldBlock => self.wait_for(key, waiting),
            Attempt::Done(result) => self.finish(key, waiting.op, result),
        }
    }

    fn finish(&mut self, key: OpKey, op: Op, result: io::Result<Value>) {
        match &result {
            Ok(Value::Count(count)) => self.stats.finished(&op, *count),
            Ok(_) => self.stats.finished(&op, 0),
            Err(_) => (),
        }
        self.finished.push((key, op.done(result)));
    }

    fn wait_for(&mut self, key: OpKey, waiting: Waiting) {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let fd = waiting.fd;
        let data = epoll::EventData::new_u64(u64::try_from(fd).expect("a descriptor is not negative"));
        let added = match (&waiting.connecting, &waiting.op) {
            (Some(socket), _) => epoll::add(&self.epoll, socket, data, flags),
            (None, Op::Accept { listener: on })
            | (None, Op::Recv { socket: on, .. })
            | (None, Op::Send { socket: on, .. }) => epoll::add(&self.epoll, on.fd(), data, flags),
            (None, _other) => unreachable!("only sockets wait"),
        };
        match added {
            // Known from before: edges since the attempt are reported all the same.
            Ok(()) | Err(Errno::EXIST) => {
                self.by_fd.entry(fd).or_default().push(key);
                self.waiting.insert(key, waiting);
            }
            Err(e) => self.finished.push((key, waiting.op.done(Err(e.into())))),
        }
    }

    fn sleep(&mut self, wait: Wait) -> io::Result<()> {
        let limit = match wait {
            Wait::No => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
            Wait::Until(None) => None,
            Wait::Until(Some(until)) => {
                Some(Timespec::try_from(until - self.clock.now()).unwrap_or_default())
            }
        };
        self.stats.enters += 1;
        self.stats.sleeps += u64::from(wait != Wait::No);
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn retry_ready(&mut self) {
        for event in std::mem::take(&mut self.events) {
            let Ok(fd) = RawFd::try_from(event.data.u64()) else { continue };
            for key in self.by_fd.remove(&fd).unwrap_or_default() {
                if let Some(waiting) = self.waiting.remove(&key) {
                    self.attempt(key, waiting);
                }
            }
        }
        self.events.reserve(EVENTS_MAX);
    }
}

impl Driver for Posix {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wall_ms(&self) -> i64 {
        Clock::wall_ms()
    }

    fn submit(&mut self, key: OpKey, mut op: Op) {
        let length = helped::length(&op);
        if let Some(call) = helped::call_for(&mut op) {
            return self.help(key, length, move || call().into());
        }
        match op {
            Op::Read { file, buf, pos } => {
                let fd = file.fd().clone();
                self.help(key, length, move || read(&fd, buf, pos));
            }
            Op::Write { file, data, pos, sync } => {
                let fd = file.fd().clone();
                self.help(key, length, move || write(&fd, data, pos, sync));
            }
            Op::Fsync { file, data_only } => {
                let fd = file.fd().clone();
                self.stats.syncs += 1;
                self.help(key, length, move || {
                    let synced = if data_only { rustix::fs::fdatasync(&fd) } else { rustix::fs::fsync(&fd) };
                    synced.map(|()| HelperValue::Unit).map_err(io::Error::from).into()
                });
            }
            Op::Listen { addr, shared } => {
                let result = sockets::listen(addr, shared, SocketFlags::NONBLOCK);
                self.finished.push((key, op.done(result)));
            }
            Op::Connect { addr } => self.begin_connect(key, op, addr),
            socket => self.begin_socket(key, socket),
        }
    }

    fn cancel(&mut self, key: OpKey) {
        if let Some(waiting) = self.waiting.remove(&key) {
            if let Some(keys) = self.by_fd.get_mut(&waiting.fd) {
                keys.retain(|k| *k != key);
            }
            let cancelled = io::Error::from_raw_os_error(libc::ECANCELED);
            self.finished.push((key, waiting.op.done(Err(cancelled))));
        }
    }

    fn shutdown(&mut self, socket: &Handle) {
        sockets::shutdown(socket.fd());
    }

    fn turn(&mut self, wait: Wait, done: &mut Vec<(OpKey, Done)>) -> io::Result<()> {
        let nothing_yet = self.finished.is_empty();
        if nothing_yet || !self.waiting.is_empty() {
            self.sleep(if nothing_yet { wait } else { Wait::No })?;
            self.retry_ready();
        }
        done.append(&mut self.finished);
        self.ready.take_returns(&mut self.returns);
        for (key, result) in self.returns.drain(..) {
            match (&result.result, &result.back) {
                (Ok(HelperValue::Count(count)), Back::Buf(_)) => {
                    (self.stats.reads, self.stats.read_bytes) =
                        (self.stats.reads + 1, self.stats.read_bytes + *count as u64);
                }
                (Ok(HelperValue::Count(count)), Back::Data(_)) => {
                    (self.stats.writes, self.stats.written_bytes) =
                        (self.stats.writes + 1, self.stats.written_bytes + *count as u64);
                }
                _other => (),
            }
            done.push((key, result.done()));
        }
        Ok(())
    }

    fn count(&self, stats: &mut Stats) {
        stats.add_driver(&self.stats);
    }

    fn describe(&self) -> String {
        let what = "posix (epoll; files by helper threads: about one more thread hop per read and write)";
        match &self.why {
            Some(why) => format!("{what}, because {why}"),
            None => what.to_string(),
        }
    }
}

fn read(fd: &OwnedFd, mut buf: BufMut, pos: u64) -> HelperResult {
    let result = rustix::io::pread(fd, &mut buf[..], pos).map(HelperValue::Count);
    HelperResult { result: result.map_err(io::Error::from), back: Back::Buf(buf) }
}

fn write(fd: &OwnedFd, data: Vec<Slice>, pos: u64, sync: Sync) -> HelperResult {
    let flags = match sync {
        Sync::None => ReadWriteFlags::empty(),
        Sync::Data => ReadWriteFlags::DSYNC,
    };
    let slices: Vec<IoSlice<'_>> = data.iter().map(|s| IoSlice::new(s)).collect();
    let result = rustix::io::pwritev2(fd, &slices, pos, flags).map(HelperValue::Count);
    drop(slices);
    HelperResult { result: result.map_err(io::Error::from), back: Back::Data(data) }
}

fn try_socket(waiting: &mut Waiting) -> Attempt {
    if let Some(socket) = waiting.connecting.take() {
        // Reading the error clears it: once only.
        return match sockopt::socket_error(&socket) {
            Ok(Ok(())) if rustix::net::getpeername(&socket).err() == Some(Errno::NOTCONN) => {
                waiting.connecting = Some(socket);
                Attempt::WouldBlock
            }
            Ok(Ok(())) => Attempt::Done(sockets::connected(socket)),
            Ok(Err(e)) | Err(e) => Attempt::Done(Err(e.into())),
        };
    }
    let tried = match &mut waiting.op {
        Op::Accept { listener } => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(listener.fd(), flags) {
                Ok(socket) => return Attempt::Done(sockets::connected(socket)),
                Err(e) => Err(e),
            }
        }
        Op::Recv { socket, buf, range } => {
            let into = &mut buf[range.clone()];
            rustix::net::recv(socket.fd(), into, RecvFlags::DONTWAIT).map(|(count, _)| count)
        }
        Op::Send { socket, data } => {
            let slices: Vec<IoSlice<'_>> = data.iter().map(|s| IoSlice::new(s)).collect();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            rustix::net::sendmsg(socket.fd(), &slices, &mut Default::default(), flags)
        }
        _other => unreachable!("only sockets wait"),
    };
    match tried {
        Ok(count) => Attempt::Done(Ok(Value::Count(count))),
        Err(Errno::AGAIN | Errno::INTR) => Attempt::WouldBlock,
        Err(e) => Attempt::Done(Err(e.into())),
    }
}
