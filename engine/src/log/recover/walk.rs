//! The walk over a log's segments: sealed ones by their index files, the rest batch by batch from the checkpoint on, up to
//! the end.

use super::{Found, OpenError, Progress, Recovery, Walked};
use crate::batch::Batch;
use crate::checkpoint::Saved;
use crate::ids::Offset;
use crate::index::SealedIndex;
use crate::journal::Journaled;
use crate::log::scan::{Scan, Step, Window};
use crate::names;
use crate::segment::{ChunkCrcs, Index, Segment};
use crate::space::BLOCK_BYTES;
use rt::{Open, Reservation, Slice};
use std::path::Path;
use std::rc::Rc;

/// The first read of a search; the next ones double, because most logs end soon behind their checkpoint.
const SCAN_BYTES_FIRST: usize = 64 << 10;

impl Recovery<'_> {
    pub(super) async fn walk(
        &self,
        mut found: Vec<Found>,
        saved: Option<Saved>,
        log_start: Offset,
        cut: Option<Offset>,
        left: &[Journaled],
    ) -> Result<Walked, OpenError> {
        let beyond = match cut {
            Some(cut) => found.split_off(found.partition_point(|found| found.base <= cut)),
            None => Vec::new(),
        };
        let Some(&Found { base: first, .. }) = found.first() else {
            return Err(self.gap(&self.how.dir, beyond[0].base, log_start));
        };
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
            let later = &found[at + 1..];
            let path = self.how.dir.join(names::segment(base));
            let mut segment = self.segment(base, self.open_file(&path).await?);
            if saved.as_ref().is_some_and(|saved| base < saved.segment) {
                self.known(&mut segment, (&path, length), later.first()).await?;
                segments.push(segment);
                continue;
            }
            let here = saved.as_ref().filter(|saved| saved.segment == base);
            self.search(&mut segment, &mut progress, (&path, length), here, cut).await?;
            let length = self.replay(&mut segment, &mut progress, (&path, length), left).await?;
            if !self.goes_on(later, progress.end).await? {
                self.check_left(left, progress.end.max(log_start))?;
                let clean = here.is_some_and(|saved| saved.clean && saved.end == progress.end);
                last_block = self.settle(&mut segment, &progress, (&path, length), clean, cut).await?;
                segments.push(segment);
                self.drop_segments(later).await?;
                break;
            }
            if !self.faults().trusting_reads {
                // What was read may be what a killed process had in flight; from here on it is promised.
                let synced = segment.file.sync_data().await;
                synced.map_err(|error| OpenError::Io { path: path.clone(), error })?;
            }
            segment.take_no_more();
            segments.push(segment);
        }
        if cut.is_some() {
            self.drop_segments(&beyond).await?;
            let last = segments.last().map(|last| Found { base: last.base, length: 0 });
            self.drop_indexes(last.as_slice()).await?;
        }
        Ok((segments, progress, last_block))
    }

    /// A segment before the one that the checkpoint knows: whole, by its index file or else by reading it.
    async fn known(
        &self,
        segment: &mut Segment,
        (path, length): (&Path, u64),
        next: Option<&Found>,
    ) -> Result<(), OpenError> {
        if self.load_sealed(segment, path, length).await? {
            return self.check_neighbours(segment, next, path);
        }
        // Only its index is missing: what it holds is older than what the checkpoint knows.
        self.outwait(segment, (path, length)).await?;
        let mut aside = self.start_at(segment.base);
        self.scan(segment, &mut aside, (path, length), None, None).await?;
        if next.map(|next| next.base) != Some(aside.end) {
            return Err(OpenError::Damaged {
                path: path.to_path_buf(),
                position: segment.position,
                why: format!("its batches end at offset {}, before the next segment", aside.end),
            });
        }
        segment.take_no_more();
        Ok(())
    }

    /// A segment that the checkpoint ends in, `here`, or that was begun after it: batch by batch.
    async fn search(
        &self,
        segment: &mut Segment,
        progress: &mut Progress,
        (path, length): (&Path, u64),
        here: Option<&Saved>,
        cut: Option<Offset>,
    ) -> Result<(), OpenError> {
        if !here.is_some_and(|saved| saved.clean) {
            self.outwait(segment, (path, length)).await?;
        }
        if here.is_none() && segment.base != progress.end {
            return Err(self.gap(path, segment.base, progress.end));
        }
        progress.end = progress.end.max(segment.base);
        self.scan(segment, progress, (path, length), here, cut).await
    }

    async fn outwait(&self, segment: &Segment, (path, length): (&Path, u64)) -> Result<(), OpenError> {
        let waited = self.outwait_writes(segment, length).await;
        waited.map_err(|error| OpenError::Io { path: path.to_path_buf(), error })
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
        segment.take_no_more();
        segment.first_timestamp = index.first_timestamp();
        segment.max_timestamp = index.max_timestamp();
        segment.index = Index::Sealed(Rc::new(index));
        Ok(true)
    }

    /// Walks from the checkpoint, or the segment's start, to the last batch that continues the log.
    pub(super) async fn scan(
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
        let from = segment.position;
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
        self.searched.set(self.searched.get() + segment.position - from);
        Ok(())
    }

    /// Takes the batch if it continues the log.
    pub(super) fn accept(&self, bytes: &Slice, segment: &mut Segment, progress: &mut Progress) -> bool {
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
}
