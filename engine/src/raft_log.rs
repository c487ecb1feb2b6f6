//! The controller's log on disk: entries, term and vote in order, durable before the call returns.
//!
//! Everything is a group: one aligned direct write with its own checksum, chained to the group before it, so that a
//! stale group can never be taken for a live one. A group holds what one Raft step must make durable together; a lost
//! vote would elect two controllers, so nothing here follows a topic's durability (hazard A12). Only the last group can
//! be torn; anything wrong before it is damage, and the controller refuses to start.
//!
//! ```text
//! raft-<generation>.log: groups, each from a 4 KiB boundary on
//!  0 magic "CLRG"   4 version u16 = 1   6 zero u16   8 sequence u64   16 body bytes u32
//! 20 crc32c of 0..20, chain and body, u32   24 chain: crc of the group before it, u32   28 body, zeros to the block
//! body: records, each  kind u8 | bytes u32 | content
//!   1 hard state: term u64, vote u64, commit u64      2 entry: index u64, term u64, data
//!   3 snapshot: index u64, term u64, data (first record of a generation)
//! ```
//! Integers are little endian. An entry replaces what was at its index and behind it. Compaction writes a new
//! generation, complete, synced and named, before the older one goes.

use crate::space::BLOCK_BYTES;
use rt::{Core, File, Open, Reservation, Sync};
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(crate) mod format;
mod inspect;

use format::{Group, Look, Record};
pub use inspect::{GenerationFacts, GroupFacts, cut, inspect};

/// The longest group; a snapshot of the metadata must fit.
const GROUP_BYTES_MAX: usize = 256 << 20;
/// The file grows by this.
const GROW_BYTES: u64 = 1 << 20;
/// Kept allocated behind the end while the disk has space: so many bytes of commands are taken on a full disk, which is
/// where topics must still be deleted (hazard A12).
const RESERVE_BYTES: u64 = GROW_BYTES / 2;
/// Headers and hard states that are written with what was asked for.
const SLACK_BYTES: u64 = 4 * BLOCK_BYTES;
/// What one write takes from the arena at a time.
const WRITE_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct HardState {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    pub data: Vec<u8>,
}

/// The state up to and including `index`.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RaftSnapshot {
    pub index: u64,
    pub term: u64,
    pub data: Vec<u8>,
}

/// Everything that was durable, for the state machine to start from.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Recovered {
    pub hard_state: HardState,
    pub snapshot: RaftSnapshot,
    /// Consecutive, behind the snapshot.
    pub entries: Vec<Entry>,
}

#[derive(Debug)]
pub enum RaftLogError {
    Io {
        path: PathBuf,
        error: io::Error,
    },
    /// Durable groups are wrong or missing; nothing was changed.
    Damaged {
        path: PathBuf,
        position: u64,
        why: String,
    },
    /// An earlier write failed; what is durable is known only after a restart.
    Poisoned,
}

impl std::fmt::Display for RaftLogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RaftLogError::Io { path, error } => write!(f, "{}: {error}", path.display()),
            RaftLogError::Damaged { path, position, why } => write!(
                f,
                "{} is damaged at byte {position}: {why}. Nothing was changed; restore the metadata from another broker or a backup, or run `corelog log repair`.",
                path.display()
            ),
            RaftLogError::Poisoned => write!(f, "the metadata log failed before; restart the broker"),
        }
    }
}

impl std::error::Error for RaftLogError {}

#[derive(Clone)]
pub struct RaftLog {
    shared: Rc<Shared>,
}

struct Shared {
    core: Core,
    dir: PathBuf,
    /// Writes go one after the other, in call order.
    turn: rt::sync::Semaphore,
    writer: RefCell<Writer>,
}

struct Writer {
    generation: u64,
    file: File,
    position: u64,
    allocated: u64,
    sequence: u64,
    chain: u32,
    failed: bool,
}

impl RaftLog {
    /// Opens or creates the log in `dir` and returns what was durable.
    pub async fn open(core: &Core, dir: &Path) -> Result<(RaftLog, Recovered), RaftLogError> {
        let failed = |error| RaftLogError::Io { path: dir.to_path_buf(), error };
        core.create_dir_all(dir).await.map_err(failed)?;
        if let Some(parent) = dir.parent() {
            core.sync_dir(parent).await.map_err(failed)?;
        }
        let mut generations = generations(core, dir).await.map_err(failed)?;
        let mut newest = None;
        while let Some(generation) = generations.pop() {
            match read_generation(core, dir, generation).await? {
                Some(found) => {
                    newest = Some(found);
                    break;
                }
                // A compaction that was cut short: it was never relied on, because the one before it is there.
                // Only the very first generation has none before it.
                None if generations.is_empty() && generation == 1 => {}
                None if generations.is_empty() => {
                    let path = path_of(dir, generation);
                    let why = "its first group is not readable, and no older generation is there".into();
                    return Err(RaftLogError::Damaged { path, position: 0, why });
                }
                None => remove(core, dir, generation).await.map_err(failed)?,
            }
        }
        for older in generations {
            remove(core, dir, older).await.map_err(failed)?;
        }
        let (writer, recovered) = match newest {
            Some(found) => {
                // A process that was killed may have made the file, and not have come to sync its name.
                core.sync_dir(dir).await.map_err(failed)?;
                found
            }
            None => {
                let first = Recovered::default();
                (start_generation(core, dir, 1, &first).await.map_err(failed)?, first)
            }
        };
        let turn = rt::sync::Semaphore::new(1);
        let shared =
            Shared { core: core.clone(), dir: dir.to_path_buf(), turn, writer: RefCell::new(writer) };
        Ok((RaftLog { shared: Rc::new(shared) }, recovered))
    }

    /// Makes sure that a write of about `bytes` has its place in the file, and some more behind it where the disk has
    /// that: on a full disk this fails before anything was promised, and the next call tries again.
    pub async fn make_room(&self, bytes: usize) -> Result<(), RaftLogError> {
        let _turn = self.shared.turn.acquire(1).await;
        let (file, from, need_end) = {
            let writer = self.shared.writer.borrow();
            if writer.failed {
                return Err(RaftLogError::Poisoned);
            }
            let need_end = writer.position + (bytes as u64).next_multiple_of(BLOCK_BYTES) + SLACK_BYTES;
            (writer.file.clone(), writer.allocated, need_end)
        };
        let until = (need_end + RESERVE_BYTES).next_multiple_of(GROW_BYTES);
        if from >= need_end + RESERVE_BYTES {
            return Ok(());
        }
        match file.allocate(from..until).await {
            Ok(()) => self.shared.writer.borrow_mut().allocated = until,
            Err(_) if from >= need_end => {}
            Err(error) => return Err(RaftLogError::Io { path: self.shared.dir.clone(), error }),
        }
        Ok(())
    }

    /// Makes entries and hard state durable together. An entry replaces the one at its index and all behind it.
    pub async fn append(&self, entries: &[Entry], hard_state: Option<HardState>) -> Result<(), RaftLogError> {
        let mut body = Vec::new();
        for entry in entries {
            format::put(&mut body, &Record::Entry(entry.clone()));
        }
        if let Some(hard_state) = hard_state {
            format::put(&mut body, &Record::HardState(hard_state));
        }
        if body.is_empty() {
            return Ok(());
        }
        let _turn = self.shared.turn.acquire(1).await;
        let plan = self.shared.plan(&body)?;
        let written = self.shared.write(plan).await;
        self.shared.settle(written)
    }

    /// Replaces everything up to the snapshot by it: `rest` are the entries behind it that are still wanted.
    pub async fn compact(
        &self,
        snapshot: RaftSnapshot,
        hard_state: HardState,
        rest: Vec<Entry>,
    ) -> Result<(), RaftLogError> {
        let _turn = self.shared.turn.acquire(1).await;
        let old = {
            let writer = self.shared.writer.borrow();
            if writer.failed {
                return Err(RaftLogError::Poisoned);
            }
            writer.generation
        };
        let shared = &self.shared;
        let failed = |error| RaftLogError::Io { path: shared.dir.clone(), error };
        let state = Recovered { hard_state, snapshot, entries: rest };
        match start_generation(&shared.core, &shared.dir, old + 1, &state).await {
            Ok(writer) => {
                *shared.writer.borrow_mut() = writer;
                remove(&shared.core, &shared.dir, old).await.map_err(failed)
            }
            // The old generation stays in use, but only once nothing is left of the new one: the next start would
            // believe it.
            Err(error) => {
                let removed = remove(&shared.core, &shared.dir, old + 1).await;
                let gone =
                    removed.as_ref().map_or_else(|why| why.kind() == io::ErrorKind::NotFound, |()| true);
                shared.writer.borrow_mut().failed = !gone;
                Err(failed(error))
            }
        }
    }

    /// How long the current generation is: when to compact is the caller's decision.
    pub fn bytes(&self) -> u64 {
        self.shared.writer.borrow().position
    }
}

/// One group on its way to the disk.
struct Plan {
    file: File,
    position: u64,
    allocate: Option<std::ops::Range<u64>>,
    bytes: Vec<u8>,
    chain: u32,
}

impl Shared {
    fn plan(&self, body: &[u8]) -> Result<Plan, RaftLogError> {
        let writer = self.writer.borrow();
        if writer.failed {
            return Err(RaftLogError::Poisoned);
        }
        let too_long = io::Error::from(io::ErrorKind::FileTooLarge);
        let (bytes, chain) = format::group(writer.sequence, writer.chain, body)
            .filter(|(bytes, _)| bytes.len() <= GROUP_BYTES_MAX)
            .ok_or(RaftLogError::Io { path: self.dir.clone(), error: too_long })?;
        let end = writer.position + bytes.len() as u64;
        let grown = end.next_multiple_of(GROW_BYTES);
        let allocate = (end > writer.allocated).then_some(writer.allocated..grown);
        Ok(Plan { file: writer.file.clone(), position: writer.position, allocate, bytes, chain })
    }

    async fn write(&self, plan: Plan) -> io::Result<Plan> {
        if let Some(range) = plan.allocate.clone() {
            plan.file.allocate(range).await?;
        }
        write_blocks(&self.core, &plan.file, &plan.bytes, plan.position).await?;
        Ok(plan)
    }

    fn settle(&self, written: io::Result<Plan>) -> Result<(), RaftLogError> {
        let mut writer = self.writer.borrow_mut();
        match written {
            Ok(plan) => {
                writer.position = plan.position + plan.bytes.len() as u64;
                writer.allocated = plan.allocate.map_or(writer.allocated, |range| range.end);
                writer.sequence += 1;
                writer.chain = plan.chain;
                Ok(())
            }
            Err(error) => {
                writer.failed = true;
                Err(RaftLogError::Io { path: self.dir.clone(), error })
            }
        }
    }
}

async fn write_blocks(core: &Core, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    assert!((bytes.len() as u64).is_multiple_of(BLOCK_BYTES));
    let mut at = position;
    for part in bytes.chunks(WRITE_BYTES_MAX) {
        let mut buf = core.buffers().take(part.len(), Reservation::Control).await;
        buf[..part.len()].copy_from_slice(part);
        file.write_at(vec![buf.freeze(0..part.len())], at, Sync::Data).await?;
        at += part.len() as u64;
    }
    Ok(())
}

fn path_of(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("raft-{generation:010}.log"))
}

async fn generations(core: &Core, dir: &Path) -> io::Result<Vec<u64>> {
    let listed = core.list_dir(dir).await?;
    let number = |name: &str| name.strip_prefix("raft-")?.strip_suffix(".log")?.parse().ok();
    let mut found: Vec<u64> = listed.iter().filter_map(|entry| number(entry.name.to_str()?)).collect();
    found.sort_unstable();
    Ok(found)
}

async fn remove(core: &Core, dir: &Path, generation: u64) -> io::Result<()> {
    core.unlink(path_of(dir, generation)).await?;
    core.sync_dir(dir).await
}

/// Writes a whole generation and names it durably.
async fn start_generation(core: &Core, dir: &Path, generation: u64, state: &Recovered) -> io::Result<Writer> {
    let file = core.open(path_of(dir, generation), Open::write().create().direct()).await?;
    file.truncate(0).await?;
    let mut body = Vec::new();
    format::put(&mut body, &Record::Snapshot(state.snapshot.clone()));
    format::put(&mut body, &Record::HardState(state.hard_state));
    for entry in &state.entries {
        format::put(&mut body, &Record::Entry(entry.clone()));
    }
    // Sequences go on from a number that no other generation uses.
    let sequence = generation << 32;
    let (bytes, chain) = format::group(sequence, 0, &body).ok_or(io::ErrorKind::FileTooLarge)?;
    let allocated = (bytes.len() as u64).next_multiple_of(GROW_BYTES);
    file.allocate(0..allocated).await?;
    write_blocks(core, &file, &bytes, 0).await?;
    file.sync_all().await?;
    core.sync_dir(dir).await?;
    let position = bytes.len() as u64;
    Ok(Writer { generation, file, position, allocated, sequence: sequence + 1, chain, failed: false })
}

/// What a generation holds; `None` if not even its first group was finished.
async fn read_generation(
    core: &Core,
    dir: &Path,
    generation: u64,
) -> Result<Option<(Writer, Recovered)>, RaftLogError> {
    let path = path_of(dir, generation);
    let failed = |error| RaftLogError::Io { path: path.clone(), error };
    let file = core.open(path.clone(), Open::write().direct()).await.map_err(failed)?;
    let bytes = read_whole(&file).await.map_err(failed)?;
    let mut recovered = Recovered::default();
    let (mut at, mut sequence, mut chain) = (0, generation << 32, 0);
    while let Look::Group(group) = format::look(&bytes[at..], sequence, chain) {
        let Group { body, length, crc } = group;
        let damaged = |why: &str| RaftLogError::Damaged {
            path: path.clone(),
            position: at as u64,
            why: why.to_owned(),
        };
        let records = format::records(body).ok_or_else(|| damaged("a record is malformed"))?;
        records.into_iter().try_for_each(|record| recovered.apply(record)).map_err(damaged)?;
        (at, sequence, chain) = (at + length, sequence + 1, crc);
    }
    if let Some(why) = format::damage_behind(&bytes[at..], sequence) {
        return Err(RaftLogError::Damaged { path, position: at as u64, why });
    }
    if at == 0 {
        return Ok(None);
    }
    let position = at as u64;
    // What a torn group left must not stand behind the next one.
    if bytes[at..].iter().any(|&byte| byte != 0) {
        file.zero_range(position..bytes.len() as u64).await.map_err(failed)?;
    }
    file.sync_data().await.map_err(failed)?;
    let allocated = (bytes.len() as u64) / BLOCK_BYTES * BLOCK_BYTES;
    let writer = Writer { generation, file, position, allocated, sequence, chain, failed: false };
    Ok(Some((writer, recovered)))
}

async fn read_whole(file: &File) -> io::Result<Vec<u8>> {
    let length = file.len().await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        let next = file.read_exactly(bytes.len() as u64, WRITE_BYTES_MAX, Reservation::Control).await?;
        if next.is_empty() {
            break;
        }
        bytes.extend_from_slice(&next);
    }
    Ok(bytes)
}

impl Recovered {
    fn apply(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::HardState(hard_state) => self.hard_state = hard_state,
            Record::Snapshot(snapshot) => {
                self.snapshot = snapshot;
                self.entries.clear();
            }
            Record::Entry(entry) => {
                let first = self.snapshot.index + 1;
                if entry.index < first || entry.index > first + self.entries.len() as u64 {
                    return Err("an entry does not continue the log");
                }
                let kept = usize::try_from(entry.index - first).map_err(|_| "an index is too large")?;
                self.entries.truncate(kept);
                self.entries.push(entry);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
