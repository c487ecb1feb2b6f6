//! Ends: of a segment (length, index file, CRCs), of the volatile part of a log (device flushes in write mode), and of
//! a log's life (what the checkpoint may say, closing).

use super::{Durability, PanicPoisons, Poisoned, Shared, ahead, append, behind, spawn_at_work, wait_for};
use crate::checkpoint::Saved;
use crate::ids::Offset;
use crate::index::SealedIndex;
use crate::names;
use crate::segment::{CRC_CHUNK_BYTES, ChunkCrcs, Index, Segment};
use rt::{Class, File, Open, Reservation, Slice, Sync};
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// How much is read together where CRCs of an earlier incarnation's bytes are missing.
const CRC_READ_BYTES: usize = 1 << 20;

/// Seals a segment that no flush will touch any more, in the background. What fails here loses nothing: the segment
/// stays readable through its index in memory, and recovery seals it.
pub(super) fn start(shared: &Rc<Shared>, base: Offset) {
    {
        let mut state = shared.state.borrow_mut();
        match state.segment(base) {
            Some(segment) if !segment.sealing && !segment.is_sealed() => segment.sealing = true,
            Some(_) | None => return,
        }
    }
    let sealing = shared.clone();
    spawn_at_work(shared, Class::Background, async move {
        // What failed is done again by recovery. A segment that retention took meanwhile needs no seal.
        let sealed = seal(&sealing, base).await;
        let is_there = sealing.state.borrow_mut().segment(base).is_some();
        if let (Err(error), true) = (sealed, is_there) {
            rt::say!("corelog: a segment of {} is not sealed: {error}", sealing.dir.display());
        }
        if let Some(segment) = sealing.state.borrow_mut().segment(base) {
            segment.sealing = false;
        }
        sealing.zeroed.notify_all();
    });
}

/// Waits until no segment that begins below `to` is being sealed.
pub(super) async fn settled(shared: &Shared, to: Offset) {
    loop {
        let changed = shared.zeroed.listen();
        let sealing = |segment: &Segment| segment.sealing && segment.base < to;
        if !shared.state.borrow().segments.iter().any(sealing) {
            return;
        }
        changed.await;
    }
}

/// After recovery: segments whose index file is missing.
pub(super) fn start_all(shared: &Rc<Shared>) {
    let unsealed: Vec<Offset> = {
        let state = shared.state.borrow();
        let before_last = state.segments.len().saturating_sub(1);
        state.segments[..before_last].iter().filter(|segment| !segment.is_sealed()).map(|s| s.base).collect()
    };
    unsealed.into_iter().for_each(|base| start(shared, base));
}

async fn seal(shared: &Shared, base: Offset) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let (file, length, crcs) = {
        let mut state = shared.state.borrow_mut();
        let segment = state.segment(base).ok_or_else(gone)?;
        (segment.file.clone(), segment.position, segment.crcs.clone())
    };
    ahead::cleared(shared, base, u64::MAX).await;
    let cut = async {
        file.truncate(length).await?;
        file.sync_all().await
    };
    if let Err(error) = cut.await {
        // A sync that failed says nothing of what is on stable media, and trying again would hide it.
        shared.poison(format!("sealing a segment of {} failed: {error}", shared.dir.display()));
        return Err(error);
    }
    let crcs = complete(&file, length, &crcs).await?;
    let encoded = {
        let mut state = shared.state.borrow_mut();
        let end = state.segments.iter().find(|segment| segment.base > base).map(|segment| segment.base);
        let end = end.unwrap_or(state.end);
        let segment = state.segment(base).ok_or_else(gone)?;
        let Index::Active(index) = &segment.index else { return Ok(()) };
        SealedIndex::encode(index, end, length, segment.first_timestamp, segment.max_timestamp, &crcs)
    };
    let index =
        SealedIndex::decode(&encoded).map_err(|_| io::Error::other("the index just built is invalid"))?;
    let path = shared.dir.join(names::index(base));
    let index_file = shared.core.open(path, Open::write().create()).await?;
    index_file.truncate(0).await?;
    index_file.write_at(vec![Slice::from(encoded)], 0, Sync::Data).await?;
    index_file.sync_all().await?;
    if !shared.faults.skip_dir_sync {
        shared.core.sync_dir(shared.dir.clone()).await?;
    }
    let mut state = shared.state.borrow_mut();
    if let Some(segment) = state.segment(base) {
        segment.index = Index::Sealed(Rc::new(index));
        segment.allocated = length;
        segment.sealing = false;
    }
    Ok(())
}

/// All CRCs of a segment; those of bytes that an earlier incarnation wrote are read from the file.
async fn complete(file: &File, length: u64, crcs: &ChunkCrcs) -> io::Result<Vec<u32>> {
    let known = crcs.known_from().min(length);
    let mut before = Vec::new();
    let mut at = 0;
    while at < known {
        let bytes = usize::try_from(known - at).unwrap_or(usize::MAX).min(CRC_READ_BYTES);
        let padded = bytes.next_multiple_of(4096);
        let window = file.read_exactly(at, padded, Reservation::CatchUp).await?;
        let window = window.get(..bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        before.extend(window.chunks(CRC_CHUNK_BYTES as usize).map(crc32c::crc32c));
        at += bytes as u64;
    }
    Ok(crcs.finish(before))
}

/// In write mode: a device flush after so many messages or so long, whichever comes first.
pub(super) fn sync_later(shared: &Rc<Shared>) {
    let durability = shared.config.borrow().durability;
    let Durability::Write { flush_messages, flush_ms } = durability else { return };
    let (wait, durabilities) = {
        let mut state = shared.state.borrow_mut();
        if state.unsynced_messages == 0 || state.sync_timer {
            return;
        }
        let full = flush_messages > 0 && state.unsynced_messages >= flush_messages;
        if !full && flush_ms == 0 {
            return;
        }
        state.sync_timer = true;
        (if full { Duration::ZERO } else { Duration::from_millis(flush_ms) }, state.durabilities)
    };
    let shared = shared.clone();
    let core = shared.core.clone();
    drop(core.spawn(Class::Background, async move {
        shared.core.sleep(wait).await;
        {
            let mut state = shared.state.borrow_mut();
            if state.durabilities != durabilities {
                return;
            }
            state.sync_timer = false;
        }
        // A failure poisoned the log, which is all there is to do about it.
        let _ = sync(&shared).await;
    }));
}

/// What was acknowledged under another durability, or waits for an earlier bound, is flushed now; bounds count anew.
pub(super) fn durability_changed(shared: &Rc<Shared>) {
    {
        let mut state = shared.state.borrow_mut();
        state.durabilities = state.durabilities.wrapping_add(1);
        state.sync_timer = false;
        if state.unsynced_messages == 0 {
            return;
        }
    }
    let changed = shared.clone();
    // A failure poisoned the log, which is all there is to do about it.
    spawn_at_work(shared, Class::Background, async move { drop(sync(&changed).await) });
}

/// Puts everything that is durable onto stable media, in its segments.
pub(super) async fn sync(shared: &Rc<Shared>) -> Result<(), Poisoned> {
    behind::settle(shared).await?;
    sync_files(shared).await
}

/// The same, but for what is in the journal.
pub(super) async fn sync_files(shared: &Shared) -> Result<(), Poisoned> {
    // One at a time: whoever comes second may speak of it only when the first has ended.
    let _turn = shared.syncing.acquire(1).await;
    let (files, end) = {
        let mut state = shared.state.borrow_mut();
        state.check_open()?;
        if state.is_synced() {
            return Ok(());
        }
        state.unsynced_messages = 0;
        let synced_end = state.synced_end;
        let files = state.segments.iter().enumerate().filter(|(at, _)| {
            // A segment is dirty if it ends behind what is on stable media.
            state.segments.get(at + 1).is_none_or(|next| next.base > synced_end)
        });
        (files.map(|(_, segment)| segment.file.clone()).collect::<Vec<_>>(), state.filed_end)
    };
    for file in files {
        if let Err(error) = file.sync_data().await {
            let why = format!("flushing {} failed: {error}", shared.dir.display());
            shared.poison(why.clone());
            return Err(Poisoned(why));
        }
    }
    let mut state = shared.state.borrow_mut();
    state.synced_end = state.synced_end.max(end);
    Ok(())
}

/// What a checkpoint may say: a copy of the state at some end, handed out when that end is on stable media.
pub(super) async fn save(shared: &Rc<Shared>) -> Result<Saved, Poisoned> {
    let saved = {
        let mut state = shared.state.borrow_mut();
        state.check_open()?;
        if state.truncating {
            return Err(Poisoned("the log is being truncated".into()));
        }
        snapshot(shared, &mut state)
    };
    if saved.end.0 > 0 {
        wait_for(shared, &shared.durable, Offset(saved.end.0 - 1), |state| state.durable_end).await?;
    }
    sync(shared).await?;
    Ok(saved)
}

fn snapshot(shared: &Shared, state: &mut super::State) -> Saved {
    let _guard = PanicPoisons(shared);
    let (epochs, mut producers, end) = (state.epochs.clone(), state.producers.clone(), state.end);
    producers.expire(shared.core.wall_ms(), shared.config.borrow().producer_expiration_ms);
    state.producers_saved = producers.clone();
    let (log_start, truncations, rewrites) = (state.log_start, state.truncations, state.rewrites);
    let active = state.active();
    let index = match &active.index {
        Index::Active(index) => index.clone(),
        Index::Sealed(_) => unreachable!("the last segment is never sealed"),
    };
    Saved {
        id: shared.id,
        epoch: shared.epoch.get(),
        log_start,
        end,
        segment: active.base,
        position: active.position,
        clean: false,
        index,
        first_timestamp: active.first_timestamp,
        max_timestamp: active.max_timestamp,
        epochs,
        producers,
        truncations,
        rewrites,
    }
}

/// The last append's flush is waited for; later appends find the log closed.
pub(super) async fn close(shared: &Rc<Shared>) -> Result<Saved, Poisoned> {
    let ticket = shared.turns.draw();
    ticket.turn().await;
    append::kick(shared);
    let mut saved = save(shared).await?;
    saved.clean = true;
    ahead::cleared(shared, saved.segment, u64::MAX).await;
    shared.state.borrow_mut().closed = true;
    shared.tail.clear();
    shared.chunks.forget(shared.id);
    shared.wake_everybody();
    Ok(saved)
}
