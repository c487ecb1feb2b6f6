//! Which core of this broker owns which partition: pure, never stored, never agreed on with other brokers.
//!
//! Every core applies the same metadata commands in the same order, so every core computes the same owners. A new
//! partition goes to the core that has the fewest partitions of that topic, then the fewest of all, then the lowest
//! number. A restart computes the placement anew, in the order of the metadata.

use std::collections::HashMap;

use engine::ids::{PartitionId, TopicId};
use rt::CoreId;

/// The owners of all partitions that this broker hosts.
#[derive(Debug)]
pub struct Ownership {
    owners: HashMap<PartitionId, CoreId, ahash::RandomState>,
    per_topic: HashMap<TopicId, Vec<u32>, ahash::RandomState>,
    totals: Vec<u32>,
}

impl Ownership {
    /// No partition yet, on a broker with `core_count` cores (at least one).
    pub fn new(core_count: u16) -> Ownership {
        assert!(core_count > 0);
        Ownership {
            owners: HashMap::default(),
            per_topic: HashMap::default(),
            totals: vec![0; usize::from(core_count)],
        }
    }

    /// The core that owns `partition`, if this broker hosts it.
    pub fn owner(&self, partition: PartitionId) -> Option<CoreId> {
        self.owners.get(&partition).copied()
    }

    /// Chooses the owner of a partition that this broker has learnt to host. Known ones keep theirs.
    pub fn place(&mut self, partition: PartitionId) -> CoreId {
        if let Some(core) = self.owner(partition) {
            return core;
        }
        let core_count = self.totals.len();
        let topic = self.per_topic.entry(partition.topic).or_insert_with(|| vec![0; core_count]);
        let index = (0..core_count)
            .min_by_key(|&core| (topic[core], self.totals[core], core))
            .expect("there is a core");
        topic[index] += 1;
        self.totals[index] += 1;
        let core = CoreId(u16::try_from(index).expect("core counts are u16"));
        self.owners.insert(partition, core);
        core
    }

    /// Forgets a partition that was deleted.
    pub fn remove(&mut self, partition: PartitionId) {
        let Some(core) = self.owners.remove(&partition) else { return };
        let index = usize::from(core.0);
        self.totals[index] -= 1;
        if let Some(topic) = self.per_topic.get_mut(&partition.topic) {
            topic[index] -= 1;
            if topic.iter().all(|&count| count == 0) {
                self.per_topic.remove(&partition.topic);
            }
        }
    }

    /// How many partitions each core owns, by core number.
    pub fn totals(&self) -> &[u32] {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: u8, index: i32) -> PartitionId {
        PartitionId { topic: TopicId([topic; 16]), index }
    }

    /// Places `topics` (id, partitions) on `cores` cores and returns the totals.
    fn check(cores: u16, topics: &[(u8, i32)], expect: &[u32]) {
        let mut ownership = Ownership::new(cores);
        for &(topic, count) in topics {
            for index in 0..count {
                ownership.place(partition(topic, index));
            }
        }
        assert_eq!(ownership.totals(), expect, "{topics:?}");
    }

    #[test]
    fn partitions_spread_over_the_cores() {
        check(1, &[(1, 5)], &[5]);
        check(2, &[(1, 12)], &[6, 6]);
        check(4, &[(1, 1), (2, 1), (3, 1), (4, 1)], &[1, 1, 1, 1]);
        check(3, &[(1, 4), (2, 2)], &[2, 2, 2]);
    }

    #[test]
    fn a_topic_is_spread_before_the_whole() {
        let mut ownership = Ownership::new(2);
        for index in 0..3 {
            ownership.place(partition(1, index));
        }
        let first = ownership.place(partition(2, 0));
        let second = ownership.place(partition(2, 1));
        assert_ne!(first, second);
    }

    #[test]
    fn a_removed_partition_leaves_room() {
        let mut ownership = Ownership::new(2);
        let core = ownership.place(partition(1, 0));
        ownership.remove(partition(1, 0));
        ownership.remove(partition(1, 0));
        assert_eq!(ownership.owner(partition(1, 0)), None);
        assert_eq!(ownership.place(partition(2, 0)), core);
    }
}
