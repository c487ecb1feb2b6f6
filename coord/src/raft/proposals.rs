//! Who waits for which proposal.
//!
//! A proposal is named by the place it was given: the entry that is committed there either is it (same term) or shows
//! that it was lost. So nothing is added to the commands to find them again.

use std::collections::BTreeMap;

use super::{Entry, ProposalId};

/// The waiters of this node's proposals.
#[derive(Debug)]
pub struct Proposals<W> {
    waiting: BTreeMap<u64, (u64, W)>,
}

impl<W> Default for Proposals<W> {
    fn default() -> Self {
        Proposals { waiting: BTreeMap::new() }
    }
}

/// What became of a proposal when an entry was committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome<W> {
    Committed(W),
    /// Another leader's entry took its place: it will never be applied.
    Lost(W),
}

impl<W> Proposals<W> {
    pub fn add(&mut self, id: ProposalId, waiter: W) {
        // A waiter of an earlier term at that place was overwritten in this node's own log.
        let _superseded = self.waiting.insert(id.index, (id.term, waiter));
    }

    /// The waiters at or before this committed entry. Call it for every entry, in order.
    pub fn settle(&mut self, entry: &Entry) -> Vec<Outcome<W>> {
        let mut settled = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > entry.index {
                break;
            }
            let index = *first.key();
            let (term, waiter) = first.remove();
            let is_it = (index, term) == (entry.index, entry.term);
            settled.push(if is_it { Outcome::Committed(waiter) } else { Outcome::Lost(waiter) });
        }
        settled
    }

    /// All waiters: leadership was lost, and what became of their proposals is not known yet.
    pub fn drain(&mut self) -> impl Iterator<Item = W> {
        std::mem::take(&mut self.waiting).into_values().map(|(_, waiter)| waiter)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
