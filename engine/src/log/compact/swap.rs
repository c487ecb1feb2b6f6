//! The moment that a new segment takes the place of old ones (hazards A2, A5).
//!
//! The new files are on stable media before the swap is intended, durably, in the file `partition`; then they are renamed
//! and the old ones unlinked, and the intent is taken back when the directory says so durably. A start that finds the
//! intent does all of it again (`recover/swap.rs`); one that finds none drops the new files. Before the intent a failure
//! costs the work only. From there on it poisons the log, and the next start ends it.

use super::super::{PanicPoisons, Shared};
use super::{CompactionError, Old, files, suffix};
use crate::ids::Offset;
use crate::index::SealedIndex;
use crate::names::{self, Swap};
use crate::segment::{Index, Segment};
use rt::File;
use std::io;
use std::rc::Rc;

/// A segment that is ready to take others' place.
pub(super) struct New {
    pub(super) base: Offset,
    pub(super) end: Offset,
    pub(super) bytes: u64,
    pub(super) file: File,
    pub(super) index: Rc<SealedIndex>,
}

pub(super) async fn swap(
    shared: &Rc<Shared>,
    olds: &[Old],
    new: New,
    truncations: u32,
) -> Result<(), CompactionError> {
    let _stating = shared.stating.acquire(1).await;
    if let Err(error) = check_unchanged(shared, olds, truncations) {
        files::discard(shared, new.base).await;
        return Err(error);
    }
    let intended = Swap { base: new.base, end: new.end };
    if !shared.faults.no_swap_intent {
        suffix::note(shared, |partition| {
            let compaction = &mut partition.compaction;
            compaction.rewrites = compaction.rewrites.wrapping_add(1);
            compaction.rewritten_to = compaction.rewritten_to.max(intended.end);
            compaction.swap = Some(intended);
        })
        .await?;
    }
    if let Err(error) = carry_out(shared, new).await {
        shared.poison(format!("swapping segments of {} failed: {error}", shared.dir.display()));
        return Err(error.into());
    }
    suffix::note(shared, |partition| partition.compaction.swap = None).await?;
    Ok(())
}

/// Retention may have taken some, a truncation their end.
fn check_unchanged(shared: &Shared, olds: &[Old], truncations: u32) -> Result<(), CompactionError> {
    let state = shared.state.borrow();
    state.check_open()?;
    let first = olds.first().map_or(Offset::UNKNOWN, |old| old.base);
    let now = state.segments.iter().skip_while(|segment| segment.base < first).take(olds.len());
    let is_same = |(segment, old): (&Segment, &Old)| match &segment.index {
        Index::Sealed(index) => segment.base == old.base && Rc::ptr_eq(index, &old.index),
        Index::Active(_) => false,
    };
    let same = now.clone().count() == olds.len() && now.zip(olds).all(is_same);
    match same && state.truncations == truncations {
        true => Ok(()),
        false => Err(CompactionError::Interrupted("segments went while they were compacted".into())),
    }
}

async fn carry_out(shared: &Rc<Shared>, new: New) -> io::Result<()> {
    let (dir, base) = (&shared.dir, new.base);
    shared.core.rename(dir.join(names::cleaned_index(base)), dir.join(names::index(base))).await?;
    shared.core.rename(dir.join(names::cleaned(base)), dir.join(names::segment(base))).await?;
    for gone in apply(shared, new) {
        shared.core.unlink(dir.join(names::segment(gone))).await?;
        shared.core.unlink(dir.join(names::index(gone))).await?;
    }
    if shared.faults.skip_dir_sync {
        return Ok(());
    }
    shared.core.sync_dir(dir.clone()).await
}

/// Readers that come from here on are given the new segment. Gives the bases of the files that go.
fn apply(shared: &Shared, new: New) -> Vec<Offset> {
    let _guard = PanicPoisons(shared);
    shared.tail.forget(new.base..new.end);
    let mut state = shared.state.borrow_mut();
    state.rewrites = state.rewrites.wrapping_add(1);
    let interval = shared.config.borrow().index_interval_bytes;
    let mut segment = Segment::new(new.base, new.file, shared.core.wall_ms(), interval);
    segment.generation = state.rewrites;
    (segment.position, segment.durable) = (new.bytes, new.bytes);
    (segment.written, segment.allocated) = (new.bytes, new.bytes);
    (segment.first_timestamp, segment.max_timestamp) =
        (new.index.first_timestamp(), new.index.max_timestamp());
    segment.index = Index::Sealed(new.index);
    let from = state.segments.partition_point(|old| old.base < new.base);
    let to = state.segments.partition_point(|old| old.base < new.end);
    assert!(from < to);
    assert!(to < state.segments.len(), "the active segment is not compacted");
    let gone = state.segments.splice(from..to, [segment]).map(|old| old.base);
    gone.filter(|base| *base != new.base).collect()
}

/// Everything below `learned_to` is clean, durably.
pub(super) async fn finish(
    shared: &Rc<Shared>,
    learned_to: Offset,
    truncations: u32,
) -> Result<Offset, CompactionError> {
    let _stating = shared.stating.acquire(1).await;
    {
        let mut state = shared.state.borrow_mut();
        state.check_open()?;
        if state.truncations != truncations {
            return Err(CompactionError::Interrupted("the log was truncated".into()));
        }
        state.clean_to = state.clean_to.max(learned_to);
    }
    suffix::note(shared, |partition| {
        let compaction = &mut partition.compaction;
        compaction.clean_to = compaction.clean_to.max(learned_to);
    })
    .await?;
    Ok(learned_to)
}
