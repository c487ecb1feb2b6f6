//! Recent bytes of every log of one core: the very buffers that were appended, kept until memory is needed elsewhere.
//!
//! A tail is read without the disk and without a copy. What goes is the oldest buffer of the core, whichever log it
//! belongs to. The budget counts whole buffers, filled or not.
//!
//! A flush begins with a copy of the block that the one before it ended in. Where all batches of the one before begin in that
//! block, the later buffer has them all and takes its place: otherwise a log of small flushes would keep a block for each.

use crate::ids::Offset;
use rt::Slice;
use std::cell::{Cell, RefCell};
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

/// One flush that stays in memory: consecutive file bytes of one segment and the batches that begin in it; also those of
/// the flush whose last block it begins with a copy of, when it took that one's place.
pub struct Run {
    pub segment: Offset,
    /// Position of the first byte of the first chunk; block aligned.
    pub start: u64,
    pub chunks: Vec<Slice>,
    pub spots: Vec<Spot>,
    bytes: usize,
    /// Where it is counted while it is kept.
    kept: Rc<Kept>,
}

/// Runs that are kept, of all logs of a core.
#[derive(Default)]
struct Kept {
    runs: Cell<usize>,
    bytes: Cell<usize>,
}

impl Drop for Run {
    fn drop(&mut self) {
        let kept = &self.kept;
        kept.runs.set(kept.runs.get() - 1);
        kept.bytes.set(kept.bytes.get() - self.bytes);
    }
}

impl Run {
    pub fn new(segment: Offset, start: u64, chunks: Vec<Slice>, spots: Vec<Spot>) -> Run {
        let bytes = chunks.iter().map(|chunk| chunk.len()).sum();
        assert!(!spots.is_empty());
        // Until `Tails::keep` takes it up it counts for itself.
        let kept = Kept { runs: Cell::new(1), bytes: Cell::new(bytes) };
        Run { segment, start, chunks, spots, bytes, kept: Rc::new(kept) }
    }

    /// Whether this one's bytes begin with all of the other's batches.
    fn holds_all_of(&self, other: &Run) -> bool {
        self.segment == other.segment && other.spots.first().is_some_and(|spot| spot.pos >= self.start)
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

/// So many places of runs that are gone are not worth a walk.
const GONE_SPARE: usize = 64;

/// The tails of one core under one budget.
#[derive(Clone)]
pub struct Tails(Rc<RefCell<Budget>>);

struct Budget {
    bytes_max: usize,
    kept: Rc<Kept>,
    /// In order of arrival: whose run it is, and the run, which may be gone already.
    order: VecDeque<(Weak<Tail>, Weak<Run>)>,
}

impl Tails {
    pub fn new(bytes_max: usize) -> Tails {
        Tails(Rc::new(RefCell::new(Budget { bytes_max, kept: Rc::default(), order: VecDeque::new() })))
    }

    pub fn keep(&self, tail: &Rc<Tail>, mut run: Run) {
        let mut budget = self.0.borrow_mut();
        let mut runs = tail.0.borrow_mut();
        let is_held = runs.back().is_some_and(|before| run.holds_all_of(before));
        if is_held && let Some(before) = runs.pop_back() {
            run.spots.splice(..0, before.spots.iter().copied());
        }
        let kept = &budget.kept;
        kept.runs.set(kept.runs.get() + 1);
        kept.bytes.set(kept.bytes.get() + run.bytes);
        run.kept = kept.clone();
        let run = Rc::new(run);
        budget.order.push_back((Rc::downgrade(tail), Rc::downgrade(&run)));
        runs.push_back(run);
        drop(runs);
        budget.forget_gone();
        while budget.kept.bytes.get() > budget.bytes_max && budget.drop_oldest() > 0 {}
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
        self.0.borrow().kept.bytes.get()
    }
}

impl Budget {
    /// How many bytes went; none if there is nothing any more.
    fn drop_oldest(&mut self) -> usize {
        while let Some((tail, run)) = self.order.pop_front() {
            let (Some(tail), Some(run)) = (tail.upgrade(), run.upgrade()) else { continue };
            let oldest = tail.0.borrow_mut().pop_front();
            assert!(oldest.is_some_and(|oldest| Rc::ptr_eq(&oldest, &run)), "a log's runs go in order");
            return run.bytes;
        }
        0
    }

    /// Runs also go with their log, or for a later one: most places in the order are of runs that are there.
    fn forget_gone(&mut self) {
        if self.order.len() > 2 * self.kept.runs.get() + GONE_SPARE {
            self.order.retain(|(_, run)| run.strong_count() > 0);
        }
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

    /// A flush of one batch of ten bytes at `pos`, in blocks of a hundred: a copy of the block so far comes first.
    fn small(offset: i64, pos: u64) -> Run {
        let start = pos / 100 * 100;
        let spot = Spot { base: Offset(offset), last: Offset(offset), pos, bytes: 10 };
        let bytes: Vec<u8> = (start..pos + 10).map(|at| (at / 10) as u8).collect();
        Run::new(Offset(0), start, vec![Slice::from(bytes)], vec![spot])
    }

    #[test]
    fn small_flushes_of_one_block_take_one_buffer() {
        let (tails, tail) = (Tails::new(1000), Rc::new(Tail::default()));
        for offset in 0..500 {
            tails.keep(&tail, small(offset, offset as u64 * 10));
        }
        // Ten batches each; the budget has room for ten blocks, of which the last is full.
        assert_eq!((tail.0.borrow().len(), tails.used()), (10, 1000));
        assert!(tails.0.borrow().order.len() <= 2 * 10 + GONE_SPARE + 1);
        assert!(tail.read(Offset(399), Offset(500), 50, true).is_none());
        let found = tail.read(Offset(405), Offset(500), 1000, true).expect("in the tail");
        let bytes: Vec<u8> = found.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let expected: Vec<u8> = (405..500u64).flat_map(|batch| [batch as u8; 10]).collect();
        assert_eq!((bytes, found.next), (expected, Some(Offset(500))));
    }

    #[test]
    fn a_flush_with_earlier_blocks_stays() {
        let (tails, tail) = (Tails::new(1000), Rc::new(Tail::default()));
        // A batch that begins in one block and ends in the next, where another follows.
        let spot = Spot { base: Offset(0), last: Offset(0), pos: 0, bytes: 120 };
        tails.keep(&tail, Run::new(Offset(0), 0, vec![Slice::from(vec![7; 120])], vec![spot]));
        tails.keep(&tail, small(1, 120));
        tails.keep(&tail, small(2, 130));
        assert_eq!((tail.0.borrow().len(), tails.used()), (2, 160));
        let found = tail.read(Offset(0), Offset(3), 1000, true).expect("in the tail");
        assert_eq!((found.bytes, found.next), (140, Some(Offset(3))));
        // A new segment begins where none of the old bytes are.
        let mut next = small(3, 0);
        next.segment = Offset(3);
        tails.keep(&tail, next);
        assert_eq!(tail.0.borrow().len(), 3);
        tail.clear();
        assert_eq!(tails.used(), 0);
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
