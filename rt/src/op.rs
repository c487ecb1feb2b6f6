//! Operations as data. The buffer belongs to the operation, never to the future that waits for it: dropping the
//! future cancels the operation, and the driver keeps the buffer until the final completion.

use crate::buf::{BufMut, Slice};
use crate::file::{DirEntry, Open, Sync};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

/// One operation's place in its core's table. The generation tells a late completion from a new operation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct OpKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// An open file or socket. Shared with the operations that use it, so it closes after the last of them.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Rc<Opened>);

pub(crate) enum Opened {
    /// Counted across threads: a helper may hold it while it works.
    Fd(Arc<OwnedFd>),
    Sim(crate::driver::sim::Token),
}

impl Handle {
    pub(crate) fn of_fd(fd: OwnedFd) -> Handle {
        Handle(Rc::new(Opened::Fd(Arc::new(fd))))
    }

    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        match &*self.0 {
            Opened::Fd(fd) => fd,
            Opened::Sim(_) => panic!("a simulated file was handed to a real driver"),
        }
    }

    pub(crate) fn token(&self) -> u64 {
        match &*self.0 {
            Opened::Fd(_) => panic!("a real file was handed to the simulator"),
            Opened::Sim(token) => token.id(),
        }
    }
}

pub(crate) type Job = Box<dyn FnOnce() + Send>;

pub(crate) enum Op {
    Open { path: PathBuf, how: Open },
    CreateDirAll { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    RemoveDirAll { path: PathBuf },
    SyncDir { path: PathBuf },
    ListDir { path: PathBuf },
    FreeBytes { path: PathBuf },
    Lock { path: PathBuf },
    Read { file: Handle, buf: BufMut, pos: u64 },
    Write { file: Handle, data: Vec<Slice>, pos: u64, sync: Sync },
    Fsync { file: Handle, data_only: bool },
    Allocate { file: Handle, range: Range<u64> },
    Zero { file: Handle, range: Range<u64> },
    Truncate { file: Handle, len: u64 },
    Len { file: Handle },
    NextData { file: Handle, from: u64 },
    Listen { addr: SocketAddr, shared: bool },
    Accept { listener: Handle },
    Connect { addr: SocketAddr },
    Recv { socket: Handle, buf: BufMut, range: Range<usize> },
    Send { socket: Handle, data: Vec<Slice> },
    Offload { job: Job },
}

/// What `NextData` brings where there is none.
pub(crate) const NO_DATA: u64 = u64::MAX;

/// What an operation brings.
pub(crate) enum Value {
    Unit,
    Count(usize),
    Len(u64),
    Handle(Handle),
    /// A listener with the address it got.
    Listening(Handle, SocketAddr),
    /// A connection: handle, our address, theirs.
    Connected(Handle, SocketAddr, SocketAddr),
    Entries(Vec<DirEntry>),
}

/// What the operation owned and gives back.
pub(crate) enum Back {
    Nothing,
    Buf(BufMut),
    Data(Vec<Slice>),
}

pub(crate) struct Done {
    pub(crate) result: io::Result<Value>,
    pub(crate) back: Back,
}

impl Op {
    /// Ends the operation: its result, and what it owned.
    pub(crate) fn done(self, result: io::Result<Value>) -> Done {
        let back = match self {
            Op::Read { buf, .. } | Op::Recv { buf, .. } => Back::Buf(buf),
            Op::Write { data, .. } | Op::Send { data, .. } => Back::Data(data),
            Op::Open { .. }
            | Op::CreateDirAll { .. }
            | Op::Rename { .. }
            | Op::Unlink { .. }
            | Op::RemoveDirAll { .. }
            | Op::SyncDir { .. }
            | Op::ListDir { .. }
            | Op::FreeBytes { .. }
            | Op::Lock { .. }
            | Op::Fsync { .. }
            | Op::Allocate { .. }
            | Op::Zero { .. }
            | Op::Truncate { .. }
            | Op::Len { .. }
            | Op::NextData { .. }
            | Op::Listen { .. }
            | Op::Accept { .. }
            | Op::Connect { .. }
            | Op::Offload { .. } => Back::Nothing,
        };
        Done { result, back }
    }
}

/// What a helper thread brings back; plain values, for handles do not leave their core.
pub(crate) enum HelperValue {
    Unit,
    Count(usize),
    Len(u64),
    Fd(OwnedFd),
    Entries(Vec<DirEntry>),
}

/// What a helper thread found, and what it was lent.
pub(crate) struct HelperResult {
    pub(crate) result: io::Result<HelperValue>,
    pub(crate) back: Back,
}

impl From<io::Result<HelperValue>> for HelperResult {
    fn from(result: io::Result<HelperValue>) -> HelperResult {
        HelperResult { result, back: Back::Nothing }
    }
}

impl HelperResult {
    pub(crate) fn done(self) -> Done {
        Done { result: self.result.map(value_of), back: self.back }
    }
}

fn value_of(helper: HelperValue) -> Value {
    match helper {
        HelperValue::Unit => Value::Unit,
        HelperValue::Count(n) => Value::Count(n),
        HelperValue::Len(n) => Value::Len(n),
        HelperValue::Fd(fd) => Value::Handle(Handle::of_fd(fd)),
        HelperValue::Entries(entries) => Value::Entries(entries),
    }
}

enum State {
    Waiting(Option<Waker>),
    Done(Done),
    /// Nobody waits any more; the buffer comes back through here and is dropped.
    Abandoned,
    Free,
}

/// The table of one core's operations.
#[derive(Default)]
pub(crate) struct Operations {
    slots: Vec<(u32, State)>,
    free: Vec<u32>,
    in_flight: usize,
}

impl Operations {
    pub(crate) fn begin(&mut self) -> OpKey {
        self.in_flight += 1;
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.1 = State::Waiting(None);
            return OpKey { index, generation: slot.0 };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations fit in memory");
        self.slots.push((0, State::Waiting(None)));
        OpKey { index, generation: 0 }
    }

    /// The driver is done with the operation. What is returned must be woken or dropped without the table borrowed.
    pub(crate) fn complete(&mut self, key: OpKey, done: Done) -> (Option<Waker>, Option<Done>) {
        self.in_flight -= 1;
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.0, key.generation, "an operation completed twice");
        match &mut slot.1 {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.1 = State::Done(done);
                (waker, None)
            }
            State::Abandoned => {
                self.release(key.index);
                (None, Some(done))
            }
            State::Done(_) | State::Free => panic!("an operation completed twice"),
        }
    }

    pub(crate) fn take(&mut self, key: OpKey, waker: &Waker) -> Option<Done> {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.0, key.generation, "an operation was polled after its end");
        if let State::Waiting(registered) = &mut slot.1 {
            *registered = Some(waker.clone());
            return None;
        }
        match std::mem::replace(&mut slot.1, State::Free) {
            State::Done(done) => {
                self.release(key.index);
                Some(done)
            }
            State::Waiting(_) | State::Abandoned | State::Free => {
                panic!("an operation was polled after its end")
            }
        }
    }

    /// The future was dropped. True when the driver still works on the operation and is to cancel it.
    pub(crate) fn abandon(&mut self, key: OpKey) -> (bool, Option<Done>) {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.0, key.generation, "an operation was dropped after its end");
        match std::mem::replace(&mut slot.1, State::Abandoned) {
            State::Waiting(_) => (true, None),
            State::Done(done) => {
                self.release(key.index);
                (false, Some(done))
            }
            State::Abandoned | State::Free => panic!("an operation was dropped twice"),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        *slot = (slot.0.wrapping_add(1), State::Free);
        self.free.push(index);
    }
}
