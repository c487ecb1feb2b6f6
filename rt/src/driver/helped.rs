//! File work that the real drivers give to helper threads: everything that takes a path, and what changes a file's
//! space. Each is a plain blocking call; a dropped future does not stop it.

use crate::file::{DirEntry, Open};
use crate::offload::Length;
use crate::op::{Handle, HelperValue, NO_DATA, Op};
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use std::io;
use std::mem::take;
use std::os::fd::OwnedFd;
use std::path::Path;

pub(crate) type Call = Box<dyn FnOnce() -> io::Result<HelperValue> + Send>;

/// The blocking call for this operation, without what must stay on the core. `None`: not helper work.
pub(crate) fn call_for(op: &mut Op) -> Option<Call> {
    Some(match op {
        Op::Open { path, how } => {
            let (path, how) = (take(path), *how);
            Box::new(move || open(&path, how).map(HelperValue::Fd))
        }
        Op::CreateDirAll { path } => on_path(path, |path| std::fs::create_dir_all(path)),
        Op::Unlink { path } => on_path(path, |path| std::fs::remove_file(path)),
        Op::RemoveDirAll { path } => on_path(path, |path| std::fs::remove_dir_all(path)),
        Op::SyncDir { path } => on_path(path, |path| std::fs::File::open(path)?.sync_all()),
        Op::Rename { from, to } => {
            let (from, to) = (take(from), take(to));
            unit(move || std::fs::rename(&from, &to))
        }
        Op::ListDir { path } => {
            let path = take(path);
            Box::new(move || list(&path).map(HelperValue::Entries))
        }
        Op::FreeBytes { path } => {
            let path = take(path);
            Box::new(move || {
                let space = rustix::fs::statvfs(&path)?;
                Ok(HelperValue::Len(space.f_bavail.saturating_mul(space.f_frsize)))
            })
        }
        Op::Lock { path } => {
            let path = take(path);
            Box::new(move || lock(&path).map(HelperValue::Fd))
        }
        Op::Allocate { file, range } => space(file, FallocateFlags::empty(), range.clone()),
        Op::Zero { file, range } => space(file, FallocateFlags::ZERO_RANGE, range.clone()),
        Op::Truncate { file, len } => {
            let (fd, len) = (file.fd().clone(), *len);
            unit(move || Ok(rustix::fs::ftruncate(&fd, len)?))
        }
        Op::Len { file } => {
            let fd = file.fd().clone();
            Box::new(move || {
                let stat = rustix::fs::fstat(&fd)?;
                Ok(HelperValue::Len(u64::try_from(stat.st_size).unwrap_or(0)))
            })
        }
        Op::NextData { file, from } => {
            let (fd, from) = (file.fd().clone(), *from);
            Box::new(move || next_data(&fd, from).map(HelperValue::Len))
        }
        Op::Offload { job } => {
            let job = std::mem::replace(job, Box::new(|| ()));
            unit(move || {
                job();
                Ok(())
            })
        }
        Op::Read { .. }
        | Op::Write { .. }
        | Op::Fsync { .. }
        | Op::Listen { .. }
        | Op::Accept { .. }
        | Op::Connect { .. }
        | Op::Recv { .. }
        | Op::Send { .. } => return None,
    })
}

/// How long the call may be expected to take.
pub(crate) fn length(op: &Op) -> Length {
    match op {
        Op::Unlink { .. } | Op::RemoveDirAll { .. } => Length::Long,
        _short => Length::Short,
    }
}

fn unit(f: impl FnOnce() -> io::Result<()> + Send + 'static) -> Call {
    Box::new(move || f().map(|()| HelperValue::Unit))
}

fn on_path(path: &mut std::path::PathBuf, f: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) -> Call {
    let path = take(path);
    unit(move || f(&path))
}

fn space(file: &Handle, flags: FallocateFlags, range: std::ops::Range<u64>) -> Call {
    let fd = file.fd().clone();
    unit(move || {
        let len = range.end.saturating_sub(range.start);
        if len == 0 {
            return Ok(());
        }
        Ok(rustix::fs::fallocate(&fd, flags, range.start, len)?)
    })
}

fn open(path: &Path, how: Open) -> io::Result<OwnedFd> {
    let mut flags = OFlags::CLOEXEC;
    flags |= match (how.read, how.write) {
        (_, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
    };
    if how.create || how.create_new {
        flags |= OFlags::CREATE;
    }
    if how.create_new {
        flags |= OFlags::EXCL;
    }
    if how.direct {
        flags |= OFlags::DIRECT;
    }
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644));
    fd.map_err(|e| explain_open(e.into(), path, how))
}

fn explain_open(e: io::Error, path: &Path, how: Open) -> io::Error {
    if how.direct && e.raw_os_error() == Some(libc::EINVAL) {
        let path = path.display();
        let text =
            format!("{path}: this file system refuses O_DIRECT; put the data folder on ext4 or XFS ({e})");
        return io::Error::new(io::ErrorKind::Unsupported, text);
    }
    e
}

fn lock(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::CLOEXEC | OFlags::RDWR | OFlags::CREATE;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    Ok(fd)
}

fn next_data(fd: &OwnedFd, from: u64) -> io::Result<u64> {
    use rustix::fs::SeekFrom;
    match rustix::fs::seek(fd, SeekFrom::Data(from)) {
        Ok(at) => Ok(at),
        Err(rustix::io::Errno::NXIO) => Ok(NO_DATA),
        // A file system that keeps no account of holes: everything is to be looked at.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(from),
        Err(error) => Err(error.into()),
    }
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            // Removed between the listing and the look.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        entries.push(DirEntry { name: entry.file_name(), is_dir: meta.is_dir(), len: meta.len() });
    }
    Ok(entries)
}
