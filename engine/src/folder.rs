//! The data folder itself: which storage it is, which format it has, and that no other broker holds it.
//!
//! ```text
//! corelog: 0 magic "CLOGDATA"   8 format u32 = 2   12 crc32c of 16..32, u32   16 storage uuid, 16 bytes
//! ```
//! Integers are little endian. The storage uuid is made once and names this folder in the cluster (hazard A11): a copy
//! of a folder started beside the original is refused by the registration, a second process on it by the lock.

use crate::checkpoint::{self, Saved};
use crate::ids::PartitionId;
use crate::journal::{Journaled, Left, Settled};
use crate::names;
use rt::{Core, LockGuard, Open, Slice, Sync};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const IDENTITY_FILE: &str = "corelog";
const LOCK_FILE: &str = "lock";
const CLEAN_FILE: &str = "clean";
const JOURNAL_DIR: &str = "journal";
/// What the mark of a clean stop holds.
const CLEAN_MARK: &[u8] = b"clean";
/// What a folder may hold before it has an identity: what a first start that was cut off leaves, and mkfs.
const NAMES_BEFORE_IDENTITY: [&str; 8] =
    [IDENTITY_FILE, LOCK_FILE, CLEAN_FILE, "logs", "checkpoints", "journal", "raft", "lost+found"];
const MAGIC: &[u8; 8] = b"CLOGDATA";
/// From 2 on there may be journals, which an older Corelog would not look into.
const FORMAT: u32 = 2;
const IDENTITY_BYTES: usize = 32;

#[derive(Debug)]
pub enum FolderError {
    /// Another broker runs on it.
    Held {
        dir: PathBuf,
    },
    /// Written by a newer Corelog.
    Newer {
        dir: PathBuf,
        format: u32,
    },
    /// A journal in it was written by a newer Corelog.
    NewerJournal {
        path: PathBuf,
        version: u16,
    },
    /// It cannot be written to.
    ReadOnly {
        dir: PathBuf,
    },
    /// It holds something, and is no data folder.
    Foreign {
        dir: PathBuf,
        name: String,
    },
    /// Its file system has no direct I/O.
    NoDirectIo {
        dir: PathBuf,
    },
    /// Its identity is lost or cannot be read, though it holds logs.
    Damaged {
        path: PathBuf,
    },
    Io {
        path: PathBuf,
        error: io::Error,
    },
}

impl std::fmt::Display for FolderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FolderError::Held { dir } => write!(
                f,
                "the data folder {} is held by another broker; stop it, or give this one its own folder",
                dir.display()
            ),
            FolderError::Newer { dir, format } => write!(
                f,
                "the data folder {} has format {format}, this Corelog knows {FORMAT}; start the newer version",
                dir.display()
            ),
            FolderError::NewerJournal { path, version } => write!(
                f,
                "the journal {} has version {version}, which this Corelog does not know; start the newer version",
                path.display()
            ),
            FolderError::ReadOnly { dir } => write!(
                f,
                "the data folder {} cannot be written to; check its owner and whether it is mounted read-only",
                dir.display()
            ),
            FolderError::Foreign { dir, name } => write!(
                f,
                "{} is not a data folder of Corelog, and it is not empty: there is {name}; name an empty or a new folder",
                dir.display()
            ),
            FolderError::NoDirectIo { dir } => write!(
                f,
                "the file system of {} has no O_DIRECT; use ext4 or XFS on a local disk",
                dir.display()
            ),
            FolderError::Damaged { path } => write!(
                f,
                "{} is lost or damaged, and the folder holds logs; `corelog log repair` writes it anew, as the metadata log names it; \
                 or move the folder away to start an empty one",
                path.display()
            ),
            FolderError::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for FolderError {}

/// What the identity file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    Known([u8; 16]),
    Newer(u32),
    /// Missing or damaged.
    Unknown,
}

/// A data folder that this process holds, as every core may know it. The lock is beside it and stays on one core.
pub struct Folder {
    dir: PathBuf,
    uuid: [u8; 16],
    new: bool,
    clean_start: bool,
    sequence: u64,
    saved: HashMap<PartitionId, Saved>,
    notes: Vec<String>,
    /// Whether the disk is known to be full.
    full: AtomicBool,
    /// What earlier processes had in journals only.
    left: Mutex<Left>,
    /// Journals number their files, and each use of one.
    journal_generations: Arc<AtomicU64>,
}

/// What the checkpoints of all cores amount to.
#[derive(Default)]
struct Checkpoints {
    /// The highest in use.
    sequence: u64,
    /// The newest word on every partition.
    saved: HashMap<PartitionId, Saved>,
    notes: Vec<String>,
}

impl Folder {
    /// Takes the folder, making it if it is new, and reads every core's newest checkpoint. The mark of a clean stop is
    /// gone, durably, when this returns: nothing may be appended under it.
    pub async fn open(core: &Core, dir: &Path, random: u64) -> Result<(Folder, LockGuard), FolderError> {
        let taking = Taking { core, dir };
        taking.ours().await?;
        taking.directories().await?;
        let lock = taking.lock().await?;
        let (uuid, new) = taking.identity(random).await?;
        let clean_mark = taking.take_clean_mark().await.map_err(|error| taking.failed(CLEAN_FILE, error))?;
        let found = taking.checkpoints().await.map_err(|error| taking.failed("checkpoints", error))?;
        let Checkpoints { sequence, mut saved, mut notes } = found;
        if clean_mark == CleanMark::Damaged {
            notes.push(format!(
                "{} is damaged: the last stop counts as unclean, and the logs' ends were searched",
                dir.join(CLEAN_FILE).display()
            ));
        }
        let clean_start = clean_mark == CleanMark::Whole;
        if !clean_start {
            saved.values_mut().for_each(|saved| saved.clean = false);
        }
        let mut left = taking.journals(&saved).await?;
        notes.append(&mut left.notes);
        let folder = Folder {
            dir: dir.to_path_buf(),
            uuid,
            new,
            clean_start,
            sequence,
            saved,
            notes,
            full: AtomicBool::new(false),
            journal_generations: Arc::new(AtomicU64::new(left.generation_next)),
            left: Mutex::new(left),
        };
        folder.drop_settled_journals(core).await;
        Ok((folder, lock))
    }

    /// What the journals of a folder that no broker holds may have and its segments miss.
    pub(crate) async fn look_into_journals(core: &Core, dir: &Path) -> Result<Left, FolderError> {
        Left::read(core, &dir.join(JOURNAL_DIR), |_| true).await
    }

    /// Holds the folder without changing anything in it: for tools, on a stopped broker's.
    pub async fn hold(core: &Core, dir: &Path) -> Result<LockGuard, FolderError> {
        let path = dir.join("logs");
        core.list_dir(path.clone()).await.map_err(|error| FolderError::Io { path, error })?;
        Taking { core, dir }.lock().await
    }

    /// What the folder says of itself.
    pub async fn identify(core: &Core, dir: &Path) -> io::Result<Identity> {
        let file = match core.open(dir.join(IDENTITY_FILE), Open::read()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Identity::Unknown),
            opened => opened?,
        };
        Ok(match decode(&names::read_all(&file, 4096).await?) {
            Ok((uuid, _)) => Identity::Known(uuid),
            Err(Some(format)) => Identity::Newer(format),
            Err(None) => Identity::Unknown,
        })
    }

    /// Writes the identity of a folder whose own was damaged: the uuid is what its cluster knows it by.
    pub async fn restore_identity(core: &Core, dir: &Path, uuid: [u8; 16]) -> io::Result<()> {
        let path = dir.join(IDENTITY_FILE);
        let file = core.open(path, Open::write().create()).await?;
        let mut bytes = encode(uuid).to_vec();
        bytes.resize(4096, 0);
        file.write_at(vec![Slice::from(bytes)], 0, Sync::Data).await?;
        file.sync_all().await?;
        core.sync_dir(dir.to_path_buf()).await
    }

    /// What was found damaged and what was done, as sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Whether this process made it.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Whether the last process that held the folder closed everything.
    pub fn was_clean(&self) -> bool {
        self.clean_start
    }

    /// Notes that the disk is full, or that it is not any more. Whether that was news, on any core.
    pub fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::Relaxed) != full
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub fn logs_dir(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub fn checkpoints_dir(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    /// Where metadata's own log lives.
    pub fn raft_dir(&self) -> PathBuf {
        self.dir.join("raft")
    }

    pub(crate) fn checkpoint_path(&self, core: u16, slot: u64) -> PathBuf {
        self.checkpoints_dir().join(format!("core-{core}.{slot}"))
    }

    pub(crate) fn sequence_next(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn saved(&self, id: PartitionId) -> Option<Saved> {
        self.saved.get(&id).cloned()
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.dir.join(JOURNAL_DIR)
    }

    /// The next number of a journal's file, or of a use of one.
    pub(crate) fn journal_generations(&self) -> Arc<AtomicU64> {
        self.journal_generations.clone()
    }

    /// What earlier processes had of a partition in a journal, which its segments may miss.
    pub(crate) fn left_in_journals(&self, id: PartitionId) -> Vec<Journaled> {
        self.left().of(id)
    }

    /// The partition's segments have all of that, on stable media, or it was deleted.
    pub(crate) async fn settle_journals(&self, core: &Core, id: PartitionId) {
        self.left().settle(id);
        self.drop_settled_journals(core).await;
    }

    async fn drop_settled_journals(&self, core: &Core) {
        let settled = self.left().take_settled();
        for file in settled {
            let (path, done) = match file {
                Settled::Whole(path) => (path.clone(), core.unlink(path).await),
                Settled::Damaged(path) => {
                    let kept = path.with_extension(crate::repair::KEPT_SUFFIX);
                    (path.clone(), core.rename(path, kept).await)
                }
            };
            if let Err(error) = done {
                rt::say!("corelog: the journal {} is not needed and stays: {error}", path.display());
            }
        }
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After every core's store was closed: the next start trusts the checkpoints to the byte.
    pub async fn mark_clean(&self, core: &Core) -> io::Result<()> {
        let file = core.open(self.dir.join(CLEAN_FILE), Open::write().create()).await?;
        file.write_at(vec![Slice::from(CLEAN_MARK.to_vec())], 0, Sync::Data).await?;
        file.sync_all().await?;
        core.sync_dir(self.dir.clone()).await
    }
}

/// What the last stop left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CleanMark {
    Whole,
    Damaged,
    Missing,
}

struct Taking<'a> {
    core: &'a Core,
    dir: &'a Path,
}

impl Taking<'_> {
    fn failed(&self, name: &str, error: io::Error) -> FolderError {
        match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                FolderError::ReadOnly { dir: self.dir.to_path_buf() }
            }
            _ => FolderError::Io { path: self.dir.join(name), error },
        }
    }

    /// Refuses a folder that something else lives in, before anything is made there.
    async fn ours(&self) -> Result<(), FolderError> {
        let entries = match self.core.list_dir(self.dir.to_path_buf()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => listed.map_err(|error| self.failed("", error))?,
        };
        let known = |name: &std::ffi::OsStr| NAMES_BEFORE_IDENTITY.iter().any(|known| name == *known);
        let Some(foreign) = entries.iter().find(|entry| !known(&entry.name)) else { return Ok(()) };
        let identity = Folder::identify(self.core, self.dir).await;
        match identity.map_err(|error| self.failed(IDENTITY_FILE, error))? {
            Identity::Known(_) | Identity::Newer(_) => Ok(()),
            Identity::Unknown => Err(FolderError::Foreign {
                dir: self.dir.to_path_buf(),
                name: foreign.name.to_string_lossy().into_owned(),
            }),
        }
    }

    async fn directories(&self) -> Result<(), FolderError> {
        for name in ["logs", "checkpoints", JOURNAL_DIR, "raft"] {
            let made = self.core.create_dir_all(self.dir.join(name)).await;
            made.map_err(|error| self.failed(name, error))?;
        }
        self.core.sync_dir(self.dir.to_path_buf()).await.map_err(|error| self.failed("", error))?;
        match self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => {
                // A parent that may not be opened is not ours; then its owner made the folder durable.
                let _ = self.core.sync_dir(parent.to_path_buf()).await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn lock(&self) -> Result<LockGuard, FolderError> {
        match self.core.lock_file(self.dir.join(LOCK_FILE)).await {
            Ok(lock) => Ok(lock),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(FolderError::Held { dir: self.dir.to_path_buf() })
            }
            Err(error) => Err(self.failed(LOCK_FILE, error)),
        }
    }

    /// Which folder this is, and whether it became one just now.
    async fn identity(&self, random: u64) -> Result<([u8; 16], bool), FolderError> {
        let path = self.dir.join(IDENTITY_FILE);
        let opened = self.core.open(path.clone(), Open::write().create().direct()).await;
        let file = match opened {
            Ok(file) => file,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
            {
                return Err(FolderError::NoDirectIo { dir: self.dir.to_path_buf() });
            }
            Err(error) => return Err(self.failed(IDENTITY_FILE, error)),
        };
        let failed = |error| self.failed(IDENTITY_FILE, error);
        let bytes = names::read_all(&file, 4096).await.map_err(failed)?;
        match decode(&bytes) {
            Ok((uuid, format)) => {
                if format < FORMAT {
                    self.write_identity(&file, uuid).await.map_err(failed)?;
                }
                // It can be read, and a process that was killed while it wrote it may not have made it durable.
                file.sync_all().await.map_err(failed)?;
                self.core.sync_dir(self.dir.to_path_buf()).await.map_err(failed)?;
                return Ok((uuid, false));
            }
            Err(Some(format)) => return Err(FolderError::Newer { dir: self.dir.to_path_buf(), format }),
            Err(None) => {
                // Nothing is written to these before the identity is durable.
                for name in ["logs", "raft"] {
                    let entries = self.core.list_dir(self.dir.join(name)).await.map_err(failed)?;
                    if !entries.is_empty() {
                        return Err(FolderError::Damaged { path });
                    }
                }
            }
        }
        let uuid = self.make_uuid(random);
        self.write_identity(&file, uuid).await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        self.core.sync_dir(self.dir.to_path_buf()).await.map_err(failed)?;
        Ok((uuid, true))
    }

    /// One block: a crash leaves the old one or the new one.
    async fn write_identity(&self, file: &rt::File, uuid: [u8; 16]) -> io::Result<()> {
        let mut buf = self.core.buffers().take(4096, rt::Reservation::Control).await;
        buf.fill(0);
        buf[..IDENTITY_BYTES].copy_from_slice(&encode(uuid));
        file.write_at(vec![buf.freeze(0..4096)], 0, Sync::Data).await
    }

    fn make_uuid(&self, random: u64) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&self.core.random_u64().to_be_bytes());
        uuid[8..].copy_from_slice(&(self.core.random_u64() ^ random).to_be_bytes());
        // Version 4, variant 1.
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }

    async fn take_clean_mark(&self) -> io::Result<CleanMark> {
        let path = self.dir.join(CLEAN_FILE);
        let file = match self.core.open(path.clone(), Open::read()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(CleanMark::Missing),
            opened => opened?,
        };
        let content = names::read_all(&file, 4096).await?;
        drop(file);
        self.core.unlink(path).await?;
        self.core.sync_dir(self.dir.to_path_buf()).await?;
        Ok(if content == CLEAN_MARK { CleanMark::Whole } else { CleanMark::Damaged })
    }

    /// What journals have that segments may miss: neither what a checkpoint knows to be in a segment, nor what belonged to a
    /// partition that is gone.
    async fn journals(&self, saved: &HashMap<PartitionId, Saved>) -> Result<Left, FolderError> {
        let listed = self.core.list_dir(self.dir.join("logs")).await;
        let listed = listed.map_err(|error| self.failed("logs", error))?;
        let there: HashSet<PartitionId> =
            listed.iter().filter_map(|entry| names::parse_folder(entry.name.to_str()?)).collect();
        let may_miss = |flush: &Journaled| {
            let is_saved = saved
                .get(&flush.place.id)
                .is_some_and(|saved| saved.truncations == flush.place.truncations && flush.end <= saved.end);
            there.contains(&flush.place.id) && !is_saved
        };
        Left::read(self.core, &self.dir.join(JOURNAL_DIR), may_miss).await
    }

    async fn checkpoints(&self) -> io::Result<Checkpoints> {
        let dir = self.dir.join("checkpoints");
        let mut newest = HashMap::<PartitionId, (u64, Saved)>::new();
        let mut all = Checkpoints::default();
        for entry in self.core.list_dir(dir.clone()).await? {
            let path = dir.join(&entry.name);
            let file = self.core.open(path.clone(), Open::read()).await?;
            let bytes = usize::try_from(file.len().await?).unwrap_or(0);
            let content = names::read_all(&file, bytes).await?;
            // A slot that a crash kept from being written even once holds nothing.
            if content.iter().all(|&byte| byte == 0) {
                continue;
            }
            let found = match checkpoint::decode(&content) {
                Ok(found) => found,
                Err(damage) => {
                    let path = path.display();
                    all.notes.push(format!(
                        "the checkpoint slot {path} is unreadable ({damage}); older ones and longer searches make up for it"
                    ));
                    continue;
                }
            };
            let number = found.sequence;
            all.sequence = all.sequence.max(number);
            for saved in found.logs {
                let key = (saved.epoch, number);
                let replaces = newest.get(&saved.id).is_none_or(|(n, old)| (old.epoch, *n) < key);
                if replaces {
                    newest.insert(saved.id, (number, saved));
                }
            }
        }
        all.saved = newest.into_iter().map(|(id, (_, saved))| (id, saved)).collect();
        Ok(all)
    }
}

fn encode(uuid: [u8; 16]) -> [u8; IDENTITY_BYTES] {
    let mut bytes = [0; IDENTITY_BYTES];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&crc32c::crc32c(&uuid).to_le_bytes());
    bytes[16..32].copy_from_slice(&uuid);
    bytes
}

/// The storage uuid and the format; else the newer format, or nothing where it is damaged.
fn decode(bytes: &[u8]) -> Result<([u8; 16], u32), Option<u32>> {
    let bytes: &[u8; IDENTITY_BYTES] = bytes.first_chunk().ok_or(None)?;
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
    if &bytes[0..8] != MAGIC {
        return Err(None);
    }
    if word(8) > FORMAT {
        return Err(Some(word(8)));
    }
    let uuid: [u8; 16] = std::array::from_fn(|index| bytes[16 + index]);
    if word(12) == crc32c::crc32c(&uuid) { Ok((uuid, word(8))) } else { Err(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_something_else_is_refused_untouched_and_a_damaged_mark_is_no_mark() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let dir = folder.path().to_path_buf();
        rt::block_on_one(rt::Config::new(1), move |core| async move {
            std::fs::write(dir.join("thesis.txt"), "mine").expect("written");
            let refused = Folder::open(&core, &dir, 1).await.err();
            assert!(matches!(refused, Some(FolderError::Foreign { name, .. }) if name == "thesis.txt"));
            assert_eq!(std::fs::read_dir(&dir).expect("a folder").count(), 1);
            std::fs::remove_file(dir.join("thesis.txt")).expect("removed");
            std::fs::create_dir(dir.join("lost+found")).expect("made");
            for (mark, is_clean, notes) in
                [(None, false, 0), (Some("clean"), true, 0), (Some("cleen"), false, 1)]
            {
                if let Some(mark) = mark {
                    std::fs::write(dir.join(CLEAN_FILE), mark).expect("written");
                }
                let (folder, _lock) = Folder::open(&core, &dir, 1).await.expect("it is ours");
                assert_eq!((folder.was_clean(), folder.notes().len()), (is_clean, notes), "{mark:?}");
                assert!(!dir.join(CLEAN_FILE).exists());
            }
            std::fs::write(dir.join("thesis.txt"), "mine").expect("written");
            Folder::open(&core, &dir, 1).await.expect("it has an identity");
        })
        .expect("the driver starts");
    }

    #[test]
    fn a_killed_start_leaves_an_identity_that_is_durable_before_logs_are_made_under_it() {
        use rt::sim::{CrashPlan, Sim, SimConfig, SimDisk};
        let data = Path::new("/data/broker");
        for killed_at in 1..16 {
            let disk = SimDisk::new();
            disk.crash_at_op(killed_at);
            let sim = Sim::with_disk(1, SimConfig::default(), disk);
            let _ = sim.run(|core| async move {
                Folder::open(&core, data, 1).await.expect("opens");
            });
            let sim = Sim::with_disk(2, SimConfig::default(), sim.crash(CrashPlan::KILLED));
            let made = sim.run(|core| async move {
                let (folder, _lock) = Folder::open(&core, data, 2).await.expect("opens");
                let dir = folder.logs_dir().join("orders");
                core.create_dir_all(dir).await.expect("makes");
                core.sync_dir(folder.logs_dir()).await.expect("syncs");
                folder.uuid()
            });
            let sim = Sim::with_disk(3, SimConfig::default(), sim.crash(CrashPlan::STRICT));
            let found = sim.run(|core| async move {
                Folder::open(&core, data, 3).await.map(|(folder, _lock)| folder.uuid()).ok()
            });
            let made = made.expect("runs to its end").remove(0);
            assert_eq!(found.expect("runs to its end"), [Some(made)], "killed at operation {killed_at}");
        }
    }

    #[test]
    fn a_folder_without_journals_becomes_one_with_them_and_stays_the_same_storage() {
        use rt::sim::{Sim, SimConfig, SimDisk};
        let (data, disk) = (Path::new("/data/broker"), SimDisk::new());
        let mut block = encode([9; 16]).to_vec();
        block[8] = 1;
        block.resize(4096, 0);
        disk.put(data.join(IDENTITY_FILE), &block);
        let sim = Sim::with_disk(1, SimConfig::default(), disk.clone());
        let opened = sim.run(|core| async move {
            let (folder, _lock) = Folder::open(&core, data, 1).await.expect("opens");
            (folder.uuid(), folder.is_new())
        });
        assert_eq!(opened.expect("runs"), [([9; 16], false)]);
        block[8] = 2;
        assert_eq!(disk.contents(data.join(IDENTITY_FILE)), Some(block));
    }

    #[test]
    fn an_identity_is_read_refused_or_found_damaged() {
        let bytes = encode([9; 16]);
        assert_eq!(decode(&bytes), Ok(([9; 16], FORMAT)));
        let mut other = bytes;
        other[8] = 1;
        assert_eq!(decode(&other), Ok(([9; 16], 1)));
        other[8] = 3;
        assert_eq!(decode(&other), Err(Some(3)));
        for at in (0..IDENTITY_BYTES).filter(|at| !(8..12).contains(at)) {
            let mut flipped = bytes;
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), Err(None), "byte {at}");
        }
    }
}
