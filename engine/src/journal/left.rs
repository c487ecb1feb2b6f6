//! What the journals of earlier processes hold for a start.

use super::format::{self, Journaled};
use super::parse_name;
use crate::folder::FolderError;
use crate::ids::PartitionId;
use rt::{Core, Open, Reservation};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

const READ_BYTES: usize = 128 << 10;

/// The flushes of all journal files that may be missing in segments.
#[derive(Default)]
pub(crate) struct Left {
    flushes: HashMap<PartitionId, Vec<Journaled>>,
    files: Vec<LeftFile>,
    /// Above every generation in use.
    pub generation_next: u64,
    /// What is wrong with them, as sentences.
    pub notes: Vec<String>,
}

struct LeftFile {
    path: PathBuf,
    is_damaged: bool,
    /// Whose flushes it holds.
    partitions: HashSet<PartitionId>,
}

/// A file that nobody needs any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Whole(PathBuf),
    /// What it lost nobody knows: it is kept for whoever looks into it.
    Damaged(PathBuf),
}

impl Left {
    /// Reads every file of `dir`, the journals' folder. Flushes that `may_miss` denies are in their segments already.
    pub(crate) async fn read(
        core: &Core,
        dir: &Path,
        may_miss: impl Fn(&Journaled) -> bool,
    ) -> Result<Left, FolderError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| FolderError::Io { path, error }
        };
        let mut left = Left::default();
        let mut all = Vec::new();
        let listed = match core.list_dir(dir.to_path_buf()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(failed(dir))?,
        };
        for entry in listed {
            let Some(number) = entry.name.to_str().and_then(parse_name) else { continue };
            let path = dir.join(&entry.name);
            let bytes = read_settled(core, &path).await.map_err(failed(&path))?;
            let content = format::read(&bytes);
            if let Some(version) = content.newer {
                return Err(FolderError::NewerJournal { path, version });
            }
            if content.is_damaged {
                left.notes.push(format!(
                    "the journal {} is damaged, and kept under another name; logs that miss something of it are not served",
                    path.display()
                ));
            }
            let newest = content.flushes.last().map_or(number, |(generation, _, _)| number.max(*generation));
            left.generation_next = left.generation_next.max(newest + 1);
            let missing = content.flushes.into_iter().filter(|(_, _, flush)| may_miss(flush));
            let missing: Vec<_> = missing.collect();
            let partitions = missing.iter().map(|(_, _, flush)| flush.place.id).collect();
            left.files.push(LeftFile { path, is_damaged: content.is_damaged, partitions });
            all.extend(missing);
        }
        all.sort_by_key(|(generation, number, _)| (*generation, *number));
        for (_, _, flush) in all {
            left.flushes.entry(flush.place.id).or_default().push(flush);
        }
        Ok(left)
    }

    /// A partition's flushes, in the order of writing.
    pub(crate) fn of(&self, id: PartitionId) -> Vec<Journaled> {
        self.flushes.get(&id).cloned().unwrap_or_default()
    }

    /// The partition has all of its flushes in its segments, on stable media, or it is no more.
    pub(crate) fn settle(&mut self, id: PartitionId) {
        self.flushes.remove(&id);
        for file in &mut self.files {
            file.partitions.remove(&id);
        }
    }

    /// Files that nobody needs any more: each is told once.
    pub(crate) fn take_settled(&mut self) -> Vec<Settled> {
        let (settled, rest): (Vec<_>, Vec<_>) =
            self.files.drain(..).partition(|file| file.partitions.is_empty());
        self.files = rest;
        let told = settled.into_iter().map(|file| match file.is_damaged {
            true => Settled::Damaged(file.path),
            false => Settled::Whole(file.path),
        });
        told.collect()
    }
}

/// Of a partition's flushes, in the order of writing, those that speak of the log as it was truncated so often; of one that
/// was truncated nobody knows how often, the last.
pub(crate) fn of_log(all: &[Journaled], truncations: Option<u32>) -> Vec<Journaled> {
    let last = all.iter().map(|flush| flush.place.truncations).max();
    let mut found: Vec<Journaled> = Vec::new();
    for flush in all.iter().filter(|flush| Some(flush.place.truncations) == truncations.or(last)) {
        // An end that was found, and appended at, before this flush was: what was there until then is no more.
        while found.pop_if(|before| before.end > flush.base).is_some() {}
        found.push(flush.clone());
    }
    found
}

/// All bytes of a file, once what a process before this one had in flight has reached it: see `outwait_writes` of the
/// recovery. Who may only read does not wait.
async fn read_settled(core: &Core, path: &Path) -> io::Result<Vec<u8>> {
    let file = match core.open(path.to_path_buf(), Open::write().direct()).await {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
            ) =>
        {
            core.open(path.to_path_buf(), Open::read().direct()).await?
        }
        opened => {
            let file = opened?;
            let length = file.len().await?;
            if length > 0 {
                file.allocate(length - 1..length).await?;
            }
            file
        }
    };
    let length = file.len().await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        let window = file.read_exactly(bytes.len() as u64, READ_BYTES, Reservation::CatchUp).await?;
        if window.is_empty() {
            break;
        }
        bytes.extend_from_slice(&window);
    }
    Ok(bytes)
}
