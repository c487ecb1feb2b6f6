//! The folder that will hold the logs: its file system, whether and how it does direct I/O, whether the device has a
//! volatile write cache, and the free space.
//!
//! Direct I/O is tried by writing, syncing and reading back a small file; what `statx` says is only kept beside it,
//! since kernels before 6.1 say nothing and some network file systems promise what they do not hold.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags};
use serde::Serialize;

use crate::machine::text;

/// The engine writes in multiples of this at addresses aligned to this; a device that needs more cannot be used
/// with direct I/O.
pub const DIRECT_ALIGN_MAX: usize = 4096;
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Direct {
    /// Works at this alignment of length and position.
    Works {
        align_bytes: usize,
    },
    Refused {
        error: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteCache {
    /// A flush costs a trip to the media; power loss drops what was not flushed.
    Volatile,
    /// The device says it has none that power loss could empty.
    WriteThrough,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSystem {
    pub name: String,
    /// From statfs; 0 when the name came from elsewhere.
    pub magic: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    pub folder: PathBuf,
    pub file_system: FileSystem,
    /// Name below /sys/block, where the folder is on a block device of its own.
    pub device: Option<String>,
    pub rotational: Option<bool>,
    pub write_cache: WriteCache,
    pub direct: Direct,
    /// What statx reports (memory, offset), since kernel 6.1.
    pub direct_align_reported: Option<(u32, u32)>,
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// Looks at an existing folder. Writes, syncs, reads and removes one file of 4 KiB in it.
pub fn probe_disk(root: &Path, folder: &Path) -> io::Result<Disk> {
    let space = rustix::fs::statvfs(folder)?;
    let magic = u64::try_from(rustix::fs::statfs(folder)?.f_type).unwrap_or(0);
    let device = block_device(root, folder)?;
    let queue =
        |file: &str| device.as_ref().and_then(|name| text(root, &format!("sys/block/{name}/queue/{file}")));
    Ok(Disk {
        folder: folder.to_path_buf(),
        file_system: FileSystem { name: file_system_name(magic), magic },
        rotational: queue("rotational").map(|value| value == "1"),
        write_cache: write_cache(queue("write_cache").as_deref()),
        direct: try_direct(folder)?,
        direct_align_reported: reported_align(folder),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
        device,
    })
}

fn write_cache(queue: Option<&str>) -> WriteCache {
    match queue {
        Some("write back") => WriteCache::Volatile,
        Some("write through") => WriteCache::WriteThrough,
        Some(_) | None => WriteCache::Unknown,
    }
}

/// The disk that holds the folder: the link below /sys/dev/block leads to the device, or to a partition inside it.
fn block_device(root: &Path, folder: &Path) -> io::Result<Option<String>> {
    let device = rustix::fs::stat(folder)?.st_dev;
    let link = format!("sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(target) = std::fs::canonicalize(root.join(link)) else { return Ok(None) };
    let disk = if target.join("partition").exists() { target.parent() } else { Some(target.as_path()) };
    Ok(disk.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()))
}

fn reported_align(folder: &Path) -> Option<(u32, u32)> {
    let probe = ProbeFile::create(folder).ok()?;
    let stat = rustix::fs::statx(CWD, &probe.path, AtFlags::empty(), StatxFlags::DIOALIGN).ok()?;
    (stat.stx_dio_mem_align > 0).then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// An error means that the folder cannot be written at all; a refusal of direct I/O is an answer.
fn try_direct(folder: &Path) -> io::Result<Direct> {
    let probe = ProbeFile::create(folder)?;
    let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(&probe.path) {
        Ok(file) => file,
        Err(error) => return Ok(Direct::Refused { error: error.to_string() }),
    };
    let mut refused = None;
    for align_bytes in [SECTOR_BYTES, DIRECT_ALIGN_MAX] {
        match round_trip(&file, align_bytes) {
            Ok(()) => return Ok(Direct::Works { align_bytes }),
            Err(error) => refused = Some(error.to_string()),
        }
    }
    Ok(Direct::Refused { error: refused.unwrap_or_default() })
}

fn round_trip(file: &File, align_bytes: usize) -> io::Result<()> {
    // The middle of the pattern must come back from the position it was written to, in a buffer that is aligned no
    // better than asked for.
    let mut memory = vec![0u8; 2 * DIRECT_ALIGN_MAX + align_bytes];
    let start = memory.as_ptr().align_offset(DIRECT_ALIGN_MAX);
    let buffer = memory.get_mut(start..start + align_bytes).ok_or(io::ErrorKind::OutOfMemory)?;
    buffer.fill(0xC5);
    let position = u64::try_from(align_bytes).map_err(io::Error::other)?;
    file.write_all_at(buffer, position)?;
    file.sync_data()?;
    buffer.fill(0);
    file.read_exact_at(buffer, position)?;
    if buffer.iter().all(|byte| *byte == 0xC5) {
        Ok(())
    } else {
        Err(io::Error::other("bytes read back differ from those written"))
    }
}

/// A file that goes when the probe ends, whatever its outcome.
struct ProbeFile {
    path: PathBuf,
}

impl ProbeFile {
    fn create(folder: &Path) -> io::Result<ProbeFile> {
        let path =
            folder.join(format!(".corelog-probe-{}-{:?}", std::process::id(), std::thread::current().id()));
        File::create(&path)?.set_len(4 * DIRECT_ALIGN_MAX as u64)?;
        Ok(ProbeFile { path })
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        // A leftover of 16 KiB under a hidden name harms nobody; the next probe's result matters more.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn file_system_name(magic: u64) -> String {
    let known = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x2fc1_2fc1, "zfs"),
        (0x0102_1994, "tmpfs"),
        (0x8584_58f6, "ramfs"),
        (0x794c_7630, "overlayfs"),
        (0x6969, "nfs"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x6573_5546, "fuse"),
        (0xf2f5_2010, "f2fs"),
        (0x0102_1997, "9p"),
    ];
    known
        .into_iter()
        .find(|(number, _)| *number == magic)
        .map_or_else(|| format!("unknown (magic {magic:#x})"), |(_, name)| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_caches_are_told_apart() {
        let check = |text, expect| assert_eq!(write_cache(text), expect, "{text:?}");
        check(Some("write back"), WriteCache::Volatile);
        check(Some("write through"), WriteCache::WriteThrough);
        check(Some("something new"), WriteCache::Unknown);
        check(None, WriteCache::Unknown);
    }

    #[test]
    fn a_folder_is_probed_and_left_clean() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = probe_disk(Path::new("/"), folder.path()).expect("the folder can be written");
        assert!(disk.total_bytes >= disk.free_bytes);
        assert!(!disk.file_system.name.is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(probe_disk(Path::new("/"), &folder.path().join("none")).is_err());
    }
}
