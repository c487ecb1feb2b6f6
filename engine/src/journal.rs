//! A core's journal: small flushes of many logs made durable by one write (ADR 0001).
//!
//! A log that has a small flush, while others flush too, hands it over instead of writing it to its segment: what is
//! handed over while one write is on its way goes with the next. When that write is on stable media the flush is
//! acknowledged; the log writes the same bytes to its segment later, many flushes at a time (log/behind.rs), and then
//! lets go of the file. A start puts what is in a journal and in no segment where it belongs, before the log's end is
//! searched (log/recover/replay.rs).
//!
//! ```text
//! <data>/journal/<number>    two per core, made when they are first needed; twenty digits (format.rs)
//! ```
//! One file is filled, the other one emptied: when one is full, the other takes its turn, or it does again, if no log holds it
//! any more. As long as both are held, flushes go to the segments as they would without a journal. Nothing here waits for
//! memory.
//!
//! Invariants:
//! - an entry is on stable media before the next one is begun, so that only the last can be torn;
//! - a file is written from its front again only when every flush in it is on stable media in its segment, or its log
//!   was deleted;
//! - a write that failed ends the journal: nobody can say what of it is on the disk.

pub(crate) mod format;
mod left;

pub use format::{Journaled, Place};
pub(crate) use left::{Left, Settled, of_log};

use crate::log::Faults;
use crate::space::{BLOCK_BYTES, block_ceil};
use format::{ENTRY_BYTES, Entry, FLUSH_BYTES, Key};
use rt::sync::oneshot;
use rt::{Class, Core, File, Open, Reservation, Slice, Sync};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Flushes of more bytes go to their segments: the disk would write them twice for little.
pub const FLUSH_BYTES_MAX: usize = 16 << 10;
/// The most that one entry holds; what waits beyond that is for the next.
const ENTRY_BYTES_MAX: usize = 256 << 10;
/// A file's bytes.
pub const FILE_BYTES: u64 = 4 << 20;
const FILES: usize = 2;
/// How often the writer lets everything else on its core go first: what comes of that joins the entry, and where nothing
/// comes it costs nothing.
const GATHERING_TURNS: usize = 3;
/// How long a core does without a journal that could not be made: the disk is full, say.
const MAKE_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Logs that are written behind at the same time to empty a file.
const EMPTYING_MAX: usize = 4;

/// A flush's claim on the file it lies in. It ends by [`Journal::release`] alone: what is merely dropped keeps the file.
#[derive(PartialEq, Eq, Debug)]
pub struct Hold(usize);

/// Writes a log's flushes to its segment, so that it lets go of the files that hold them.
type Empty = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>>>;

/// What a journal is allowed, and when it is used.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub file_bytes: u64,
    /// From how many small flushes under way on the core on, the one that asks included.
    pub flushes_min: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { file_bytes: FILE_BYTES, flushes_min: 2 }
    }
}

/// What a journal has done.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    pub writes: u64,
    pub flushes: u64,
    /// Bytes of those writes, padded to whole blocks.
    pub bytes: u64,
    /// Flushes that went to their segment because no file was free.
    pub refused: u64,
}

#[derive(Clone)]
pub struct Journal(Rc<Shared>);

struct Shared {
    core: Core,
    dir: PathBuf,
    /// The next number for a file, or a use of one, that no core of this folder has had.
    generations: Arc<AtomicU64>,
    limits: Limits,
    /// Memory that logs may keep for flushes that are only here.
    kept_max: usize,
    kept: Cell<usize>,
    /// Small flushes under way, here or to segments.
    under_way: Cell<usize>,
    counters: Cell<Counters>,
    state: RefCell<State>,
    faults: Faults,
}

#[derive(Default)]
struct State {
    stage: Stage,
    files: Vec<JournalFile>,
    filling: usize,
    queue: VecDeque<Waiting>,
    writing: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Unmade,
    Making,
    Ready,
    /// Of no use until the next start.
    Failed,
}

struct JournalFile {
    file: File,
    key: Key,
    generation: u64,
    number: u32,
    position: u64,
    /// How many holds on it there are.
    held: usize,
    holders: Vec<Empty>,
}

struct Waiting {
    place: Place,
    batches: Vec<Slice>,
    bytes: usize,
    answer: oneshot::Sender<io::Result<Option<Hold>>>,
}

/// Counts a small flush as under way.
pub struct UnderWay(Rc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

impl Journal {
    /// The journal of one core, in `dir`.
    pub fn new(
        core: &Core,
        dir: PathBuf,
        generations: Arc<AtomicU64>,
        limits: Limits,
        faults: Faults,
    ) -> Journal {
        // An eighth of what produce could get: the rest is for what is in flight, and for readers.
        let kept_max = core.buffers().largest(Reservation::Produce) / 8;
        Journal(Rc::new(Shared {
            core: core.clone(),
            dir,
            generations,
            limits,
            kept_max,
            kept: Cell::new(0),
            under_way: Cell::new(0),
            counters: Cell::default(),
            state: RefCell::default(),
            faults,
        }))
    }

    pub fn counters(&self) -> Counters {
        self.0.counters.get()
    }

    /// Memory that logs keep for flushes that are only here.
    pub fn kept_bytes(&self) -> usize {
        self.0.kept.get()
    }

    /// Says that a small flush is under way, until what it gives is dropped.
    pub fn begin_flush(&self) -> UnderWay {
        self.0.under_way.set(self.0.under_way.get() + 1);
        UnderWay(self.0.clone())
    }

    /// Whether a small flush goes here: it is not alone, or its log has others here already.
    pub fn admits(&self, has_others: bool) -> bool {
        let shared = &self.0;
        if !has_others && shared.under_way.get() < shared.limits.flushes_min {
            return false;
        }
        let mut state = shared.state.borrow_mut();
        match state.stage {
            Stage::Ready if shared.kept.get() <= shared.kept_max => return true,
            Stage::Ready => {
                state.files.iter_mut().for_each(|file| self.empty(std::mem::take(&mut file.holders)))
            }
            Stage::Unmade => {
                state.stage = Stage::Making;
                let journal = self.clone();
                shared.core.spawn(Class::Background, async move { journal.0.make().await }).detach();
            }
            Stage::Making | Stage::Failed => {}
        }
        false
    }

    /// Makes a flush durable. `None`: there is no room now, and nothing was written.
    ///
    /// # Errors
    /// It may be on stable media or not, and a start may find it: the log must not go on without one.
    pub async fn append(&self, place: Place, batches: Vec<Slice>) -> io::Result<Option<Hold>> {
        let (answer, answered) = oneshot::channel();
        let bytes = batches.iter().map(|part| part.len()).sum();
        {
            let mut state = self.0.state.borrow_mut();
            state.queue.push_back(Waiting { place, batches, bytes, answer });
            if !std::mem::replace(&mut state.writing, true) {
                let journal = self.clone();
                self.0.core.spawn(Class::Produce, async move { journal.write_all().await }).detach();
            }
        }
        answered.await.unwrap_or_else(|_| Err(io::Error::other("the journal's writer ended")))
    }

    /// A log keeps so many bytes more for flushes that are only here.
    pub fn keep(&self, bytes: usize) {
        self.0.kept.set(self.0.kept.get() + bytes);
    }

    pub fn give_back(&self, bytes: usize) {
        self.0.kept.set(self.0.kept.get() - bytes);
    }

    /// A log has its first flush in this file. `empty` is what makes it let go.
    pub fn hold(&self, hold: &Hold, empty: Empty) {
        self.0.state.borrow_mut().files[hold.0].holders.push(empty);
    }

    /// What was held is in its segment, on stable media, or its log is gone, or another hold of the log stands for it.
    pub fn release(&self, hold: Hold) {
        let mut state = self.0.state.borrow_mut();
        let file = &mut state.files[hold.0];
        file.held -= 1;
        if file.held == 0 {
            file.holders.clear();
        }
    }

    /// Writes entry by entry until nothing waits.
    async fn write_all(&self) {
        let _guard = PanicFails(&self.0);
        loop {
            for _ in 0..GATHERING_TURNS {
                self.0.core.yield_now().await;
            }
            let (flushes, outcome) = match self.next() {
                Next::Nothing => return,
                Next::Refused(flushes) => {
                    self.0.count(|counters| counters.refused += flushes.len() as u64);
                    (flushes, Ok(None))
                }
                Next::Entry { flushes, head, data, at: (number, file, position) } => {
                    let bytes = data.len() as u64;
                    let sync = if self.0.faults.skip_flush { Sync::None } else { Sync::Data };
                    let written = match file.write_at(vec![head], 0, sync).await {
                        Ok(()) => file.write_at(vec![data], position, sync).await,
                        failed => failed,
                    };
                    self.0.count(|counters| {
                        counters.writes += 1;
                        counters.flushes += flushes.len() as u64;
                        counters.bytes += bytes;
                    });
                    if let Err(error) = &written {
                        self.0.state.borrow_mut().stage = Stage::Failed;
                        rt::say!(
                            "corelog: writing the journal failed, small flushes go to segments: {error}"
                        );
                    }
                    (flushes, written.map(|()| Some(number)))
                }
            };
            for flush in flushes {
                let answer = match &outcome {
                    Ok(number) => Ok(number.map(Hold)),
                    Err(error) => Err(io::Error::new(error.kind(), format!("writing the journal: {error}"))),
                };
                // A log that does not listen any more keeps the file.
                let _ = flush.answer.send(answer);
            }
        }
    }

    /// What is to be written next; claims its place.
    fn next(&self) -> Next {
        let shared = &self.0;
        let mut state = shared.state.borrow_mut();
        let state = &mut *state;
        let mut bytes = ENTRY_BYTES;
        let mut flushes = Vec::new();
        while let Some(next) = state.queue.front()
            && (flushes.is_empty() || bytes + FLUSH_BYTES + next.bytes <= ENTRY_BYTES_MAX)
        {
            bytes += FLUSH_BYTES + next.bytes;
            flushes.extend(state.queue.pop_front());
        }
        if flushes.is_empty() {
            state.writing = false;
            return Next::Nothing;
        }
        let padded = block_ceil(bytes as u64);
        if state.stage != Stage::Ready || !self.find_room(state, padded) {
            return Next::Refused(flushes);
        }
        let number = state.filling;
        let filling = &mut state.files[number];
        let entry = Entry { key: filling.key, generation: filling.generation, number: filling.number };
        // The first one of a generation follows a new head.
        let head_bytes = if entry.number == 0 { BLOCK_BYTES as usize } else { 0 };
        let padded = usize::try_from(padded).expect("an entry is bounded");
        let Some(mut buf) = shared.core.buffers().try_take(head_bytes + padded, Reservation::Produce) else {
            return Next::Refused(flushes);
        };
        let (head, out) = buf.split_at_mut(head_bytes);
        head.copy_from_slice(&format::head(&entry)[..head_bytes]);
        let mut at = format::begin(out, &entry, flushes.len());
        for flush in &flushes {
            at = format::put(out, at, &flush.place, flush.batches.iter().map(|part| &part[..]));
        }
        assert!(at == bytes);
        format::finish(&mut out[..bytes]);
        out[bytes..].fill(0);
        let position = filling.position;
        filling.position += padded as u64;
        filling.number += 1;
        filling.held += flushes.len();
        let data = buf.freeze(0..head_bytes + padded);
        let (head, data) = (data.slice(0..head_bytes), data.slice(head_bytes..data.len()));
        Next::Entry { flushes, head, data, at: (number, filling.file.clone(), position) }
    }

    /// Whether the file that is being filled has so many bytes left, or the other one is empty and takes its turn.
    fn find_room(&self, state: &mut State, bytes: u64) -> bool {
        let shared = &self.0;
        let fits = |file: &JournalFile| file.position + bytes <= shared.limits.file_bytes;
        if fits(&state.files[state.filling]) {
            return true;
        }
        let full = state.filling;
        let other = (full + 1) % FILES;
        let is_free = |number: usize| state.files[number].held == 0 || shared.faults.reused_journal;
        // A log that failed holds its file until the next start: then the other one is all there is.
        let next = [other, full].into_iter().find(|number| is_free(*number));
        // Also those that learned late what they have in it.
        state.files.iter_mut().for_each(|file| self.empty(std::mem::take(&mut file.holders)));
        let Some(next) = next else { return false };
        state.filling = next;
        let next = &mut state.files[next];
        (next.generation, next.number, next.position) = (shared.next_generation(), 0, BLOCK_BYTES);
        fits(next)
    }

    /// Has logs write what they hold to their segments, some at a time.
    fn empty(&self, holders: Vec<Empty>) {
        let holders = Rc::new(RefCell::new(holders));
        for _ in 0..EMPTYING_MAX.min(holders.borrow().len()) {
            let holders = holders.clone();
            let emptying = async move {
                loop {
                    let next = holders.borrow_mut().pop();
                    let Some(empty) = next else { return };
                    empty().await;
                }
            };
            self.0.core.spawn(Class::Background, emptying).detach();
        }
    }
}

/// If a panic ends the writer, whoever waits for it hears of it, and nobody waits again.
struct PanicFails<'a>(&'a Shared);

impl Drop for PanicFails<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(mut state) = self.0.state.try_borrow_mut()
        {
            (state.stage, state.writing) = (Stage::Failed, false);
            state.queue.clear();
        }
    }
}

/// What the writer does next.
enum Next {
    Nothing,
    Refused(Vec<Waiting>),
    Entry {
        flushes: Vec<Waiting>,
        /// What the file must begin with before the entry is written; empty where it does.
        head: Slice,
        data: Slice,
        /// The file's number, the file, and where in it.
        at: (usize, File, u64),
    },
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Makes the files; one try of several that fail follows the other after a while.
    async fn make(&self) {
        match self.make_files().await {
            Ok(files) => {
                let mut state = self.state.borrow_mut();
                (state.files, state.stage) = (files, Stage::Ready);
            }
            Err(error) => {
                rt::say!("corelog: no journal could be made, small flushes go to segments for now: {error}");
                self.core.sleep(MAKE_AGAIN_AFTER).await;
                self.state.borrow_mut().stage = Stage::Unmade;
            }
        }
    }

    fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// Both files, full of zeros, so that entries overwrite blocks instead of converting them.
    async fn make_files(&self) -> io::Result<Vec<JournalFile>> {
        let (mut files, mut paths) = (Vec::with_capacity(FILES), Vec::with_capacity(FILES));
        for _ in 0..FILES {
            let generation = self.next_generation();
            let path = self.dir.join(name(generation));
            paths.push(path.clone());
            match self.make_file(path, generation).await {
                Ok(file) => files.push(file),
                Err(error) => {
                    for path in paths {
                        // What stays by a failure is a file that holds nothing, and goes with the next start.
                        let _ = self.core.unlink(path).await;
                    }
                    return Err(error);
                }
            }
        }
        if !self.faults.skip_dir_sync {
            self.core.sync_dir(self.dir.clone()).await?;
        }
        Ok(files)
    }

    async fn make_file(&self, path: PathBuf, generation: u64) -> io::Result<JournalFile> {
        let file = self.core.open(path, Open::write().create().direct()).await?;
        let bytes = self.limits.file_bytes;
        file.allocate(0..bytes).await?;
        let mut at = BLOCK_BYTES;
        while at < bytes {
            let now = (bytes - at).min(rt::ZEROS_BYTES_MAX as u64);
            file.write_at(vec![rt::zeros(usize::try_from(now).expect("bounded"))], at, Sync::None).await?;
            at += now;
        }
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.core.random_u64().to_le_bytes());
        key[8..].copy_from_slice(&self.core.random_u64().to_le_bytes());
        let mut head = self.core.buffers().take(BLOCK_BYTES as usize, Reservation::Control).await;
        head.copy_from_slice(&format::head(&Entry { key, generation, number: 0 }));
        file.write_at(vec![head.freeze(0..BLOCK_BYTES as usize)], 0, Sync::Data).await?;
        file.sync_all().await?;
        Ok(JournalFile {
            file,
            key,
            generation,
            number: 0,
            position: BLOCK_BYTES,
            held: 0,
            holders: Vec::new(),
        })
    }
}

/// A file's name.
fn name(number: u64) -> String {
    format!("{number:020}")
}

fn parse_name(name: &str) -> Option<u64> {
    (name.len() == 20).then(|| name.parse().ok()).flatten()
}
