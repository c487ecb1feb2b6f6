//! Zeros ahead of a log's end, written in the background, so that small flushes overwrite blocks instead of converting
//! them.
//!
//! A flush that crosses from written into merely allocated blocks costs twice an overwrite: the file system turns
//! extents over, in a thread of its own (ADR 0003 has the figures). Only flushes that are small get zeros written
//! before them; where the disk is the limit flushes grow, and then nothing is written twice.
//!
//! Zeros never race with a flush: they begin behind the written region while no flush is in flight there, and a flush
//! that reaches into them waits for them ([`cleared`]). A segment is sealed, and a log closed, only when they are done.

use super::append::media_sync;
use super::{Durability, PanicPoisons, Shared, State, spawn_at_work};
use crate::ids::Offset;
use crate::space;
use rt::{Class, Slice};
use std::ops::Range;
use std::rc::Rc;

/// Starts writing zeros behind the written region of the active segment, if a flush of `flush_bytes` just ended there.
pub(super) fn start(shared: &Rc<Shared>, flush_bytes: u64) {
    let (base, range) = {
        let mut state = shared.state.borrow_mut();
        if state.failure.is_some() || state.closed {
            return;
        }
        let synced = shared.config.borrow().durability == Durability::Fsync;
        let active = state.active();
        if active.zeroing || active.sealing {
            return;
        }
        let partitions = shared.partitions.get();
        let (position, written, allocated) = (active.position, active.written, active.allocated);
        let Some(range) = space::zeros_behind(flush_bytes, synced, position, written, allocated, partitions)
        else {
            return;
        };
        active.zeroing = true;
        (active.base, range)
    };
    spawn_at_work(shared, Class::Produce, write(shared.clone(), base, range));
}

async fn write(shared: Rc<Shared>, base: Offset, range: Range<u64>) {
    let _guard = PanicPoisons(&shared);
    let synced = shared.config.borrow().durability == Durability::Fsync;
    let bytes = range.end - range.start;
    let file = shared.state.borrow_mut().segment(base).map(|segment| segment.file.clone());
    let written = match file {
        Some(file) => file.write_at(zeros(bytes), range.start, media_sync(&shared, synced)).await,
        None => Ok(()),
    };
    if let Some(segment) = shared.state.borrow_mut().segment(base) {
        segment.zeroing = false;
        if written.is_ok() {
            segment.written = segment.written.max(range.end);
        }
    }
    match written {
        Ok(()) => shared.count(|counters| counters.zeros_ahead_bytes += bytes),
        Err(error) => shared.poison(format!("writing ahead in {} failed: {error}", shared.dir.display())),
    }
    shared.zeroed.notify_all();
}

fn zeros(bytes: u64) -> Vec<Slice> {
    let mut left = bytes;
    let mut slices = Vec::new();
    while left > 0 {
        let now = left.min(rt::ZEROS_BYTES_MAX as u64);
        slices.push(rt::zeros(now as usize));
        left -= now;
    }
    slices
}

/// Waits until no zeros are on their way to the blocks of segment `base` below `end`.
pub(super) async fn cleared(shared: &Shared, base: Offset, end: u64) {
    let busy = |state: &mut State| {
        state.segment(base).is_some_and(|segment| segment.zeroing && segment.written < end)
    };
    loop {
        let zeroed = shared.zeroed.listen();
        if shared.faults.racing_zeros || !busy(&mut shared.state.borrow_mut()) {
            return;
        }
        zeroed.await;
    }
}
