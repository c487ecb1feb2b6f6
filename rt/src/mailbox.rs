//! Mail between cores: one bounded queue per ordered pair of cores, and a wake-up only for a receiver that waits.
//! A sender that finds the queue full waits its turn, first come first served.
//!
//! Lost wake-ups are impossible by the usual pairing: the receiver says "I wait" and looks once more, the sender puts
//! its message in and then looks whether somebody waits; both with a full fence between.

use crate::core::{Core, CoreId};
use crate::spsc;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Somebody who waits on one thread for something from another.
#[derive(Default)]
struct Parked {
    waiting: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Parked {
    /// After this the condition must be looked at once more.
    fn park(&self, waker: &Waker) {
        *self.waker.lock().expect("no code that can panic runs under this lock") = Some(waker.clone());
        self.waiting.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// After the condition was changed.
    fn unpark(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst) {
            let waker = self.waker.lock().expect("no code that can panic runs under this lock").take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// The way to one core.
struct Lane<M> {
    queue: RefCell<spsc::Sender<M>>,
    /// The receiving core, waiting for mail from anybody.
    receiver: Arc<Parked>,
    /// This core, waiting for room in this queue.
    room: Arc<Parked>,
    /// Tasks of this core that wait for room; the first of them is parked in `room`.
    line: RefCell<VecDeque<(u64, Option<Waker>)>>,
}

struct Inbox<M> {
    queue: spsc::Receiver<M>,
    room: Arc<Parked>,
}

/// Makes the ports.
pub struct Mesh;

/// One core's end of the mail: sends to every core, receives from every core. Moved to its core's thread and
/// attached there.
pub struct Port<M> {
    id: CoreId,
    lanes: Vec<Lane<M>>,
    inboxes: RefCell<Vec<Inbox<M>>>,
    parked: Arc<Parked>,
    /// Where the next look for mail begins, so that no core is served last for ever.
    next: Cell<usize>,
    ticket_next: Cell<u64>,
}

impl Mesh {
    /// Port `i` belongs to core `i`. `capacity`: messages per ordered pair of cores, rounded up to a power of two.
    #[expect(clippy::new_ret_no_self, reason = "a mesh is nothing but its ports")]
    pub fn new<M: Send + 'static>(cores: u16, capacity: usize) -> Vec<Port<M>> {
        let parked: Vec<Arc<Parked>> = (0..cores).map(|_| Arc::default()).collect();
        let mut inboxes: Vec<Vec<Inbox<M>>> = (0..cores).map(|_| Vec::new()).collect();
        let mut lanes: Vec<Vec<Lane<M>>> = Vec::new();
        for _from in 0..cores {
            let mut ways = Vec::new();
            for (receiver, inbox) in parked.iter().zip(inboxes.iter_mut()) {
                let (sender, queue) = spsc::channel(capacity);
                let room: Arc<Parked> = Arc::default();
                inbox.push(Inbox { queue, room: room.clone() });
                let queue = RefCell::new(sender);
                ways.push(Lane { queue, receiver: receiver.clone(), room, line: RefCell::default() });
            }
            lanes.push(ways);
        }
        let ends = lanes.into_iter().zip(inboxes).zip(parked).zip(0..cores);
        ends.map(|(((lanes, inboxes), parked), id)| Port {
            id: CoreId(id),
            lanes,
            inboxes: RefCell::new(inboxes),
            parked,
            next: Cell::new(0),
            ticket_next: Cell::new(0),
        })
        .collect()
    }
}

impl<M: Send + 'static> Port<M> {
    /// Says that this port is used by this core from here on.
    pub fn attach(&mut self, core: &Core) {
        assert_eq!(self.id, core.id(), "port {:?} was given to another core", self.id);
    }

    pub fn id(&self) -> CoreId {
        self.id
    }

    pub fn cores(&self) -> u16 {
        u16::try_from(self.lanes.len()).expect("made from a u16")
    }

    /// Gives the message back when the queue is full or others wait for room already.
    pub fn try_send(&self, to: CoreId, message: M) -> Result<(), M> {
        let lane = &self.lanes[usize::from(to.0)];
        if !lane.line.borrow().is_empty() {
            return Err(message);
        }
        lane.push(message)
    }

    /// Waits while the queue is full; in order with the other senders of this core.
    pub fn send(&self, to: CoreId, message: M) -> Sending<'_, M> {
        Sending { port: self, to, message: Some(message), ticket: None }
    }

    pub fn try_recv(&self) -> Option<(CoreId, M)> {
        let mut inboxes = self.inboxes.borrow_mut();
        let count = inboxes.len();
        for step in 0..count {
            let from = (self.next.get() + step) % count;
            if let Some(message) = inboxes[from].queue.pop() {
                inboxes[from].room.unpark();
                self.next.set((from + 1) % count);
                return Some((CoreId(u16::try_from(from).expect("made from a u16")), message));
            }
        }
        None
    }

    /// The next message from any core; one receiving task per port.
    pub async fn recv(&self) -> (CoreId, M) {
        poll_fn(|cx| {
            if let Some(mail) = self.try_recv() {
                return Poll::Ready(mail);
            }
            self.parked.park(cx.waker());
            match self.try_recv() {
                Some(mail) => Poll::Ready(mail),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl<M> Lane<M> {
    fn push(&self, message: M) -> Result<(), M> {
        self.queue.borrow_mut().push(message)?;
        self.receiver.unpark();
        Ok(())
    }

    fn is_first(&self, ticket: Option<u64>) -> bool {
        match self.line.borrow().front() {
            Some((first, _)) => Some(*first) == ticket,
            None => true,
        }
    }

    fn leave(&self, ticket: u64) {
        let next = {
            let mut line = self.line.borrow_mut();
            line.retain(|(t, _)| *t != ticket);
            line.front().and_then(|(_, waker)| waker.clone())
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[must_use = "futures do nothing unless polled"]
pub struct Sending<'a, M> {
    port: &'a Port<M>,
    to: CoreId,
    message: Option<M>,
    ticket: Option<u64>,
}

impl<M> Unpin for Sending<'_, M> {}

impl<M> Future for Sending<'_, M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let lane = &self.port.lanes[usize::from(self.to.0)];
        if lane.is_first(self.ticket) {
            let message = self.message.take().expect("not polled after its end");
            let message = match lane.push(message) {
                Ok(()) => return Poll::Ready(()),
                Err(message) => message,
            };
            lane.room.park(cx.waker());
            match lane.push(message) {
                Ok(()) => return Poll::Ready(()),
                Err(message) => self.message = Some(message),
            }
        }
        let ticket = self.ticket;
        let mut line = lane.line.borrow_mut();
        match line.iter_mut().find(|(t, _)| Some(*t) == ticket) {
            Some((_, waker)) => *waker = Some(cx.waker().clone()),
            None => {
                let ticket = self.port.ticket_next.replace(self.port.ticket_next.get() + 1);
                line.push_back((ticket, Some(cx.waker().clone())));
                self.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }
}

impl<M> Drop for Sending<'_, M> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.port.lanes[usize::from(self.to.0)].leave(ticket);
        }
    }
}
