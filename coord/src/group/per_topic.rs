//! A small map from topics to something: a sorted list, because most members have one topic or a few.

use engine::ids::TopicId;

/// Sorted by topic id; each topic once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PerTopic<T>(Vec<(TopicId, T)>);

/// Partitions by topic, each list sorted.
pub type Partitions = PerTopic<Vec<i32>>;

/// Partitions by topic, each with the member epoch at which it was assigned.
pub type Owned = PerTopic<Vec<(i32, i32)>>;

impl<T> Default for PerTopic<T> {
    fn default() -> Self {
        PerTopic(Vec::new())
    }
}

impl<T> PerTopic<T> {
    pub fn get(&self, topic: TopicId) -> Option<&T> {
        self.0.binary_search_by_key(&topic, |(id, _)| *id).ok().map(|at| &self.0[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (TopicId, &T)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The topic's value, made where there is none.
    pub fn entry(&mut self, topic: TopicId) -> &mut T
    where
        T: Default,
    {
        let at = match self.0.binary_search_by_key(&topic, |(id, _)| *id) {
            Ok(at) => at,
            Err(at) => {
                // Room for one, not for the four that a list begins with: there is such a list, or three, for every member.
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (topic, T::default()));
                at
            }
        };
        &mut self.0[at].1
    }
}

impl Partitions {
    pub fn contains(&self, topic: TopicId, partition: i32) -> bool {
        self.get(topic).is_some_and(|list| list.binary_search(&partition).is_ok())
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|(_, list)| list.len()).sum()
    }
}

impl Owned {
    /// The epoch at which the partition was assigned; None where it is not.
    pub fn epoch(&self, topic: TopicId, partition: i32) -> Option<i32> {
        let list = self.get(topic)?;
        list.binary_search_by_key(&partition, |(index, _)| *index).ok().map(|at| list[at].1)
    }

    /// Without the epochs.
    pub fn partitions(&self) -> Partitions {
        PerTopic(
            self.0.iter().map(|(id, list)| (*id, list.iter().map(|(index, _)| *index).collect())).collect(),
        )
    }

    /// Each partition with its epoch.
    pub fn each(&self) -> impl Iterator<Item = (TopicId, i32, i32)> {
        self.0.iter().flat_map(|(id, list)| list.iter().map(|(index, epoch)| (*id, *index, *epoch)))
    }
}

/// From pairs in any order; a partition that comes twice is kept once, empty topics not at all.
impl FromIterator<(TopicId, i32)> for Partitions {
    fn from_iter<I: IntoIterator<Item = (TopicId, i32)>>(pairs: I) -> Self {
        let mut pairs: Vec<(TopicId, i32)> = pairs.into_iter().collect();
        pairs.sort_unstable();
        pairs.dedup();
        let mut topics: Vec<(TopicId, Vec<i32>)> = Vec::new();
        for (topic, partition) in pairs {
            match topics.last_mut() {
                Some((last, list)) if *last == topic => list.push(partition),
                Some(_) | None => topics.push((topic, vec![partition])),
            }
        }
        topics.shrink_to_fit();
        PerTopic(topics)
    }
}

/// As for partitions; of two epochs the smaller is kept.
impl FromIterator<(TopicId, i32, i32)> for Owned {
    fn from_iter<I: IntoIterator<Item = (TopicId, i32, i32)>>(items: I) -> Self {
        let mut items: Vec<(TopicId, i32, i32)> = items.into_iter().collect();
        items.sort_unstable();
        items.dedup_by_key(|(topic, partition, _)| (*topic, *partition));
        let mut topics: Vec<(TopicId, Vec<(i32, i32)>)> = Vec::new();
        for (topic, partition, epoch) in items {
            match topics.last_mut() {
                Some((last, list)) if *last == topic => list.push((partition, epoch)),
                Some(_) | None => topics.push((topic, vec![(partition, epoch)])),
            }
        }
        topics.shrink_to_fit();
        PerTopic(topics)
    }
}
