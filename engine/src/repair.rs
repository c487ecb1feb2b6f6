//! Looking into a stopped broker's folder, and mending what a start refuses. Called by `corelog log`, never by a broker.
//!
//! Looking changes nothing. Mending is explicit, partition by partition, and keeps what it takes away: damaged bytes are
//! copied beside their file first. Then the checkpoints are told that they speak of another log (names.rs), and only
//! then is a segment replaced, whole, by a rename: a repair that is interrupted leaves a log that is damaged as before.
//!
//! A batch whose first bytes can be proven is restored. Any other that is damaged is replaced by a batch without records
//! over the same offsets, as compaction leaves them; so every good batch keeps its offset, and no (epoch, offset) names
//! a second content (hazard A1). Offsets at the end of a log, where nothing says how many there were, are given anew, in
//! the epoch of the next start.

pub mod segment;

use crate::batch::rewrite;
use crate::checkpoint::{self, Saved};
use crate::folder::{Folder, FolderError, Identity};
use crate::ids::{LeaderEpoch, Offset, PartitionId};
use crate::index::SealedIndex;
use crate::journal::{self, Journaled};
use crate::names::{self, PartitionFile, Truncation, Unreadable};
use crate::raft_log::{self, GenerationFacts};
use crate::space::block_ceil;
use rt::{Core, Open, Slice, Sync};
use segment::{Damaged, Examined, From};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// What a file that keeps damaged bytes ends with.
pub const KEPT_SUFFIX: &str = "damaged";
const MENDED_SUFFIX: &str = "mended";

/// Everything in a data folder.
pub struct Report {
    pub identity: Identity,
    /// The last broker closed everything.
    pub clean: bool,
    pub checkpoints: Vec<SlotFacts>,
    pub raft: Vec<GenerationFacts>,
    pub partitions: Vec<PartitionFacts>,
    /// What is wrong with the journals, as sentences.
    pub notes: Vec<String>,
}

/// One checkpoint slot.
pub struct SlotFacts {
    pub path: PathBuf,
    pub bytes: usize,
    /// Its sequence and how many logs it speaks of, or why it is not readable.
    pub content: Result<(u64, usize), String>,
}

/// One partition's folder.
pub struct PartitionFacts {
    pub dir: PathBuf,
    pub id: PartitionId,
    pub says: Result<names::Partition, Unreadable>,
    pub saved: Option<Saved>,
    pub segments: Vec<SegmentFacts>,
    /// How often the log had been truncated when the journal was written last.
    journaled_truncations: u32,
    /// What a start refuses to serve it for, apart from what lies in the segments.
    pub faults: Vec<Fault>,
}

pub struct SegmentFacts {
    pub path: PathBuf,
    pub base: Offset,
    pub file_bytes: u64,
    pub index: IndexState,
    /// With what the journal has of it.
    pub examined: Examined,
    /// What the journal has and the file has not: a start puts it there.
    pub journaled: Vec<Journaled>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexState {
    /// None yet: the segment is active, or its index is built at the next start.
    Missing,
    Valid,
    /// Built anew at the next start.
    Damaged,
}

/// Something wrong beside the bytes of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The folder does not say what it is.
    Nameless,
    /// A newer release wrote it: only that one may touch it.
    Newer(u16),
    /// Offsets from the log start on are gone with their files.
    MissingStart { log_start: Offset, first: Offset },
    /// The log ends before what the checkpoint knows to be durable.
    MissingEnd { end: Offset, known: Offset },
    /// Compaction was putting one segment in the place of others: a start ends it.
    SwapUnderWay(names::Swap),
    /// Two segments hold the same offsets: nothing here says which is right.
    Overlap { base: Offset, end: Offset },
}

impl Fault {
    pub fn is_mendable(&self) -> bool {
        match self {
            Fault::Nameless | Fault::MissingStart { .. } | Fault::MissingEnd { .. } => true,
            Fault::Newer(_) | Fault::SwapUnderWay(_) | Fault::Overlap { .. } => false,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Nameless => write!(f, "the file `partition` is missing or damaged"),
            Fault::Newer(version) => write!(f, "format {version} is a newer Corelog's"),
            Fault::MissingStart { log_start, first } => {
                write!(f, "offsets {log_start} to {first} are missing at the start")
            }
            Fault::MissingEnd { end, known } => write!(
                f,
                "the log ends at offset {end}, but {known} was known to be durable: {} offsets are missing",
                known.0 - end.0
            ),
            Fault::SwapUnderWay(names::Swap { base, end }) => write!(
                f,
                "the segments over offsets {base} to {end} were being replaced by a compacted one; start the broker once \
                 to end that"
            ),
            Fault::Overlap { base, end } => {
                write!(f, "the segment at offset {base} begins before the one before it ends, at {end}")
            }
        }
    }
}

impl PartitionFacts {
    pub fn is_damaged(&self) -> bool {
        !self.faults.is_empty() || self.segments.iter().any(|segment| !segment.examined.damaged.is_empty())
    }

    /// What keeps a repair from being tried.
    pub fn obstacle(&self) -> Option<&Fault> {
        self.faults.iter().find(|fault| !fault.is_mendable())
    }

    fn first_change(&self) -> Offset {
        let damaged = self.segments.iter().flat_map(|segment| &segment.examined.damaged);
        let ends = self.faults.iter().filter_map(|fault| match fault {
            Fault::MissingEnd { end, .. } => Some(end.0),
            _ => None,
        });
        Offset(damaged.map(|damaged| damaged.offsets.start).chain(ends).min().unwrap_or(0))
    }
}

/// Looks at everything. `epoch_max` is what metadata knows of a partition's leader epoch: no batch has a later one.
///
/// # Errors
/// A broker holds the folder, or it cannot be read.
pub async fn inspect(
    core: &Core,
    dir: &Path,
    epoch_max: &HashMap<PartitionId, LeaderEpoch>,
    only: &dyn Fn(PartitionId) -> bool,
) -> Result<Report, FolderError> {
    let failed = |error| FolderError::Io { path: dir.to_path_buf(), error };
    let identity = Folder::identify(core, dir).await.map_err(failed)?;
    let clean =
        core.list_dir(dir.to_path_buf()).await.map_err(failed)?.iter().any(|entry| entry.name == "clean");
    let (checkpoints, saved) = slots(core, &dir.join("checkpoints")).await.map_err(failed)?;
    let raft = raft_log::inspect(core, &dir.join("raft")).await.map_err(failed)?;
    let left = Folder::look_into_journals(core, dir).await?;
    let logs = dir.join("logs");
    let mut partitions = Vec::new();
    for entry in list(core, &logs).await.map_err(failed)? {
        let Some(id) = entry.to_str().and_then(names::parse_folder).filter(|id| only(*id)) else { continue };
        let max = epoch_max.get(&id).copied().unwrap_or(LeaderEpoch(i32::MAX));
        let known = (saved.get(&id).cloned(), left.of(id));
        let looked = look(core, logs.join(&entry), id, known, max).await;
        partitions.push(looked.map_err(failed)?);
    }
    Ok(Report { identity, clean, checkpoints, raft, partitions, notes: left.notes })
}

async fn list(core: &Core, dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    match core.list_dir(dir.to_path_buf()).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => Ok(listed?.into_iter().map(|entry| entry.name).collect()),
    }
}

async fn read_file(core: &Core, path: &Path) -> io::Result<Vec<u8>> {
    let file = core.open(path.to_path_buf(), Open::read()).await?;
    let bytes = usize::try_from(file.len().await?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    names::read_all(&file, bytes).await
}

type Slots = (Vec<SlotFacts>, HashMap<PartitionId, Saved>);

async fn slots(core: &Core, dir: &Path) -> io::Result<Slots> {
    let (mut facts, mut newest) = (Vec::new(), HashMap::<PartitionId, (u64, Saved)>::new());
    for name in list(core, dir).await? {
        let path = dir.join(name);
        let bytes = read_file(core, &path).await?;
        let decoded = checkpoint::decode(&bytes);
        let content =
            decoded.as_ref().map(|found| (found.sequence, found.logs.len())).map_err(ToString::to_string);
        facts.push(SlotFacts { path, bytes: bytes.len(), content });
        for (sequence, saved) in decoded.into_iter().flat_map(|found| {
            let sequence = found.sequence;
            found.logs.into_iter().map(move |saved| (sequence, saved))
        }) {
            let newer =
                newest.get(&saved.id).is_none_or(|(n, old)| (old.epoch, *n) < (saved.epoch, sequence));
            if newer {
                newest.insert(saved.id, (sequence, saved));
            }
        }
    }
    Ok((facts, newest.into_iter().map(|(id, (_, saved))| (id, saved)).collect()))
}

async fn look(
    core: &Core,
    dir: PathBuf,
    id: PartitionId,
    (saved, left): (Option<Saved>, Vec<Journaled>),
    epoch_max: LeaderEpoch,
) -> io::Result<PartitionFacts> {
    let says = match read_file(core, &dir.join(names::PARTITION_FILE)).await {
        Ok(bytes) => names::Partition::choose(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unreadable::Damaged),
        Err(error) => return Err(error),
    };
    let left = journal::of_log(&left, says.as_ref().ok().map(|says| says.truncations));
    let names = list(core, &dir).await?;
    let mut bases: Vec<Offset> =
        names.iter().filter_map(|name| names::parse_segment(name.to_str()?)).collect();
    bases.sort();
    if let Ok(says) = &says {
        // What lies wholly below the log start goes with the next start, gaps and all.
        let behind = bases.iter().skip(1).take_while(|next| **next <= says.log_start).count();
        bases.drain(..behind);
    }
    // What a start makes of a swap that is under way: the new segment, wherever it is by now, in the place of the old.
    let swap = says.as_ref().ok().and_then(|says| says.compaction.swap);
    bases.retain(|base| swap.is_none_or(|swap| *base <= swap.base || *base >= swap.end));
    let has = |name: &str| names.iter().any(|there| there.to_str() == Some(name));
    let file_of = |base: Offset, before: String, after: String| {
        let is_swapped = swap.is_some_and(|swap| swap.base == base) && has(&before);
        if is_swapped { before } else { after }
    };
    let mut facts = PartitionFacts {
        dir,
        id,
        says,
        saved,
        segments: Vec::new(),
        journaled_truncations: 0,
        faults: Vec::new(),
    };
    let mut before = (bases.first().copied().unwrap_or(Offset::ZERO), LeaderEpoch::UNKNOWN);
    for (at, &base) in bases.iter().enumerate() {
        let path = facts.dir.join(file_of(base, names::cleaned(base), names::segment(base)));
        let mut bytes = read_file(core, &path).await?;
        let file_bytes = bytes.len() as u64;
        let index = file_of(base, names::cleaned_index(base), names::index(base));
        let index = match read_file(core, &facts.dir.join(index)).await {
            Ok(content) => Some(SealedIndex::decode(&content).ok()),
            Err(_) => None,
        };
        if base < before.0 {
            facts.faults.push(Fault::Overlap { base, end: before.0 });
        }
        let from = From {
            base,
            epoch: before.1,
            epoch_max,
            torn_bytes_max: TORN_BYTES_MAX,
            // A segment that a roll made and nothing was written to goes with the next start.
            next: next_written(core, &facts.dir, &bases[at + 1..]).await?,
        };
        let mut examined = segment::examine(&bytes, from, index.as_ref().and_then(Option::as_ref));
        // What is sealed has it all.
        let here = left.iter().filter(|flush| flush.place.segment == base && index.is_none());
        let journaled: Vec<Journaled> = here.filter(|flush| examined.lacks(base, flush)).cloned().collect();
        if !journaled.is_empty() {
            journaled.iter().for_each(|flush| put_into(&mut bytes, flush));
            examined = segment::examine(&bytes, from, None);
        }
        before = (Offset(examined.end), LeaderEpoch(examined.last_epoch));
        let index = match index {
            None => IndexState::Missing,
            Some(Some(_)) => IndexState::Valid,
            Some(None) => IndexState::Damaged,
        };
        facts.segments.push(SegmentFacts { path, base, file_bytes, index, examined, journaled });
    }
    let journaled_end = left.last().map_or(Offset::ZERO, |flush| flush.end);
    facts.journaled_truncations = left.last().map_or(0, |flush| flush.place.truncations);
    facts.judge(bases.first().copied(), before.0, journaled_end);
    if let Some(swap) = swap
        && facts.is_damaged()
    {
        facts.faults.push(Fault::SwapUnderWay(swap));
    }
    Ok(facts)
}

/// Puts a flush where it belongs in a segment's bytes.
fn put_into(bytes: &mut Vec<u8>, flush: &Journaled) {
    let Ok(start) = usize::try_from(flush.place.position) else { return };
    let end = start + flush.batches.len();
    if bytes.len() < end {
        bytes.resize(block_ceil(end as u64) as usize, 0);
    }
    bytes[start..end].copy_from_slice(&flush.batches);
}

impl Examined {
    /// Whether a flush of this segment lies behind everything that is good in it, by offset and by place: one that was
    /// compacted holds all of its offsets in fewer bytes.
    fn lacks(&self, base: Offset, flush: &Journaled) -> bool {
        let last = self.batches.last();
        let end = last.map_or(base, |last| last.next);
        let position = last.map_or(0, |last| last.position + last.bytes);
        flush.base >= end && flush.place.position >= position
    }
}

/// The next segment that holds anything.
async fn next_written(core: &Core, dir: &Path, later: &[Offset]) -> io::Result<Option<Offset>> {
    for &base in later {
        let file = core.open(dir.join(names::segment(base)), Open::read()).await?;
        if names::read_all(&file, 4096).await?.iter().any(|&byte| byte != 0) {
            return Ok(Some(base));
        }
    }
    Ok(None)
}

/// How far a torn flush reaches: the largest flush and the largest batch that may exceed it, with room.
const TORN_BYTES_MAX: u64 = 4 << 20;

impl PartitionFacts {
    fn judge(&mut self, first: Option<Offset>, end: Offset, journaled_end: Offset) {
        let log_start = match &self.says {
            Ok(says) => says.log_start,
            Err(Unreadable::Newer(version)) => return self.faults.push(Fault::Newer(*version)),
            Err(Unreadable::Damaged) => {
                self.faults.push(Fault::Nameless);
                self.saved.as_ref().map_or(first.unwrap_or(Offset::ZERO), |saved| saved.log_start)
            }
        };
        if let Some(first) = first.filter(|first| *first > log_start) {
            self.faults.push(Fault::MissingStart { log_start, first });
        }
        let counts =
            |saved: &&Saved| self.says.as_ref().is_ok_and(|says| says.truncations == saved.truncations);
        let end = if first.is_some() { end } else { log_start };
        let saved_end = self.saved.as_ref().filter(counts).map_or(Offset::ZERO, |saved| saved.end);
        let known = saved_end.max(journaled_end);
        if known > end {
            self.faults.push(Fault::MissingEnd { end, known });
        }
    }
}

/// Mends one partition; what was done, as sentences. Nothing is done where there is an obstacle.
///
/// # Errors
/// The disk's; the partition may be left as damaged as it was, and the repair be run again.
pub async fn mend(core: &Core, facts: &PartitionFacts) -> io::Result<Vec<String>> {
    if let Some(obstacle) = facts.obstacle() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, obstacle.to_string()));
    }
    let mut done = Vec::new();
    for segment in facts.segments.iter().filter(|segment| !segment.journaled.is_empty()) {
        // What comes next makes the log another one, of which the journal knows nothing.
        let file = core.open(segment.path.clone(), Open::write()).await?;
        for flush in &segment.journaled {
            file.write_at(vec![Slice::from(flush.batches.clone())], flush.place.position, Sync::Data).await?;
        }
        file.sync_all().await?;
        done.push(format!("put what the journal had of it into {}", segment.path.display()));
    }
    for segment in &facts.segments {
        keep(core, segment, &mut done).await?;
    }
    tell_checkpoints(core, facts, &mut done).await?;
    for segment in facts.segments.iter().filter(|segment| !segment.examined.damaged.is_empty()) {
        replace(core, &facts.dir, segment).await?;
        done.push(format!("replaced {}", segment.path.display()));
    }
    Ok(done)
}

/// Copies damaged bytes beside their file.
async fn keep(core: &Core, segment: &SegmentFacts, done: &mut Vec<String>) -> io::Result<()> {
    let damaged: Vec<_> =
        segment.examined.damaged.iter().filter(|damaged| !damaged.range.is_empty()).collect();
    if damaged.is_empty() {
        return Ok(());
    }
    let bytes = read_file(core, &segment.path).await?;
    for damaged in damaged {
        let (start, end) = (damaged.range.start, damaged.range.end);
        let name = format!("{}.{start}-{end}.{KEPT_SUFFIX}", segment.path.display());
        write_file(core, Path::new(&name), slice_of(&bytes, damaged).to_vec()).await?;
        done.push(format!("kept the damaged bytes in {name}"));
    }
    sync_parent(core, &segment.path).await
}

fn slice_of<'a>(bytes: &'a [u8], damaged: &Damaged) -> &'a [u8] {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    &bytes[at(damaged.range.start)..at(damaged.range.end)]
}

async fn write_file(core: &Core, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    let file = core.open(path.to_path_buf(), Open::write().create()).await?;
    file.truncate(0).await?;
    file.write_at(vec![Slice::from(bytes)], 0, Sync::Data).await?;
    file.sync_all().await
}

async fn sync_parent(core: &Core, path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => core.sync_dir(parent.to_path_buf()).await,
        None => Ok(()),
    }
}

/// From here on a checkpoint that reaches behind the first change is about another log. The folder says again what it
/// is, and where its log starts.
async fn tell_checkpoints(core: &Core, facts: &PartitionFacts, done: &mut Vec<String>) -> io::Result<()> {
    let first = facts.segments.first().map(|segment| segment.base);
    let start_of = |known: Offset| match facts.faults.iter().find_map(|fault| match fault {
        Fault::MissingEnd { known, .. } if facts.segments.is_empty() => Some(*known),
        _ => None,
    }) {
        Some(behind_all) => behind_all,
        None => first.map_or(known, |first| known.max(first)),
    };
    let change = facts.first_change();
    let path = facts.dir.join(names::PARTITION_FILE);
    let mut file = match PartitionFile::open(core, &facts.dir).await? {
        Some(Ok(file)) => file,
        None | Some(Err(_)) => {
            if let Ok(bytes) = read_file(core, &path).await {
                write_file(core, Path::new(&format!("{}.{KEPT_SUFFIX}", path.display())), bytes).await?;
            }
            done.push(format!("wrote {} anew, from the folder's name", path.display()));
            let topic = facts.dir.file_name().and_then(|name| name.to_str()).and_then(names::folder_topic);
            let topic = topic.ok_or(io::ErrorKind::InvalidData)?;
            PartitionFile::create(core, &facts.dir, facts.id, topic, true).await?
        }
    };
    let saved = facts.saved.as_ref();
    file.store(core, |partition| {
        let known = saved.map_or(0, |saved| saved.truncations).max(facts.journaled_truncations);
        let known = known.max(partition.truncations);
        partition.truncations = known.wrapping_add(1);
        partition.truncation = Some(Truncation { to: change, epoch: LeaderEpoch::UNKNOWN, under_way: false });
        partition.log_start = start_of(partition.log_start);
        // What comes behind the change is learned anew, or a tombstone there could go before what it deletes.
        partition.compaction.clean_to = partition.compaction.clean_to.min(change);
    })
    .await
}

/// Writes the segment anew, without what is damaged, and puts it in the place of the old one.
async fn replace(core: &Core, dir: &Path, segment: &SegmentFacts) -> io::Result<()> {
    let bytes = read_file(core, &segment.path).await?;
    let mut mended = mended(&bytes, &segment.examined);
    mended.resize(block_ceil(mended.len() as u64) as usize, 0);
    let beside = PathBuf::from(format!("{}.{MENDED_SUFFIX}", segment.path.display()));
    write_file(core, &beside, mended).await?;
    // An index speaks of the old file; the next start builds another.
    match core.unlink(dir.join(names::index(segment.base))).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    core.rename(beside, segment.path.clone()).await?;
    core.sync_dir(dir.to_path_buf()).await
}

/// The segment's good batches in their order, what could be restored, and fillers for the rest. Pure.
fn mended(bytes: &[u8], examined: &Examined) -> Vec<u8> {
    let mut damaged: Vec<&Damaged> = examined.damaged.iter().collect();
    damaged.sort_by_key(|damaged| damaged.range.start);
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    let mut out = Vec::with_capacity(bytes.len());
    let mut from = 0;
    for damaged in damaged {
        out.extend_from_slice(&bytes[from..at(damaged.range.start).max(from)]);
        from = at(damaged.range.end).max(from);
        match &damaged.restored {
            Some(prefix) => {
                out.extend_from_slice(prefix);
                out.extend_from_slice(slice_of(bytes, damaged).get(prefix.len()..).unwrap_or_default());
            }
            // A chunk whose batches are all good: it stays, and gets a new checksum.
            None if damaged.is_of_whole_batches() => out.extend_from_slice(slice_of(bytes, damaged)),
            None if !damaged.offsets.is_empty() => {
                let epoch = LeaderEpoch(damaged.epoch.0.max(0));
                out.extend_from_slice(&rewrite::filler(&damaged.offsets, epoch));
            }
            None => {}
        }
    }
    let end = at(examined.position);
    out.extend_from_slice(bytes.get(from..end).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests;
