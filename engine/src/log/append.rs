//! Appends and flushes: offsets are given here, and here alone.
//!
//! An append is checked, waits for its turn, reserves (a roll, file space, memory), and only then is placed: header
//! and records are copied once into the flush that is forming. One flush is in flight; what arrives meanwhile forms the
//! next. A flush is one aligned write; the last, partly filled block of one is copied into the next, because a block
//! under DMA must not change (A15). Nothing here is undone: what fails before placing leaves no trace, what fails after
//! it poisons the log.

use super::admit::{self, Admitted};
use super::flush::{Forming, Ready, freeze};
use super::grow::{grow, grow_ahead, roll, unmade, wants_growth};
use super::{
    AppendError, AppendKind, Appended, Durability, Failure, PanicPoisons, Poisoned, Shared, State, ahead,
    behind, seal, spawn_at_work, wait_for,
};
use crate::batch::{Batch, HEADER_BYTES};
use crate::cache::{Run, Spot};
use crate::ids::Offset;
use crate::journal::{self, Journal, Place};
use crate::producers::{Check, SequenceError};
use crate::segment::Roll;
use crate::space::{self, BLOCK_BYTES};
use rt::{BufMut, Class, File, Reservation, Slice, Sync};
use std::rc::Rc;

/// Assigned but not durable bytes of one log, after which appends wait for the disk.
const UNFLUSHED_BYTES_MAX: usize = 8 << 20;
/// The largest buffer that is taken ahead of need while a flush is in flight.
const CHUNK_BYTES_MAX: usize = 256 << 10;

pub(super) async fn append(
    shared: &Rc<Shared>,
    records: Slice,
    kind: AppendKind,
) -> Result<Appended, AppendError> {
    let ticket = shared.turns.draw();
    let admitted = check(shared, records, kind).await?;
    ticket.turn().await;
    shared.state.borrow().check_open()?;
    let now_ms = shared.core.wall_ms();
    if kind == AppendKind::Client
        && let Some(duplicate) = find_duplicate(shared, &admitted)?
    {
        return Ok(duplicate);
    }
    reserve(shared, &admitted, now_ms).await?;
    let _guard = PanicPoisons(shared);
    let appended = place(shared, &admitted);
    kick(shared);
    Ok(appended)
}

/// The checks that need no state; on a helper thread where the records must be unpacked.
async fn check(shared: &Rc<Shared>, records: Slice, kind: AppendKind) -> Result<Admitted, AppendError> {
    let batch = admit::single_batch(&records)?;
    let config = shared.config.borrow().clone();
    let now_ms = shared.core.wall_ms();
    let unpacked_max = shared.limits.decompressed_bytes_max;
    let opens = Batch::parse(&batch).is_ok_and(|(view, _)| admit::opens_batch(&view, &config));
    if !opens {
        return admit::admit(batch, kind, &config, unpacked_max, now_ms);
    }
    let work = move || admit::admit(batch, kind, &config, unpacked_max, now_ms);
    match shared.core.offload(work).await {
        Ok(admitted) => admitted,
        Err(_) => Err(AppendError::Storage("checking the batch failed".into())),
    }
}

/// The producer's sequence: in order, a duplicate, or an error.
fn find_duplicate(shared: &Shared, admitted: &Admitted) -> Result<Option<Appended>, AppendError> {
    let (batch, _) = Batch::parse(&admitted.bytes).map_err(|_| AppendError::Corrupt)?;
    let state = shared.state.borrow();
    match state.producers.check(&batch) {
        Ok(Check::InSequence) => Ok(None),
        Ok(Check::Duplicate(original)) => {
            shared.count(|counters| counters.duplicates += 1);
            Ok(Some(Appended {
                base_offset: original.base_offset,
                last_offset: if shared.faults.hasty_duplicates {
                    Offset::UNKNOWN
                } else {
                    original.last_offset
                },
                log_append_time_ms: original.timestamp,
                log_start_offset: state.log_start,
                duplicate: true,
            }))
        }
        Err(SequenceError::OutOfOrder { .. }) => Err(AppendError::OutOfOrderSequence),
        Err(SequenceError::InvalidEpoch { .. }) => Err(AppendError::InvalidProducerEpoch),
        Err(SequenceError::OpenTransaction) => Err(AppendError::InvalidTxnState),
    }
}

/// What a batch still lacks before it may be placed.
enum Need {
    Nothing,
    Roll,
    Space {
        file: File,
        from: u64,
        need_end: u64,
    },
    Memory(usize),
    /// Too much waits for the disk: wait until this offset is durable.
    Flush(Offset),
}

/// Everything that can fail or wait, in a loop, because flushes go on meanwhile.
async fn reserve(shared: &Rc<Shared>, admitted: &Admitted, now_ms: i64) -> Result<(), AppendError> {
    loop {
        let need = {
            let mut state = shared.state.borrow_mut();
            state.check_open()?;
            plan(&mut state, shared, admitted, now_ms)
        };
        match need {
            Need::Nothing => return Ok(()),
            Need::Roll => roll(shared, now_ms).await?,
            Need::Space { file, from, need_end } => {
                grow(shared, &file, from, need_end).await.map_err(|error| {
                    unmade(format!("no space for the log {}: {error}", shared.dir.display()), &error)
                })?;
            }
            Need::Memory(bytes) => {
                let buf = take(shared, bytes, Reservation::Produce).await;
                shared.state.borrow_mut().spare.push(buf);
            }
            Need::Flush(last) => wait_for(shared, &shared.durable, last, |state| state.durable_end).await?,
        }
    }
}

fn plan(state: &mut State, shared: &Shared, admitted: &Admitted, now_ms: i64) -> Need {
    let bytes = admitted.len();
    let config = shared.config.borrow();
    let end = state.end;
    let header = Batch::header_of(&admitted.header);
    let active = state.active();
    let roll = Roll {
        position: active.position,
        batch_bytes: bytes as u64,
        segment_bytes: config.segment_bytes,
        segment_ms: config.segment_ms_max(),
        first_timestamp: active.first_timestamp,
        batch_timestamp: header.max_timestamp(),
        created_ms: active.created_ms,
        now_ms,
        relative_offset: end.0.saturating_add(i64::from(header.last_offset_delta())) - active.base.0,
    };
    if roll.is_due() {
        return Need::Roll;
    }
    let need_end = space::block_ceil(active.position + bytes as u64);
    if need_end > active.allocated {
        return Need::Space { file: active.file.clone(), from: active.allocated, need_end };
    }
    let position = active.position;
    let unflushed: usize = state.ready.iter().map(|ready| ready.bytes()).sum();
    if unflushed > UNFLUSHED_BYTES_MAX
        && let Some(ready) = state.ready.front()
    {
        return Need::Flush(Offset(ready.end_offset.0 - 1));
    }
    if let Some(forming) = &state.forming
        && forming.filled + bytes > shared.limits.flush_bytes_max
    {
        close_forming(state, shared);
    }
    let (filled, capacity) = match &state.forming {
        Some(forming) => (forming.filled, forming.capacity()),
        None => ((position % BLOCK_BYTES) as usize, 0),
    };
    let spare: usize = state.spare.iter().map(|buf| buf.len()).sum();
    let missing = (filled + bytes).saturating_sub(capacity + spare);
    if missing == 0 {
        return Need::Nothing;
    }
    // While the disk is busy others will join this flush: take about what the last one needed.
    let ahead = if state.flushing { state.last_flush_bytes.min(CHUNK_BYTES_MAX) } else { 0 };
    Need::Memory(missing.max(ahead).next_multiple_of(BLOCK_BYTES as usize))
}

/// Memory for a flush or a read. What was only kept for readers gives way first; then the caller waits its turn for what
/// others give back.
pub(super) async fn take(shared: &Shared, bytes: usize, account: Reservation) -> BufMut {
    match try_take(shared, bytes, account) {
        Some(buf) => buf,
        None => shared.core.buffers().take(bytes, account).await,
    }
}

/// The same, if there is some now.
pub(super) fn try_take(shared: &Shared, bytes: usize, account: Reservation) -> Option<BufMut> {
    loop {
        if let Some(buf) = shared.core.buffers().try_take(bytes, account) {
            return Some(buf);
        }
        if !shared.chunks.release(bytes) && !shared.tails.release(bytes) {
            return None;
        }
    }
}

/// Gives the batch its offsets and copies it into the forming flush. Cannot fail: everything was reserved.
fn place(shared: &Shared, admitted: &Admitted) -> Appended {
    let mut state = shared.state.borrow_mut();
    let state = &mut *state;
    let mut header = admitted.header;
    let base = state.end;
    header[0..8].copy_from_slice(&base.0.to_be_bytes());
    header[12..16].copy_from_slice(&shared.epoch.get().0.to_be_bytes());
    let view = Batch::header_of(&header);
    let (last, max_timestamp) = (view.last_offset(), view.max_timestamp());
    assert!(last >= base);
    state.producers.apply(&view);
    assert!(shared.faults.panic_at != Some((shared.epoch.get(), base)), "asked for by a test");
    let body = &admitted.bytes[HEADER_BYTES..];
    let bytes = admitted.len();
    if state.forming.is_none() {
        begin_forming(state, shared);
    }
    let spare = &mut state.spare;
    let active = state.segments.last_mut().expect("an open log has an active segment");
    let forming = state.forming.as_mut().expect("it was begun above");
    assert!(forming.segment == active.base);
    assert!(forming.start + forming.filled as u64 == active.position);
    forming.chunks.append(spare);
    let copied = forming.copy(&header) + forming.copy(body);
    forming.spots.push(Spot { base, last, pos: active.position, bytes: bytes as u32 });
    forming.end_offset = last.next();
    active.crcs.feed(&header);
    active.crcs.feed(body);
    active.note(last, bytes as u64, max_timestamp);
    assert!(active.position <= active.allocated);
    state.end = last.next();
    shared.count(|counters| {
        counters.batches += 1;
        counters.bytes += bytes as u64;
        counters.bytes_copied += copied;
    });
    Appended {
        base_offset: base,
        last_offset: last,
        log_append_time_ms: admitted.log_append_time_ms,
        log_start_offset: state.log_start,
        duplicate: false,
    }
}

/// A new flush begins with a copy of the block that the one before it ended in.
fn begin_forming(state: &mut State, shared: &Shared) {
    let block = std::mem::take(&mut state.last_block);
    let end_offset = state.end;
    let active = state.active();
    assert!(block.len() as u64 == active.position % BLOCK_BYTES);
    let mut forming = Forming {
        segment: active.base,
        file: active.file.clone(),
        start: space::block_floor(active.position),
        chunks: Vec::new(),
        filled: 0,
        spots: Vec::new(),
        end_offset,
    };
    forming.chunks.append(&mut state.spare);
    let copied = forming.copy(&block);
    shared.count(|counters| counters.tail_bytes_copied += copied);
    state.last_block = block;
    state.forming = Some(forming);
}

/// Takes no more appends into the forming flush; it becomes readable and waits for the disk.
pub(super) fn close_forming(state: &mut State, shared: &Shared) {
    let Some(forming) = state.forming.take() else { return };
    assert!(!forming.spots.is_empty());
    let end = forming.start + forming.filled as u64;
    forming.copy_last_block(&mut state.last_block);
    shared.count(|counters| counters.tail_bytes_copied += state.last_block.len() as u64);
    let Forming { segment, file, start, chunks, filled, spots, end_offset } = forming;
    let slices = freeze(chunks, filled);
    let batches = spots.len() as u64;
    let (from, base_offset) = (spots[0].pos, spots[0].base);
    shared.tails.keep(&shared.tail, Run::new(segment, start, slices.clone(), spots));
    let sync_before = state.sync_before.take();
    state.ready.push_back(Ready {
        segment,
        file,
        start,
        slices,
        from,
        end,
        base_offset,
        end_offset,
        batches,
        sync_before,
    });
}

/// Makes sure that a flush is under way.
pub(super) fn kick(shared: &Rc<Shared>) {
    let mut state = shared.state.borrow_mut();
    let waiting = state.forming.is_some() || !state.ready.is_empty() || behind::is_due(&state);
    if state.flushing || !waiting || state.failure.is_some() {
        return;
    }
    state.flushing = true;
    drop(state);
    spawn_at_work(shared, Class::Produce, flush_all(shared.clone()));
}

enum Work {
    Flush(Ready),
    /// What is in the journal goes to the segment.
    Behind,
}

/// Flushes one after the other until nothing waits.
async fn flush_all(shared: Rc<Shared>) {
    let _guard = PanicPoisons(&shared);
    while let Some(work) = next_work(&shared) {
        let done = match &work {
            Work::Flush(ready) => flush(&shared, ready).await,
            Work::Behind => behind::write(&shared).await,
        };
        if let Err(error) = done {
            shared.state.borrow_mut().flushing = false;
            shared.poison(format!("writing {} failed: {error}", shared.dir.display()));
            return;
        }
    }
}

fn next_work(shared: &Shared) -> Option<Work> {
    let mut state = shared.state.borrow_mut();
    let next = match behind::is_due(&state) {
        true => Some(Work::Behind),
        false => {
            if state.ready.is_empty() {
                close_forming(&mut state, shared);
            }
            state.ready.pop_front().map(Work::Flush)
        }
    };
    state.flushing = next.is_some();
    next
}

async fn flush(shared: &Rc<Shared>, ready: &Ready) -> std::io::Result<()> {
    let is_small = ready.end - ready.from <= journal::FLUSH_BYTES_MAX as u64;
    let journal = shared.journal.as_ref().filter(|_| is_small);
    let _under_way = journal.map(Journal::begin_flush);
    shared.state.borrow_mut().last_flush_bytes = ready.bytes();
    if let Some(journal) = journal
        && is_for_journal(shared, ready, journal)
        && to_journal(shared, ready, journal).await?
    {
        return Ok(());
    }
    behind::write(shared).await?;
    let synced = write(shared, ready).await?;
    flushed(shared, ready, synced);
    Ok(())
}

/// Whether this flush goes to the journal. Everything before it must be on stable media then, as if it were in one file,
/// and the segment must not be about to be sealed.
fn is_for_journal(shared: &Shared, ready: &Ready, journal: &Journal) -> bool {
    let fsync = shared.config.borrow().durability == Durability::Fsync;
    let state = shared.state.borrow();
    let is_active = state.segments.last().is_some_and(|active| active.base == ready.segment);
    let is_synced = state.is_synced() && ready.sync_before.is_none();
    fsync && is_active && is_synced && journal.admits(state.behind.is_some())
}

/// False: the journal has no room for it now.
async fn to_journal(shared: &Rc<Shared>, ready: &Ready, journal: &Journal) -> std::io::Result<bool> {
    let truncations = shared.state.borrow().truncations;
    let place = Place { id: shared.id, segment: ready.segment, position: ready.from, truncations };
    let hold = match journal.append(place, behind::new_bytes(ready)).await {
        Ok(Some(hold)) => hold,
        Ok(None) => return Ok(false),
        Err(error) => {
            // A start may find it or not, so this process must not go on from the end that it knows.
            let why = format!("flushing {} failed: {error}", shared.dir.display());
            shared.state.borrow_mut().failure = Some(Failure { why, panicked: false });
            return Err(error);
        }
    };
    behind::push(shared, journal, ready, hold);
    shared.count(|counters| counters.journaled += 1);
    acknowledge(shared, ready);
    Ok(true)
}

/// Says whether it is on stable media now, with all that came before it. The durability may change at any time: what
/// counts is the one when the write began.
async fn write(shared: &Rc<Shared>, ready: &Ready) -> std::io::Result<bool> {
    if let Some(before) = &ready.sync_before {
        before.sync_data().await?;
    }
    let fsync = shared.config.borrow().durability == Durability::Fsync;
    if fsync && !shared.state.borrow().is_synced() {
        // It was `write` until now: nothing counts as flushed before what lies in front of it is.
        seal::sync_files(shared).await.map_err(|Poisoned(why)| std::io::Error::other(why))?;
    }
    write_to_segment(shared, (ready.segment, &ready.file), ready.start, ready.slices.clone(), fsync).await?;
    Ok(fsync)
}

/// Writes blocks to a segment, once no zeros are on their way there. A segment that has gone meanwhile takes nothing.
pub(super) async fn write_to_segment(
    shared: &Shared,
    (base, file): (Offset, &File),
    start: u64,
    mut slices: Vec<Slice>,
    fsync: bool,
) -> std::io::Result<()> {
    let bytes: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
    ahead::cleared(shared, base, start + bytes).await;
    let zeros = {
        let mut state = shared.state.borrow_mut();
        let Some(segment) = state.segment(base) else { return Ok(()) };
        space::zeros_ahead(start, start + bytes, segment.written, segment.allocated)
    };
    if zeros > 0 {
        slices.push(rt::zeros(zeros as usize));
    }
    file.write_at(slices, start, media_sync(shared, fsync)).await?;
    let mut state = shared.state.borrow_mut();
    if let Some(segment) = state.segment(base) {
        segment.written = segment.written.max(start + bytes + zeros);
    }
    shared.count(|counters| {
        counters.flushes += 1;
        counters.flushed_bytes += bytes;
        counters.zeros_ahead_bytes += zeros;
    });
    Ok(())
}

/// Whether a write must be on stable media before it counts.
pub(super) fn media_sync(shared: &Shared, fsync: bool) -> Sync {
    if fsync && !shared.faults.skip_flush { Sync::Data } else { Sync::None }
}

/// The segment has it.
fn flushed(shared: &Rc<Shared>, ready: &Ready, synced: bool) {
    {
        let mut state = shared.state.borrow_mut();
        let state = &mut *state;
        if synced && state.is_synced() {
            state.synced_end = ready.end_offset;
        } else {
            state.unsynced_messages += ready.batches;
        }
        state.filed_end = ready.end_offset;
        if let Some(segment) = state.segment(ready.segment) {
            segment.durable = ready.end;
        }
    }
    acknowledge(shared, ready);
    seal::sync_later(shared);
    ahead::start(shared, ready.bytes() as u64);
    seal_if_done(shared, ready.segment);
}

/// The disk has it: the durable end moves, and waiters wake.
fn acknowledge(shared: &Rc<Shared>, ready: &Ready) {
    let grow_next = {
        let mut state = shared.state.borrow_mut();
        let state = &mut *state;
        assert!(ready.end_offset > state.durable_end);
        state.durable_end = ready.end_offset;
        state.high_watermark = state.high_watermark.max(state.durable_end);
        wants_growth(state, shared)
    };
    shared.committed.wake_below(ready.end_offset.0);
    shared.durable.wake_below(ready.end_offset.0);
    shared.moved.notify_all();
    if grow_next {
        spawn_at_work(shared, Class::Background, grow_ahead(shared.clone()));
    }
}

/// Seals a segment that was written to, if it is active no more and nothing is left to be written there.
pub(super) fn seal_if_done(shared: &Rc<Shared>, base: Offset) {
    let is_done = {
        let mut state = shared.state.borrow_mut();
        let is_last = state.ready.front().is_none_or(|next| next.segment != base);
        let is_filed = state.behind.as_ref().is_none_or(|behind| behind.segment != base);
        state.active().base != base && is_last && is_filed
    };
    if is_done {
        seal::start(shared, base);
    }
}
