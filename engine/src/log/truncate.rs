//! The front of a log: what retention and DeleteRecords take away. The log start is durable before a file goes (A5).

use super::{AppendError, AtWork, PanicPoisons, Shared, behind, grow, seal};
use crate::ids::Offset;
use crate::names;
use crate::retention::{self, Aged, Limits};
use std::rc::Rc;

pub(super) async fn delete_records(shared: &Rc<Shared>, to: Offset) -> Result<Offset, AppendError> {
    {
        let state = shared.state.borrow();
        state.check_open()?;
        if to <= state.log_start {
            return Ok(state.log_start);
        }
        if to > state.high_watermark {
            return Err(AppendError::Storage(format!("{to} is above the high watermark")));
        }
    }
    raise(shared, to).await?;
    Ok(shared.state.borrow().log_start)
}

pub(super) async fn apply_retention(shared: &Rc<Shared>) -> Result<usize, AppendError> {
    let now_ms = shared.core.wall_ms();
    let plan = |shared: &Shared| {
        let state = shared.state.borrow();
        let config = shared.config.borrow();
        let limits = Limits {
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
            deletes: config.deletes,
        };
        let aged = aged(&state);
        let count = retention::expired(&aged, limits, state.log_start, state.high_watermark, now_ms);
        (count, count == aged.len(), aged.get(count.wrapping_sub(1)).map(|last| last.end_offset))
    };
    let (count, active_too, _) = plan(shared);
    if count == 0 {
        return Ok(0);
    }
    if active_too {
        let ticket = shared.turns.draw();
        ticket.turn().await;
        // The one before may have rolled already.
        let (_, still, _) = plan(shared);
        if still && shared.state.borrow_mut().active().position > 0 {
            grow::roll(shared, now_ms).await?;
        }
    }
    let (count, _, end) = plan(shared);
    if let Some(end) = end {
        raise(shared, end).await?;
    }
    Ok(count)
}

fn aged(state: &super::State) -> Vec<Aged> {
    let ends = state.segments.iter().skip(1).map(|segment| segment.base).chain([state.end]);
    let aged = state.segments.iter().zip(ends).map(|(segment, end_offset)| Aged {
        base_offset: segment.base,
        end_offset,
        bytes: segment.position,
        max_timestamp: segment.age_timestamp(),
    });
    aged.collect()
}

/// Moves the log start, durably, and then drops the segments below it. Retention and several clients may do so at a
/// time: each goes on where the one before it ended.
async fn raise(shared: &Rc<Shared>, to: Offset) -> Result<(), AppendError> {
    let _at_work = AtWork::begin(shared);
    let _guard = PanicPoisons(shared);
    let failed =
        |error: std::io::Error| AppendError::Storage(format!("moving the log start failed: {error}"));
    let _turn = shared.stating.acquire(1).await;
    let (log_start, synced_end) = {
        let state = shared.state.borrow();
        state.check_open()?;
        (state.log_start, state.synced_end)
    };
    if to > log_start {
        if to > synced_end {
            // Or a host that dies under `write` comes back with a log that starts behind its end, and hides what follows.
            seal::sync(shared).await?;
        }
        store_fact(shared, |partition| partition.log_start = to).await.map_err(failed)?;
        let mut state = shared.state.borrow_mut();
        state.log_start = to;
        state.epochs.truncate_start(to);
    }
    // One that is being sealed would leave its index file behind.
    seal::settled(shared, to).await;
    let gone = {
        let mut state = shared.state.borrow_mut();
        let log_start = state.log_start;
        let keep = state.segments.iter().skip(1).take_while(|next| next.base <= log_start).count();
        state.segments.drain(..keep).map(|segment| segment.base).collect::<Vec<_>>()
    };
    shared.moved.notify_all();
    for base in gone {
        shared.core.unlink(shared.dir.join(names::segment(base))).await.map_err(failed)?;
        // A segment that was never sealed has no index file.
        let _ = shared.core.unlink(shared.dir.join(names::index(base))).await;
    }
    Ok(())
}

/// Makes a fact of the partition durable. The caller holds the permit of `stating`.
pub(super) async fn store_fact(
    shared: &Shared,
    change: impl FnOnce(&mut names::Partition),
) -> std::io::Result<()> {
    let file = shared.partition.borrow_mut().take();
    let Some(mut file) = file else {
        return Err(std::io::Error::other("a change before it did not come to its end"));
    };
    let stored = file.store(&shared.core, change).await;
    *shared.partition.borrow_mut() = Some(file);
    stored
}

pub(super) async fn delete(shared: &Rc<Shared>) -> std::io::Result<()> {
    shared.state.borrow_mut().closed = true;
    shared.tail.clear();
    shared.chunks.forget(shared.id);
    shared.wake_everybody();
    // A compaction that makes a file while the folder goes would keep it from going.
    shared.idle().await;
    behind::forget(shared);
    let parent = shared.dir.parent().map(std::path::Path::to_path_buf);
    shared.core.remove_dir_all(shared.dir.clone()).await?;
    match parent {
        Some(parent) if !shared.faults.skip_dir_sync => shared.core.sync_dir(parent).await,
        Some(_) | None => Ok(()),
    }
}
