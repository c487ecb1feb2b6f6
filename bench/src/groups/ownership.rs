//! Who holds which partition, as the members see it.
//!
//! A member holds a partition from the answer that assigns it until the answer that takes it away, or until it leaves: the
//! time in which it would fetch and commit. All members live on one core, so what they see has one order.
//!
//! Invariants: a partition has at most one holder; a second one is a fault of the broker, noted and never hidden. The group is
//! settled while every partition is held and every member holds one.

use std::collections::{BTreeMap, BTreeSet};

use crate::histogram::Latencies;

#[derive(Default)]
pub struct Ownership {
    partitions: Vec<Partition>,
    members: BTreeMap<usize, Held>,
    /// Partitions with a holder, and members that hold something.
    held: usize,
    busy: usize,
    settled_at: Option<u64>,
    faults: BTreeMap<String, u64>,
    /// How long a partition was without a holder, and how long a member that stays was without a partition.
    pub partition_pauses: Latencies,
    pub member_pauses: Latencies,
}

#[derive(Clone, Default)]
struct Partition {
    holder: Option<usize>,
    given_up_at: Option<u64>,
}

#[derive(Default)]
struct Held {
    partitions: BTreeSet<i32>,
    empty_since: Option<u64>,
    /// Whether its pauses count.
    stays: bool,
}

impl Ownership {
    pub fn new(partitions: usize) -> Ownership {
        Ownership { partitions: vec![Partition::default(); partitions], ..Ownership::default() }
    }

    /// A member that is on its way in.
    pub fn expect(&mut self, member: usize, stays: bool) {
        let before = self.members.insert(member, Held { stays, ..Held::default() });
        assert!(before.is_none());
        self.settled_at = None;
    }

    /// A member that is on its way out: it fetches nothing any more.
    pub fn dismiss(&mut self, member: usize, now: u64) {
        self.give_up_all(member, now);
        self.members.remove(&member);
        self.look(now);
    }

    pub fn take(&mut self, member: usize, taken: &[i32], now: u64) {
        for index in taken {
            let place = usize::try_from(*index).ok().and_then(|at| self.partitions.get_mut(at));
            let Some(partition) = place else {
                self.fault(format!("partition {index}, which the topic does not have, was assigned"));
                continue;
            };
            if partition.holder.is_some() {
                self.fault(
                    "a partition was assigned to a second member before the first one gave it up".to_owned(),
                );
                continue;
            }
            partition.holder = Some(member);
            self.held += 1;
            if let Some(since) = partition.given_up_at.take() {
                self.partition_pauses.record(now - since);
            }
            let held = self.members.get_mut(&member).expect("only members take");
            if held.partitions.is_empty() {
                self.busy += 1;
                let since = held.empty_since.take();
                if let Some(since) = since.filter(|_| held.stays) {
                    self.member_pauses.record(now - since);
                }
            }
            held.partitions.insert(*index);
        }
        self.look(now);
    }

    pub fn give_up(&mut self, member: usize, given: &[i32], now: u64) {
        let held = self.members.get_mut(&member).expect("only members give up");
        for index in given {
            if !held.partitions.remove(index) {
                continue;
            }
            let partition = &mut self.partitions[usize::try_from(*index).expect("it was taken")];
            assert_eq!(partition.holder, Some(member));
            *partition = Partition { holder: None, given_up_at: Some(now) };
            self.held -= 1;
            if held.partitions.is_empty() {
                self.busy -= 1;
                held.empty_since = Some(now);
            }
        }
        self.look(now);
    }

    pub fn give_up_all(&mut self, member: usize, now: u64) {
        let all = self.held_by(member);
        self.give_up(member, &all, now);
    }

    pub fn held_by(&self, member: usize) -> Vec<i32> {
        self.members.get(&member).into_iter().flat_map(|held| &held.partitions).copied().collect()
    }

    pub fn has_member(&self, member: usize) -> bool {
        self.members.contains_key(&member)
    }

    /// Since when every partition has been held, and every member has held one.
    pub fn settled_at(&self) -> Option<u64> {
        self.settled_at
    }

    /// Changes with progress.
    pub fn mark(&self) -> u64 {
        (self.held + self.busy) as u64
    }

    pub fn describe(&self) -> String {
        let (busy, members, partitions) = (self.busy, self.members.len(), self.partitions.len());
        format!("{busy} of {members} members hold {} of {partitions} partitions", self.held)
    }

    pub fn faults(&self) -> &BTreeMap<String, u64> {
        &self.faults
    }

    fn fault(&mut self, what: String) {
        *self.faults.entry(what).or_default() += 1;
    }

    fn look(&mut self, now: u64) {
        let is_settled = self.held == self.partitions.len() && self.busy == self.members.len();
        self.settled_at = is_settled.then(|| self.settled_at.unwrap_or(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_when_all_is_held_and_nobody_is_idle() {
        let mut ownership = Ownership::new(3);
        ownership.expect(0, true);
        ownership.take(0, &[0, 1, 2], 5);
        assert_eq!(ownership.settled_at(), Some(5));
        ownership.expect(1, false);
        assert_eq!(ownership.settled_at(), None);
        ownership.give_up(0, &[2], 7);
        ownership.take(1, &[2], 9);
        assert_eq!(ownership.settled_at(), Some(9));
        ownership.dismiss(1, 10);
        assert_eq!(ownership.settled_at(), None);
        ownership.take(0, &[2], 20);
        assert_eq!((ownership.settled_at(), ownership.held_by(0)), (Some(20), vec![0, 1, 2]));
        assert!(ownership.faults().is_empty());
        // The first member kept something all the time; the partition was without a holder twice.
        assert_eq!(ownership.member_pauses.quantiles().count, 0);
        assert_eq!(ownership.partition_pauses.quantiles().count, 2);
    }

    #[test]
    fn who_loses_everything_pauses_unless_it_leaves() {
        let mut ownership = Ownership::new(2);
        ownership.expect(0, true);
        ownership.expect(1, false);
        ownership.take(0, &[0], 1);
        ownership.take(1, &[1], 1);
        ownership.give_up_all(0, 100);
        ownership.give_up_all(1, 100);
        ownership.take(0, &[0], 140);
        ownership.take(1, &[1], 140);
        let pauses = ownership.member_pauses.quantiles();
        assert_eq!((pauses.count, pauses.max_ms * 1e6), (1, 40.0));
    }

    #[test]
    fn a_second_holder_is_a_fault() {
        let mut ownership = Ownership::new(1);
        ownership.expect(0, true);
        ownership.expect(1, true);
        ownership.take(0, &[0], 1);
        ownership.take(1, &[0, 7], 2);
        assert_eq!(ownership.faults().len(), 2);
        assert_eq!(ownership.settled_at(), None);
    }
}
