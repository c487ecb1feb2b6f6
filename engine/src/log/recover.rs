//! From a folder to a log that may be appended to.
//!
//! The end is the last batch that continues the log (offset, epoch, CRC), searched from where the checkpoint says it
//! was durable. A torn tail is zeroed, durably and before the first append; damage is never cut: the log stays offline
//! and nothing is written (A2, A4). Everything here can be interrupted and done again.

mod error;
mod replay;
mod settle;
mod swap;
mod walk;

pub use error::OpenError;

use super::config::{Faults, OpenLog};
use super::{Counters, Shared, State};
use crate::checkpoint::Saved;
use crate::epochs::EpochCache;
use crate::ids::{LeaderEpoch, Offset};
use crate::names::{self, Partition, PartitionFile, Unreadable};
use crate::producers::ProducerStates;
use crate::segment::Segment;
use rt::sync::Semaphore;
use rt::{Core, File, Open};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

/// What a recovery gathers while it walks over the segments.
struct Progress {
    end: Offset,
    epochs: EpochCache,
    producers: ProducerStates,
}

impl Progress {
    fn last_epoch(&self) -> LeaderEpoch {
        self.epochs.latest().map_or(LeaderEpoch::UNKNOWN, |(epoch, _)| epoch)
    }
}

struct Recovery<'a> {
    core: &'a Core,
    how: &'a OpenLog,
    searched: Cell<u64>,
    /// What an operator should hear of.
    notes: RefCell<Vec<String>>,
}

pub(super) async fn open(core: &Core, how: OpenLog) -> Result<Shared, OpenError> {
    how.chunks.forget(how.id);
    let recovery = Recovery { core, how: &how, searched: Cell::default(), notes: RefCell::default() };
    let found = recovery.segments().await?;
    let mut partition = recovery.partition(found.is_empty()).await?;
    let mut found = recovery.finish_swap(&mut partition, found).await?;
    let log_start = partition.current.log_start;
    // A start that was raised takes its segments away in no order that survives the power: some may be back, with gaps.
    let behind = found.iter().skip(1).take_while(|next| next.base <= log_start).count();
    recovery.drop_segments(&found[..behind]).await?;
    found.drain(..behind);
    let cut = partition.current.truncation.filter(|truncation| truncation.under_way);
    let Known { saved, end: known_end } = recovery.checkpoint(&found, &partition.current)?;
    let left = recovery.left(&partition.current);
    let (segments, mut progress, last_block) = match found.is_empty() {
        true => {
            recovery.check_left(&left, log_start)?;
            recovery.create(log_start).await?
        }
        false => recovery.walk(found, saved, log_start, cut.map(|cut| cut.to), &left).await?,
    };
    if progress.end < known_end {
        return Err(recovery.missing_end(progress.end, known_end, "the checkpoint"));
    }
    recovery.make_names_durable(&segments, cut.is_some()).await?;
    if cut.is_some() {
        recovery.finish_truncation(&mut partition).await?;
    }
    let (epoch, end) = (recovery.begin_epoch(&mut progress)?, progress.end);
    let log_start = log_start.max(segments.first().map_or(log_start, |segment| segment.base)).min(end);
    progress.epochs.truncate_start(log_start);
    let state = state_of(segments, progress, last_block, (log_start, end), &partition.current);
    let counters = Counters { bytes_searched: recovery.searched.get(), ..Counters::default() };
    let notes = recovery.notes.take();
    Ok(Shared {
        core: core.clone(),
        notes,
        dir: how.dir,
        id: how.id,
        epoch: Cell::new(epoch),
        limits: how.limits,
        faults: how.faults,
        tails: how.tails,
        chunks: how.chunks,
        journal: how.journal,
        partitions: how.partitions,
        tail: Rc::default(),
        turns: Default::default(),
        committed: Default::default(),
        durable: Default::default(),
        filed: Default::default(),
        moved: Default::default(),
        at_work: Cell::new(0),
        idle: Default::default(),
        syncing: Semaphore::new(1),
        stating: Semaphore::new(1),
        zeroed: Default::default(),
        config: RefCell::new(how.config),
        counters: Cell::new(counters),
        partition: RefCell::new(Some(partition)),
        state: RefCell::new(state),
    })
}

/// A log whose end was found: all of it is on stable media.
fn state_of(
    segments: Vec<Segment>,
    progress: Progress,
    last_block: Vec<u8>,
    (log_start, end): (Offset, Offset),
    partition: &Partition,
) -> State {
    State {
        segments,
        log_start,
        high_watermark: end,
        durable_end: end,
        filed_end: end,
        synced_end: end,
        end,
        epochs: progress.epochs,
        producers_saved: progress.producers.clone(),
        producers: progress.producers,
        truncations: partition.truncations,
        truncating: false,
        clean_to: partition.compaction.clean_to,
        rewrites: partition.compaction.rewrites,
        compacting: false,
        forming: None,
        ready: VecDeque::new(),
        behind: None,
        settling: false,
        flushing: false,
        spare: Vec::new(),
        last_block,
        sync_before: None,
        last_flush_bytes: 0,
        unsynced_messages: 0,
        sync_timer: false,
        durabilities: 0,
        failure: None,
        closed: false,
    }
}

type Walked = (Vec<Segment>, Progress, Vec<u8>);

/// What a checkpoint is good for.
struct Known {
    saved: Option<Saved>,
    /// The log reached to here at least, whatever became of the segment that the checkpoint knows.
    end: Offset,
}

/// A segment file of the folder.
#[derive(Clone, Copy)]
struct Found {
    base: Offset,
    length: u64,
}

impl Recovery<'_> {
    fn faults(&self) -> Faults {
        self.how.faults
    }

    /// What the folder says of itself. It is durable before the first segment, so only a folder without one is new.
    async fn partition(&self, is_new: bool) -> Result<PartitionFile, OpenError> {
        let how = self.how;
        let path = how.dir.join(names::PARTITION_FILE);
        let failed = |error| OpenError::Io { path: path.clone(), error };
        let read = match PartitionFile::open(self.core, &how.dir).await.map_err(failed)? {
            None if is_new => {
                let sync = !how.faults.skip_dir_sync;
                let made = PartitionFile::create(self.core, &how.dir, how.id, &how.topic_name, sync).await;
                Ok(made.map_err(failed)?)
            }
            None => Err(Unreadable::Damaged),
            Some(read) => read,
        };
        match read {
            Ok(file) if file.current.id == how.id => {
                // What a process that was killed had in flight can be read, and is no nearer to stable media by that.
                if !how.faults.trusting_reads {
                    file.sync().await.map_err(failed)?;
                }
                Ok(file)
            }
            Ok(file) => Err(OpenError::WrongPartition {
                path: how.dir.clone(),
                holds: format!("partition {} of topic {}", file.current.id.index, file.current.topic_name),
            }),
            Err(Unreadable::Newer(version)) => Err(OpenError::Newer { path, version }),
            Err(Unreadable::Damaged) => Err(OpenError::Damaged {
                path,
                position: 0,
                why: "it is missing, or neither slot is valid".into(),
            }),
        }
    }

    /// The folder's segment files, in order.
    async fn segments(&self) -> Result<Vec<Found>, OpenError> {
        let listed = match self.core.list_dir(self.how.dir.clone()).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|error| OpenError::Io { path: self.how.dir.clone(), error })?,
        };
        let mut found: Vec<Found> = listed
            .iter()
            .filter_map(|entry| {
                let base = names::parse_segment(entry.name.to_str()?)?;
                Some(Found { base, length: entry.len })
            })
            .collect();
        found.sort_by_key(|found| found.base);
        Ok(found)
    }

    /// The checkpoint, unless everything it speaks of was deleted, truncated or compacted since.
    fn checkpoint(&self, found: &[Found], now: &Partition) -> Result<Known, OpenError> {
        let log_start = now.log_start;
        let nothing = Known { saved: None, end: Offset::ZERO };
        let Some(saved) = &self.how.checkpoint else { return Ok(nothing) };
        let untouched = now.truncation.is_some_and(|last| {
            saved.truncations.checked_add(1) == Some(now.truncations) && saved.end <= last.to
        });
        if saved.truncations != now.truncations && !untouched {
            return Ok(nothing);
        }
        let is_rewritten =
            saved.rewrites != now.compaction.rewrites && saved.segment < now.compaction.rewritten_to;
        if is_rewritten && !self.faults().stale_checkpoints {
            // Its segment is another file now, or part of one.
            return Ok(Known { saved: None, end: saved.end });
        }
        if found.iter().any(|found| found.base == saved.segment) {
            return Ok(Known { saved: Some(saved.clone()), end: saved.end });
        }
        if saved.end <= log_start {
            return Ok(nothing);
        }
        Err(OpenError::Damaged {
            path: self.how.dir.join(names::segment(saved.segment)),
            position: 0,
            why: format!("the file is missing, and the checkpoint knows offsets up to {} in it", saved.end),
        })
    }

    async fn create(&self, base: Offset) -> Result<Walked, OpenError> {
        let path = self.how.dir.join(names::segment(base));
        let file = self.open_file(&path).await?;
        let failed = |error| OpenError::Io { path: path.clone(), error };
        if let Err(error) = file.allocate(0..crate::space::STEP_BYTES_MIN).await {
            // What stays by a failure is an empty file: the next start takes it as its own.
            let _ = self.core.unlink(path.clone()).await;
            return Err(failed(error));
        }
        if !self.faults().skip_dir_sync {
            self.core.sync_dir(self.how.dir.clone()).await.map_err(failed)?;
        }
        let mut segment = self.segment(base, file);
        segment.allocated = crate::space::STEP_BYTES_MIN;
        Ok((vec![segment], self.start_at(base), Vec::new()))
    }

    /// A process that died may have made the folder, or its last segment, and not have come to sync the name: a later one
    /// that appends there must not rely on it. A checkpoint that knows the segment was written after that; but one that died
    /// in a truncation may have taken other names away in the same manner, and they must not come back.
    async fn make_names_durable(&self, segments: &[Segment], is_cut: bool) -> Result<(), OpenError> {
        let known = self.how.checkpoint.as_ref().map(|saved| saved.segment);
        let is_known = known.is_some() && known == segments.last().map(|last| last.base);
        if self.faults().skip_dir_sync || (is_known && !is_cut) {
            return Ok(());
        }
        for dir in [Some(self.how.dir.as_path()), self.how.dir.parent()].into_iter().flatten() {
            let synced = self.core.sync_dir(dir.to_path_buf()).await;
            synced.map_err(|error| OpenError::Io { path: dir.to_path_buf(), error })?;
        }
        Ok(())
    }

    fn segment(&self, base: Offset, file: File) -> Segment {
        Segment::new(base, file, self.core.wall_ms(), self.how.config.index_interval_bytes)
    }

    fn start_at(&self, base: Offset) -> Progress {
        Progress { end: base, epochs: EpochCache::new(), producers: ProducerStates::new() }
    }

    async fn open_file(&self, path: &Path) -> Result<File, OpenError> {
        let how = Open::write().create().direct();
        let file = self.core.open(path.to_path_buf(), how).await;
        file.map_err(|error| OpenError::Io { path: path.to_path_buf(), error })
    }

    /// Says durably that nothing is left to be done again.
    async fn finish_truncation(&self, file: &mut PartitionFile) -> Result<(), OpenError> {
        let finish = |partition: &mut Partition| {
            if let Some(truncation) = &mut partition.truncation {
                truncation.under_way = false;
            }
        };
        let stored = file.store(self.core, finish).await;
        stored.map_err(|error| OpenError::Io { path: self.how.dir.join(names::PARTITION_FILE), error })
    }

    fn missing_end(&self, end: Offset, known: Offset, who: &str) -> OpenError {
        OpenError::Damaged {
            path: self.how.dir.clone(),
            position: 0,
            why: format!("the log ends at offset {end}, and {who} knows offsets up to {known}"),
        }
    }

    /// Removes segments that the log does not reach, and what was known of them.
    async fn drop_segments(&self, gone: &[Found]) -> Result<(), OpenError> {
        self.drop_indexes(gone).await?;
        // From the back, so that what is left at any moment is a log.
        for found in gone.iter().rev() {
            self.unlink(names::segment(found.base)).await?;
        }
        if !gone.is_empty() && !self.faults().skip_dir_sync {
            let synced = self.core.sync_dir(self.how.dir.clone()).await;
            synced.map_err(|error| OpenError::Io { path: self.how.dir.clone(), error })?;
        }
        Ok(())
    }

    async fn drop_indexes(&self, gone: &[Found]) -> Result<(), OpenError> {
        for found in gone {
            self.unlink(names::index(found.base)).await?;
        }
        Ok(())
    }

    async fn unlink(&self, name: String) -> Result<(), OpenError> {
        let path = self.how.dir.join(name);
        match self.core.unlink(path.clone()).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(OpenError::Io { path, error }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// This incarnation's epoch begins at the end of the log (A1).
    fn begin_epoch(&self, progress: &mut Progress) -> Result<LeaderEpoch, OpenError> {
        let last = progress.epochs.latest().map(|(epoch, _)| epoch);
        if self.faults().resume_old_epoch {
            let epoch = last.unwrap_or(self.how.epoch);
            progress.epochs.assign(epoch, progress.end);
            return Ok(epoch);
        }
        if let Some(last) = last
            && self.how.epoch <= last
        {
            return Err(OpenError::StaleEpoch { given: self.how.epoch, last });
        }
        progress.epochs.assign(self.how.epoch, progress.end);
        Ok(self.how.epoch)
    }
}
