//! From a folder to a log that may be appended to.
//!
//! The end is the last batch that continues the log (offset, epoch, CRC), searched from where the checkpoint says it
//! was durable. A torn tail is zeroed, durably and before the first append; damage is never cut: the log stays offline
//! and nothing is written (A2, A4). Everything here can be interrupted and done again.

mod error;
mod settle;
mod swap;

pub use error::OpenError;

use super::config::{Faults, OpenLog};
use super::scan::{Scan, Step, Window};
use super::{Counters, Shared, State};
use crate::batch::Batch;
use crate::checkpoint::Saved;
use crate::epochs::EpochCache;
use crate::ids::{LeaderEpoch, Offset};
use crate::index::SealedIndex;
use crate::names::{self, Partition, PartitionFile, Unreadable};
use crate::producers::ProducerStates;
use crate::segment::{ChunkCrcs, Index, Segment};
use crate::space::BLOCK_BYTES;
use rt::sync::Semaphore;
use rt::{Core, File, Open, Reservation, Slice};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

/// The first read of a search; the next ones double, because most logs end soon behind their checkpoint.
const SCAN_BYTES_FIRST: usize = 64 << 10;

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
    let (segments, mut progress, last_block) = match found.is_empty() {
        true => recovery.create(log_start).await?,
        false => recovery.walk(found, saved, log_start, cut.map(|cut| cut.to)).await?,
    };
    if progress.end < known_end {
        return Err(recovery.missing_end(progress.end, known_end));
    }
    recovery.make_names_durable(&segments).await?;
    if cut.is_some() {
        recovery.finish_truncation(&mut partition).await?;
    }
    let (epoch, end) = (recovery.begin_epoch(&mut progress)?, progress.end);
    let log_start = log_start.max(segments.first().map_or(log_start, |segment| segment.base)).min(end);
    progress.epochs.truncate_start(log_start);
    let state = State {
        segments,
        log_start,
        high_watermark: end,
        durable_end: end,
        synced_end: end,
        end,
        epochs: progress.epochs,
        producers_saved: progress.producers.clone(),
        producers: progress.producers,
        truncations: partition.current.truncations,
        truncating: false,
        clean_to: partition.current.compaction.clean_to,
        rewrites: partition.current.compaction.rewrites,
        compacting: false,
        forming: None,
        ready: VecDeque::new(),
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
    };
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
        partitions: how.partitions,
        tail: Rc::default(),
        turns: Default::default(),
        committed: Default::default(),
        durable: Default::default(),
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
    /// that appends there must not rely on it. A checkpoint that knows the segment was written after that.
    async fn make_names_durable(&self, segments: &[Segment]) -> Result<(), OpenError> {
        let known = self.how.checkpoint.as_ref().map(|saved| saved.segment);
        if self.faults().skip_dir_sync || (known.is_some() && known == segments.last().map(|last| last.base))
        {
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

    /// Sealed segments from their index files, the rest from the checkpoint on batch by batch.
    async fn walk(
        &self,
        mut found: Vec<Found>,
        saved: Option<Saved>,
        log_start: Offset,
        cut: Option<Offset>,
    ) -> Result<Walked, OpenError> {
        let beyond = match cut {
            Some(cut) => found.split_off(found.partition_point(|found| found.base <= cut)),
            None => Vec::new(),
        };
        if found.is_empty() {
            return Err(self.gap(&self.how.dir, beyond[0].base, log_start));
        }
        let first = found.first().expect("the caller found segments").base;
        if first > log_start {
            return Err(OpenError::Damaged {
                path: self.how.dir.clone(),
                position: 0,
                why: format!("the first segment begins at {first}, but the log starts at {log_start}"),
            });
        }
        let mut progress = match &saved {
            Some(saved) => {
                Progress { end: saved.end, epochs: saved.epochs.clone(), producers: saved.producers.clone() }
            }
            None => self.start_at(first),
        };
        let mut segments: Vec<Segment> = Vec::with_capacity(found.len());
        let mut last_block = Vec::new();
        for (at, &Found { base, length }) in found.iter().enumerate() {
            let path = self.how.dir.join(names::segment(base));
            let file = self.open_file(&path).await?;
            let mut segment = self.segment(base, file);
            let before_checkpoint = saved.as_ref().is_some_and(|saved| base < saved.segment);
            if before_checkpoint && self.load_sealed(&mut segment, &path, length).await? {
                self.check_neighbours(&segment, found.get(at + 1), &path)?;
                segments.push(segment);
                continue;
            }
            let here = saved.as_ref().filter(|saved| saved.segment == base);
            if !here.is_some_and(|saved| saved.clean) {
                let waited = self.outwait_writes(&segment, length).await;
                waited.map_err(|error| OpenError::Io { path: path.clone(), error })?;
            }
            if before_checkpoint {
                // Only its index is missing: what it holds is older than what the checkpoint knows.
                let mut aside = self.start_at(base);
                self.scan(&mut segment, &mut aside, (&path, length), None, None).await?;
                if found.get(at + 1).map(|next| next.base) != Some(aside.end) {
                    return Err(OpenError::Damaged {
                        path: path.clone(),
                        position: segment.position,
                        why: format!("its batches end at offset {}, before the next segment", aside.end),
                    });
                }
            } else {
                if here.is_none() && base != progress.end {
                    return Err(self.gap(&path, base, progress.end));
                }
                progress.end = progress.end.max(base);
                self.scan(&mut segment, &mut progress, (&path, length), here, cut).await?;
            }
            let later = &found[at + 1..];
            let follows = before_checkpoint || self.goes_on(later, progress.end).await?;
            if !follows {
                let clean = here.is_some_and(|saved| saved.clean && saved.end == progress.end);
                last_block = self.settle(&mut segment, &progress, (&path, length), clean, cut).await?;
                segments.push(segment);
                self.drop_segments(later).await?;
                break;
            }
            if !before_checkpoint && !self.faults().trusting_reads {
                // What was read may be what a killed process had in flight; from here on it is promised.
                let synced = segment.file.sync_data().await;
                synced.map_err(|error| OpenError::Io { path: path.clone(), error })?;
            }
            segment.written = segment.position;
            segment.allocated = segment.position;
            segments.push(segment);
        }
        if cut.is_some() {
            self.drop_segments(&beyond).await?;
            let last = segments.last().map(|last| Found { base: last.base, length: 0 });
            self.drop_indexes(last.as_slice()).await?;
        }
        Ok((segments, progress, last_block))
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

    /// A sealed segment begins where its name says and reaches the next one: else a file between them is missing.
    fn check_neighbours(
        &self,
        segment: &Segment,
        next: Option<&Found>,
        path: &Path,
    ) -> Result<(), OpenError> {
        let Index::Sealed(index) = &segment.index else { return Ok(()) };
        let reaches = next.is_none_or(|next| index.end() == next.base);
        if index.base() == segment.base && reaches {
            return Ok(());
        }
        Err(OpenError::Damaged {
            path: path.to_path_buf(),
            position: segment.position,
            why: format!(
                "it holds offsets {} to {}, which is not what the files around it say",
                index.base(),
                index.end()
            ),
        })
    }

    fn missing_end(&self, end: Offset, known: Offset) -> OpenError {
        OpenError::Damaged {
            path: self.how.dir.clone(),
            position: 0,
            why: format!("the log ends at offset {end}, and the checkpoint knows offsets up to {known}"),
        }
    }

    fn gap(&self, path: &Path, base: Offset, end: Offset) -> OpenError {
        OpenError::Damaged {
            path: path.to_path_buf(),
            position: 0,
            why: format!("it begins at offset {base}, but the segment before it ends at {end}"),
        }
    }

    /// Uses the index file if it is there and valid; then the segment is not read.
    async fn load_sealed(&self, segment: &mut Segment, path: &Path, length: u64) -> Result<bool, OpenError> {
        let index_path = self.how.dir.join(names::index(segment.base));
        let built_anew = |what: &str| {
            let note = format!("the index {} {what}; it is built anew", index_path.display());
            self.notes.borrow_mut().push(note);
        };
        let Ok(file) = self.core.open(index_path.clone(), Open::read()).await else {
            built_anew("is missing");
            return Ok(false);
        };
        let failed = |error| OpenError::Io { path: path.to_path_buf(), error };
        let bytes = usize::try_from(file.len().await.map_err(failed)?).unwrap_or(0);
        if bytes == 0 {
            built_anew("is empty");
            return Ok(false);
        }
        let content = names::read_all(&file, bytes).await.map_err(failed)?;
        let index = match SealedIndex::decode(&content) {
            Ok(index) => index,
            Err(damage) => {
                built_anew(&format!("is damaged ({damage})"));
                return Ok(false);
            }
        };
        if length < index.segment_bytes() {
            return Err(OpenError::Damaged {
                path: path.to_path_buf(),
                position: length,
                why: format!("{} bytes were sealed", index.segment_bytes()),
            });
        }
        segment.position = index.segment_bytes();
        segment.durable = segment.position;
        segment.written = segment.position;
        segment.allocated = segment.position;
        segment.first_timestamp = index.first_timestamp();
        segment.max_timestamp = index.max_timestamp();
        segment.index = Index::Sealed(Rc::new(index));
        Ok(true)
    }

    /// Walks from the checkpoint, or the segment's start, to the last batch that continues the log.
    async fn scan(
        &self,
        segment: &mut Segment,
        progress: &mut Progress,
        (path, length): (&Path, u64),
        saved: Option<&Saved>,
        cut: Option<Offset>,
    ) -> Result<(), OpenError> {
        let failed = |error| OpenError::Io { path: path.to_path_buf(), error };
        if let Some(saved) = saved {
            if length < saved.position {
                let why = format!("the checkpoint knows {} durable bytes", saved.position);
                return Err(OpenError::Damaged { path: path.to_path_buf(), position: length, why });
            }
            segment.position = saved.position;
            segment.index = Index::Active(saved.index.clone());
            segment.first_timestamp = saved.first_timestamp;
            segment.max_timestamp = saved.max_timestamp;
            segment.crcs = ChunkCrcs::resume(saved.position);
        }
        let mut scan = Scan {
            file: segment.file.clone(),
            pos: segment.position,
            end: length,
            window_bytes: SCAN_BYTES_FIRST.min(self.how.limits.scan_bytes),
            window_bytes_max: self.how.limits.scan_bytes,
            reservation: Reservation::CatchUp,
            crcs: None,
            window: Window::default(),
        };
        while let Step::Batch { bytes, .. } = scan.next().await.map_err(failed)? {
            let beyond = |cut| Batch::parse(&bytes).is_ok_and(|(batch, _)| batch.next_offset() > cut);
            if cut.is_some_and(beyond) || !self.accept(&bytes, segment, progress) {
                break;
            }
        }
        segment.allocated = length - length % BLOCK_BYTES;
        segment.durable = segment.position;
        self.searched.set(self.searched.get() + segment.position - saved.map_or(0, |saved| saved.position));
        Ok(())
    }

    /// Takes the batch if it continues the log.
    fn accept(&self, bytes: &Slice, segment: &mut Segment, progress: &mut Progress) -> bool {
        let Ok((batch, _)) = Batch::parse(bytes) else { return false };
        let (base, epoch) = (batch.base_offset(), batch.leader_epoch());
        let continues = base == progress.end;
        // No incarnation before this one had its epoch or a later one.
        let from_the_future = epoch >= self.how.epoch && !self.faults().resume_old_epoch;
        let epoch_continues = progress.last_epoch() <= epoch && epoch.0 >= 0 && !from_the_future;
        let sound = batch.last_offset_delta() >= 0 && (self.faults().skip_crc || batch.crc_is_valid());
        if !continues || !epoch_continues || !sound {
            return false;
        }
        progress.epochs.assign(epoch, base);
        progress.producers.apply(&batch);
        segment.crcs.feed(bytes);
        segment.note(batch.last_offset(), bytes.len() as u64, batch.records_max_timestamp());
        progress.end = batch.next_offset();
        true
    }

    /// Whether the segments behind an end belong to the log. Those of a roll whose last flush was torn do not: they
    /// begin above the end and were never written.
    async fn goes_on(&self, later: &[Found], end: Offset) -> Result<bool, OpenError> {
        match later.first().map(|next| next.base) {
            None => return Ok(false),
            Some(next) if next == end => return Ok(true),
            Some(_) => {}
        }
        for &Found { base, length } in later {
            if !self.is_empty(base, length).await? {
                return Err(self.gap(&self.how.dir.join(names::segment(base)), base, end));
            }
        }
        Ok(false)
    }

    async fn is_empty(&self, base: Offset, length: u64) -> Result<bool, OpenError> {
        if length == 0 {
            return Ok(true);
        }
        let path = self.how.dir.join(names::segment(base));
        let file = self.open_file(&path).await?;
        let failed = |error| OpenError::Io { path: path.clone(), error };
        let bytes = file.read_exactly(0, BLOCK_BYTES as usize, Reservation::CatchUp).await;
        Ok(bytes.map_err(failed)?.iter().all(|&byte| byte == 0))
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
