//! Producer ids: the metadata hands out blocks, a broker hands out the ids of its blocks.
//!
//! An id given to two producers makes the second one's records look like duplicates of the first one's, so the rule is
//! absolute: no id is handed out twice, across crashes too. The log of commands keeps it: a block is given only by an
//! applied command, and what a broker had left of its block when it died is lost on purpose.

use std::ops::Range;

use engine::ids::ProducerId;

/// Ids per block, as in Kafka.
pub const BLOCK_IDS: u32 = 1000;

/// The most ids one command may take.
pub const BLOCK_IDS_MAX: u32 = 1_000_000;

/// The cluster's side: where the next block starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allocator {
    next: i64,
}

impl Allocator {
    /// An allocator that hands out nothing below `next`; `None` where that is no id.
    pub fn starting_at(next: i64) -> Option<Allocator> {
        (next >= 0).then_some(Allocator { next })
    }

    pub fn next(&self) -> i64 {
        self.next
    }

    /// The next block, or `None` for an empty or oversized one and where ids end.
    pub fn allocate(&mut self, count: u32) -> Option<Range<i64>> {
        if count == 0 || count > BLOCK_IDS_MAX {
            return None;
        }
        let start = self.next;
        self.next = start.checked_add(i64::from(count))?;
        Some(start..self.next)
    }
}

/// One core's side: the ids it may still give.
#[derive(Debug, Default)]
pub struct Block(Range<i64>);

impl Block {
    /// A fresh id; `None` if another block is needed.
    pub fn take(&mut self) -> Option<ProducerId> {
        self.0.next().map(ProducerId)
    }

    /// A block that an applied command gave to this incarnation of this broker. What is left of the one before is lost:
    /// of two requests that each asked for a block, the second one's is used up.
    pub fn replace(&mut self, block: Range<i64>) {
        self.0 = block;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_id_is_given_twice_whatever_the_order_of_asking_and_restarting() {
        let mut cluster = Allocator::default();
        let mut brokers = [Block::default(), Block::default(), Block::default()];
        let mut given = HashSet::new();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let broker = &mut brokers[(random >> 33) as usize % 3];
            match (random >> 40) % 50 {
                0 => *broker = Block::default(),
                1 => broker.replace(cluster.allocate(BLOCK_IDS).expect("ids are left")),
                2 => cluster = Allocator::starting_at(cluster.next()).expect("it is an id"),
                3.. => match broker.take() {
                    Some(id) => assert!(given.insert(id), "{id} twice"),
                    None => broker.replace(cluster.allocate(10).expect("ids are left")),
                },
            }
        }
        assert!(given.len() > 10_000);
    }

    #[test]
    fn limits_are_refused() {
        let mut cluster = Allocator::starting_at(i64::MAX - 5).expect("it is an id");
        assert_eq!(cluster.allocate(0), None);
        assert_eq!(cluster.allocate(BLOCK_IDS_MAX + 1), None);
        assert_eq!(cluster.allocate(6), None);
        assert_eq!(cluster.allocate(5), Some(i64::MAX - 5..i64::MAX));
        assert_eq!(Allocator::starting_at(-1), None);
    }
}
