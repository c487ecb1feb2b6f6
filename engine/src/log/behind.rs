//! Flushes that are durable in the journal of the core and not yet in their segment.
//!
//! They are written to the segment together: when they are many, when a flush follows that does not go to the journal, or
//! when somebody asks ([`settle`]), because the file is to be read, synced, sealed or cut. The bytes stay in memory until
//! then, so nothing of this waits for memory. The task of the log's flushes does it, in the order of the flushes.

use super::append::{self, write_to_segment};
use super::{Poisoned, Shared, State, wait_for};
use crate::ids::Offset;
use crate::journal::{Hold, Journal, Journaled, Place};
use crate::log::flush::Ready;
use rt::{File, Slice};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// A log writes its flushes to the segment when they are so many bytes.
const BEHIND_BYTES_MAX: u64 = 64 << 10;

/// Consecutive bytes of one segment.
pub(super) struct Behind {
    pub(super) segment: Offset,
    file: File,
    /// The block-aligned position of the first slice.
    start: u64,
    slices: VecDeque<Slice>,
    /// Where the first flush begins, and the last one ends.
    from: u64,
    pub(super) end: u64,
    base_offset: Offset,
    pub(super) end_offset: Offset,
    journal: Journal,
    /// At most one for each file of the journal.
    holds: Vec<Hold>,
}

impl Behind {
    fn bytes(&self) -> usize {
        self.slices.iter().map(|slice| slice.len()).sum()
    }

    fn let_go(self) {
        self.journal.give_back(self.bytes());
        self.holds.into_iter().for_each(|hold| self.journal.release(hold));
    }

    /// Gives up the bytes from `start` on: a later flush begins with a copy of them.
    fn cut(&mut self, start: u64) {
        let mut keep = usize::try_from(start - self.start).expect("it lies in memory");
        self.slices.retain_mut(|slice| {
            let now = keep.min(slice.len());
            keep -= now;
            *slice = slice.slice(0..now);
            now > 0
        });
        assert!(keep == 0, "flushes follow each other");
    }
}

/// Whether the journal's flushes must go to the segment before anything else happens.
pub(super) fn is_due(state: &State) -> bool {
    let active = state.segments.last().map(|active| active.base);
    state.behind.as_ref().is_some_and(|behind| state.settling || active != Some(behind.segment))
}

/// The part of a flush that is new, for the journal.
pub(super) fn new_bytes(ready: &Ready) -> Vec<Slice> {
    cut_out(ready.slices.iter(), ready.start, ready.from, ready.end)
}

fn cut_out<'a>(slices: impl Iterator<Item = &'a Slice>, start: u64, from: u64, end: u64) -> Vec<Slice> {
    let mut at = start;
    let parts = slices.map(|slice| {
        let within =
            |pos: u64| usize::try_from(pos.saturating_sub(at)).unwrap_or(usize::MAX).min(slice.len());
        let part = slice.slice(within(from)..within(end));
        at += slice.len() as u64;
        part
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// A flush is in the journal.
pub(super) fn push(shared: &Rc<Shared>, journal: &Journal, ready: &Ready, hold: Hold) {
    let mut state = shared.state.borrow_mut();
    let state = &mut *state;
    let behind = state.behind.get_or_insert_with(|| Behind {
        segment: ready.segment,
        file: ready.file.clone(),
        start: ready.start,
        slices: VecDeque::new(),
        from: ready.from,
        end: ready.from,
        base_offset: ready.base_offset,
        end_offset: ready.end_offset,
        journal: journal.clone(),
        holds: Vec::new(),
    });
    assert!(behind.segment == ready.segment);
    assert!(behind.end == ready.from);
    let before = behind.bytes();
    behind.cut(ready.start);
    behind.slices.extend(ready.slices.iter().cloned());
    (behind.end, behind.end_offset) = (ready.end, ready.end_offset);
    journal.keep(behind.bytes());
    journal.give_back(before);
    match behind.holds.contains(&hold) {
        true => journal.release(hold),
        false => {
            let log = Rc::downgrade(shared);
            let empty = async move {
                if let Some(shared) = log.upgrade() {
                    // What fails poisons the log, and it goes on holding the file.
                    let _ = settle(&shared).await;
                }
            };
            journal.hold(&hold, Box::new(move || Box::pin(empty)));
            behind.holds.push(hold);
        }
    }
    if behind.end - behind.from >= BEHIND_BYTES_MAX {
        state.settling = true;
    }
}

/// Writes the journal's flushes to the segment, durably, whatever the log's durability is by now.
pub(super) async fn write(shared: &Rc<Shared>) -> io::Result<()> {
    let (segment, file, start, slices) = {
        let state = shared.state.borrow();
        let Some(behind) = &state.behind else { return Ok(()) };
        (behind.segment, behind.file.clone(), behind.start, behind.slices.iter().cloned().collect())
    };
    write_to_segment(shared, (segment, &file), start, slices, true).await?;
    let behind = {
        let mut state = shared.state.borrow_mut();
        let Some(behind) = state.behind.take() else { return Ok(()) };
        assert!(state.is_synced(), "what is not on stable media is not followed by what is in a journal");
        // Who asked for it meanwhile asked for no more.
        state.settling = false;
        (state.filed_end, state.synced_end) = (behind.end_offset, behind.end_offset);
        if let Some(segment) = state.segment(segment) {
            segment.durable = behind.end;
        }
        behind
    };
    let end = behind.end_offset;
    behind.let_go();
    shared.filed.wake_below(end.0);
    append::seal_if_done(shared, segment);
    Ok(())
}

/// Waits until every flush that is in the journal now is in its segment too, on stable media.
pub(super) async fn settle(shared: &Rc<Shared>) -> Result<(), Poisoned> {
    let end = {
        let mut state = shared.state.borrow_mut();
        let Some(behind) = &state.behind else { return Ok(()) };
        let end = behind.end_offset;
        state.settling = true;
        end
    };
    append::kick(shared);
    let begins = |state: &State| state.behind.as_ref().map_or(Offset(i64::MAX), |behind| behind.base_offset);
    wait_for(shared, &shared.filed, Offset(end.0 - 1), begins).await
}

/// What only the journal has of a log that failed: for whoever opens it again.
pub(super) fn left(shared: &Shared) -> Option<Journaled> {
    let state = shared.state.borrow();
    let behind = state.behind.as_ref()?;
    let parts = cut_out(behind.slices.iter(), behind.start, behind.from, behind.end);
    Some(Journaled {
        place: Place {
            id: shared.id,
            segment: behind.segment,
            position: behind.from,
            truncations: state.truncations,
        },
        batches: parts.iter().flat_map(|part| part.iter().copied()).collect(),
        base: behind.base_offset,
        end: behind.end_offset,
    })
}

/// Nobody needs the journal for this log any more.
pub(super) fn forget(shared: &Shared) {
    let behind = shared.state.borrow_mut().behind.take();
    if let Some(behind) = behind {
        behind.let_go();
    }
}
