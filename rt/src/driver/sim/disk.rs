//! The simulated disk. It outlives the process: after a crash it is handed to the next `Sim`.
//!
//! Faults: a write that is torn, lost or misdirected; content, names, lengths that were not synced lost in any subset
//! at a power cut; a flipped bit; a full disk; an error of any operation. Writes in flight at the cut may have reached
//! any of their sectors. A write with `Sync::Data` makes its own range durable, and the length it needs, nothing else.

pub use super::inode::Keep;
use super::inode::{Inode, PAGE};
use super::names::{Entry, InodeId, Names};
use crate::file::{DirEntry, Open, Sync};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Kinds of operations that a fault can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    Open,
    Read,
    Write,
    Sync,
    Allocate,
    Truncate,
    Names,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The operation fails with this errno and changes nothing.
    Error(i32),
    /// The first so many bytes are written, then the operation says so.
    ShortWrite(usize),
    /// No more than so many bytes are read.
    ShortRead(usize),
    /// The operation fails with EIO after its first so many bytes were written.
    TornWrite(usize),
    /// The device says done, and nothing was written.
    LostWrite,
    /// The device writes elsewhere in the same file, so many bytes further on.
    MisdirectedWrite(u64),
}

/// What dies, and what that leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashPlan {
    pub content: Keep,
    pub names: Keep,
    /// What is lost or kept as a whole: 512 or 4096.
    pub sector_bytes: u64,
    /// The host goes on: what was written is there, but no nearer to stable media than before, so that a later power cut
    /// may still take it.
    pub host_survives: bool,
}

impl CrashPlan {
    /// Only what was synced survives.
    pub const STRICT: CrashPlan =
        CrashPlan { content: Keep::Nothing, names: Keep::Nothing, sector_bytes: 512, host_survives: false };
    /// The processes die, the host does not.
    pub const KILLED: CrashPlan = CrashPlan {
        content: Keep::Everything,
        names: Keep::Everything,
        sector_bytes: 512,
        host_survives: true,
    };
    /// Any subset of what was not synced, by sectors.
    pub const RANDOM: CrashPlan =
        CrashPlan { content: Keep::Random, names: Keep::Random, ..CrashPlan::STRICT };
}

#[derive(Clone)]
struct InFlight {
    inode: InodeId,
    pos: u64,
    bytes: Vec<u8>,
}

#[derive(Clone, Default)]
struct State {
    names: Names,
    inodes: BTreeMap<InodeId, Inode>,
    inode_next: InodeId,
    locked: BTreeSet<InodeId>,
    in_flight: BTreeMap<u64, InFlight>,
    faults: Vec<(OpKind, Fault)>,
    free_pages: u64,
    ops: u64,
    crash_at: Option<u64>,
    crashed: bool,
}

/// Handle to the disk; clone is a counter.
#[derive(Clone)]
pub struct SimDisk(Rc<RefCell<State>>);

/// Everything on a disk at one moment.
#[derive(Clone)]
pub struct Snapshot(State);

const FREE_BYTES: u64 = 1 << 40;

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// Empty but for the durable folder `/data`; 1 TiB free.
    pub fn new() -> SimDisk {
        let mut state = State { free_pages: FREE_BYTES / PAGE, ..State::default() };
        state.names.add_durable(Path::new("/data"), Entry::Dir);
        SimDisk(Rc::new(RefCell::new(state)))
    }

    /// A power cut, or the death of the processes: what was not synced is lost by the plan, drawn from the seed.
    pub fn crash(&self, seed: u64, plan: CrashPlan) {
        let mut state = self.0.borrow_mut();
        let mut random = seed;
        for (_, write) in std::mem::take(&mut state.in_flight) {
            if let Some(inode) = state.inodes.get_mut(&write.inode) {
                cut_write(inode, &write, &mut random, plan);
            }
        }
        state.locked.clear();
        if !plan.host_survives {
            state.lose_what_was_not_synced(&mut random, plan);
        }
        state.crashed = false;
        state.crash_at = None;
    }

    /// The processes died with their locks and their writes in flight; the host goes on.
    pub fn kill(&self, seed: u64) {
        self.crash(seed, CrashPlan::KILLED);
    }

    /// Rots one bit, in cache and on media. `bit` counts from the start of the file.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) {
        let mut state = self.0.borrow_mut();
        let id = state.file(path.as_ref()).expect("the test names a file that is there");
        state.inode(id).flip_bit(bit);
    }

    /// The next operation of this kind meets the fault; several queue up.
    pub fn fail_next(&self, kind: OpKind, fault: Fault) {
        self.0.borrow_mut().faults.push((kind, fault));
    }

    pub fn set_free_bytes(&self, bytes: u64) {
        self.0.borrow_mut().free_pages = bytes / PAGE;
    }

    /// Operations so far that change the disk.
    pub fn op_count(&self) -> u64 {
        self.0.borrow().ops
    }

    /// The power goes when operation number `n` has just begun (compare `op_count`); `Sim::run` then ends.
    pub fn crash_at_op(&self, n: u64) {
        self.0.borrow_mut().crash_at = Some(n);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.0.borrow().clone())
    }

    pub fn restore(&self, snapshot: &Snapshot) {
        *self.0.borrow_mut() = snapshot.0.clone();
    }

    /// A file as a reader sees it.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let mut state = self.0.borrow_mut();
        let id = state.file(path.as_ref()).ok()?;
        let inode = state.inode(id);
        let mut bytes = vec![0; usize::try_from(inode.len()).expect("a simulated file fits in memory")];
        inode.read(0, &mut bytes);
        Some(bytes)
    }

    /// Puts a file there, durably, with its folders: what some earlier life, or nobody's, left.
    pub fn put(&self, path: impl AsRef<Path>, content: &[u8]) {
        let mut state = self.0.borrow_mut();
        let path = path.as_ref();
        for dir in path.ancestors().skip(1).filter(|dir| dir.parent().is_some()) {
            state.names.add_durable(dir, Entry::Dir);
        }
        state.inode_next += 1;
        let id = state.inode_next;
        let mut inode = Inode::default();
        inode.allocate(0..content.len() as u64);
        inode.write(0, content);
        inode.sync_all();
        state.inodes.insert(id, inode);
        state.names.add_durable(path, Entry::File(id));
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.borrow().names.files().map(|(path, _)| path.clone()).collect()
    }

    // For the world.

    pub(super) fn has_crashed(&self) -> bool {
        self.0.borrow().crashed
    }

    /// An operation that changes the disk begins.
    pub(super) fn count_op(&self) {
        let mut state = self.0.borrow_mut();
        state.ops += 1;
        if state.crash_at == Some(state.ops) {
            state.crashed = true;
        }
    }

    pub(super) fn fault(&self, kind: OpKind) -> Option<Fault> {
        let mut state = self.0.borrow_mut();
        let at = state.faults.iter().position(|(k, _)| *k == kind)?;
        Some(state.faults.remove(at).1)
    }

    pub(super) fn open(&self, path: &Path, how: Open) -> io::Result<InodeId> {
        let mut state = self.0.borrow_mut();
        match state.names.get(path) {
            Some(Entry::File(_)) if how.create_new => Err(errno(libc::EEXIST)),
            Some(Entry::File(id)) => Ok(id),
            Some(Entry::Dir) => Err(errno(libc::EISDIR)),
            None if how.create || how.create_new => {
                state.parent_is_there(path)?;
                state.inode_next += 1;
                let id = state.inode_next;
                state.inodes.insert(id, Inode::default());
                state.names.add(path, Entry::File(id));
                Ok(id)
            }
            None => Err(errno(libc::ENOENT)),
        }
    }

    pub(super) fn lock(&self, path: &Path) -> io::Result<InodeId> {
        let id = self.open(path, Open::write().create())?;
        if self.0.borrow_mut().locked.insert(id) { Ok(id) } else { Err(errno(libc::EWOULDBLOCK)) }
    }

    pub(super) fn unlock(&self, id: InodeId) {
        self.0.borrow_mut().locked.remove(&id);
    }

    pub(super) fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let mut missing = Vec::new();
        for dir in path.ancestors() {
            match state.names.get(dir) {
                Some(Entry::Dir) => break,
                Some(Entry::File(_)) => return Err(errno(libc::ENOTDIR)),
                None => missing.push(dir.to_path_buf()),
            }
        }
        missing.iter().rev().for_each(|dir| state.names.add(dir, Entry::Dir));
        Ok(())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.names.get(from).ok_or(errno(libc::ENOENT))?;
        state.parent_is_there(to)?;
        if from != to {
            if let Ok(replaced) = state.file(to) {
                state.give_back_space(replaced);
            }
            state.names.rename(from, to);
        }
        Ok(())
    }

    pub(super) fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let id = state.file(path)?;
        state.names.remove(path);
        state.give_back_space(id);
        Ok(())
    }

    pub(super) fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.dir(path)?;
        let files = state.names.files().filter(|(p, _)| p.starts_with(path));
        let ids: Vec<InodeId> = files.map(|(_, id)| id).collect();
        ids.into_iter().for_each(|id| state.give_back_space(id));
        let mut below = state.names.below(path);
        below.reverse();
        below.iter().for_each(|p| state.names.remove(p));
        Ok(())
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.dir(path)?;
        state.names.sync_dir(path);
        Ok(())
    }

    pub(super) fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.0.borrow_mut();
        state.dir(path)?;
        let children = state.names.children(path);
        let entry = |(path, entry): (PathBuf, Entry)| {
            let name = path.file_name().unwrap_or_default().to_os_string();
            match entry {
                Entry::Dir => DirEntry { name, is_dir: true, len: 0 },
                Entry::File(id) => DirEntry { name, is_dir: false, len: state.inode(id).len() },
            }
        };
        Ok(children.into_iter().map(entry).collect())
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.0.borrow().free_pages * PAGE
    }

    pub(super) fn len(&self, id: InodeId) -> u64 {
        self.0.borrow_mut().inode(id).len()
    }

    pub(super) fn read(&self, id: InodeId, pos: u64, into: &mut [u8]) -> usize {
        self.0.borrow_mut().inode(id).read(pos, into)
    }

    /// The write is on its way to the device: a power cut before `end_write` may leave any of its sectors.
    pub(super) fn begin_write(&self, number: u64, inode: InodeId, pos: u64, bytes: Vec<u8>) {
        self.0.borrow_mut().in_flight.insert(number, InFlight { inode, pos, bytes });
    }

    pub(super) fn end_write(&self, number: u64, sync: Sync, fault: Option<Fault>) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let mut write = state.in_flight.remove(&number).expect("begun before");
        match fault {
            Some(Fault::Error(code)) => return Err(errno(code)),
            Some(Fault::LostWrite) => return Ok(write.bytes.len()),
            Some(Fault::ShortWrite(bytes) | Fault::TornWrite(bytes)) => write.bytes.truncate(bytes),
            Some(Fault::MisdirectedWrite(by)) => write.pos += by,
            Some(Fault::ShortRead(_)) => panic!("this fault is for reads"),
            None => (),
        }
        let range = write.pos..write.pos + write.bytes.len() as u64;
        state.take_space(write.inode, &range)?;
        let inode = state.inode(write.inode);
        inode.write(write.pos, &write.bytes);
        if let Some(Fault::TornWrite(_)) = fault {
            return Err(errno(libc::EIO));
        }
        if sync == Sync::Data {
            inode.sync_range(range);
        }
        Ok(write.bytes.len())
    }

    pub(super) fn sync(&self, id: InodeId) {
        self.0.borrow_mut().inode(id).sync_all();
    }

    pub(super) fn allocate(&self, id: InodeId, range: Range<u64>) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.take_space(id, &range)?;
        state.inode(id).allocate(range);
        Ok(())
    }

    pub(super) fn zero(&self, id: InodeId, range: Range<u64>) -> io::Result<()> {
        self.allocate(id, range.clone())?;
        self.0.borrow_mut().inode(id).zero(range);
        Ok(())
    }

    pub(super) fn truncate(&self, id: InodeId, len: u64) {
        let mut state = self.0.borrow_mut();
        let inode = state.inode(id);
        let before = inode.allocated_pages();
        inode.truncate(len);
        let freed = before - inode.allocated_pages();
        state.free_pages += freed;
    }
}

impl State {
    fn lose_what_was_not_synced(&mut self, random: &mut u64, plan: CrashPlan) {
        self.names.crash(random, plan.names);
        let named: BTreeSet<InodeId> = self.names.files().map(|(_, id)| id).collect();
        self.inodes.retain(|id, _| named.contains(id));
        for inode in self.inodes.values_mut() {
            inode.crash(random, plan.content, plan.sector_bytes);
        }
    }

    fn inode(&mut self, id: InodeId) -> &mut Inode {
        self.inodes.entry(id).or_default()
    }

    fn file(&self, path: &Path) -> io::Result<InodeId> {
        match self.names.get(path) {
            Some(Entry::File(id)) => Ok(id),
            Some(Entry::Dir) => Err(errno(libc::EISDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Entry::Dir) => Ok(()),
            Some(Entry::File(_)) => Err(errno(libc::ENOTDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn parent_is_there(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.dir(parent))
    }

    /// At once, though a real file keeps its blocks until the last handle is gone.
    fn give_back_space(&mut self, id: InodeId) {
        self.free_pages += self.inode(id).release();
    }

    fn take_space(&mut self, id: InodeId, range: &Range<u64>) -> io::Result<()> {
        let needed = self.inode(id).pages_missing(range);
        match self.free_pages.checked_sub(needed) {
            Some(left) => {
                self.free_pages = left;
                Ok(())
            }
            None => Err(errno(libc::ENOSPC)),
        }
    }
}

/// Leaves some sectors of a write that was in flight, as unsynced content that `Inode::crash` decides about again.
fn cut_write(inode: &mut Inode, write: &InFlight, random: &mut u64, plan: CrashPlan) {
    let sector = usize::try_from(plan.sector_bytes).expect("512 or 4096");
    let mut pos = write.pos;
    for chunk in write.bytes.chunks(sector) {
        if plan.content.draw(random) {
            inode.write(pos, chunk);
        }
        pos += chunk.len() as u64;
    }
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}
