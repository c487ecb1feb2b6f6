//! The names of things: small types for values that could be swapped by mistake.
//!
//! They carry no behaviour beyond arithmetic that cannot overflow. Who needs the number takes `.0`.

use std::fmt;

/// A record's position in a partition. `-1` is Kafka's "unknown".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub i64);

/// Counts the leaders of a partition. In Corelog one epoch belongs to one incarnation of one broker process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeaderEpoch(pub i32);

/// Names an idempotent or transactional producer. `-1` means that a batch has none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerId(pub i64);

/// A topic's identity: a recreated topic of the same name has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

/// One partition of one topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PartitionId {
    pub topic: TopicId,
    pub index: i32,
}

/// A byte position in a segment file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FilePos(pub u64);

impl Offset {
    pub const ZERO: Offset = Offset(0);
    pub const UNKNOWN: Offset = Offset(-1);

    /// The offset `count` further on, or `None` where offsets end.
    pub fn checked_add(self, count: i64) -> Option<Offset> {
        self.0.checked_add(count).map(Offset)
    }

    /// The offset after this one. Saturates: no log grows to `i64::MAX`, but a damaged header may name it.
    pub fn next(self) -> Offset {
        Offset(self.0.saturating_add(1))
    }

    /// How many offsets lie in `earlier..self`; 0 where `earlier` is not earlier.
    pub fn distance_from(self, earlier: Offset) -> u64 {
        if self > earlier { self.0.abs_diff(earlier.0) } else { 0 }
    }
}

impl LeaderEpoch {
    pub const UNKNOWN: LeaderEpoch = LeaderEpoch(-1);
}

impl ProducerId {
    pub const NONE: ProducerId = ProducerId(-1);

    pub fn is_none(self) -> bool {
        self.0 < 0
    }
}

impl PartitionId {
    pub fn new(topic: TopicId, index: i32) -> PartitionId {
        PartitionId { topic, index }
    }
}

impl FilePos {
    pub const ZERO: FilePos = FilePos(0);

    /// The position `bytes` further on. Saturates: no file is that long.
    pub fn advanced(self, bytes: u64) -> FilePos {
        FilePos(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for FilePos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 32 hexadecimal digits: what a partition's folder is named by, so that no topic name ever reaches a path.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends() {
        assert_eq!(Offset(i64::MAX).checked_add(1), None);
        assert_eq!(Offset(i64::MAX).next(), Offset(i64::MAX));
        assert_eq!(Offset(5).distance_from(Offset(9)), 0);
        assert_eq!(Offset(i64::MAX).distance_from(Offset(i64::MIN)), u64::MAX);
        assert_eq!(FilePos(u64::MAX).advanced(1), FilePos(u64::MAX));
    }

    #[test]
    fn a_partition_is_named_without_its_topics_name() {
        let id = PartitionId::new(TopicId([0xab; 16]), 7);
        assert_eq!(id.to_string(), format!("{}-7", "ab".repeat(16)));
    }
}
