//! A bounded queue from one thread to one other thread, without locks: the lane between two cores.
//!
//! `head` is advanced by the receiver alone, `tail` by the sender alone; both only grow (and wrap). A slot belongs to
//! the receiver while `head <= slot < tail`, else to the sender. Checked under loom (`RUSTFLAGS="--cfg loom"`).

#[cfg(loom)]
use loom::{cell::UnsafeCell, sync::Arc, sync::atomic::AtomicUsize, sync::atomic::Ordering};
#[cfg(not(loom))]
use plain::UnsafeCell;
use std::mem::MaybeUninit;
#[cfg(not(loom))]
use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};

#[cfg(not(loom))]
mod plain {
    /// The standard cell with loom's way of access.
    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// Keeps the two counters on their own cache lines.
#[repr(align(128))]
struct Line(AtomicUsize);

struct Shared<T> {
    head: Line,
    tail: Line,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by one side at a time, handed over by the release and acquire of `head` and `tail`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: the queue owns its values, which may be sent.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.0.load(Ordering::Acquire), self.tail.0.load(Ordering::Acquire));
        let mut position = head;
        while position != tail {
            // SAFETY: slots from head to tail hold values, and both sides are gone.
            self.slot(position).with_mut(|p| unsafe { (*p).assume_init_drop() });
            position = position.wrapping_add(1);
        }
    }
}

pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// As last seen; read again only when the queue looks full.
    head_seen: usize,
}

pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

/// The capacity is rounded up to a power of two.
pub(crate) fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0);
    let count = capacity.next_power_of_two();
    let slots = (0..count).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared { head: Line(AtomicUsize::new(0)), tail: Line(AtomicUsize::new(0)), slots });
    let sender = Sender { shared: shared.clone(), tail: 0, head_seen: 0 };
    (sender, Receiver { shared, head: 0, tail_seen: 0 })
}

impl<T> Sender<T> {
    pub(crate) fn push(&mut self, value: T) -> Result<(), T> {
        let count = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == count {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == count {
                return Err(value);
            }
        }
        // SAFETY: the slot is not between head and tail, so it is ours and empty.
        self.shared.slot(self.tail).with_mut(|p| unsafe {
            (*p).write(value);
        });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: the slot lies between head and tail: it holds a value, and it is ours.
        let value = self.shared.slot(self.head).with_mut(|p| unsafe { (*p).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    #[test]
    fn values_arrive_once_and_in_order() {
        loom::model(|| {
            let (mut sender, mut receiver) = super::channel::<Box<u32>>(2);
            let thread = loom::thread::spawn(move || {
                let mut refused = 0;
                for i in 0..3 {
                    let mut value = Box::new(i);
                    while let Err(back) = sender.push(value) {
                        value = back;
                        refused += 1;
                        if refused > 2 {
                            return i;
                        }
                        loom::thread::yield_now();
                    }
                }
                3
            });
            let mut next = 0;
            for _ in 0..3 {
                if let Some(value) = receiver.pop() {
                    assert_eq!(*value, next);
                    next += 1;
                }
                loom::thread::yield_now();
            }
            let sent = thread.join().unwrap();
            while let Some(value) = receiver.pop() {
                assert_eq!(*value, next);
                next += 1;
            }
            assert_eq!(next, sent);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn refuses_when_full_and_drops_what_is_left() {
        let (mut sender, mut receiver) = channel::<Arc<()>>(2);
        let value = Arc::new(());
        assert!(sender.push(value.clone()).is_ok());
        assert!(sender.push(value.clone()).is_ok());
        assert!(sender.push(value.clone()).is_err());
        assert!(receiver.pop().is_some());
        assert!(sender.push(value.clone()).is_ok());
        drop((sender, receiver));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn crosses_threads_in_order() {
        const COUNT: u32 = 20_000;
        let (mut sender, mut receiver) = channel(64);
        let thread = std::thread::spawn(move || {
            for i in 0..COUNT {
                while sender.push(i).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < COUNT {
            match receiver.pop() {
                Some(i) => {
                    assert_eq!(i, next);
                    next += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        thread.join().unwrap();
    }
}
