//! Pieces of segment files that readers behind the tails need: read once, shared by all of them, some ahead of need.
//!
//! A chunk that was read through once stands in one queue, one whose bytes were asked for again in another: a reader
//! that walks over a whole log pushes out its own chunks, not those that several readers share. What is in here can
//! always be read again, so memory goes from here first.

use crate::ids::{Offset, PartitionId};
use rt::Slice;
use rt::sync::Event;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

/// What is read and kept together. A multiple of what one CRC of a sealed segment covers.
pub const CHUNK_BYTES: u64 = 256 * 1024;
/// See [`Chunks::ahead_pays`].
const AHEAD_TRIAL_EVERY: u32 = 16;

/// Which piece: of a partition's segment, by its number in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub partition: PartitionId,
    pub segment: Offset,
    /// Which file of that name: compaction puts another in its place, and readers of both go on.
    pub generation: u32,
    pub number: u64,
}

pub enum Found {
    Here(Slice),
    /// Somebody reads it; the event fires at the end, however that went.
    Coming(Event),
    Absent,
}

/// The chunks of one core under one budget. Clone is a counter.
#[derive(Clone)]
pub struct Chunks(Rc<RefCell<Books>>);

struct Books {
    bytes_max: usize,
    used: usize,
    entries: BTreeMap<Key, Entry>,
    /// Oldest first. A place in a queue is void unless the entry has the same stamp.
    once: VecDeque<(Key, u64)>,
    again: VecDeque<(Key, u64)>,
    stamp: u64,
    /// Of the last chunks that were read ahead, a bit for each: whether anybody took from it before it had to go.
    ahead_taken: u32,
    /// Times in a row that reading ahead was not worth it.
    ahead_refused: u32,
}

enum Entry {
    Coming(Event),
    Here {
        bytes: Slice,
        /// Nobody had asked for it yet when it was read.
        ahead: bool,
        /// How far into it somebody has read.
        served: usize,
        shared: bool,
        stamp: u64,
    },
}

impl Chunks {
    pub fn new(bytes_max: usize) -> Chunks {
        Chunks(Rc::new(RefCell::new(Books {
            bytes_max,
            used: 0,
            entries: BTreeMap::new(),
            once: VecDeque::new(),
            again: VecDeque::new(),
            stamp: 0,
            ahead_taken: u32::MAX,
            ahead_refused: 0,
        })))
    }

    pub fn find(&self, key: Key) -> Found {
        match self.0.borrow().entries.get(&key) {
            Some(Entry::Here { bytes, .. }) => Found::Here(bytes.clone()),
            Some(Entry::Coming(event)) => Found::Coming(event.clone()),
            None => Found::Absent,
        }
    }

    /// Says that the caller reads it now; [`Chunks::end`] must follow.
    pub fn begin(&self, key: Key) {
        let before = self.0.borrow_mut().entries.insert(key, Entry::Coming(Event::new()));
        assert!(before.is_none(), "a chunk is read by one task at a time");
    }

    /// Whether reading ahead pays: with more readers than there is room for, what is read ahead goes before it is needed.
    /// Then only one in `AHEAD_TRIAL_EVERY` is tried, to see whether that has changed.
    pub fn ahead_pays(&self) -> bool {
        let mut books = self.0.borrow_mut();
        if books.ahead_taken.count_ones() * 2 > u32::BITS {
            return true;
        }
        books.ahead_refused = (books.ahead_refused + 1) % AHEAD_TRIAL_EVERY;
        books.ahead_refused == 0
    }

    /// The reading ended: with the bytes, or without. `ahead`: of anybody's need.
    pub fn end(&self, key: Key, ahead: bool, bytes: Option<Slice>) {
        let mut books = self.0.borrow_mut();
        if !matches!(books.entries.get(&key), Some(Entry::Coming(_))) {
            // It was forgotten meanwhile: what was read may be what is not there any more.
            return;
        }
        let Some(Entry::Coming(event)) = books.entries.remove(&key) else { return };
        if let Some(bytes) = bytes {
            books.insert(key, ahead, bytes);
        }
        drop(books);
        event.notify_all();
    }

    /// Takes note that these bytes of a chunk were handed out. The second time for any of them makes it a shared one.
    pub fn served(&self, key: Key, part: Range<usize>) {
        let mut books = self.0.borrow_mut();
        let books = &mut *books;
        let entry = books.entries.get_mut(&key);
        let Some(Entry::Here { ahead, served, shared, stamp, .. }) = entry else { return };
        if std::mem::take(ahead) {
            books.ahead_taken = (books.ahead_taken << 1) | 1;
        }
        let again = part.start < *served;
        *served = (*served).max(part.end);
        if again || *shared {
            books.stamp += 1;
            (*shared, *stamp) = (true, books.stamp);
            books.again.push_back((key, books.stamp));
            books.compact();
        }
    }

    /// Drops about `bytes`, oldest first, those read once before those that are shared. False if there was nothing.
    pub fn release(&self, bytes: usize) -> bool {
        let mut books = self.0.borrow_mut();
        let target = books.used.saturating_sub(bytes);
        let before = books.used;
        while books.used > target && books.drop_oldest() {}
        books.used < before
    }

    /// Nothing of this partition is valid any more.
    pub fn forget(&self, partition: PartitionId) {
        let mut books = self.0.borrow_mut();
        let first = Key { partition, segment: Offset(i64::MIN), generation: 0, number: 0 };
        let gone = books.entries.range(first..).map(|(key, _)| *key);
        let gone: Vec<Key> = gone.take_while(|key| key.partition == partition).collect();
        for key in gone {
            match books.entries.remove(&key) {
                Some(Entry::Here { bytes, .. }) => books.used -= bytes.len(),
                Some(Entry::Coming(event)) => event.notify_all(),
                None => {}
            }
        }
    }

    pub fn used(&self) -> usize {
        self.0.borrow().used
    }
}

impl Books {
    fn insert(&mut self, key: Key, ahead: bool, bytes: Slice) {
        while self.used + bytes.len() > self.bytes_max && self.drop_oldest() {}
        if self.used + bytes.len() > self.bytes_max {
            return;
        }
        self.used += bytes.len();
        self.stamp += 1;
        self.once.push_back((key, self.stamp));
        self.entries.insert(key, Entry::Here { bytes, ahead, served: 0, shared: false, stamp: self.stamp });
    }

    fn drop_oldest(&mut self) -> bool {
        while let Some((key, queued)) = self.once.pop_front().or_else(|| self.again.pop_front()) {
            if self.is_valid(&key, queued)
                && let Some(Entry::Here { bytes, ahead, .. }) = self.entries.remove(&key)
            {
                if ahead {
                    self.ahead_taken <<= 1;
                }
                self.used -= bytes.len();
                return true;
            }
        }
        false
    }

    fn is_valid(&self, key: &Key, queued: u64) -> bool {
        matches!(self.entries.get(key), Some(Entry::Here { stamp, .. }) if *stamp == queued)
    }

    /// Void places are dropped when they are most of a queue.
    fn compact(&mut self) {
        if self.again.len() > 2 * self.entries.len() + 16 {
            let mut again = std::mem::take(&mut self.again);
            again.retain(|(key, queued)| self.is_valid(key, *queued));
            self.again = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;

    fn key(index: i32, number: u64) -> Key {
        let partition = PartitionId { topic: TopicId([1; 16]), index };
        Key { partition, segment: Offset(0), generation: 0, number }
    }

    fn put(chunks: &Chunks, key: Key, bytes: usize) {
        chunks.begin(key);
        chunks.end(key, false, Some(Slice::from(vec![0; bytes])));
    }

    fn here(chunks: &Chunks, key: Key) -> bool {
        matches!(chunks.find(key), Found::Here(_))
    }

    #[test]
    fn a_walk_over_a_log_leaves_shared_chunks_alone() {
        let chunks = Chunks::new(40);
        put(&chunks, key(0, 0), 10);
        chunks.served(key(0, 0), 0..10);
        chunks.served(key(0, 0), 0..5);
        for number in 0..20 {
            put(&chunks, key(1, number), 10);
            chunks.served(key(1, number), 0..4);
            chunks.served(key(1, number), 4..10);
            assert!(chunks.used() <= 40);
        }
        assert!(here(&chunks, key(0, 0)), "two readers wanted it");
        assert!(!here(&chunks, key(1, 16)));
        assert!(here(&chunks, key(1, 19)));
        assert!(chunks.release(1));
        assert!(here(&chunks, key(0, 0)));
        assert!(chunks.release(100));
        assert!(!chunks.release(1));
        assert_eq!(chunks.used(), 0);
    }

    #[test]
    fn what_was_forgotten_does_not_come_in_any_more() {
        let chunks = Chunks::new(100);
        put(&chunks, key(0, 0), 10);
        put(&chunks, key(1, 0), 10);
        chunks.begin(key(0, 1));
        chunks.forget(key(0, 0).partition);
        chunks.end(key(0, 1), false, Some(Slice::from(vec![0; 10])));
        assert!(!here(&chunks, key(0, 0)) && !here(&chunks, key(0, 1)));
        assert!(here(&chunks, key(1, 0)));
        assert_eq!(chunks.used(), 10);
    }

    #[test]
    fn reading_ahead_is_given_up_where_it_is_never_used_in_time_and_taken_up_again() {
        let chunks = Chunks::new(20);
        let ahead = |number| {
            chunks.begin(key(0, number));
            chunks.end(key(0, number), true, Some(Slice::from(vec![0; 10])));
        };
        (0..20).for_each(ahead);
        let tried = (0..160).filter(|_| chunks.ahead_pays()).count();
        assert_eq!(tried, 10);
        for number in 100..140 {
            ahead(number);
            chunks.served(key(0, number), 0..10);
        }
        assert!((0..160).all(|_| chunks.ahead_pays()));
    }

    #[test]
    fn a_failed_read_leaves_nothing_and_many_hits_no_growing_queue() {
        let chunks = Chunks::new(100);
        chunks.begin(key(0, 0));
        assert!(matches!(chunks.find(key(0, 0)), Found::Coming(_)));
        chunks.end(key(0, 0), false, None);
        assert!(matches!(chunks.find(key(0, 0)), Found::Absent));
        put(&chunks, key(0, 0), 10);
        (0..1000).for_each(|_| chunks.served(key(0, 0), 0..10));
        assert!(chunks.0.borrow().again.len() < 50);
        put(&chunks, key(0, 1), 101);
        assert!(!here(&chunks, key(0, 1)), "larger than the budget");
    }
}
