//! What is known of one consumer group, whichever of its members learned it.
//!
//! - A committed offset that was acknowledged is what every later life begins with, unless a commit that was never
//!   answered took its place.
//! - In one generation of the classic protocol a partition is given to one member, also by another life.
//! - In the consumer protocol a partition is given to nobody while another member, whom the group still knows, holds it.
//! - No member is given a generation below one that was given before.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Group {
    committed: BTreeMap<i32, Committed>,
    /// Of the classic protocol: by generation and partition.
    owners: BTreeMap<(i32, i32), String>,
    /// Of the consumer protocol: by partition.
    holders: BTreeMap<i32, String>,
    generation: i32,
    offset_last: i64,
}

/// Of one partition.
struct Committed {
    acknowledged: i64,
    /// Sent, and neither acknowledged nor refused.
    open: BTreeSet<i64>,
}

impl Default for Committed {
    fn default() -> Committed {
        Committed { acknowledged: NOTHING, open: BTreeSet::new() }
    }
}

/// What OffsetFetch says where nothing was committed.
const NOTHING: i64 = -1;

impl Group {
    /// An offset that was never committed, about to be.
    pub fn committing(&mut self, partition: i32) -> i64 {
        self.offset_last += 1;
        self.committed.entry(partition).or_default().open.insert(self.offset_last);
        self.offset_last
    }

    pub fn committed(&mut self, partition: i32, offset: i64) {
        let committed = self.committed.entry(partition).or_default();
        committed.open.remove(&offset);
        committed.acknowledged = committed.acknowledged.max(offset);
    }

    /// It will not come into force any more.
    pub fn refused(&mut self, partition: i32, offset: i64) {
        self.committed.entry(partition).or_default().open.remove(&offset);
    }

    /// A look at what is committed. In a new life what was open has been decided.
    pub fn found(&mut self, partition: i32, offset: i64, is_first: bool) -> Result<(), String> {
        let committed = self.committed.entry(partition).or_default();
        if offset != committed.acknowledged && !committed.open.contains(&offset) {
            let Committed { acknowledged, open } = committed;
            return Err(format!(
                "{offset} is committed for partition {partition}; {acknowledged} was acknowledged, {open:?} not answered"
            ));
        }
        if is_first {
            committed.acknowledged = offset;
            committed.open.clear();
        }
        Ok(())
    }

    /// SyncGroup gave these partitions to a member.
    pub fn given(&mut self, generation: i32, member: &str, partitions: &[i32]) -> Result<(), String> {
        if generation < self.generation {
            return Err(format!("generation {generation} is given after {}", self.generation));
        }
        self.generation = generation;
        for partition in partitions {
            let owner = self.owners.entry((generation, *partition)).or_insert_with(|| member.to_owned());
            if owner != member {
                return Err(format!(
                    "generation {generation} gives partition {partition} to {owner} and to {member}"
                ));
            }
        }
        Ok(())
    }

    /// A member of the consumer protocol holds these from now on.
    pub fn holds(&mut self, member: &str, partitions: &[i32]) -> Result<(), String> {
        self.released(member);
        for partition in partitions {
            if let Some(other) = self.holders.insert(*partition, member.to_owned()) {
                return Err(format!("partition {partition} is given to {member}, and {other} holds it"));
            }
        }
        Ok(())
    }

    /// It holds nothing any more, or was told that the group does not know it.
    pub fn released(&mut self, member: &str) {
        self.holders.retain(|_, holder| holder != member);
    }

    /// Whoever goes on says so.
    pub fn life_ended(&mut self) {
        self.holders.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_offset_is_what_was_acknowledged_or_never_answered() {
        let mut group = Group::default();
        let (first, second) = (group.committing(0), group.committing(0));
        group.committed(0, first);
        assert!(group.found(0, first, false).is_ok() && group.found(0, second, false).is_ok());
        assert!(group.found(0, NOTHING, false).is_err(), "it was lost");
        assert!(group.found(0, second, true).is_ok());
        assert!(group.found(0, first, false).is_err(), "it went back");
        let refused = group.committing(0);
        group.refused(0, refused);
        assert!(group.found(0, refused, false).is_err(), "it was refused");
    }

    #[test]
    fn a_partition_has_one_owner() {
        let mut group = Group::default();
        assert!(group.given(3, "a", &[0]).is_ok() && group.given(3, "b", &[1]).is_ok());
        assert!(group.given(3, "b", &[0]).is_err());
        assert!(group.given(4, "b", &[0]).is_ok());
        assert!(group.given(3, "a", &[0]).is_err(), "its generation is over");
        assert!(group.holds("a", &[0, 1]).is_ok() && group.holds("a", &[1]).is_ok());
        assert!(group.holds("b", &[0]).is_ok());
        assert!(group.holds("c", &[1]).is_err());
        group.released("b");
        assert!(group.holds("c", &[0]).is_ok());
    }
}
