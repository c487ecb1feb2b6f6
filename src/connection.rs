//! One client's connection: reads frames, starts a task for each request, and answers in the order of arrival.
//!
//! Requests of one connection work at the same time, up to a limit; because tasks start in order and the mail between
//! cores keeps its order, two appends to one partition keep the order in which they arrived. What cannot be decoded
//! ends the connection without an answer, as in Kafka; nothing else is disturbed.
//!
//! What one connection may hold is bounded: requests and their bytes by the limits, answers by this: a fetch begins only
//! when no earlier answer waits to leave. A client that stops reading therefore holds one fetch answer at most, and a
//! client that stops sending one large request; [`sweep`] ends them where others wait for that memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use net::api::ApiKey;
use net::frame::{Cut, FrameCutter};
use rt::sync::{Event, Permit};
use rt::{Class, Core, Instant, Reservation, Slice, Stream, Task};

use crate::handlers::{self, Answered, Reply};
use crate::shard::Shard;
use crate::shard::join::before;

/// What a connection reads into while no large request is on its way.
const READ_BYTES: usize = 4096;
/// A request that waits, for records or for others, is copied out of the memory for requests, up to this size.
const WAITING_COPIED_BYTES_MAX: usize = 1 << 20;
/// Replies that are ready go out together, up to this many at a time.
const REPLIES_PER_SEND_MAX: usize = 64;

mod sweep;

pub use sweep::{Connections, squeeze, sweep};

/// Larger answers leave in pieces of this size, so that it shows whether the client takes them.
const SEND_BYTES_MAX: usize = 1 << 20;

/// A request that is worked on.
struct Pending {
    bytes: usize,
    /// What its frame was admitted with; goes back when it is answered.
    _memory: Option<Rc<Permit>>,
    /// When all of it had arrived.
    received: Instant,
    task: Task<Answered>,
    /// Given up when the connection ends, which a produce never is.
    waits: bool,
}

/// What the reading and the writing half share.
struct Shared {
    stream: Stream,
    replies: RefCell<VecDeque<Pending>>,
    arrived: Event,
    answered: Event,
    closing: Event,
    /// Requests whose answers have not left, and their bytes.
    in_flight: Cell<usize>,
    in_flight_bytes: Cell<usize>,
    active_at: Cell<Instant>,
    /// Since when the client has taken nothing of what is being sent to it.
    sending_since: Cell<Option<Instant>>,
    /// Since when a large request is being received.
    receiving_since: Cell<Option<Instant>>,
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
        closing: Event::new(),
        in_flight: Cell::new(0),
        in_flight_bytes: Cell::new(0),
        active_at: Cell::new(core.now()),
        sending_since: Cell::new(None),
        receiving_since: Cell::new(None),
        closed: Cell::new(false),
    });
    let _listed = shard.connections.list(&shared);
    shard.metrics.connection_accepted();
    let writer = core.spawn(Class::Produce, write_replies(shard.clone(), shared.clone()));
    read_requests(&shard, &shared).await;
    shared.close();
    // The writer has nothing to send any more; it ends as soon as it sees the closed mark.
    drop(writer.await);
    // Nor is there anybody for what waits behind an answer that did not leave.
    let left = std::mem::take(&mut *shared.replies.borrow_mut());
    left.iter().filter(|pending| pending.waits).for_each(|pending| pending.task.abort());
}

impl Shared {
    /// Whether this request may be worked on beside those that are not answered yet. Alone it always may.
    fn may_begin(&self, shard: &Shard, frame: &[u8]) -> bool {
        let (count, bytes) = (self.in_flight.get(), self.in_flight_bytes.get());
        let limits = shard.limits();
        count == 0
            || (count < limits.requests_per_connection_max
                && bytes.saturating_add(frame.len()) <= limits.in_flight_bytes_max
                && !handlers::is_fetch(frame))
    }

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
        self.closing.notify_all();
    }
}

async fn read_requests(shard: &Rc<Shard>, shared: &Rc<Shared>) {
    let mut input = Input::new(shard, shared);
    while let Some(frame) = input.next_frame().await {
        let bytes = frame.len();
        while !shared.closed.get() && !shared.may_begin(shard, &frame) {
            shared.answered.wait().await;
        }
        if shared.closed.get() {
            return;
        }
        let waits = handlers::may_wait(&frame);
        let (frame, memory) = match is_copied(&frame) {
            true => (Slice::from(frame.to_vec()), None),
            false => (frame, input.memory.clone()),
        };
        let received = shard.core.now();
        let client = shared.stream.peer_addr().ip();
        let task = shard.core.spawn(Class::Produce, handlers::handle(shard.clone(), client, frame, received));
        shared.in_flight.set(shared.in_flight.get() + 1);
        shared.in_flight_bytes.set(shared.in_flight_bytes.get() + bytes);
        let pending = Pending { bytes, _memory: memory, received, task, waits };
        shared.replies.borrow_mut().push_back(pending);
        shared.arrived.notify_all();
    }
}

/// Whether a request is worked on in a copy of its frame. One that may wait for long does so without memory that produce
/// requests wait for. And while a small one is worked on, its connection reads on in the same memory: thousands of members
/// that wait for a disk would take twice theirs. A produce keeps its memory, for its records stay there.
fn is_copied(frame: &[u8]) -> bool {
    let bytes_max = if handlers::may_wait(frame) { WAITING_COPIED_BYTES_MAX } else { READ_BYTES };
    frame.len() <= bytes_max && !handlers::is_produce(frame)
}

async fn write_replies(shard: Rc<Shard>, shared: Rc<Shared>) {
    let mut out: Vec<Slice> = Vec::new();
    // Key, arrival and readiness of what is in `out`.
    let mut leaving: Vec<(ApiKey, Instant, Instant)> = Vec::new();
    while !shared.closed.get() {
        let next = shared.replies.borrow_mut().pop_front();
        let Some(first) = next else {
            shared.arrived.wait().await;
            continue;
        };
        let mut done = Some(first);
        let (mut replies, mut bytes_done) = (0, 0);
        let mut keep_open = true;
        while let Some(pending) = done.take() {
            bytes_done += pending.bytes;
            replies += 1;
            let received = pending.received;
            match answer(&shared, pending).await {
                Some(Answered { reply: Reply::Bytes(slices), key, ready }) => {
                    out.extend(slices);
                    leaving.extend(key.map(|key| (key, received, ready)));
                }
                Some(Answered { reply: Reply::Nothing, .. }) => {}
                Some(Answered { reply: Reply::Close, .. }) | None => keep_open = false,
            }
            if keep_open && replies < REPLIES_PER_SEND_MAX {
                done = shared.next_finished();
            }
        }
        if !out.is_empty() {
            keep_open &= send(&shard.core, &shared, std::mem::take(&mut out)).await;
            for (key, received, ready) in leaving.drain(..) {
                shard.metrics.answered(key, received, ready, shared.active_at.get());
            }
        }
        shared.in_flight.set(shared.in_flight.get() - replies);
        shared.in_flight_bytes.set(shared.in_flight_bytes.get() - bytes_done);
        shared.answered.notify_all();
        if !keep_open {
            break;
        }
    }
    shared.close();
}

/// The answer to a request; none if the work on it panicked, or if it was a fetch and the connection ended.
async fn answer(shared: &Shared, mut pending: Pending) -> Option<Answered> {
    if !pending.waits {
        return pending.task.await.ok();
    }
    let answered = before(&mut pending.task, shared.closing.listen()).await;
    if answered.is_none() {
        pending.task.abort();
    }
    answered?.ok()
}

/// Sends all of it, piece by piece. False if the connection is broken.
async fn send(core: &Core, shared: &Shared, mut out: Vec<Slice>) -> bool {
    while !out.is_empty() {
        let later = split_off(&mut out, SEND_BYTES_MAX);
        shared.sending_since.set(Some(core.now()));
        let sent = shared.stream.send(out).await;
        shared.active_at.set(core.now());
        shared.sending_since.set(None);
        if sent.is_err() {
            return false;
        }
        out = later;
    }
    true
}

/// Leaves the first `bytes` bytes in `slices` and gives the rest.
fn split_off(slices: &mut Vec<Slice>, bytes: usize) -> Vec<Slice> {
    let mut left = bytes;
    for (at, slice) in slices.iter_mut().enumerate() {
        if slice.len() > left {
            let rest = slice.slice(left..slice.len());
            *slice = slice.slice(0..left);
            let mut later = slices.split_off(at + 1);
            later.insert(0, rest);
            return later;
        }
        left -= slice.len();
    }
    Vec::new()
}

/// Cuts frames out of what arrives. A large frame is received into memory of its own; only the bytes that had arrived
/// with its head are moved.
struct Input<'a> {
    shard: &'a Rc<Shard>,
    shared: &'a Rc<Shared>,
    cutter: FrameCutter,
    /// Received and not yet cut: whole frames, then perhaps the beginning of one.
    pending: Slice,
    /// What the memory of `pending` was admitted with, if it is large.
    memory: Option<Rc<Permit>>,
}

impl<'a> Input<'a> {
    fn new(shard: &'a Rc<Shard>, shared: &'a Rc<Shared>) -> Input<'a> {
        let cutter = FrameCutter::new(shard.limits().request_bytes_max);
        Input { shard, shared, cutter, pending: Slice::empty(), memory: None }
    }

    /// The next frame without its length prefix, or `None` when the connection is over.
    async fn next_frame(&mut self) -> Option<Slice> {
        loop {
            match self.cutter.cut(&self.pending).ok()? {
                Cut::Frame(content) => {
                    let end = content.end;
                    let frame = self.pending.slice(content);
                    self.pending = self.pending.slice(end..self.pending.len());
                    return Some(frame);
                }
                Cut::Missing(bytes) => self.receive(self.pending.len() + bytes).await?,
            }
        }
    }

    /// Receives until at least `wanted` bytes are pending.
    async fn receive(&mut self, wanted: usize) -> Option<()> {
        let size = wanted.max(READ_BYTES);
        // The old memory may be all there is: it goes before the new one is waited for.
        let head = std::mem::replace(&mut self.pending, Slice::empty()).to_vec();
        self.memory = None;
        if size > READ_BYTES {
            self.memory = Some(Rc::new(self.shard.request_memory.admit(size).await));
            self.shared.receiving_since.set(Some(self.shard.core.now()));
        }
        let mut buffer = self.shard.core.buffers().take(size, Reservation::Produce).await;
        buffer[..head.len()].copy_from_slice(&head);
        let mut filled = head.len();
        // Out of the old buffer and into the new one.
        self.shard.metrics.head_moved(2 * head.len());
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
        self.shared.receiving_since.set(None);
        self.pending = buffer.freeze(0..filled);
        Some(())
    }
}

#[cfg(test)]
mod tests;
