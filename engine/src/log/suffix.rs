//! The end of a log: what a reconciliation by leader epoch takes away.
//!
//! The intent is durable first (names.rs), and what it names is exact: a place between two batches. From then on the
//! log ends there, whatever happens: the bytes behind are zeroed and the segments behind removed, durably, and a start
//! that finds the intent does all of it again (A2). Only then may an append follow, in the new epoch (A1).

use super::scan::{Scan, Step, Window};
use super::truncate::store_fact;
use super::{AppendError, PanicPoisons, Shared, ahead, append, seal, wait_for, zero};
use crate::batch::Batch;
use crate::ids::{FilePos, LeaderEpoch, Offset};
use crate::names::{self, Truncation};
use crate::producers::ProducerStates;
use crate::segment::{ChunkCrcs, Segment};
use crate::space::{BLOCK_BYTES, block_ceil, block_floor};
use rt::{File, Reservation};
use std::io;
use std::rc::Rc;

/// Where a log will end: behind whole batches.
struct Cut {
    end: Offset,
    segment: Offset,
    position: u64,
    file: File,
    /// The filled part of the block that `position` lies in.
    last_block: Vec<u8>,
    /// The end of the segment's file.
    length: u64,
}

pub(super) async fn truncate(
    shared: &Rc<Shared>,
    to: Offset,
    epoch: LeaderEpoch,
) -> Result<Offset, AppendError> {
    let ticket = shared.turns.draw();
    ticket.turn().await;
    settle(shared).await?;
    {
        let mut state = shared.state.borrow_mut();
        if epoch <= shared.epoch.get() {
            return Err(AppendError::Storage(format!("epoch {epoch} is not above {}", shared.epoch.get())));
        }
        if to < state.log_start {
            return Err(AppendError::Storage(format!("{to} is below the log start {}", state.log_start)));
        }
        if to >= state.end {
            let end = state.end;
            shared.epoch.set(epoch);
            state.epochs.assign(epoch, end);
            return Ok(end);
        }
    }
    let _stating = shared.stating.acquire(1).await;
    let failed = |error: io::Error| AppendError::Storage(format!("truncating failed: {error}"));
    let cut = find(shared, to).await.map_err(failed)?;
    let end = cut.end;
    note(shared, |partition| {
        if shared.faults.no_intent {
            return;
        }
        partition.truncation = Some(Truncation { to: end, epoch, under_way: true });
        partition.truncations = partition.truncations.wrapping_add(1);
        partition.compaction.clean_to = partition.compaction.clean_to.min(end);
    })
    .await?;
    let done = carry_out(shared, cut, epoch).await;
    if let Err(error) = done {
        // The intent stands: the next start does the rest.
        shared.poison(format!("truncating {} failed: {error}", shared.dir.display()));
        return Err(failed(error));
    }
    note(shared, |partition| {
        if let Some(truncation) = &mut partition.truncation {
            truncation.under_way = false;
        }
    })
    .await?;
    shared.state.borrow_mut().truncating = false;
    shared.moved.notify_all();
    Ok(end)
}

/// Waits until nothing is on its way to the disk, and everything is on stable media.
async fn settle(shared: &Rc<Shared>) -> Result<(), AppendError> {
    append::kick(shared);
    let (end, base) = {
        let mut state = shared.state.borrow_mut();
        state.check_open()?;
        (state.end, state.active().base)
    };
    if end.0 > 0 {
        wait_for(shared, &shared.durable, Offset(end.0 - 1), |state| state.durable_end).await?;
    }
    ahead::cleared(shared, base, u64::MAX).await;
    // First what is in the journal only: when it is in its segment that may be sealed.
    seal::sync(shared).await?;
    seal::settled(shared, Offset(i64::MAX)).await;
    Ok(())
}

/// The last place between two batches at or before `to`.
async fn find(shared: &Shared, to: Offset) -> io::Result<Cut> {
    let (mut scan, mut cut) = {
        let state = shared.state.borrow();
        let behind = state.segments.partition_point(|segment| segment.base <= to);
        let segment = state.segments.get(behind.saturating_sub(1)).ok_or(io::ErrorKind::NotFound)?;
        let cut = Cut {
            end: segment.base,
            segment: segment.base,
            position: 0,
            file: segment.file.clone(),
            last_block: Vec::new(),
            length: 0,
        };
        (scan_of(shared, segment, 0), cut)
    };
    cut.length = cut.file.len().await?;
    while let Some((pos, next, bytes)) = next_batch(&mut scan).await? {
        if next > to {
            break;
        }
        (cut.end, cut.position) = (next, pos + bytes);
    }
    let start = block_floor(cut.position);
    let filled = (cut.position - start) as usize;
    if filled > 0 {
        let block = BLOCK_BYTES as usize;
        let read = cut.file.read_exactly(start, block, Reservation::CatchUp).await?;
        cut.last_block = read.get(..filled).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec();
    }
    Ok(cut)
}

fn scan_of(shared: &Shared, segment: &Segment, pos: u64) -> Scan {
    Scan {
        file: segment.file.clone(),
        pos,
        end: segment.position,
        window_bytes: shared.limits.scan_bytes,
        window_bytes_max: shared.limits.scan_bytes,
        reservation: Reservation::CatchUp,
        crcs: None,
        window: Window::default(),
    }
}

/// Where the next batch lies, which offset follows it, and its bytes; `None` at the end.
async fn next_batch(scan: &mut Scan) -> io::Result<Option<(u64, Offset, u64)>> {
    match scan.next().await? {
        Step::End => Ok(None),
        Step::Bad { pos, why } => Err(io::Error::other(format!("damaged at {pos}: {why}"))),
        Step::Batch { bytes } => {
            let (batch, _) = Batch::parse(&bytes).map_err(|error| io::Error::other(error.to_string()))?;
            let pos = scan.pos - bytes.len() as u64;
            Ok(Some((pos, batch.next_offset(), bytes.len() as u64)))
        }
    }
}

/// Makes a fact of the partition durable that something is under way by. The caller holds the permit of `stating`.
pub(super) async fn note(
    shared: &Shared,
    change: impl FnOnce(&mut names::Partition),
) -> Result<(), AppendError> {
    store_fact(shared, change).await.map_err(|error| {
        shared.poison(format!("noting a fact of {} failed: {error}", shared.dir.display()));
        AppendError::Storage(format!("noting a fact failed: {error}"))
    })
}

async fn carry_out(shared: &Rc<Shared>, cut: Cut, epoch: LeaderEpoch) -> io::Result<()> {
    let gone = apply(shared, &cut, epoch);
    let (file, position) = (cut.file.clone(), cut.position);
    zero::behind(&shared.core, &file, position, &cut.last_block, cut.length).await?;
    file.sync_data().await?;
    unlink(shared, names::index(cut.segment)).await?;
    for base in gone.iter().rev() {
        unlink(shared, names::index(*base)).await?;
        unlink(shared, names::segment(*base)).await?;
    }
    if !shared.faults.skip_dir_sync {
        shared.core.sync_dir(shared.dir.clone()).await?;
    }
    // A read that was under way may have brought what is gone.
    shared.chunks.forget(shared.id);
    rebuild(shared, cut.segment).await
}

/// The log ends at the cut: nothing beyond it is read or counted from here on. Gives the segments that go.
fn apply(shared: &Shared, cut: &Cut, epoch: LeaderEpoch) -> Vec<Offset> {
    let _guard = PanicPoisons(shared);
    shared.tail.clear();
    shared.chunks.forget(shared.id);
    shared.epoch.set(epoch);
    let interval = shared.config.borrow().index_interval_bytes;
    let mut state = shared.state.borrow_mut();
    let state = &mut *state;
    assert!(state.forming.is_none());
    assert!(state.ready.is_empty());
    assert!(state.behind.is_none());
    let kept = state.segments.partition_point(|segment| segment.base <= cut.segment);
    let gone = state.segments.split_off(kept).into_iter().map(|segment| segment.base).collect();
    let active = state.active();
    assert!(active.base == cut.segment);
    let mut shorter = Segment::new(active.base, active.file.clone(), active.created_ms, interval);
    shorter.generation = active.generation;
    (shorter.position, shorter.durable) = (cut.position, cut.position);
    shorter.written = block_ceil(cut.position);
    shorter.allocated = block_floor(cut.length).max(shorter.written);
    shorter.crcs = ChunkCrcs::resume(cut.position);
    *active = shorter;
    state.last_block = cut.last_block.clone();
    state.spare.clear();
    (state.end, state.durable_end) = (cut.end, cut.end);
    (state.filed_end, state.synced_end) = (cut.end, cut.end);
    state.high_watermark = state.high_watermark.min(cut.end);
    state.epochs.truncate_end(cut.end);
    state.epochs.assign(epoch, cut.end);
    state.truncations = state.truncations.wrapping_add(1);
    state.clean_to = state.clean_to.min(cut.end);
    state.truncating = true;
    gone
}

async fn unlink(shared: &Shared, name: String) -> io::Result<()> {
    match shared.core.unlink(shared.dir.join(name)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The index of the segment that is active now, and what its producers are remembered by (A6).
async fn rebuild(shared: &Rc<Shared>, segment: Offset) -> io::Result<()> {
    let (scan, end) = {
        let mut state = shared.state.borrow_mut();
        let end = state.end;
        let active = state.segment(segment).ok_or(io::ErrorKind::NotFound)?;
        (scan_of(shared, active, 0), end)
    };
    let mut noted = {
        let mut state = shared.state.borrow_mut();
        let active = state.segment(segment).ok_or(io::ErrorKind::NotFound)?;
        Segment::new(
            active.base,
            active.file.clone(),
            active.created_ms,
            shared.config.borrow().index_interval_bytes,
        )
    };
    each_batch(scan, |pos, batch, bytes| {
        assert!(pos == noted.position);
        noted.note(batch.last_offset(), bytes, batch.records_max_timestamp());
    })
    .await?;
    let producers = producers_at(shared, end).await?;
    let mut state = shared.state.borrow_mut();
    state.producers = producers;
    let active = state.active();
    assert!(active.position == noted.position);
    active.index = noted.index;
    (active.first_timestamp, active.max_timestamp) = (noted.first_timestamp, noted.max_timestamp);
    shared.count(|counters| counters.bytes_searched += noted.position);
    Ok(())
}

/// The producers as they were when the log ended at `end`: as they are if none has lost a batch, else from what the last
/// checkpoint knew and the batches behind it.
async fn producers_at(shared: &Rc<Shared>, end: Offset) -> io::Result<ProducerStates> {
    let (mut producers, scans) = {
        let state = shared.state.borrow();
        let mut now = state.producers.clone();
        if now.truncate(end) {
            return Ok(now);
        }
        let saved = &state.producers_saved;
        let from = if saved.covered_end() <= end { saved.clone() } else { ProducerStates::new() };
        let first =
            state.segments.partition_point(|segment| segment.base <= from.covered_end()).saturating_sub(1);
        let scans = state.segments[first..].iter().enumerate().map(|(at, segment)| {
            let FilePos(pos) = if at == 0 { FilePos(segment.floor(from.covered_end())) } else { FilePos(0) };
            scan_of(shared, segment, pos)
        });
        let scans: Vec<Scan> = scans.collect();
        (from, scans)
    };
    for scan in scans {
        each_batch(scan, |_, batch, _| {
            if batch.base_offset() >= producers.covered_end() {
                producers.apply(batch);
            }
        })
        .await?;
    }
    Ok(producers)
}

async fn each_batch(mut scan: Scan, mut see: impl FnMut(u64, &Batch<'_>, u64)) -> io::Result<()> {
    loop {
        match scan.next().await? {
            Step::End => return Ok(()),
            Step::Bad { pos, why } => return Err(io::Error::other(format!("damaged at {pos}: {why}"))),
            Step::Batch { bytes } => {
                let (batch, _) = Batch::parse(&bytes).map_err(|error| io::Error::other(error.to_string()))?;
                let pos = scan.pos - bytes.len() as u64;
                see(pos, &batch, bytes.len() as u64);
            }
        }
    }
}
