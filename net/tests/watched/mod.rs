//! An allocator that remembers what was asked of it, for tests that bound memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What one thread allocated while it was watched. Growing a vector counts as an allocation of its new size.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub count: usize,
    pub total: usize,
    pub largest: usize,
}

thread_local! {
    static SEEN: Cell<Seen> = const { Cell::new(Seen { count: 0, total: 0, largest: 0 }) };
}

pub fn allocations(work: impl FnOnce()) -> Seen {
    SEEN.set(Seen::default());
    work();
    SEEN.get()
}

struct Watched;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let was = SEEN.get();
        let bytes = layout.size();
        let largest = was.largest.max(bytes);
        SEEN.set(Seen { count: was.count + 1, total: was.total + bytes, largest });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from `alloc` with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

#[test]
fn allocations_are_seen() {
    let seen = allocations(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!((seen.count, seen.total, seen.largest), (1, 100, 100));
}
