//! An allocator that remembers what was asked of it, for tests that bound memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What one thread allocated while it was watched. Growing a vector counts as an allocation of its new size.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub count: usize,
    pub total: usize,
    pub largest: usize,
    /// Allocated and not given back.
    pub held: isize,
    /// The most that `held` was.
    pub held_max: isize,
}

const NOTHING: Seen = Seen { count: 0, total: 0, largest: 0, held: 0, held_max: 0 };

thread_local! {
    static SEEN: Cell<Seen> = const { Cell::new(NOTHING) };
}

pub fn allocations(work: impl FnOnce()) -> Seen {
    SEEN.set(NOTHING);
    work();
    SEEN.get()
}

struct Watched;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let was = SEEN.get();
        let bytes = layout.size();
        let held = was.held + signed(bytes);
        SEEN.set(Seen {
            count: was.count + 1,
            total: was.total + bytes,
            largest: was.largest.max(bytes),
            held,
            held_max: was.held_max.max(held),
        });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let was = SEEN.get();
        SEEN.set(Seen { held: was.held - signed(layout.size()), ..was });
        // SAFETY: the memory came from `alloc` with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).expect("no allocation is larger")
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

#[test]
fn allocations_are_seen() {
    let seen = allocations(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!((seen.count, seen.total, seen.largest, seen.held, seen.held_max), (1, 100, 100, 0, 100));
    let mut kept = Vec::new();
    let seen = allocations(|| kept = std::hint::black_box(vec![0u8; 100]));
    assert_eq!((kept.len(), seen.held), (100, 100));
}
