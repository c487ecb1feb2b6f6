//! One simulated file: what a reader sees now, what would be there after a power cut, and which 512-byte sectors
//! differ. Pages that were never written are holes and read as zeros.

use crate::core::splitmix;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub(super) const PAGE: u64 = 4096;
const SECTOR: usize = 512;
const SECTORS_PER_PAGE: usize = 8;

type Page = Box<[u8; PAGE as usize]>;

#[derive(Clone, Default)]
struct Content {
    pages: BTreeMap<u64, Page>,
    len: u64,
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    now: Content,
    durable: Content,
    /// Per page, a bit for each sector whose content is not durable.
    dirty: BTreeMap<u64, u8>,
    allocated: BTreeSet<u64>,
}

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    Nothing,
    Everything,
    /// Any subset, drawn from the seed.
    Random,
}

impl Keep {
    pub(super) fn draw(self, random: &mut u64) -> bool {
        match self {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Random => splitmix(random) & 1 == 1,
        }
    }
}

/// The pages of a byte range, each with the part of it inside the range.
fn parts(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let pages = range.start / PAGE..range.end.div_ceil(PAGE);
    pages.map(move |page| {
        let base = page * PAGE;
        let from = range.start.max(base) - base;
        let to = range.end.min(base + PAGE) - base;
        (page, index(from)..index(to))
    })
}

fn index(within_page: u64) -> usize {
    usize::try_from(within_page).expect("at most a page")
}

impl Content {
    fn page(&mut self, page: u64) -> &mut Page {
        self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]))
    }

    /// Cuts to the length; what lies behind it is gone.
    fn cut(&mut self) {
        let len = self.len;
        self.pages.retain(|page, _| page * PAGE < len);
        if !len.is_multiple_of(PAGE)
            && let Some(last) = self.pages.get_mut(&(len / PAGE))
        {
            last[index(len % PAGE)..].fill(0);
        }
    }
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.now.len
    }

    pub(super) fn allocated_pages(&self) -> u64 {
        self.allocated.len() as u64
    }

    /// The file is unlinked: how many pages that frees.
    pub(super) fn release(&mut self) -> u64 {
        std::mem::take(&mut self.allocated).len() as u64
    }

    /// Pages this range would newly occupy.
    pub(super) fn pages_missing(&self, range: &Range<u64>) -> u64 {
        parts(range.clone()).filter(|(page, _)| !self.allocated.contains(page)).count() as u64
    }

    pub(super) fn read(&self, pos: u64, into: &mut [u8]) -> usize {
        let end = self.now.len.min(pos.saturating_add(into.len() as u64));
        let mut count = 0;
        if pos < end {
            for (page, within) in parts(pos..end) {
                let out = &mut into[count..count + within.len()];
                count += within.len();
                match self.now.pages.get(&page) {
                    Some(bytes) => out.copy_from_slice(&bytes[within]),
                    None => out.fill(0),
                }
            }
        }
        count
    }

    pub(super) fn write(&mut self, pos: u64, bytes: &[u8]) {
        let end = pos + bytes.len() as u64;
        let mut rest = bytes;
        for (page, within) in parts(pos..end) {
            let (now, later) = rest.split_at(within.len());
            rest = later;
            self.now.page(page)[within.clone()].copy_from_slice(now);
            self.mark(page, within);
        }
        self.now.len = self.now.len.max(end);
    }

    pub(super) fn allocate(&mut self, range: Range<u64>) {
        self.now.len = self.now.len.max(range.end);
        self.allocated.extend(parts(range).map(|(page, _)| page));
    }

    pub(super) fn zero(&mut self, range: Range<u64>) {
        for (page, within) in parts(range.clone()) {
            if self.now.pages.contains_key(&page) || self.durable.pages.contains_key(&page) {
                self.now.page(page)[within.clone()].fill(0);
                self.mark(page, within);
            }
        }
        self.now.len = self.now.len.max(range.end);
    }

    pub(super) fn truncate(&mut self, len: u64) {
        if len < self.now.len {
            let end = self.now.len.max(self.durable.len).next_multiple_of(PAGE);
            let (before, mut allocated) = (self.now.len, self.allocated.clone());
            self.zero(len..end);
            self.now.len = before;
            // Nothing is allocated here, also where the file was unlinked and holds nothing any more.
            allocated.retain(|page| page * PAGE < len);
            self.allocated = allocated;
        }
        self.now.len = len;
        self.now.cut();
    }

    pub(super) fn sync_range(&mut self, range: Range<u64>) {
        for (page, within) in parts(range.clone()) {
            let sectors = within.start / SECTOR..within.end.div_ceil(SECTOR);
            self.make_durable(page, sectors.fold(0, |mask, s| mask | 1 << s));
        }
        self.durable.len = self.durable.len.max(self.now.len.min(range.end));
    }

    pub(super) fn sync_all(&mut self) {
        let pages: Vec<u64> = self.dirty.keys().copied().collect();
        pages.into_iter().for_each(|page| self.make_durable(page, u8::MAX));
        self.durable.len = self.now.len;
    }

    /// A power cut. `sector_bytes`: the unit that is lost or kept as a whole, 512 or 4096.
    pub(super) fn crash(&mut self, random: &mut u64, keep: Keep, sector_bytes: u64) {
        let dirty: Vec<(u64, u8)> = self.dirty.iter().map(|(page, mask)| (*page, *mask)).collect();
        for (page, mask) in dirty {
            let mut kept = 0;
            if sector_bytes >= PAGE {
                kept = if keep.draw(random) { u8::MAX } else { 0 };
            } else {
                for sector in 0..SECTORS_PER_PAGE {
                    kept |= u8::from(keep.draw(random)) << sector;
                }
            }
            self.make_durable(page, mask & kept);
        }
        if keep.draw(random) {
            self.durable.len = self.now.len;
        }
        self.durable.cut();
        self.now = self.durable.clone();
        self.dirty.clear();
        self.allocated = self.now.pages.keys().copied().collect();
    }

    pub(super) fn flip_bit(&mut self, bit: u64) {
        let pos = bit / 8;
        assert!(pos < self.now.len, "the bit lies behind the end");
        let mask = 1_u8 << (bit % 8);
        self.now.page(pos / PAGE)[index(pos % PAGE)] ^= mask;
        self.durable.page(pos / PAGE)[index(pos % PAGE)] ^= mask;
    }

    fn mark(&mut self, page: u64, within: Range<usize>) {
        let sectors = within.start / SECTOR..within.end.div_ceil(SECTOR);
        *self.dirty.entry(page).or_default() |= sectors.fold(0, |mask, s| mask | 1 << s);
        self.allocated.insert(page);
    }

    fn make_durable(&mut self, page: u64, mask: u8) {
        let Some(dirty) = self.dirty.get_mut(&page) else { return };
        let moved = *dirty & mask;
        *dirty &= !mask;
        if *dirty == 0 {
            self.dirty.remove(&page);
        }
        if moved == 0 {
            return;
        }
        let zeros = [0; PAGE as usize];
        let from: &[u8; PAGE as usize] = self.now.pages.get(&page).map_or(&zeros, |p| p);
        let to = self.durable.page(page);
        for sector in (0..SECTORS_PER_PAGE).filter(|s| moved & (1 << s) != 0) {
            let bytes = sector * SECTOR..(sector + 1) * SECTOR;
            to[bytes.clone()].copy_from_slice(&from[bytes]);
        }
    }
}
