//! Files as operations: positioned reads and writes, syncs, space. Paths and space are helper-thread work under the
//! real drivers (rename and fallocate take milliseconds), reads and writes go to the device queue.

use crate::buf::{BufMut, Reservation, Slice};
use crate::core::Core;
use crate::op::{Back, Handle, NO_DATA, Op, Value};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// What direct I/O asks of addresses, positions and lengths.
pub const DIRECT_ALIGNMENT: usize = 4096;
/// A write that cannot go on after a short one must have stopped at a sector.
const SECTOR_BYTES: usize = 512;
/// Reads of one place that brought less than a block, before it is an error.
const SHORT_READS_MAX: u32 = 16;
/// Slices in one vectored operation (the kernel's IOV_MAX).
pub(crate) const VECTORS_MAX: usize = 1024;
/// The most that one slice of [`zeros`] has.
pub const ZEROS_BYTES_MAX: usize = 64 << 10;

#[repr(align(4096))]
struct Zeros([u8; ZEROS_BYTES_MAX]);
static ZEROS: Zeros = Zeros([0; ZEROS_BYTES_MAX]);

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Open {
    pub read: bool,
    pub write: bool,
    pub create: bool,
    pub create_new: bool,
    /// O_DIRECT: buffers, positions and lengths must be aligned.
    pub direct: bool,
}

impl Open {
    pub const fn read() -> Open {
        Open { read: true, write: false, create: false, create_new: false, direct: false }
    }

    /// Reading and writing.
    pub const fn write() -> Open {
        Open { read: true, write: true, create: false, create_new: false, direct: false }
    }

    pub const fn create(self) -> Open {
        Open { create: true, ..self }
    }

    /// Fails when the file is there.
    pub const fn create_new(self) -> Open {
        Open { create_new: true, ..self }
    }

    pub const fn direct(self) -> Open {
        Open { direct: true, ..self }
    }
}

/// What a completed write means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// The device has it, or its cache.
    None,
    /// It is on stable media (RWF_DSYNC).
    Data,
}

#[derive(Clone, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct DirEntry {
    pub name: OsString,
    pub is_dir: bool,
    pub len: u64,
}

/// An open file. Clone is a counter; the last one dropped closes it.
#[derive(Clone)]
pub struct File {
    core: Core,
    handle: Handle,
}

/// An exclusive lock on a file, until dropped.
pub struct LockGuard {
    _handle: Handle,
}

impl Core {
    pub async fn open(&self, path: impl Into<PathBuf>, how: Open) -> io::Result<File> {
        let handle = self.handle(Op::Open { path: path.into(), how }).await?;
        Ok(File { core: self.clone(), handle })
    }

    pub async fn create_dir_all(&self, path: impl Into<PathBuf>) -> io::Result<()> {
        self.unit(Op::CreateDirAll { path: path.into() }).await
    }

    /// Replaces `to`. Durable only after both directories were synced.
    pub async fn rename(&self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> io::Result<()> {
        self.unit(Op::Rename { from: from.into(), to: to.into() }).await
    }

    pub async fn unlink(&self, path: impl Into<PathBuf>) -> io::Result<()> {
        self.unit(Op::Unlink { path: path.into() }).await
    }

    pub async fn remove_dir_all(&self, path: impl Into<PathBuf>) -> io::Result<()> {
        self.unit(Op::RemoveDirAll { path: path.into() }).await
    }

    /// Makes the names in a directory durable.
    pub async fn sync_dir(&self, path: impl Into<PathBuf>) -> io::Result<()> {
        self.unit(Op::SyncDir { path: path.into() }).await
    }

    /// In name order.
    pub async fn list_dir(&self, path: impl Into<PathBuf>) -> io::Result<Vec<DirEntry>> {
        match self.value(Op::ListDir { path: path.into() }).await? {
            Value::Entries(mut entries) => {
                entries.sort();
                Ok(entries)
            }
            _other => unreachable!("a listing brings entries"),
        }
    }

    /// What an unprivileged writer may still fill.
    pub async fn free_bytes(&self, path: impl Into<PathBuf>) -> io::Result<u64> {
        self.length(Op::FreeBytes { path: path.into() }).await
    }

    /// Creates the file if need be; `WouldBlock` when another process, or another guard, holds it.
    pub async fn lock_file(&self, path: impl Into<PathBuf>) -> io::Result<LockGuard> {
        let handle = self.handle(Op::Lock { path: path.into() }).await?;
        Ok(LockGuard { _handle: handle })
    }
}

impl File {
    /// Reads into the whole of `buf`; may be short, 0 at the end of the file.
    pub async fn read_at(&self, buf: BufMut, pos: u64) -> (io::Result<usize>, BufMut) {
        let done = self.core.run(Op::Read { file: self.handle.clone(), buf, pos }).await;
        match (done.result, done.back) {
            (Ok(Value::Count(n)), Back::Buf(buf)) => (Ok(n), buf),
            (Err(e), Back::Buf(buf)) => (Err(e), buf),
            _other => unreachable!("a read brings a count and its buffer"),
        }
    }

    /// Reads `bytes` at `start`, both aligned for direct I/O; fewer only where the file ends. A read that came short is
    /// continued from its last whole block.
    pub async fn read_exactly(&self, start: u64, bytes: usize, r: Reservation) -> io::Result<Slice> {
        if bytes > self.core.buffers().largest(r) {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, format!("a read of {bytes} bytes")));
        }
        let buf = self.core.buffers().take(bytes, r).await;
        self.read_into(buf, start, bytes, r).await
    }

    /// The same into memory that the caller took. A read that came short takes more, and its bytes are copied.
    pub async fn read_into(
        &self,
        buf: BufMut,
        start: u64,
        bytes: usize,
        r: Reservation,
    ) -> io::Result<Slice> {
        let (read, buf) = self.read_at(buf, start).await;
        let read = read?.min(bytes);
        if read == bytes {
            return Ok(buf.freeze(0..bytes));
        }
        let whole = buf[..read].to_vec();
        drop(buf);
        self.read_on(start, bytes, whole, r).await.map(Slice::from)
    }

    async fn read_on(
        &self,
        start: u64,
        bytes: usize,
        mut whole: Vec<u8>,
        r: Reservation,
    ) -> io::Result<Vec<u8>> {
        let end = self.len().await?.saturating_sub(start);
        let wanted = bytes.min(usize::try_from(end).unwrap_or(bytes));
        let mut tries = 0;
        while whole.len() < wanted {
            tries += 1;
            if tries > SHORT_READS_MAX {
                let why = format!("reads at {start} stop after {} of {wanted} bytes", whole.len());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            whole.truncate(whole.len() / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT);
            let missing = bytes - whole.len();
            let buf = self.core.buffers().take(missing, r).await;
            let at = start + u64::try_from(whole.len()).expect("a count of bytes fits");
            let (read, buf) = self.read_at(buf, at).await;
            let read = read?.min(missing);
            tries = if read >= DIRECT_ALIGNMENT { 0 } else { tries };
            whole.extend_from_slice(&buf[..read]);
        }
        Ok(whole)
    }

    /// Writes all bytes. A short write is continued where it stopped, if that is at a sector; else it is an error.
    pub async fn write_at(&self, data: Vec<Slice>, pos: u64, sync: Sync) -> io::Result<()> {
        let mut at = pos;
        let mut rest = data;
        rest.retain(|s| !s.is_empty());
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(VECTORS_MAX));
            let (written, mut now) = self.write_some(rest, at, sync).await?;
            at += u64::try_from(written).expect("a count of bytes fits");
            skip(&mut now, written);
            if !now.is_empty() && (written == 0 || written % SECTOR_BYTES != 0) {
                let why = format!("a write stopped after {written} bytes and cannot be continued aligned");
                return Err(io::Error::new(io::ErrorKind::WriteZero, why));
            }
            now.extend(later);
            rest = now;
        }
        Ok(())
    }

    async fn write_some(&self, data: Vec<Slice>, pos: u64, sync: Sync) -> io::Result<(usize, Vec<Slice>)> {
        let done = self.core.run(Op::Write { file: self.handle.clone(), data, pos, sync }).await;
        match (done.result?, done.back) {
            (Value::Count(n), Back::Data(data)) => Ok((n, data)),
            _other => unreachable!("a write brings a count and its slices"),
        }
    }

    pub async fn sync_data(&self) -> io::Result<()> {
        self.core.unit(Op::Fsync { file: self.handle.clone(), data_only: true }).await
    }

    pub async fn sync_all(&self) -> io::Result<()> {
        self.core.unit(Op::Fsync { file: self.handle.clone(), data_only: false }).await
    }

    /// Reserves blocks and extends the length.
    pub async fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.core.unit(Op::Allocate { file: self.handle.clone(), range }).await
    }

    /// Makes the range zeros, extending the length; not durable before a sync.
    pub async fn zero_range(&self, range: Range<u64>) -> io::Result<()> {
        let asked = self.core.unit(Op::Zero { file: self.handle.clone(), range: range.clone() }).await;
        match asked {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => self.write_zeros(range).await,
            other => other,
        }
    }

    async fn write_zeros(&self, range: Range<u64>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let bytes = (range.end - at).min(ZEROS_BYTES_MAX as u64);
            let count = usize::try_from(bytes).expect("at most ZEROS_BYTES_MAX");
            self.write_at(vec![zeros(count)], at, Sync::None).await?;
            at += bytes;
        }
        Ok(())
    }

    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        self.core.unit(Op::Truncate { file: self.handle.clone(), len }).await
    }

    pub async fn len(&self) -> io::Result<u64> {
        self.core.length(Op::Len { file: self.handle.clone() }).await
    }

    /// The first position at or behind `from` that may hold anything but zeros; `None` if all of the rest are zeros.
    /// Space that was allocated and never written is passed over without being read.
    pub async fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        let found = self.core.length(Op::NextData { file: self.handle.clone(), from }).await?;
        Ok((found != NO_DATA).then_some(found))
    }

    /// Lets go of it. The descriptor closes when no clone and no operation holds it.
    pub async fn close(self) -> io::Result<()> {
        Ok(())
    }
}

/// Up to [`ZEROS_BYTES_MAX`] zeros, aligned for direct I/O, without taking memory.
pub fn zeros(bytes: usize) -> Slice {
    Slice::from_static(&ZEROS.0).slice(0..bytes)
}

/// Drops the first `count` bytes.
pub(crate) fn skip(data: &mut Vec<Slice>, count: usize) {
    let mut left = count;
    let mut whole = 0;
    for slice in data.iter() {
        if slice.len() > left {
            break;
        }
        left -= slice.len();
        whole += 1;
    }
    data.drain(..whole);
    if left > 0 {
        let first = data.first_mut().expect("fewer bytes were written than given");
        *first = first.slice(left..first.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipping_goes_through_slices() {
        let check = |count: usize, expect: &[u8]| {
            let mut data = vec![Slice::from(vec![1, 2, 3]), Slice::from(vec![4]), Slice::from(vec![5, 6])];
            skip(&mut data, count);
            assert_eq!(data.iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>(), expect, "{count}");
        };
        check(0, &[1, 2, 3, 4, 5, 6]);
        check(2, &[3, 4, 5, 6]);
        check(3, &[4, 5, 6]);
        check(5, &[6]);
        check(6, &[]);
    }
}
