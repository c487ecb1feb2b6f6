//! The `ring` driver: io_uring, one ring per core, made and entered by the core's own thread.
//!
//! One `io_uring_enter` submits everything queued and waits; the timeout rides along with it. Reads, writes, syncs and
//! sockets are ring operations; what takes a path or changes a file's space goes to helper threads (`helped`), whose
//! results, and mail from other cores, ring an eventfd that the ring reads. Dropped futures send ASYNC_CANCEL; the
//! operation's memory stays in `in_flight` until its completion arrives, whatever that says.

mod prepare;
mod setup;

use crate::driver::{Driver, Wait, helped, sockets};
use crate::offload::Helpers;
use crate::op::{Done, Handle, HelperResult, Op, OpKey, Value};
use crate::ready::Ready;
use crate::stats::Stats;
use crate::time::{Clock, Instant};
use io_uring::{IoUring, opcode, squeue, types};
use prepare::Pinned;
use rustix::net::SocketFlags;
pub(crate) use setup::Flags;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// `user_data` of the doorbell's read and of cancellations; operations use their key.
const BELL: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;

struct InFlight {
    op: Op,
    /// What the kernel holds addresses of: vectors, message header, socket address.
    pinned: Option<Box<Pinned>>,
    /// A helper thread works on it, the ring does not know it.
    helped: bool,
}

pub(crate) struct Ring {
    ring: IoUring,
    flags: String,
    clock: Clock,
    ready: Arc<Ready>,
    helpers: Arc<Helpers>,
    /// By the index of the operation's key.
    in_flight: Vec<Option<InFlight>>,
    /// Entries the submission queue had no room for.
    backlog: VecDeque<squeue::Entry>,
    /// Completed without the kernel: delivered at the next turn.
    finished: Vec<(OpKey, Done)>,
    returns: Vec<(OpKey, HelperResult)>,
    bell_value: Box<[u8; 8]>,
    bell_armed: bool,
    stats: Stats,
}

impl Ring {
    pub(crate) fn new(
        entries: u32,
        flags: Flags,
        clock: Clock,
        ready: Arc<Ready>,
        helpers: Arc<Helpers>,
    ) -> io::Result<Ring> {
        let (ring, flags) = setup::build(entries, flags)?;
        Ok(Ring {
            ring,
            flags,
            clock,
            ready,
            helpers,
            in_flight: Vec::new(),
            backlog: VecDeque::new(),
            finished: Vec::new(),
            returns: Vec::new(),
            bell_value: Box::new([0; 8]),
            bell_armed: false,
            stats: Stats::default(),
        })
    }

    fn submit_to_ring(&mut self, key: OpKey, mut op: Op) {
        let (entry, pinned) = match prepare::entry(&mut op) {
            Ok(prepared) => prepared,
            Err(e) => return self.finished.push((key, op.done(Err(e)))),
        };
        self.hold(key, InFlight { op, pinned, helped: false });
        self.queue(entry.user_data(pack(key)));
    }

    fn hold(&mut self, key: OpKey, flight: InFlight) {
        let index = key.index as usize;
        if self.in_flight.len() <= index {
            self.in_flight.resize_with(index + 1, || None);
        }
        let before = self.in_flight[index].replace(flight);
        assert!(before.is_none(), "two operations have one key");
    }

    /// The entry's addresses point into `in_flight`, or into this driver's own boxes, until its completion.
    fn queue(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() || !self.push(&entry) {
            self.backlog.push_back(entry);
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: everything the entry points at lives in `in_flight` or in `bell_value` until the completion with its
        // `user_data` was seen, and the ring is dropped before either.
        unsafe { self.ring.submission().push(entry).is_ok() }
    }

    fn drain_backlog(&mut self) {
        while let Some(entry) = self.backlog.front().cloned() {
            if !self.push(&entry) {
                return;
            }
            self.backlog.pop_front();
        }
    }

    fn arm_bell(&mut self) {
        if self.bell_armed {
            return;
        }
        let Some(bell) = self.ready.bell() else { return };
        let fd = types::Fd(bell.as_raw_fd());
        let entry = opcode::Read::new(fd, self.bell_value.as_mut_ptr(), 8).build().user_data(BELL);
        self.bell_armed = true;
        self.queue(entry);
    }

    fn enter(&mut self, wait: Option<Option<Instant>>) -> io::Result<()> {
        self.stats.enters += 1;
        let entered = match wait {
            None => self.ring.submit(),
            Some(None) => {
                self.stats.sleeps += 1;
                self.ring.submit_and_wait(1)
            }
            Some(Some(until)) => {
                self.stats.sleeps += 1;
                let timespec = types::Timespec::from(until - self.clock.now());
                let args = types::SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                // The time is over, a signal came, or completions must be taken first: all are looked at again.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(e),
            },
        }
    }

    fn reap(&mut self, done: &mut Vec<(OpKey, Done)>) {
        let Ring { ring, in_flight, bell_armed, stats, .. } = self;
        for completion in ring.completion() {
            match completion.user_data() {
                BELL => *bell_armed = false,
                CANCEL => (),
                data => {
                    let key = unpack(data);
                    let flight = in_flight[key.index as usize].take();
                    let flight = flight.expect("a completion belongs to an operation");
                    done.push((key, finish(flight, completion.result(), stats)));
                }
            }
        }
        for (key, result) in self.returns.drain(..) {
            let flight = self.in_flight[key.index as usize].take();
            let flight = flight.expect("a return belongs to an operation");
            done.push((key, flight.op.done(result.done().result)));
        }
    }
}

impl Driver for Ring {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wall_ms(&self) -> i64 {
        Clock::wall_ms()
    }

    fn submit(&mut self, key: OpKey, mut op: Op) {
        if let Op::Listen { addr, shared } = &op {
            let result = sockets::listen(*addr, *shared, SocketFlags::empty());
            return self.finished.push((key, op.done(result)));
        }
        match helped::call_for(&mut op) {
            None => self.submit_to_ring(key, op),
            Some(call) => {
                self.stats.helped += 1;
                let length = helped::length(&op);
                self.hold(key, InFlight { op, pinned: None, helped: true });
                let ready = self.ready.clone();
                self.helpers.run(length, Box::new(move || ready.push_return(key, call().into())));
            }
        }
    }

    fn cancel(&mut self, key: OpKey) {
        let flight = self.in_flight.get(key.index as usize).and_then(Option::as_ref);
        if flight.is_some_and(|f| !f.helped) {
            self.queue(opcode::AsyncCancel::new(pack(key)).build().user_data(CANCEL));
        }
    }

    fn shutdown(&mut self, socket: &Handle) {
        sockets::shutdown(socket.fd());
    }

    fn turn(&mut self, wait: Wait, done: &mut Vec<(OpKey, Done)>) -> io::Result<()> {
        done.append(&mut self.finished);
        self.arm_bell();
        self.drain_backlog();
        let may_wait = done.is_empty() && self.backlog.is_empty();
        match wait {
            Wait::Until(until) if may_wait && self.ring.completion().is_empty() => self.enter(Some(until))?,
            Wait::Until(_) | Wait::No => {
                let queue = self.ring.submission();
                let needed = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
                drop(queue);
                if needed {
                    self.enter(None)?;
                }
            }
        }
        self.ready.take_returns(&mut self.returns);
        self.reap(done);
        Ok(())
    }

    fn count(&self, stats: &mut Stats) {
        stats.add_driver(&self.stats);
    }

    fn describe(&self) -> String {
        format!("ring (io_uring, {}, {} entries)", self.flags, self.ring.params().sq_entries())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // A core shuts down only after its operations ended. If its loop failed instead, the kernel may still write
        // into their memory: it is leaked rather than reused.
        self.in_flight.drain(..).flatten().for_each(std::mem::forget);
        if self.bell_armed {
            std::mem::forget(std::mem::replace(&mut self.bell_value, Box::new([0; 8])));
        }
    }
}

fn pack(key: OpKey) -> u64 {
    (u64::from(key.generation) << 32) | u64::from(key.index)
}

fn unpack(data: u64) -> OpKey {
    let low = u32::try_from(data & u64::from(u32::MAX)).expect("masked to 32 bits");
    let high = u32::try_from(data >> 32).expect("shifted to 32 bits");
    OpKey { index: low, generation: high }
}

fn finish(flight: InFlight, result: i32, stats: &mut Stats) -> Done {
    let InFlight { op, pinned, helped: _ } = flight;
    let count = match usize::try_from(result) {
        Ok(count) => count,
        Err(_) => return op.done(Err(io::Error::from_raw_os_error(result.saturating_neg()))),
    };
    stats.finished(&op, count);
    let value = match &op {
        Op::Read { .. } | Op::Write { .. } | Op::Recv { .. } | Op::Send { .. } => Ok(Value::Count(count)),
        Op::Accept { .. } => prepare::accepted(result),
        Op::Connect { .. } => prepare::connected(pinned),
        _synced => Ok(Value::Unit),
    };
    op.done(value)
}
