//! The timers of one core: ordered by deadline, then by the order they were set.

use crate::time::Instant;
use std::collections::BTreeMap;
use std::task::Waker;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TimerKey {
    at: Instant,
    number: u64,
}

#[derive(Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<TimerKey, Waker>,
    number_next: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, waker: Waker) -> TimerKey {
        let key = TimerKey { at, number: self.number_next };
        self.number_next += 1;
        self.waiting.insert(key, waker);
        key
    }

    pub(crate) fn rearm(&mut self, key: TimerKey, waker: &Waker) {
        if let Some(registered) = self.waiting.get_mut(&key) {
            registered.clone_from(waker);
        }
    }

    pub(crate) fn cancel(&mut self, key: TimerKey) {
        self.waiting.remove(&key);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(key, _)| key.at)
    }

    pub(crate) fn expire(&mut self, now: Instant, expired: &mut Vec<Waker>) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().at > now {
                break;
            }
            expired.push(entry.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expires_in_order_of_deadline() {
        let mut timers = Timers::default();
        let waker = || Waker::noop().clone();
        let early = timers.set(Instant::from_nanos(10), waker());
        timers.set(Instant::from_nanos(30), waker());
        timers.set(Instant::from_nanos(20), waker());
        assert_eq!(timers.next(), Some(Instant::from_nanos(10)));
        timers.cancel(early);
        let mut expired = Vec::new();
        timers.expire(Instant::from_nanos(20), &mut expired);
        assert_eq!(expired.len(), 1);
        assert_eq!(timers.next(), Some(Instant::from_nanos(30)));
    }
}
