//! One partition's log: the state, what it promises, and its public face.
//!
//! A log belongs to one core and is touched by no other. Decisions are taken synchronously on `State`; the futures
//! here only wait and do I/O, and hold no reference into the state while they wait.
//!
//! Invariants:
//! - offsets are given in call order, only after space and memory for the batch are reserved (A1, A14);
//! - `log_start <= high_watermark <= durable_end <= end`; the last two move only forwards within an incarnation;
//! - `synced_end <= filed_end <= durable_end`: what lies behind `filed_end` is in the core's journal and in memory;
//! - one flush in flight; the next one forms meanwhile, starting from a copy of the tail block (A15);
//! - a failed write, or a panic half-way through a change, poisons the log: it serves nothing until it is opened anew,
//!   from disk, in a new epoch;
//! - every byte behind the end is zero on media, but for the flush in flight (A2).
//!
//! It does not replicate: the high watermark is the durable end until something else is told to move it.

mod admit;
mod ahead;
mod append;
mod behind;
mod cold;
mod compact;
mod config;
mod counters;
mod flush;
mod grow;
mod read;
mod recover;
mod scan;
mod seal;
mod suffix;
pub(crate) mod tear;
#[cfg(test)]
pub(crate) mod tests;
mod truncate;
mod turn;
mod waiters;
mod zero;

pub use compact::{Compacted, CompactionError};
pub use config::{Durability, Faults, Limits, LogConfig, OpenLog};
pub use counters::Counters;
pub use read::{ReadError, ReadOut};
pub use recover::OpenError;

use crate::cache::{Tail, Tails};
use crate::checkpoint::Saved;
use crate::chunks::Chunks;
use crate::compaction;
use crate::epochs::EpochCache;
use crate::ids::{LeaderEpoch, Offset, PartitionId};
use crate::journal::{Journal, Journaled};
use crate::names::PartitionFile;
use crate::producers::ProducerStates;
use crate::segment::Segment;
use behind::Behind;
use flush::{Forming, Ready};
use rt::sync::{Event, Semaphore};
use rt::{BufMut, Class, Core, Slice};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::rc::Rc;
use std::task::Poll;
use turn::Turns;
use waiters::Waiters;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendKind {
    /// From a producer: everything is checked.
    Client,
    /// Written by the broker itself.
    Internal,
}

/// What an append was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub log_append_time_ms: i64,
    pub log_start_offset: Offset,
    /// The batch was there already; wait for `last_offset` as the original does (A6).
    pub duplicate: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppendError {
    /// The bytes are not one batch of today's format, whatever the log holds.
    NotOneBatch(String),
    InvalidRecord {
        message: String,
        record_errors: Vec<(i32, String)>,
    },
    InvalidTimestamp {
        message: String,
        record_errors: Vec<(i32, String)>,
    },
    Corrupt,
    MessageTooLarge,
    RecordListTooLarge,
    OutOfOrderSequence,
    InvalidProducerEpoch,
    UnsupportedCompression,
    /// A plain batch while its producer has a transaction open.
    InvalidTxnState,
    /// The disk is full. Nothing was assigned; it may go on without a restart.
    NoSpace(String),
    /// The log is poisoned or closed, or the disk failed. Nothing was assigned.
    Storage(String),
}

/// The log failed after offsets were given, or was closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poisoned(pub String);

/// Why a log serves nothing any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub why: String,
    /// Our own mistake, not the disk's: what is on disk can be recovered in a new epoch.
    pub panicked: bool,
}

#[derive(Clone)]
pub struct Log {
    shared: Rc<Shared>,
}

struct Shared {
    core: Core,
    dir: PathBuf,
    id: PartitionId,
    epoch: Cell<LeaderEpoch>,
    notes: Vec<String>,
    limits: Limits,
    faults: Faults,
    tails: Tails,
    chunks: Chunks,
    journal: Option<Journal>,
    partitions: Rc<Cell<u64>>,
    tail: Rc<Tail>,
    turns: Turns,
    committed: Waiters,
    durable: Waiters,
    /// Whoever waits for what is in the journal only.
    filed: Waiters,
    moved: Event,
    /// Tasks that may touch the files, and the moment that there is none.
    at_work: Cell<usize>,
    idle: Event,
    syncing: Semaphore,
    /// Fires when zeros ahead of the end were written, or could not be.
    zeroed: Event,
    config: RefCell<LogConfig>,
    counters: Cell<Counters>,
    partition: RefCell<Option<PartitionFile>>,
    /// One change of that file at a time, and of which segments the log is made of; a roll only adds one.
    stating: Semaphore,
    state: RefCell<State>,
}

/// What changes. Nothing outside a synchronous function holds a reference to it.
struct State {
    /// By base offset; the last one is active.
    segments: Vec<Segment>,
    log_start: Offset,
    high_watermark: Offset,
    /// Acknowledged by the disk as the durability asks, in a segment or in the journal.
    durable_end: Offset,
    /// Written to the segments.
    filed_end: Offset,
    /// Known to be on stable media in the segments; equals `filed_end` in fsync mode.
    synced_end: Offset,
    end: Offset,
    epochs: EpochCache,
    producers: ProducerStates,
    /// As the last checkpoint has them: where a truncation rebuilds from.
    producers_saved: ProducerStates,
    /// How often the log was truncated.
    truncations: u32,
    /// Its end is being taken away: nothing can be said of it meanwhile.
    truncating: bool,
    /// Where the part begins that was not compacted yet, and how many segments were rewritten so far.
    clean_to: Offset,
    rewrites: u32,
    compacting: bool,
    forming: Option<Forming>,
    ready: VecDeque<Ready>,
    /// What is in the journal only; it lies between `filed_end` and `durable_end`.
    behind: Option<Behind>,
    /// It is to be written to the segment now.
    settling: bool,
    flushing: bool,
    /// Reserved for the batch whose turn it is.
    spare: Vec<BufMut>,
    /// The assigned bytes of the active segment's last, partly filled block.
    last_block: Vec<u8>,
    /// What the device must flush before the first write of the active segment (write mode).
    sync_before: Option<rt::File>,
    last_flush_bytes: usize,
    unsynced_messages: u64,
    sync_timer: bool,
    /// How often the durability changed: timers set before count no more.
    durabilities: u32,
    failure: Option<Failure>,
    closed: bool,
}

impl Log {
    /// Opens or creates a log: finds its end, removes a torn tail, refuses damage, and begins this incarnation's epoch.
    pub async fn open(core: &Core, how: OpenLog) -> Result<Log, OpenError> {
        let shared = Rc::new(recover::open(core, how).await?);
        seal::start_all(&shared);
        Ok(Log { shared })
    }

    /// Appends one batch. Returns once its offsets are given, in call order; [`Log::committed`] says when it is safe.
    /// Once polled it must run to its end: never put it in a `select`.
    pub async fn append(&self, records: Slice, kind: AppendKind) -> Result<Appended, AppendError> {
        append::append(&self.shared, records, kind).await
    }

    /// Resolves when the high watermark has passed `last`.
    pub async fn committed(&self, last: Offset) -> Result<(), Poisoned> {
        wait_for(&self.shared, &self.shared.committed, last, |state| state.high_watermark).await
    }

    /// Whole batches from the one that holds `from`, below `up_to`. At most `max_bytes`, but for a first batch that
    /// alone is larger where `min_one_batch` is set.
    pub async fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        min_one_batch: bool,
        up_to: Offset,
    ) -> Result<ReadOut, ReadError> {
        read::read(&self.shared, from, max_bytes, min_one_batch, up_to, true).await
    }

    /// The same for a caller who holds what others may wait for: what memory at hand allows, which may be nothing.
    pub async fn read_at_hand(
        &self,
        from: Offset,
        max_bytes: usize,
        up_to: Offset,
    ) -> Result<ReadOut, ReadError> {
        read::read(&self.shared, from, max_bytes, false, up_to, false).await
    }

    /// About how many bytes a read of `from..up_to` would give, `cap` at most. Never waits.
    pub fn bytes_available(&self, from: Offset, up_to: Offset, cap: usize) -> usize {
        read::available(&self.shared, from, up_to, cap)
    }

    /// The first record at or behind the log start with a time of at least `timestamp`.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64, LeaderEpoch)>, ReadError> {
        read::offset_for_timestamp(&self.shared, timestamp).await
    }

    /// The first record that has the largest time of the log.
    pub async fn offset_of_max_timestamp(&self) -> Result<Option<(Offset, i64, LeaderEpoch)>, ReadError> {
        read::offset_of_max_timestamp(&self.shared).await
    }

    pub fn id(&self) -> PartitionId {
        self.shared.id
    }

    /// The folder of its files.
    pub fn dir(&self) -> &std::path::Path {
        &self.shared.dir
    }

    pub fn log_start_offset(&self) -> Offset {
        self.shared.state.borrow().log_start
    }

    pub fn high_watermark(&self) -> Offset {
        self.shared.state.borrow().high_watermark
    }

    pub fn log_end_offset(&self) -> Offset {
        self.shared.state.borrow().end
    }

    /// The end of what the disk has acknowledged, whatever stands behind it: a segment or the core's journal (B3).
    pub fn durable_end(&self) -> Offset {
        self.shared.state.borrow().durable_end
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.shared.epoch.get()
    }

    pub fn is_poisoned(&self) -> bool {
        self.shared.state.borrow().failure.is_some()
    }

    /// Whether the log was closed in order: the broker stops, and whoever asks should ask again elsewhere or later.
    pub fn is_closed(&self) -> bool {
        let state = self.shared.state.borrow();
        state.closed && state.failure.is_none()
    }

    /// Why the log serves nothing, if that is so. [`Log::subscribe`] fires when it comes about.
    pub fn failure(&self) -> Option<Failure> {
        self.shared.state.borrow().failure.clone()
    }

    /// After a failure: waits until nothing of this log touches its files any more. Only then may they be opened anew.
    pub async fn retire(&self) {
        assert!(self.is_poisoned());
        let ticket = self.shared.turns.draw();
        ticket.turn().await;
        self.shared.idle().await;
    }

    /// After a failure: what of this log is in the core's journal and in no segment.
    pub(crate) fn left_in_journal(&self) -> Option<Journaled> {
        behind::left(&self.shared)
    }

    /// After a failure: the journal is not needed for this log any more, because another has it all.
    pub(crate) fn forget_journal(&self) {
        behind::forget(&self.shared);
    }

    /// Logical bytes of all segments, as DescribeLogDirs reports them.
    pub fn size_bytes(&self) -> u64 {
        self.shared.state.borrow().segments.iter().map(|segment| segment.position).sum()
    }

    /// Fires when the high watermark moves, and when the log closes or fails.
    pub fn subscribe(&self) -> Event {
        self.shared.moved.clone()
    }

    /// The largest epoch known that is not above `epoch`, and where it ended.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.shared.state.borrow();
        state.epochs.end_offset_for(epoch, state.end)
    }

    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.shared.state.borrow().epochs.epoch_at(offset)
    }

    pub fn config(&self) -> LogConfig {
        self.shared.config.borrow().clone()
    }

    /// Counts from here on: for the next append, the next roll, the next look at what may go.
    pub fn set_config(&self, config: LogConfig) {
        let before = self.shared.config.replace(config);
        if before.durability != self.shared.config.borrow().durability {
            seal::durability_changed(&self.shared);
        }
    }

    /// What was found and mended when the log was opened, as sentences.
    pub fn notes(&self) -> &[String] {
        &self.shared.notes
    }

    pub fn counters(&self) -> Counters {
        self.shared.counters.get()
    }

    /// Raises the log start (DeleteRecords); durable when this returns. Whole segments below it go.
    pub async fn delete_records(&self, to: Offset) -> Result<Offset, AppendError> {
        truncate::delete_records(&self.shared, to).await
    }

    /// Removes what the topic's retention no longer keeps. Returns how many segments went.
    pub async fn apply_retention(&self) -> Result<usize, AppendError> {
        truncate::apply_retention(&self.shared).await
    }

    /// What a compaction would do now; `None` where the topic is not compacted or nothing is dirty.
    pub fn compaction_plan(&self) -> Option<compaction::Plan> {
        compact::plan(&self.shared)
    }

    /// Removes records that later ones of the same key made void, whatever part of the log is dirty. Any crash leaves a
    /// log with all that must stay; a failure leaves it as it is, but for whole segments that were done before.
    ///
    /// # Errors
    /// It was not done to the end, and nothing else is disturbed; trying again later is right.
    pub async fn compact(&self) -> Result<Compacted, CompactionError> {
        compact::compact(&self.shared).await
    }

    /// Begins a new segment if the active one holds a record that should have been compacted by now.
    pub async fn roll_overdue(&self) -> Result<bool, AppendError> {
        compact::roll_overdue(&self.shared).await
    }

    /// Forgets producers that were silent for too long. Returns how many.
    pub fn expire_producers(&self) -> usize {
        let expiration_ms = self.shared.config.borrow().producer_expiration_ms;
        self.shared.state.borrow_mut().producers.expire(self.shared.core.wall_ms(), expiration_ms)
    }

    /// Takes away every batch that reaches beyond `to`, because `epoch` reconciled the log so; gives the new end. The log
    /// goes on in `epoch`, which must be above the one it had. Durable when this returns, and done again by the next
    /// start if it is interrupted.
    pub async fn truncate(&self, to: Offset, epoch: LeaderEpoch) -> Result<Offset, AppendError> {
        suffix::truncate(&self.shared, to, epoch).await
    }

    /// What a checkpoint may say of this log now: nothing beyond stable media.
    pub async fn save(&self) -> Result<Saved, Poisoned> {
        seal::save(&self.shared).await
    }

    /// Flushes what was appended and stops. Returns what the closing checkpoint should say.
    pub async fn close(&self) -> Result<Saved, Poisoned> {
        seal::close(&self.shared).await
    }

    /// Closes without flushing and removes the folder.
    pub async fn delete(self) -> std::io::Result<()> {
        truncate::delete(&self.shared).await
    }
}

impl Shared {
    /// The log serves nothing from here on. Whoever waits hears of it.
    fn poison(&self, why: String) {
        self.state.borrow_mut().fail(Failure { why, panicked: false });
        self.wake_everybody();
    }

    /// Waits until nothing touches the files.
    async fn idle(&self) {
        loop {
            let idle = self.idle.listen();
            if self.at_work.get() == 0 {
                return;
            }
            idle.await;
        }
    }

    fn wake_everybody(&self) {
        self.committed.wake_all();
        self.durable.wake_all();
        self.filed.wake_all();
        self.moved.notify_all();
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }
}

impl State {
    /// What waits for the disk goes nowhere any more; the flush in flight ends as it may. What is in the journal stays.
    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        self.forming = None;
        self.ready.clear();
        self.spare.clear();
    }

    fn check_open(&self) -> Result<(), Poisoned> {
        match (&self.failure, self.closed) {
            (Some(failure), _) => Err(Poisoned(failure.why.clone())),
            (None, true) => Err(Poisoned("the log is closed".into())),
            (None, false) => Ok(()),
        }
    }

    /// Whether everything in the segments is on stable media. A sync that is under way does not count.
    fn is_synced(&self) -> bool {
        self.synced_end >= self.filed_end
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("an open log has an active segment")
    }

    fn segment(&mut self, base: Offset) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|segment| segment.base == base)
    }
}

impl From<Poisoned> for AppendError {
    fn from(poisoned: Poisoned) -> Self {
        AppendError::Storage(poisoned.0)
    }
}

/// Waits until `end` of the state has passed `last`. A log that failed or closed answers with that.
async fn wait_for(
    shared: &Rc<Shared>,
    waiters: &Waiters,
    last: Offset,
    end: impl Fn(&State) -> Offset,
) -> Result<(), Poisoned> {
    let mut key = None;
    let waiting = Waiting { waiters, last: last.0, key: Cell::new(None) };
    poll_fn(|context| {
        let state = shared.state.borrow();
        if end(&state) > last {
            return Poll::Ready(Ok(()));
        }
        if let Err(poisoned) = state.check_open() {
            return Poll::Ready(Err(poisoned));
        }
        waiters.wait(last.0, &mut key, context.waker());
        waiting.key.set(key);
        Poll::Pending
    })
    .await
}

/// Forgets a waiter whose future was dropped.
struct Waiting<'a> {
    waiters: &'a Waiters,
    last: i64,
    key: Cell<Option<u64>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiters.forget(self.last, self.key.get());
    }
}

/// Something that may touch the log's files.
struct AtWork(Rc<Shared>);

/// Starts a task that may touch the log's files: it is at work from now on, not from when it first runs.
fn spawn_at_work(shared: &Rc<Shared>, class: Class, work: impl Future<Output = ()> + 'static) {
    let at_work = AtWork::begin(shared);
    drop(shared.core.spawn(class, async move {
        work.await;
        drop(at_work);
    }));
}

impl AtWork {
    fn begin(shared: &Rc<Shared>) -> AtWork {
        shared.at_work.set(shared.at_work.get() + 1);
        AtWork(shared.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.set(self.0.at_work.get() - 1);
        if self.0.at_work.get() == 0 {
            self.0.idle.notify_all();
        }
    }
}

/// Poisons the log if a panic leaves a change half done (A14).
struct PanicPoisons<'a>(&'a Shared);

impl Drop for PanicPoisons<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Ok(mut state) = self.0.state.try_borrow_mut() {
            let why = format!("a panic left the log {} half changed", self.0.dir.display());
            state.fail(Failure { why, panicked: true });
        }
        self.0.wake_everybody();
    }
}
