//! The timers of a shard: one queue, asked by the step that the caller makes when the first one is due.
//!
//! A heartbeat moves its member's deadline some thousand times for each time it fires, so the queue is not touched then:
//! a [`Deadline`] remembers when it is really due and that it has one entry in the queue, which is moved on when it comes
//! up. Timers are never persisted.

use std::collections::BTreeMap;

use super::Text;
use super::unload::shed;

/// What a timer is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// A classic member's session, or its first join.
    Member(Text, Text),
    /// An id given out by MEMBER_ID_REQUIRED.
    Pending(Text, Text),
    /// The join phase of a classic group.
    Join(Text),
    /// The members that have to sync.
    Sync(Text),
    /// A consumer group member's session.
    Session(Text, Text),
    /// A consumer group member that has to give up partitions.
    Revocation(Text, Text),
    /// A classic member of a consumer group that has to join, or to sync.
    Rejoin(Text, Text),
    /// The search for expired offsets.
    Expiry,
}

/// Where an entry of the queue is: when it is due, and its number among all.
pub type Entry = (u64, u64);

/// The queue. Equal times keep the order in which they were set.
#[derive(Debug, Default)]
pub struct Timers {
    queue: BTreeMap<Entry, Key>,
    count: u64,
}

impl Timers {
    pub fn first(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next timer that is due, and where it was.
    pub fn pop(&mut self, now_ms: u64) -> Option<(Entry, Key)> {
        let entry = self.queue.first_entry()?;
        let at = *entry.key();
        (at.0 <= now_ms).then(|| (at, entry.remove()))
    }

    pub fn push(&mut self, at: u64, key: Key) -> Entry {
        self.count += 1;
        self.queue.insert((at, self.count), key);
        (at, self.count)
    }

    fn remove(&mut self, entry: Entry) {
        self.queue.remove(&entry);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Drops timers, so many at most.
    pub fn shed(&mut self, left: &mut usize) {
        shed(&mut self.queue, left);
    }
}

/// When something is due; 0 stands for never. Whoever drops one clears it, or its entry stays in the queue until its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deadline {
    due: u64,
    queued: Option<Entry>,
}

impl Deadline {
    /// Due at `at`, whatever it was before.
    pub fn set(&mut self, at: u64, timers: &mut Timers, key: impl FnOnce() -> Key) {
        self.due = at.max(1);
        if self.queued.is_none_or(|(queued, _)| self.due < queued) {
            self.clear_entry(timers);
            self.queued = Some(timers.push(self.due, key()));
        }
    }

    /// Never due, and nothing of it is left in the queue.
    pub fn clear(&mut self, timers: &mut Timers) {
        self.due = 0;
        self.clear_entry(timers);
    }

    fn clear_entry(&mut self, timers: &mut Timers) {
        if let Some(entry) = self.queued.take() {
            timers.remove(entry);
        }
    }

    pub fn cancel(&mut self) {
        self.due = 0;
    }

    pub fn is_set(&self) -> bool {
        self.due != 0
    }

    /// Whether the entry that came up is this deadline's, and due. What moved meanwhile is queued again.
    pub fn fires(&mut self, at: Entry, now_ms: u64, timers: &mut Timers, key: impl FnOnce() -> Key) -> bool {
        if self.queued != Some(at) {
            return false;
        }
        self.queued = None;
        if self.due == 0 {
            return false;
        }
        if self.due > now_ms {
            self.queued = Some(timers.push(self.due, key()));
            return false;
        }
        self.due = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_moves_has_one_entry_and_fires_once() {
        let mut timers = Timers::default();
        let mut deadline = Deadline::default();
        for at in [10, 20, 30] {
            deadline.set(at, &mut timers, || Key::Expiry);
        }
        assert_eq!(timers.queue.len(), 1);
        assert_eq!(timers.pop(9), None);
        let (at, _) = timers.pop(10).expect("queued for 10");
        assert!(!deadline.fires(at, 10, &mut timers, || Key::Expiry));
        assert_eq!(timers.first(), Some(30));
        // Earlier than what is queued: the entry moves.
        deadline.set(25, &mut timers, || Key::Expiry);
        assert_eq!(timers.queue.len(), 1);
        let (at, _) = timers.pop(40).expect("queued for 25");
        assert!(deadline.fires(at, 40, &mut timers, || Key::Expiry));
        assert_eq!(timers.first(), None);
        deadline.set(50, &mut timers, || Key::Expiry);
        deadline.clear(&mut timers);
        assert_eq!((timers.first(), deadline), (None, Deadline::default()));
    }

    #[test]
    fn a_cancelled_deadline_does_not_fire() {
        let mut timers = Timers::default();
        let mut deadline = Deadline::default();
        deadline.set(5, &mut timers, || Key::Expiry);
        deadline.cancel();
        let (at, _) = timers.pop(5).expect("queued for 5");
        assert!(!deadline.fires(at, 5, &mut timers, || Key::Expiry));
        assert_eq!(deadline.due, 0);
    }
}
