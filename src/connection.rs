//! One client's connection: reads frames, starts a task for each request, and answers in the order of arrival.
//!
//! Requests of one connection work at the same time, up to a limit; because tasks start in order and the mail between
//! cores keeps its order, two appends to one partition keep the order in which they arrived. What cannot be decoded
//! ends the connection without an answer, as in Kafka; nothing else is disturbed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use rt::sync::{Event, Permit};
use rt::{Class, Core, Instant, Reservation, Slice, Stream, Task};

use crate::handlers::{self, Reply};
use crate::shard::Shard;

/// What a connection reads into while no large request is on its way.
const READ_BYTES: usize = 4096;
/// Replies that are ready go out together, up to this many at a time.
const REPLIES_PER_SEND_MAX: usize = 64;

/// A request that is worked on.
struct Pending {
    bytes: usize,
    /// What its frame was admitted with; goes back when it is answered.
    _memory: Option<Rc<Permit>>,
    task: Task<Reply>,
}

/// What the reading and the writing half share.
struct Shared {
    stream: Stream,
    replies: RefCell<VecDeque<Pending>>,
    arrived: Event,
    answered: Event,
    in_flight_bytes: Cell<usize>,
    active_at: Cell<Instant>,
    closed: Cell<bool>,
}

/// Serves one connection until either side ends it.
pub async fn serve(shard: Rc<Shard>, stream: Stream) {
    let core = shard.core.clone();
    let shared = Rc::new(Shared {
        stream,
        replies: RefCell::new(VecDeque::new()),
        arrived: Event::new(),
        answered: Event::new(),
        in_flight_bytes: Cell::new(0),
        active_at: Cell::new(core.now()),
        closed: Cell::new(false),
    });
    let writer = core.spawn(Class::Produce, write_replies(core.clone(), shared.clone()));
    let idle = core.spawn(Class::Control, close_when_idle(core.clone(), shared.clone(), shard.limits().idle));
    read_requests(&shard, &shared).await;
    shared.close();
    // The writer has nothing to send any more; it ends as soon as it sees the closed mark.
    drop(writer.await);
    idle.abort();
}

impl Shared {
    /// The oldest request, if its answer is there already.
    fn next_finished(&self) -> Option<Pending> {
        let mut replies = self.replies.borrow_mut();
        if replies.front()?.task.is_finished() { replies.pop_front() } else { None }
    }

    fn close(&self) {
        if !self.closed.replace(true) {
            self.stream.shutdown();
        }
        self.arrived.notify_all();
        self.answered.notify_all();
    }
}

async fn read_requests(shard: &Rc<Shard>, shared: &Rc<Shared>) {
    let mut input = Input::new(shard, shared);
    while let Some(frame) = input.next_frame().await {
        let bytes = frame.len();
        let limits = shard.limits();
        while !shared.closed.get()
            && (shared.replies.borrow().len() >= limits.requests_per_connection_max
                || shared.in_flight_bytes.get() >= limits.in_flight_bytes_max)
        {
            shared.answered.wait().await;
        }
        if shared.closed.get() {
            return;
        }
        let task = shard.core.spawn(Class::Produce, handlers::handle(shard.clone(), frame));
        shared.in_flight_bytes.set(shared.in_flight_bytes.get() + bytes);
        let pending = Pending { bytes, _memory: input.memory.clone(), task };
        shared.replies.borrow_mut().push_back(pending);
        shared.arrived.notify_all();
    }
}

async fn write_replies(core: Core, shared: Rc<Shared>) {
    let mut out: Vec<Slice> = Vec::new();
    while !shared.closed.get() {
        let next = shared.replies.borrow_mut().pop_front();
        let Some(first) = next else {
            shared.arrived.wait().await;
            continue;
        };
        let mut done = Some(first);
        let mut bytes_done = 0;
        let mut keep_open = true;
        let mut replies = 0;
        while let Some(pending) = done.take() {
            bytes_done += pending.bytes;
            replies += 1;
            match pending.task.await {
                Ok(Reply::Bytes(slices)) => out.extend(slices),
                Ok(Reply::Nothing) => {}
                Ok(Reply::Close) | Err(_) => keep_open = false,
            }
            if keep_open && replies < REPLIES_PER_SEND_MAX {
                done = shared.next_finished();
            }
        }
        if !out.is_empty() {
            let sent = shared.stream.send(std::mem::take(&mut out)).await;
            keep_open &= sent.is_ok();
            shared.active_at.set(core.now());
        }
        shared.in_flight_bytes.set(shared.in_flight_bytes.get() - bytes_done);
        shared.answered.notify_all();
        if !keep_open {
            break;
        }
    }
    shared.close();
}

async fn close_when_idle(core: Core, shared: Rc<Shared>, idle: Duration) {
    loop {
        let deadline = shared.active_at.get() + idle;
        if deadline <= core.now() {
            return shared.close();
        }
        core.sleep_until(deadline).await;
    }
}

/// Cuts frames out of what arrives. A large frame is received into memory of its own; only the bytes that had arrived
/// with its head are moved.
struct Input<'a> {
    shard: &'a Rc<Shard>,
    shared: &'a Rc<Shared>,
    /// Received and not yet cut: whole frames, then perhaps the beginning of one.
    pending: Slice,
    /// What the memory of `pending` was admitted with, if it is large.
    memory: Option<Rc<Permit>>,
}

const PREFIX_BYTES: usize = 4;

impl<'a> Input<'a> {
    fn new(shard: &'a Rc<Shard>, shared: &'a Rc<Shared>) -> Input<'a> {
        Input { shard, shared, pending: Slice::from_static(b""), memory: None }
    }

    /// The next frame without its length prefix, or `None` when the connection is over.
    async fn next_frame(&mut self) -> Option<Slice> {
        loop {
            match self.frame_bytes(&self.pending)? {
                Some(bytes) if self.pending.len() >= PREFIX_BYTES + bytes => {
                    let frame = self.pending.slice(PREFIX_BYTES..PREFIX_BYTES + bytes);
                    self.pending = self.pending.slice(PREFIX_BYTES + bytes..self.pending.len());
                    return Some(frame);
                }
                Some(bytes) => self.receive(PREFIX_BYTES + bytes).await?,
                None => self.receive(PREFIX_BYTES).await?,
            }
        }
    }

    /// How long the frame is whose first bytes are `head`; the outer `None` when no such frame is allowed.
    fn frame_bytes(&self, head: &[u8]) -> Option<Option<usize>> {
        let Some(prefix) = head.first_chunk::<PREFIX_BYTES>() else { return Some(None) };
        let bytes = usize::try_from(i32::from_be_bytes(*prefix)).ok()?;
        (bytes > 0 && bytes <= self.shard.limits().request_bytes_max).then_some(Some(bytes))
    }

    /// Receives until at least `wanted` bytes are pending.
    async fn receive(&mut self, wanted: usize) -> Option<()> {
        let size = wanted.max(READ_BYTES);
        // The old memory may be all there is: it goes before the new one is waited for.
        let head = std::mem::replace(&mut self.pending, Slice::from_static(b"")).to_vec();
        self.memory = None;
        if size > READ_BYTES {
            self.memory = Some(Rc::new(self.shard.request_memory.admit(size).await));
        }
        let mut buffer = self.shard.core.buffers().take(size, Reservation::Produce).await;
        buffer[..head.len()].copy_from_slice(&head);
        let mut filled = head.len();
        while filled < wanted {
            let room = filled..buffer.len();
            let (received, back) = self.shared.stream.recv(buffer, room).await;
            buffer = back;
            match received {
                Ok(count) if count > 0 => filled += count,
                Ok(_) | Err(_) => return None,
            }
            self.shared.active_at.set(self.shard.core.now());
        }
        self.pending = buffer.freeze(0..filled);
        Some(())
    }
}
