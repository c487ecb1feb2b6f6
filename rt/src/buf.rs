//! Memory: 4 KiB-aligned buffers out of one budget per core, and reference-counted slices any core may read.
//!
//! The budget is split in reservations. What a reservation holds back is never lent to another one, so a broker short
//! of produce memory can still append for its leader and take part in elections; what nobody holds back is shared by
//! produce, fetch and catch-up. A buffer counts against its arena until the last slice of it is dropped, on whatever
//! core that happens. Contents of a fresh buffer are unspecified bytes (zero or stale), never uninitialised memory.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::future::Future;
use std::ops::{Deref, DerefMut, Range};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Alignment and granularity of every buffer.
pub const PAGE: usize = 4096;
/// Larger buffers go back to the allocator instead of the free list.
const CACHED_BYTES_MAX: usize = 1 << 20;
/// Such buffers are mapped one by one. Among an allocator's small blocks they would leave holes that nothing fits in, and
/// the process would keep half as much again as its budget.
const MAPPED_BYTES_MIN: usize = 128 << 10;
/// The free lists keep at most this part of the budget.
const CACHED_SHARE: usize = 4;
const RESERVATIONS: usize = 5;

/// On whose account memory is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Reservation {
    Control,
    Follower,
    Produce,
    Fetch,
    CatchUp,
}

impl Reservation {
    pub const ALL: [Reservation; RESERVATIONS] = [
        Reservation::Control,
        Reservation::Follower,
        Reservation::Produce,
        Reservation::Fetch,
        Reservation::CatchUp,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Reservation::Control => "control",
            Reservation::Follower => "follower",
            Reservation::Produce => "produce",
            Reservation::Fetch => "fetch",
            Reservation::CatchUp => "catch_up",
        }
    }

    /// Control and follower appends live on what is held back for them and may use the shared part as well.
    fn held_back_percent(self) -> usize {
        match self {
            Reservation::Control => 6,
            Reservation::Follower => 20,
            Reservation::Produce => 20,
            Reservation::Fetch => 12,
            Reservation::CatchUp => 6,
        }
    }
}

struct Waiter {
    ticket: u64,
    bytes: usize,
    waker: Waker,
}

#[derive(Default)]
struct Account {
    used: usize,
    held_back: usize,
    waiting: VecDeque<Waiter>,
}

struct Books {
    accounts: [Account; RESERVATIONS],
    used: usize,
    cached: usize,
    free: Vec<(usize, Vec<Memory>)>,
    ticket_next: u64,
}

struct Shared {
    budget: usize,
    /// What each reservation could ever get in one buffer.
    largest: [usize; RESERVATIONS],
    books: Mutex<Books>,
}

/// One core's memory. Clone is a counter.
#[derive(Clone)]
pub struct Arena(Arc<Shared>);

impl Arena {
    /// An arena of its own, for tests and tools; a core's is `Core::buffers()`.
    pub fn new(budget: usize) -> Arena {
        let mut accounts: [Account; RESERVATIONS] = Default::default();
        for r in Reservation::ALL {
            accounts[r as usize].held_back = budget / 100 * r.held_back_percent();
        }
        let held_back: usize = accounts.iter().map(|account| account.held_back).sum();
        let largest = std::array::from_fn(|r| (budget - (held_back - accounts[r].held_back)) / PAGE * PAGE);
        let books = Books { accounts, used: 0, cached: 0, free: Vec::new(), ticket_next: 0 };
        Arena(Arc::new(Shared { budget, largest, books: Mutex::new(books) }))
    }

    /// A buffer of at least `bytes`, or nothing when the budget, or somebody who waits already, is in the way.
    pub fn try_take(&self, bytes: usize, r: Reservation) -> Option<BufMut> {
        let capacity = round_up(bytes);
        let books = self.0.lock();
        if !books.accounts[r as usize].waiting.is_empty() || !books.fits(self.0.budget, capacity, r) {
            return None;
        }
        Some(self.0.grant(books, bytes, capacity, r))
    }

    /// Waits, first come first served within the reservation. The size must be at most `largest(r)`: a larger one could
    /// never be had, so callers check what comes from outside first.
    pub fn take(&self, bytes: usize, r: Reservation) -> Take {
        assert!(round_up(bytes) <= self.largest(r), "{bytes} bytes can never fit in this arena");
        Take { arena: self.clone(), bytes, r, ticket: None }
    }

    /// The largest buffer this reservation could ever get.
    pub fn largest(&self, r: Reservation) -> usize {
        self.0.largest[r as usize]
    }

    pub fn used(&self) -> usize {
        self.0.lock().used
    }

    pub fn used_by(&self, r: Reservation) -> usize {
        self.0.lock().accounts[r as usize].used
    }

    /// Tasks that wait for memory of this reservation.
    pub fn waiting(&self, r: Reservation) -> usize {
        self.0.lock().accounts[r as usize].waiting.len()
    }

    pub fn budget(&self) -> usize {
        self.0.budget
    }
}

impl Books {
    /// Whether `capacity` more leaves every other reservation what is held back for it.
    fn fits(&self, budget: usize, capacity: usize, r: Reservation) -> bool {
        let held_back: usize = Reservation::ALL
            .iter()
            .filter(|o| **o != r)
            .map(|o| &self.accounts[*o as usize])
            .map(|a| a.held_back.saturating_sub(a.used))
            .sum();
        self.used + capacity + held_back <= budget
    }

    /// The waiters who may have their turn now: the first of each reservation, if it fits.
    fn wake_fitting(&self, budget: usize) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for r in Reservation::ALL {
            if let Some(first) = self.accounts[r as usize].waiting.front()
                && self.fits(budget, first.bytes, r)
            {
                wakers.push(first.waker.clone());
            }
        }
        wakers
    }

    fn reuse(&mut self, capacity: usize) -> Option<Memory> {
        let list = self.free.iter_mut().find(|(bytes, _)| *bytes == capacity)?;
        let memory = list.1.pop()?;
        self.cached -= capacity;
        Some(memory)
    }

    fn keep(&mut self, memory: Memory) {
        self.cached += memory.capacity;
        match self.free.iter_mut().find(|(bytes, _)| *bytes == memory.capacity) {
            Some((_, list)) => list.push(memory),
            None => self.free.push((memory.capacity, vec![memory])),
        }
    }

    fn shed_cached(&mut self) -> Vec<(usize, Vec<Memory>)> {
        self.cached = 0;
        std::mem::take(&mut self.free)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no code that can panic runs under this lock")
    }

    fn grant(
        self: &Arc<Self>,
        mut books: MutexGuard<'_, Books>,
        bytes: usize,
        capacity: usize,
        r: Reservation,
    ) -> BufMut {
        books.used += capacity;
        books.accounts[r as usize].used += capacity;
        let reused = books.reuse(capacity);
        let over = reused.is_none() && books.used + books.cached > self.budget;
        let shed = if over { books.shed_cached() } else { Vec::new() };
        drop(books);
        drop(shed);
        let memory = reused.unwrap_or_else(|| Memory::allocate(capacity));
        BufMut { memory: Some(memory), len: bytes, account: Some((self.clone(), r)) }
    }

    fn give_back(&self, memory: Memory, r: Reservation) {
        let mut memory = Some(memory);
        let wakers = {
            let mut books = self.lock();
            let capacity = memory.as_ref().map_or(0, |m| m.capacity);
            books.used -= capacity;
            books.accounts[r as usize].used -= capacity;
            if capacity <= CACHED_BYTES_MAX
                && books.cached + capacity <= self.budget / CACHED_SHARE
                && let Some(memory) = memory.take()
            {
                books.keep(memory);
            }
            books.wake_fitting(self.budget)
        };
        drop(memory);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Waiting for memory.
#[must_use = "futures do nothing unless polled"]
pub struct Take {
    arena: Arena,
    bytes: usize,
    r: Reservation,
    ticket: Option<u64>,
}

impl Future for Take {
    type Output = BufMut;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BufMut> {
        let shared = self.arena.0.clone();
        let (capacity, r) = (round_up(self.bytes), self.r);
        let mut books = shared.lock();
        let account = &books.accounts[r as usize];
        let my_turn = match self.ticket {
            Some(ticket) => account.waiting.front().is_some_and(|w| w.ticket == ticket),
            None => account.waiting.is_empty(),
        };
        if my_turn && books.fits(shared.budget, capacity, r) {
            if self.ticket.take().is_some() {
                books.accounts[r as usize].waiting.pop_front();
            }
            let buf = shared.grant(books, self.bytes, capacity, r);
            let wakers = shared.lock().wake_fitting(shared.budget);
            wakers.into_iter().for_each(Waker::wake);
            return Poll::Ready(buf);
        }
        let ticket = match self.ticket {
            Some(ticket) => ticket,
            None => {
                books.ticket_next += 1;
                books.ticket_next
            }
        };
        let waiting = &mut books.accounts[r as usize].waiting;
        match waiting.iter_mut().find(|w| w.ticket == ticket) {
            Some(waiter) => waiter.waker.clone_from(cx.waker()),
            None => waiting.push_back(Waiter { ticket, bytes: capacity, waker: cx.waker().clone() }),
        }
        drop(books);
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let wakers = {
                let mut books = self.arena.0.lock();
                books.accounts[self.r as usize].waiting.retain(|w| w.ticket != ticket);
                books.wake_fitting(self.arena.0.budget)
            };
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// A size class: whole pages, two classes per doubling, so the free lists stay few and waste under a third.
fn round_up(bytes: usize) -> usize {
    let pages = bytes.div_ceil(PAGE).max(1);
    if pages <= 2 || pages * PAGE > CACHED_BYTES_MAX {
        return pages * PAGE;
    }
    let power = pages.next_power_of_two();
    let between = power / 4 * 3;
    if pages <= between { between * PAGE } else { power * PAGE }
}

/// Aligned memory, owned.
struct Memory {
    ptr: NonNull<u8>,
    capacity: usize,
    is_mapped: bool,
}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, PAGE).expect("a buffer is smaller than half the address space")
    }

    fn allocate(capacity: usize) -> Memory {
        assert!(capacity > 0);
        if capacity >= MAPPED_BYTES_MIN
            && let Some(ptr) = Memory::map(capacity)
        {
            return Memory { ptr, capacity, is_mapped: true };
        }
        let layout = Memory::layout(capacity);
        // SAFETY: the layout has a size above zero.
        let raw = unsafe { alloc_zeroed(layout) };
        match NonNull::new(raw) {
            Some(ptr) => Memory { ptr, capacity, is_mapped: false },
            None => handle_alloc_error(layout),
        }
    }

    /// Nothing if the process may have no more mappings (vm.max_map_count).
    fn map(capacity: usize) -> Option<NonNull<u8>> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping of its own touches no memory that is in use.
        let mapped = unsafe { mmap_anonymous(std::ptr::null_mut(), capacity, protection, flags) };
        NonNull::new(mapped.ok()?.cast())
    }

    fn unmap(&mut self) {
        let at = self.ptr.as_ptr().cast();
        // SAFETY: mapped in `map` with this very length, and nobody uses it any more.
        if unsafe { munmap(at, self.capacity) }.is_ok() {
            return;
        }
        // It lies between others, and there may be no more mappings: the addresses are lost, the memory is given back.
        // SAFETY: as above.
        let _ = unsafe { madvise(at, self.capacity, Advice::LinuxDontNeed) };
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `capacity` initialised bytes live at `ptr` as long as self, and nobody else holds a reference to
        // them: exclusive access needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.capacity) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.capacity) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.is_mapped {
            return self.unmap();
        }
        // SAFETY: allocated in `allocate` with this very layout, freed only here.
        unsafe { dealloc(self.ptr.as_ptr(), Memory::layout(self.capacity)) }
    }
}

// SAFETY: `Memory` owns plain bytes; moving it between threads moves the ownership.
unsafe impl Send for Memory {}
// SAFETY: shared access is reading only.
unsafe impl Sync for Memory {}

/// An exclusive buffer out of an arena. Goes back when it, or the last slice of it, is dropped.
pub struct BufMut {
    memory: Option<Memory>,
    len: usize,
    account: Option<(Arc<Shared>, Reservation)>,
}

impl BufMut {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it counts against its arena: the length rounded up.
    pub fn capacity(&self) -> usize {
        self.memory().capacity
    }

    /// Makes it shorter, or longer up to its capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a buffer of {} cannot have {len} bytes", self.capacity());
        self.len = len;
    }

    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Ends writing: what is in `range` becomes shared bytes.
    pub fn freeze(self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        Slice { owner: Owner::Shared(Arc::new(Storage::Buf(self))), range }
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("present until dropped")
    }
}

impl Deref for BufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory().bytes()[..self.len]
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.memory.as_mut().expect("present until dropped").bytes_mut()[..len]
    }
}

impl Drop for BufMut {
    fn drop(&mut self) {
        if let (Some(memory), Some((shared, r))) = (self.memory.take(), self.account.take()) {
            shared.give_back(memory, r);
        }
    }
}

impl std::fmt::Debug for BufMut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BufMut({} of {})", self.len, self.capacity())
    }
}

enum Storage {
    Buf(BufMut),
    Vec(Vec<u8>),
}

#[derive(Clone)]
enum Owner {
    Shared(Arc<Storage>),
    Static(&'static [u8]),
}

/// Immutable bytes, reference-counted, readable by any core. Clone is a counter.
#[derive(Clone)]
pub struct Slice {
    owner: Owner,
    range: Range<usize>,
}

impl Slice {
    pub const fn from_static(bytes: &'static [u8]) -> Slice {
        Slice { owner: Owner::Static(bytes), range: 0..bytes.len() }
    }

    pub const fn empty() -> Slice {
        Slice::from_static(&[])
    }

    /// A part of it, sharing the memory.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {}", self.len());
        let start = self.range.start;
        Slice { owner: self.owner.clone(), range: start + range.start..start + range.end }
    }

    /// The slice for `sub`, which must be a part of these very bytes.
    pub fn slice_ref(&self, sub: &[u8]) -> Slice {
        if sub.is_empty() {
            return self.slice(0..0);
        }
        let (base, at) = (self.as_ptr().addr(), sub.as_ptr().addr());
        assert!(at >= base, "the part lies before the whole");
        assert!(at + sub.len() <= base + self.len(), "the part reaches past the whole");
        self.slice(at - base..at - base + sub.len())
    }

    pub fn len(&self) -> usize {
        self.range.end - self.range.start
    }

    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether these bytes lie in a buffer of an arena, where socket and disk put them, and not in memory of the heap
    /// that they were made in or copied to.
    pub fn is_pooled(&self) -> bool {
        matches!(&self.owner, Owner::Shared(storage) if matches!(**storage, Storage::Buf(_)))
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole: &[u8] = match &self.owner {
            Owner::Static(bytes) => bytes,
            Owner::Shared(storage) => match &**storage {
                Storage::Buf(buf) => buf,
                Storage::Vec(bytes) => bytes,
            },
        };
        &whole[self.range.clone()]
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        let range = 0..bytes.len();
        Slice { owner: Owner::Shared(Arc::new(Storage::Vec(bytes))), range }
    }
}

impl Default for Slice {
    fn default() -> Slice {
        Slice::empty()
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Slice) -> bool {
        **self == **other
    }
}

impl Eq for Slice {}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn buffers_are_aligned_and_counted() {
        let arena = Arena::new(10 * MIB);
        let mut buf = arena.try_take(5000, Reservation::Produce).unwrap();
        assert_eq!(buf.len(), 5000);
        assert_eq!(buf.capacity(), 8192);
        assert_eq!(buf.as_ptr().addr() % PAGE, 0);
        assert_eq!(arena.used(), 8192);
        buf[4999] = 7;
        let slice = buf.freeze(10..5000);
        let part = slice.slice(4980..4990);
        assert!(part.is_pooled());
        assert!(!Slice::from(part.to_vec()).is_pooled());
        assert!(!Slice::empty().is_pooled());
        drop(slice);
        assert_eq!(part[9], 7);
        assert_eq!(arena.used(), 8192);
        std::thread::spawn(move || drop(part)).join().unwrap();
        assert_eq!(arena.used(), 0);
    }

    #[test]
    fn what_is_held_back_is_never_lent() {
        let arena = Arena::new(10 * MIB);
        let mut taken = Vec::new();
        while let Some(buf) = arena.try_take(64 << 10, Reservation::Produce) {
            taken.push(buf);
        }
        assert!(arena.try_take(64 << 10, Reservation::Follower).is_some());
        assert!(arena.try_take(64 << 10, Reservation::Control).is_some());
        assert!(arena.try_take(MIB, Reservation::Fetch).is_some());
        assert!(arena.try_take(4 * MIB, Reservation::Fetch).is_none());
    }

    #[test]
    fn sizes_waste_less_than_a_half() {
        for bytes in [0, 1, 4096, 4097, 8193, 12289, 100_000, MIB, MIB + 1, 5 * MIB] {
            let capacity = round_up(bytes);
            assert!(capacity >= bytes && capacity.is_multiple_of(PAGE));
            assert!(
                capacity <= (bytes + bytes / 2).max(PAGE).next_multiple_of(PAGE),
                "{bytes} -> {capacity}"
            );
        }
    }

    #[test]
    fn slice_ref_finds_its_place() {
        let slice = Slice::from(vec![1, 2, 3, 4, 5]).slice(1..5);
        let part = slice.slice_ref(&slice[1..3]);
        assert_eq!(&*part, &[3, 4]);
    }

    #[test]
    #[should_panic(expected = "the part")]
    fn slice_ref_refuses_foreign_bytes() {
        let slice = Slice::from(vec![1, 2, 3]);
        let other = [1_u8, 2, 3];
        let _ = slice.slice_ref(&other);
    }
}
