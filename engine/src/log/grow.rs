//! Where appends find room: the next step of a file, the next segment.

use super::append::{close_forming, kick};
use super::{AppendError, Durability, Shared, State, seal};
use crate::ids::Offset;
use crate::names;
use crate::segment::Segment;
use crate::space::{self, BLOCK_BYTES};
use rt::{File, Open};
use std::rc::Rc;

/// Allocates the next step of `file`, far enough for `need_end`.
pub(super) async fn grow(shared: &Shared, file: &File, from: u64, need_end: u64) -> std::io::Result<()> {
    let free_bytes = shared.core.free_bytes(shared.dir.clone()).await?;
    let step = space::step_bytes(from, free_bytes, shared.partitions.get());
    let segment_bytes = shared.config.borrow().segment_bytes.next_multiple_of(BLOCK_BYTES);
    let wanted = space::grow_to(from, need_end, step);
    let until = wanted.min(segment_bytes).max(need_end);
    file.allocate(from..until).await?;
    let mut state = shared.state.borrow_mut();
    let active = state.active();
    active.allocated = active.allocated.max(until);
    Ok(())
}

/// A full disk is told apart: nothing was given, and it may pass.
pub(super) fn unmade(what: String, error: &std::io::Error) -> AppendError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => AppendError::NoSpace(what),
        _ => AppendError::Storage(what),
    }
}

/// Starts the next segment. Its directory is synced before anything can be acknowledged from it (A5).
pub(super) async fn roll(shared: &Rc<Shared>, now_ms: i64) -> Result<(), AppendError> {
    let dir = shared.dir.display();
    let failed = |error: std::io::Error| unmade(format!("cannot roll the log {dir}: {error}"), &error);
    let base = shared.state.borrow().end;
    let file = create_segment(shared, base).await.map_err(failed)?;
    let sealed = {
        let mut state = shared.state.borrow_mut();
        state.check_open()?;
        close_forming(&mut state, shared);
        let old = state.active().base;
        assert!(base > old, "an empty segment is not rolled");
        let config = shared.config.borrow();
        if matches!(config.durability, Durability::Write { .. }) {
            state.sync_before = Some(state.active().file.clone());
        }
        let mut segment = Segment::new(base, file, now_ms, config.index_interval_bytes);
        segment.allocated = space::STEP_BYTES_MIN;
        state.segments.push(segment);
        state.last_block.clear();
        let idle = !state.flushing && state.ready.is_empty() && state.behind.is_none();
        idle.then_some(old)
    };
    shared.count(|counters| counters.rolls += 1);
    kick(shared);
    if let Some(old) = sealed {
        seal::start(shared, old);
    }
    Ok(())
}

/// A new segment file with its first step, named durably.
pub(super) async fn create_segment(shared: &Shared, base: Offset) -> std::io::Result<File> {
    let path = shared.dir.join(names::segment(base));
    let how = Open::write().create().direct();
    let file = shared.core.open(path.clone(), how).await?;
    if let Err(error) = file.allocate(0..space::STEP_BYTES_MIN).await {
        // Nothing was assigned in it; recovery drops an empty file too.
        let _ = shared.core.unlink(path).await;
        return Err(error);
    }
    if !shared.faults.skip_dir_sync {
        shared.core.sync_dir(shared.dir.clone()).await?;
    }
    Ok(file)
}

/// Whether the next step should be allocated now; the answer is given once.
pub(super) fn wants_growth(state: &mut State, shared: &Shared) -> bool {
    let limit = shared.config.borrow().segment_bytes.next_multiple_of(BLOCK_BYTES);
    let active = state.active();
    let step = active.allocated.clamp(space::STEP_BYTES_MIN, space::STEP_BYTES_MAX);
    let wants = !active.growing && space::wants_next_step(active.position, active.allocated, step, limit);
    active.growing |= wants;
    wants
}

/// The next step, before it is needed. A failure is not one: the append that needs the space will hear of it.
pub(super) async fn grow_ahead(shared: Rc<Shared>) {
    let (base, file, from) = {
        let mut state = shared.state.borrow_mut();
        let active = state.active();
        (active.base, active.file.clone(), active.allocated)
    };
    let free_bytes = shared.core.free_bytes(shared.dir.clone()).await.unwrap_or(0);
    let step = space::step_bytes(from, free_bytes, shared.partitions.get());
    let limit = shared.config.borrow().segment_bytes.next_multiple_of(BLOCK_BYTES);
    let until = (from + step).min(limit);
    let grown = until > from && file.allocate(from..until).await.is_ok();
    let cut = {
        let mut state = shared.state.borrow_mut();
        let Some(segment) = state.segment(base) else { return };
        segment.growing = false;
        let ended = segment.is_sealed() || segment.sealing;
        if grown && !ended {
            segment.allocated = segment.allocated.max(until);
        }
        (grown && ended).then_some(segment.position)
    };
    if let Some(length) = cut {
        // It was sealed meanwhile. The space is given back; if that fails it is only space.
        let _ = file.truncate(length).await;
    }
}
