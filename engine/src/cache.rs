//! Recent bytes of every log of one core: the very buffers that were appended, kept until memory is needed elsewhere.
//!
//! A tail is read without the disk and without a copy. What goes is the oldest buffer of the core, whichever log it
//! belongs to. The budget counts whole buffers, filled or not.

use crate::ids::Offset;
use rt::Slice;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::{Rc, Weak};

/// Where one batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub base: Offset,
    pub last: Offset,
    pub pos: u64,
    pub bytes: u32,
}

/// One flush that stays in memory: consecutive file bytes of one segment and the batches that begin in it.
pub struct Run {
    pub segment: Offset,
    /// Position of the first byte of the first chunk; block aligned.
    pub start: u64,
    pub chunks: Vec<Slice>,
    pub spots: Vec<Spot>,
    bytes: usize,
}

impl Run {
    pub fn new(segment: Offset, start: u64, chunks: Vec<Slice>, spots: Vec<Spot>) -> Run {
        let bytes = chunks.iter().map(|chunk| chunk.len()).sum();
        assert!(!spots.is_empty());
        Run { segment, start, chunks, spots, bytes }
    }

    /// Adds references to the bytes at `pos..pos + bytes` of the file to `out`.
    fn gather(&self, pos: u64, bytes: usize, out: &mut Vec<Slice>) {
        let mut skip = usize::try_from(pos - self.start).expect("a run fits in memory");
        let mut left = bytes;
        for chunk in &self.chunks {
            if skip >= chunk.len() {
                skip -= chunk.len();
                continue;
            }
            let take = left.min(chunk.len() - skip);
            out.push(chunk.slice(skip..skip + take));
            left -= take;
            skip = 0;
            if left == 0 {
                return;
            }
        }
        assert!(left == 0, "a batch lies inside its run");
    }
}

/// One log's buffers, oldest first.
#[derive(Default)]
pub struct Tail(RefCell<VecDeque<Rc<Run>>>);

/// What a read finds in a tail.
#[derive(Default)]
pub struct Found {
    pub slices: Vec<Slice>,
    pub bytes: usize,
    pub next: Option<Offset>,
}

impl Tail {
    /// Whole batches from the one that holds `from`, all below `up_to`, at most `max_bytes` of them unless the first
    /// one alone is larger and `min_one` is set. `None` if the tail does not reach back to `from`.
    pub fn read(&self, from: Offset, up_to: Offset, max_bytes: usize, min_one: bool) -> Option<Found> {
        let runs = self.0.borrow();
        let first = runs.partition_point(|run| run.spots.last().is_some_and(|spot| spot.last < from));
        let run = runs.get(first)?;
        if run.spots.first().is_none_or(|spot| spot.base > from) {
            return None;
        }
        let mut found = Found::default();
        for run in runs.iter().skip(first) {
            let skip = run.spots.partition_point(|spot| spot.last < from);
            let mut range: Option<(u64, u64)> = None;
            let mut full = false;
            for spot in &run.spots[skip..] {
                let room =
                    found.bytes + spot.bytes as usize <= max_bytes || (min_one && found.next.is_none());
                if spot.last >= up_to || !room {
                    full = true;
                    break;
                }
                found.bytes += spot.bytes as usize;
                found.next = Some(spot.last.next());
                let end = spot.pos + u64::from(spot.bytes);
                range = Some((range.map_or(spot.pos, |(start, _)| start), end));
            }
            if let Some((start, end)) = range {
                let bytes = usize::try_from(end - start).expect("a run fits in memory");
                run.gather(start, bytes, &mut found.slices);
            }
            if full || found.bytes >= max_bytes {
                break;
            }
        }
        Some(found)
    }

    /// Bytes of whole batches in `from..up_to`, at most about `cap`; `None` if the tail does not reach back to `from`.
    pub fn available(&self, from: Offset, up_to: Offset, cap: usize) -> Option<usize> {
        let runs = self.0.borrow();
        let first = runs.partition_point(|run| run.spots.last().is_some_and(|spot| spot.last < from));
        if runs.get(first)?.spots.first().is_none_or(|spot| spot.base > from) {
            return None;
        }
        let mut bytes = 0;
        for run in runs.iter().skip(first) {
            for spot in run.spots.iter().filter(|spot| spot.last >= from) {
                if spot.last >= up_to || bytes >= cap {
                    return Some(bytes);
                }
                bytes += spot.bytes as usize;
            }
        }
        Some(bytes)
    }

    /// Forgets everything from `from` on.
    pub fn truncate(&self, from: Offset) {
        self.0.borrow_mut().retain(|run| run.spots.last().is_some_and(|spot| spot.last < from));
    }

    /// Forgets what lies in segments that others took the place of.
    pub fn forget(&self, segments: Range<Offset>) {
        self.0.borrow_mut().retain(|run| !segments.contains(&run.segment));
    }

    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// The tails of one core under one budget.
#[derive(Clone)]
pub struct Tails(Rc<RefCell<Budget>>);

struct Budget {
    bytes_max: usize,
    used: usize,
    /// In order of arrival: whose run it is, and the run.
    order: VecDeque<(Weak<Tail>, Weak<Run>, usize)>,
}

impl Tails {
    pub fn new(bytes_max: usize) -> Tails {
        Tails(Rc::new(RefCell::new(Budget { bytes_max, used: 0, order: VecDeque::new() })))
    }

    pub fn keep(&self, tail: &Rc<Tail>, run: Run) {
        let run = Rc::new(run);
        let mut budget = self.0.borrow_mut();
        budget.used += run.bytes;
        budget.order.push_back((Rc::downgrade(tail), Rc::downgrade(&run), run.bytes));
        tail.0.borrow_mut().push_back(run);
        while budget.used > budget.bytes_max && budget.drop_oldest() > 0 {}
    }

    /// Gives the oldest buffers back to the arena, about `bytes` of them. False if there was nothing to give.
    pub fn release(&self, bytes: usize) -> bool {
        let mut budget = self.0.borrow_mut();
        let mut freed = 0;
        while freed < bytes {
            let dropped = budget.drop_oldest();
            if dropped == 0 {
                break;
            }
            freed += dropped;
        }
        freed > 0
    }

    pub fn used(&self) -> usize {
        self.0.borrow().used
    }
}

impl Budget {
    fn drop_oldest(&mut self) -> usize {
        let Some((tail, run, bytes)) = self.order.pop_front() else { return 0 };
        self.used -= bytes;
        if let (Some(tail), Some(run)) = (tail.upgrade(), run.upgrade()) {
            let mut runs = tail.0.borrow_mut();
            if runs.front().is_some_and(|front| Rc::ptr_eq(front, &run)) {
                runs.pop_front();
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of batches of two offsets and ten bytes each.
    fn run(first: i64, count: i64, start: u64) -> Run {
        let spots = (0..count).map(|index| Spot {
            base: Offset(first + index * 2),
            last: Offset(first + index * 2 + 1),
            pos: start + index as u64 * 10,
            bytes: 10,
        });
        let bytes: Vec<u8> = (0..count * 10).map(|byte| (byte + first * 5) as u8).collect();
        let (a, b) = bytes.split_at(bytes.len() / 2 + 1);
        Run::new(Offset(0), start, vec![Slice::from(a.to_vec()), Slice::from(b.to_vec())], spots.collect())
    }

    fn filled() -> (Tails, Rc<Tail>) {
        let (tails, tail) = (Tails::new(1000), Rc::new(Tail::default()));
        tails.keep(&tail, run(10, 3, 0));
        tails.keep(&tail, run(16, 3, 30));
        (tails, tail)
    }

    #[test]
    fn reads_are_whole_batches_within_their_bounds() {
        let (_tails, tail) = filled();
        let cases = [
            // from, up_to, max, min_one, expected bytes, expected next
            (9, 22, 100, true, None),
            (10, 22, 100, true, Some((60, Some(22)))),
            (13, 22, 100, true, Some((50, Some(22)))),
            (13, 20, 100, true, Some((40, Some(20)))),
            (13, 22, 25, true, Some((20, Some(16)))),
            (13, 22, 5, true, Some((10, Some(14)))),
            (13, 22, 5, false, Some((0, None))),
            (22, 22, 100, true, None),
        ];
        for (from, up_to, max, min_one, expected) in cases {
            let found = tail.read(Offset(from), Offset(up_to), max, min_one);
            let seen = found.map(|f| {
                assert_eq!(f.slices.iter().map(|s| s.len()).sum::<usize>(), f.bytes);
                (f.bytes, f.next.map(|o| o.0))
            });
            assert_eq!(seen, expected, "{from}..{up_to}, {max}");
        }
        let found = tail.read(Offset(12), Offset(14), 100, true).expect("in the tail");
        let bytes: Vec<u8> = found.slices.iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(bytes, (60..70).collect::<Vec<u8>>());
        assert_eq!(tail.available(Offset(13), Offset(22), 1000), Some(50));
    }

    #[test]
    fn the_oldest_buffers_go_first() {
        let (tails, tail) = filled();
        assert_eq!(tails.used(), 60);
        assert!(tails.release(1));
        assert!(tail.read(Offset(10), Offset(22), 100, true).is_none());
        assert!(tail.read(Offset(16), Offset(22), 100, true).is_some());
        assert!(tails.release(1));
        assert!(!tails.release(1));
        assert_eq!(tails.used(), 0);
    }
}
