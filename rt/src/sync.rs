//! Primitives between tasks of one core: event, oneshot, semaphore. Local and `!Send` on purpose: between cores there
//! is mail only.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Listener {
    notified: Cell<bool>,
    /// Woken alone, and has not run yet: dropped now, it passes the wake-up on.
    owes: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Listener {
    fn notify(&self) {
        self.notified.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Something happened: wakes who listens at that moment. Clone is a counter. State lives elsewhere: listen, look at
/// the state, then await.
#[derive(Clone, Default)]
pub struct Event(Rc<RefCell<VecDeque<Rc<Listener>>>>);

impl Event {
    pub fn new() -> Event {
        Event::default()
    }

    /// Listens from now on, not from the first poll.
    pub fn listen(&self) -> Listening {
        let listener = Rc::new(Listener::default());
        self.0.borrow_mut().push_back(listener.clone());
        Listening { event: self.clone(), listener }
    }

    /// `listen` and await in one, where nothing is looked at in between.
    pub fn wait(&self) -> Listening {
        self.listen()
    }

    pub fn notify_all(&self) {
        let listeners = std::mem::take(&mut *self.0.borrow_mut());
        listeners.iter().for_each(|l| l.notify());
    }

    /// Wakes the one who listens longest. If that one is dropped before it ran, the next one is woken instead.
    pub fn notify_one(&self) {
        let first = self.0.borrow_mut().pop_front();
        if let Some(listener) = first {
            listener.owes.set(true);
            listener.notify();
        }
    }

    pub fn listeners(&self) -> usize {
        self.0.borrow().len()
    }
}

#[must_use = "futures do nothing unless polled"]
pub struct Listening {
    event: Event,
    listener: Rc<Listener>,
}

impl Future for Listening {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.listener.notified.get() {
            self.listener.owes.set(false);
            return Poll::Ready(());
        }
        *self.listener.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.listener.owes.get() {
            self.event.notify_one();
        } else if !self.listener.notified.get() {
            self.event.0.borrow_mut().retain(|l| !Rc::ptr_eq(l, &self.listener));
        }
    }
}

/// One value from one task to another.
pub mod oneshot {
    use super::*;

    struct Shared<T> {
        value: RefCell<Option<T>>,
        waker: RefCell<Option<Waker>>,
        sender_gone: Cell<bool>,
        receiver_gone: Cell<bool>,
    }

    pub struct Sender<T>(Rc<Shared<T>>);

    pub struct Receiver<T>(Rc<Shared<T>>);

    /// The sender was dropped without a value.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Closed;

    impl fmt::Display for Closed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the sender was dropped without a value")
        }
    }

    impl std::error::Error for Closed {}

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let shared = Rc::new(Shared {
            value: RefCell::new(None),
            waker: RefCell::new(None),
            sender_gone: Cell::new(false),
            receiver_gone: Cell::new(false),
        });
        (Sender(shared.clone()), Receiver(shared))
    }

    impl<T> Sender<T> {
        /// Gives the value back when nobody waits for it any more.
        pub fn send(self, value: T) -> Result<(), T> {
            if self.0.receiver_gone.get() {
                return Err(value);
            }
            *self.0.value.borrow_mut() = Some(value);
            Ok(())
        }

        pub fn is_closed(&self) -> bool {
            self.0.receiver_gone.get()
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.sender_gone.set(true);
            let waker = self.0.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.receiver_gone.set(true);
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, Closed>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            if let Some(value) = self.0.value.borrow_mut().take() {
                return Poll::Ready(Ok(value));
            }
            if self.0.sender_gone.get() {
                return Poll::Ready(Err(Closed));
            }
            *self.0.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        }
    }
}

struct Permits {
    available: usize,
    waiting: VecDeque<(u64, usize, Waker)>,
    ticket_next: u64,
}

impl Permits {
    fn first_fits(&self) -> Option<Waker> {
        self.waiting.front().filter(|w| w.1 <= self.available).map(|w| w.2.clone())
    }
}

/// Counted permits, first come first served: a large request is not overtaken by small ones.
#[derive(Clone)]
pub struct Semaphore(Rc<RefCell<Permits>>);

impl Semaphore {
    pub fn new(permits: usize) -> Semaphore {
        Semaphore(Rc::new(RefCell::new(Permits {
            available: permits,
            waiting: VecDeque::new(),
            ticket_next: 0,
        })))
    }

    pub fn try_acquire(&self, count: usize) -> Option<Permit> {
        let mut permits = self.0.borrow_mut();
        if !permits.waiting.is_empty() || permits.available < count {
            return None;
        }
        permits.available -= count;
        Some(Permit { semaphore: self.clone(), count })
    }

    pub fn acquire(&self, count: usize) -> Acquire {
        Acquire { semaphore: self.clone(), count, ticket: None }
    }

    pub fn available(&self) -> usize {
        self.0.borrow().available
    }

    pub fn waiting(&self) -> usize {
        self.0.borrow().waiting.len()
    }

    /// More permits than it was made with.
    pub fn add(&self, count: usize) {
        self.0.borrow_mut().available += count;
        self.wake_first();
    }

    fn wake_first(&self) {
        let first = self.0.borrow().first_fits();
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    semaphore: Semaphore,
    count: usize,
    ticket: Option<u64>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let semaphore = self.semaphore.clone();
        let mut permits = semaphore.0.borrow_mut();
        let my_turn = match self.ticket {
            Some(ticket) => permits.waiting.front().is_some_and(|w| w.0 == ticket),
            None => permits.waiting.is_empty(),
        };
        if my_turn && permits.available >= self.count {
            permits.available -= self.count;
            if self.ticket.take().is_some() {
                permits.waiting.pop_front();
            }
            drop(permits);
            semaphore.wake_first();
            return Poll::Ready(Permit { semaphore, count: self.count });
        }
        match self.ticket {
            Some(ticket) => {
                if let Some(waiter) = permits.waiting.iter_mut().find(|w| w.0 == ticket) {
                    waiter.2.clone_from(cx.waker());
                }
            }
            None => {
                let ticket = permits.ticket_next;
                permits.ticket_next += 1;
                permits.waiting.push_back((ticket, self.count, cx.waker().clone()));
                self.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.semaphore.0.borrow_mut().waiting.retain(|w| w.0 != ticket);
            self.semaphore.wake_first();
        }
    }
}

/// Permits held; dropped, they go back.
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    semaphore: Semaphore,
    count: usize,
}

impl Permit {
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.semaphore.add(self.count);
    }
}
