//! One core's logs in a data folder, and the checkpoint that keeps their start-up short.
//!
//! ```text
//! <data>/corelog          which folder this is (folder.rs)      <data>/lock   held while a broker runs
//! <data>/clean            there only between a clean stop and the next start
//! <data>/logs/<topic>-<partition>-<topic id>/                   see names.rs
//! <data>/checkpoints/core-<n>.{0,1}                             two slots per core, written in turn, never renamed
//! ```
//! Nothing here ties a partition to a core: at start the newest word on a partition is used, whichever core wrote it.
//! A checkpoint never speaks of more than what is on stable media, and losing both slots costs time only.

use crate::cache::Tails;
use crate::checkpoint::{Encoder, Saved};
use crate::chunks::Chunks;
use crate::folder::{Folder, FolderError};
use crate::ids::{LeaderEpoch, Offset, PartitionId};
use crate::journal::{self, Journal};
use crate::log::{Counters, Faults, Limits, Log, LogConfig, OpenError, OpenLog, Poisoned};
use crate::names;
use rt::sync::{Event, Semaphore};
use rt::{Class, Core, LockGuard, Open, Slice, Sync};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

mod compact;

/// Bytes appended on one core after which a checkpoint is written.
pub const UNCHECKPOINTED_BYTES_MAX: u64 = 128 << 20;
/// How often that is looked at: at the rate of a fast disk some hundred megabytes go by in a second.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// And on a core that appended nothing since the last look.
const CHECK_IDLE_EVERY: Duration = Duration::from_secs(1);
/// What of a checkpoint is copied into the page cache at once.
const SLOT_WRITE_BYTES: usize = 256 << 10;
/// A core that appended something and then nothing for so long writes a checkpoint too.
const IDLE_BEFORE_CHECKPOINT: Duration = Duration::from_secs(5);
/// How long the next checkpoint waits after one that failed.
const AFTER_FAILED_CHECKPOINT: Duration = Duration::from_secs(30);
/// Logs that are opened at the same time.
const OPENING_MAX: usize = 32;

/// How to open one partition of a store.
#[derive(Clone)]
pub struct OpenPartition {
    pub id: PartitionId,
    pub topic_name: String,
    pub config: LogConfig,
    pub epoch: LeaderEpoch,
}

#[derive(Clone)]
pub struct Store {
    shared: Rc<Shared>,
}

struct Shared {
    core: Core,
    folder: Arc<Folder>,
    tails: Tails,
    chunks: Chunks,
    journal: Journal,
    partitions: Rc<Cell<u64>>,
    limits: Limits,
    faults: Faults,
    logs: RefCell<BTreeMap<PartitionId, Log>>,
    /// What logs had done that are not in `logs` any more.
    gone: Cell<Counters>,
    sequence: Cell<u64>,
    checkpointed_bytes: Cell<u64>,
    writing: Cell<bool>,
    /// Logs that may be opening: each holds windows of memory and keeps the disk busy.
    opening: Semaphore,
    /// Those that are being opened or could not be: what was saved of them is all that is known of their length.
    unopened: RefCell<BTreeSet<PartitionId>>,
    /// Logs that failed and have something in the journal that no segment has, until they are open again or deleted.
    retired: RefCell<BTreeMap<PartitionId, Log>>,
    closed: Cell<bool>,
    /// A checkpoint was written, or could not be.
    written: Event,
    /// Of each log the segment that was active when the last checkpoint was written.
    checkpointed: RefCell<BTreeMap<PartitionId, Offset>>,
    /// Held here where one core is all there is.
    lock: RefCell<Option<LockGuard>>,
}

impl Store {
    /// A broker of one core, and tests: opens or creates the folder and this core's part of it.
    pub async fn open(core: &Core, dir: &Path) -> Result<Store, FolderError> {
        let (folder, lock) = Folder::open(core, dir, 0).await?;
        let store = Store::of_folder(core, Arc::new(folder), Limits::default());
        *store.shared.lock.borrow_mut() = Some(lock);
        Ok(store)
    }

    /// This core's part of a folder that the process holds.
    pub fn of_folder(core: &Core, folder: Arc<Folder>, limits: Limits) -> Store {
        Store::with_faults(core, folder, limits, Faults::default())
    }

    #[doc(hidden)]
    pub fn with_faults(core: &Core, folder: Arc<Folder>, limits: Limits, faults: Faults) -> Store {
        // Half of what produce could get: the other half is for what is in flight.
        let tail_bytes = core.buffers().largest(rt::Reservation::Produce) / 2;
        let chunk_bytes = core.buffers().largest(rt::Reservation::Fetch) / 8;
        let sequence = folder.sequence_next();
        Store {
            shared: Rc::new(Shared {
                core: core.clone(),
                tails: Tails::new(tail_bytes),
                chunks: Chunks::new(chunk_bytes),
                partitions: Rc::new(Cell::new(1)),
                journal: Journal::new(
                    core,
                    folder.journal_dir(),
                    folder.journal_generations(),
                    limits.journal,
                    faults,
                ),
                folder,
                limits,
                faults,
                logs: RefCell::default(),
                gone: Cell::default(),
                sequence: Cell::new(sequence),
                checkpointed_bytes: Cell::new(0),
                writing: Cell::new(false),
                opening: Semaphore::new(OPENING_MAX),
                unopened: RefCell::default(),
                retired: RefCell::default(),
                closed: Cell::new(false),
                written: Event::new(),
                checkpointed: RefCell::default(),
                lock: RefCell::default(),
            }),
        }
    }

    pub fn folder(&self) -> &Folder {
        &self.shared.folder
    }

    /// Opens or creates one partition's log, once fewer than `OPENING_MAX` others are being opened. The store
    /// checkpoints it from here on.
    pub async fn open_log(&self, how: OpenPartition) -> Result<Log, OpenError> {
        // An earlier try may have changed what was closed cleanly.
        let checkpoint = match self.shared.unopened.borrow().contains(&how.id) {
            true => self.saved_before(how.id),
            false => self.shared.folder.saved(how.id),
        };
        self.open_from(how, checkpoint).await
    }

    /// Opens a log again that this process has failed to keep. `retired` touches its files no more.
    pub async fn reopen_log(&self, retired: Log, how: OpenPartition) -> Result<Log, OpenError> {
        assert!(retired.is_poisoned());
        assert!(retired.id() == how.id);
        retired.retire().await;
        self.shared.retired.borrow_mut().insert(how.id, retired);
        // What was saved before is where the search begins; that the log was closed then says nothing any more.
        let checkpoint = self.saved_before(how.id);
        self.open_from(how, checkpoint).await
    }

    async fn open_from(&self, how: OpenPartition, checkpoint: Option<Saved>) -> Result<Log, OpenError> {
        let shared = &self.shared;
        shared.unopened.borrow_mut().insert(how.id);
        let _permit = shared.opening.acquire(1).await;
        let mut left = shared.folder.left_in_journals(how.id);
        left.extend(shared.retired.borrow().get(&how.id).and_then(Log::left_in_journal));
        let opened = Log::open(
            &shared.core,
            OpenLog {
                dir: shared.folder.logs_dir().join(names::folder(&how.topic_name, how.id)),
                id: how.id,
                topic_name: how.topic_name,
                config: how.config,
                epoch: how.epoch,
                checkpoint,
                limits: shared.limits,
                tails: shared.tails.clone(),
                chunks: shared.chunks.clone(),
                journal: Some(shared.journal.clone()),
                left,
                partitions: shared.partitions.clone(),
                faults: shared.faults,
            },
        )
        .await?;
        self.settle_journals(how.id).await;
        if let Some(before) = shared.logs.borrow_mut().insert(how.id, opened.clone()) {
            self.keep_counters(&before);
        }
        Ok(opened)
    }

    /// Opens many logs; answers in the order asked. One that fails does not hold up the others.
    pub async fn open_logs(&self, all: Vec<OpenPartition>) -> Vec<Result<Log, OpenError>> {
        let tasks: Vec<_> = all
            .into_iter()
            .map(|how| {
                let (store, dir) = (self.clone(), self.shared.folder.logs_dir());
                let task =
                    self.shared.core.spawn(Class::Background, async move { store.open_log(how).await });
                (task, dir)
            })
            .collect();
        let mut opened = Vec::with_capacity(tasks.len());
        for (task, path) in tasks {
            opened.push(task.await.unwrap_or_else(|panicked| {
                Err(OpenError::Io { path, error: io::Error::other(panicked.to_string()) })
            }));
        }
        opened
    }

    /// How many partitions of all cores share the disk: their files grow by steps that leave room for all.
    pub fn set_partitions(&self, count: usize) {
        self.shared.partitions.set(u64::try_from(count).unwrap_or(u64::MAX).max(1));
    }

    pub fn log(&self, id: PartitionId) -> Option<Log> {
        self.shared.logs.borrow().get(&id).cloned()
    }

    /// Deletes a partition because its topic's deletion was committed; nothing else ever deletes one.
    pub async fn delete_log(&self, id: PartitionId, topic_name: &str) -> io::Result<()> {
        self.shared.unopened.borrow_mut().remove(&id);
        let log = self.shared.logs.borrow_mut().remove(&id);
        if let Some(log) = log {
            self.keep_counters(&log);
            log.delete().await?;
            self.settle_journals(id).await;
            return Ok(());
        }
        // One that could not be opened.
        let (core, dir) = (&self.shared.core, self.shared.folder.logs_dir());
        match core.remove_dir_all(dir.join(names::folder(topic_name, id))).await {
            Ok(()) => core.sync_dir(dir).await?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.settle_journals(id).await;
        Ok(())
    }

    /// The partition has everything in its segments, or is gone.
    async fn settle_journals(&self, id: PartitionId) {
        let retired = self.shared.retired.borrow_mut().remove(&id);
        if let Some(retired) = retired {
            retired.forget_journal();
        }
        self.shared.folder.settle_journals(&self.shared.core, id).await;
    }

    /// Every partition that the folder holds, by what the folders say of themselves.
    pub async fn partitions(&self) -> io::Result<Vec<names::Partition>> {
        let dir = self.shared.folder.logs_dir();
        let mut found = Vec::new();
        for entry in self.shared.core.list_dir(dir.clone()).await? {
            let known = entry.name.to_str().and_then(names::parse_folder);
            if known.is_none() {
                continue;
            }
            if let Ok(Ok(partition)) = names::identify(&self.shared.core, dir.join(&entry.name)).await {
                found.push(partition);
            }
        }
        Ok(found)
    }

    /// Writes checkpoints when they are due, applies retention and forgets silent producers, until the store is closed.
    /// Spawn it once.
    pub async fn maintain(&self, retention_every: Duration) {
        let mut since_retention = Duration::ZERO;
        let (mut idle, mut bytes_before) = (Duration::ZERO, 0);
        let mut troubles = Troubles::default();
        loop {
            let pause = if idle.is_zero() { CHECK_EVERY } else { CHECK_IDLE_EVERY };
            self.shared.core.sleep(pause).await;
            if self.shared.closed.get() {
                return;
            }
            let bytes = self.appended_bytes();
            idle = if bytes == bytes_before { idle + pause } else { Duration::ZERO };
            bytes_before = bytes;
            let uncheckpointed = bytes.saturating_sub(self.shared.checkpointed_bytes.get());
            let is_idle = uncheckpointed > 0 && idle >= IDLE_BEFORE_CHECKPOINT;
            if uncheckpointed >= UNCHECKPOINTED_BYTES_MAX || is_idle {
                // A failed checkpoint costs time at the next start, nothing else.
                let written = self.checkpoint().await;
                troubles.note("checkpoint of a core".to_owned(), written.as_ref().err());
                if written.is_err() {
                    self.shared.core.sleep(AFTER_FAILED_CHECKPOINT).await;
                }
            }
            since_retention += pause;
            if since_retention >= retention_every {
                since_retention = Duration::ZERO;
                for log in self.all() {
                    // A log that cannot move its start keeps its data.
                    let kept = log.apply_retention().await;
                    troubles.note(format!("retention in {}", log.dir().display()), kept.as_ref().err());
                    log.expire_producers();
                }
            }
        }
    }

    /// What this core's logs are, durably, in the older slot.
    pub async fn checkpoint(&self) -> io::Result<()> {
        let bytes = self.appended_bytes();
        self.write(async |log| log.save().await).await?;
        self.shared.checkpointed_bytes.set(bytes);
        Ok(())
    }

    /// Closes every log and says so in a last checkpoint. The folder is marked clean by whoever closed all cores.
    pub async fn close(&self) -> io::Result<()> {
        self.shared.closed.set(true);
        self.write(async |log| log.close().await).await
    }

    /// What was said of a log before it failed: true still, but for its having been closed.
    fn saved_before(&self, id: PartitionId) -> Option<Saved> {
        self.shared.folder.saved(id).map(|saved| Saved { clean: false, ..saved })
    }

    fn all(&self) -> Vec<Log> {
        self.shared.logs.borrow().values().cloned().collect()
    }

    /// What all logs of this core have done, those that are gone included: no counter ever goes back.
    pub fn counters(&self) -> Counters {
        let mut sum = self.shared.gone.get();
        self.shared.logs.borrow().values().for_each(|log| sum += log.counters());
        sum
    }

    /// What this core's journal has done.
    pub fn journal(&self) -> journal::Counters {
        self.shared.journal.counters()
    }

    /// Memory that flushes keep which are in the journal and in no segment.
    pub fn journal_kept_bytes(&self) -> usize {
        self.shared.journal.kept_bytes()
    }

    /// Memory that recent bytes are kept in.
    pub fn tail_bytes(&self) -> usize {
        self.shared.tails.used()
    }

    /// Memory that chunks of segments behind the tails are kept in.
    pub fn chunk_bytes(&self) -> usize {
        self.shared.chunks.used()
    }

    fn keep_counters(&self, leaving: &Log) {
        let mut gone = self.shared.gone.get();
        gone += leaving.counters();
        self.shared.gone.set(gone);
    }

    fn appended_bytes(&self) -> u64 {
        // What a start had to search lies behind the checkpoint too.
        let counters = self.counters();
        counters.bytes + counters.bytes_searched
    }

    /// One after the other.
    async fn write(&self, say: impl AsyncFn(&Log) -> Result<Saved, Poisoned>) -> io::Result<()> {
        let shared = &self.shared;
        while shared.writing.replace(true) {
            shared.written.wait().await;
        }
        let sequence = shared.sequence.get() + 1;
        let (content, segments) = self.content(sequence, say).await;
        let written = write_slot(shared, sequence, content).await;
        shared.writing.set(false);
        shared.written.notify_all();
        if written.is_ok() {
            shared.sequence.set(sequence);
            *shared.checkpointed.borrow_mut() = segments;
        }
        written
    }

    /// What is known of every log, open or not; one that opens meanwhile is in it too.
    async fn content(
        &self,
        sequence: u64,
        say: impl AsyncFn(&Log) -> Result<Saved, Poisoned>,
    ) -> (Encoder, BTreeMap<PartitionId, Offset>) {
        let mut segments = BTreeMap::new();
        let mut encoder = Encoder::new(sequence);
        let mut told = BTreeSet::new();
        loop {
            let rest: Vec<Log> = self.all().into_iter().filter(|log| !told.contains(&log.id())).collect();
            if rest.is_empty() {
                break;
            }
            for log in rest {
                let saved = say(&log).await.ok().or_else(|| self.saved_before(log.id()));
                saved.iter().for_each(|saved| encoder.put(saved));
                segments.extend(saved.map(|saved| (saved.id, saved.segment)));
                told.insert(log.id());
                self.shared.core.yield_now().await;
            }
        }
        for id in self.shared.unopened.borrow().difference(&told) {
            self.saved_before(*id).iter().for_each(|saved| encoder.put(saved));
        }
        (encoder, segments)
    }
}

/// What goes on failing is said once, and once more when it is over.
#[derive(Default)]
struct Troubles(BTreeSet<String>);

impl Troubles {
    fn note(&mut self, what: String, error: Option<&impl std::fmt::Debug>) {
        match error {
            Some(error) if self.0.insert(what.clone()) => rt::say!("corelog: {what} failed: {error:?}"),
            Some(_) => {}
            None if self.0.remove(&what) => rt::say!("corelog: {what} works again"),
            None => {}
        }
    }
}

async fn write_slot(shared: &Shared, sequence: u64, content: Encoder) -> io::Result<()> {
    let path = shared.folder.checkpoint_path(shared.core.id().0, sequence % 2);
    let file = shared.core.open(path, Open::write().create()).await?;
    let content = shared.core.offload(move || content.finish()).await.map_err(io::Error::other)?;
    let content = Slice::from(content);
    for from in (0..content.len()).step_by(SLOT_WRITE_BYTES) {
        let part = content.slice(from..content.len().min(from + SLOT_WRITE_BYTES));
        file.write_at(vec![part], from as u64, Sync::None).await?;
    }
    file.sync_all().await?;
    if shared.faults.skip_dir_sync {
        return Ok(());
    }
    shared.core.sync_dir(shared.folder.checkpoints_dir()).await
}
