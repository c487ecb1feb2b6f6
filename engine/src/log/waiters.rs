//! Appends that wait for the high watermark, woken by offset: a flush wakes those it answers and no other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::task::Waker;

#[derive(Default)]
pub(super) struct Waiters(RefCell<Queue>);

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<(i64, u64), Waker>,
}

impl Waiters {
    /// Registers for `last`, or renews the waker of `key`.
    pub(super) fn wait(&self, last: i64, key: &mut Option<u64>, waker: &Waker) {
        let mut queue = self.0.borrow_mut();
        let id = *key.get_or_insert_with(|| {
            queue.next += 1;
            queue.next
        });
        queue.waiting.insert((last, id), waker.clone());
    }

    pub(super) fn forget(&self, last: i64, key: Option<u64>) {
        if let Some(id) = key {
            self.0.borrow_mut().waiting.remove(&(last, id));
        }
    }

    /// Wakes whoever waits for an offset below `end`.
    pub(super) fn wake_below(&self, end: i64) {
        let woken = {
            let mut queue = self.0.borrow_mut();
            let rest = queue.waiting.split_off(&(end, 0));
            std::mem::replace(&mut queue.waiting, rest)
        };
        for waker in woken.into_values() {
            waker.wake();
        }
    }

    pub(super) fn wake_all(&self) {
        let woken = std::mem::take(&mut self.0.borrow_mut().waiting);
        for waker in woken.into_values() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answered_waiters_are_woken() {
        let waiters = Waiters::default();
        let (mut a, mut b) = (None, None);
        waiters.wait(5, &mut a, Waker::noop());
        waiters.wait(9, &mut b, Waker::noop());
        waiters.wake_below(6);
        assert_eq!(waiters.0.borrow().waiting.len(), 1);
        waiters.forget(9, b);
        assert!(waiters.0.borrow().waiting.is_empty());
    }
}
