//! Committed offsets: what a shard remembers of each, and the requests about them.
//!
//! OffsetCommit v2-v10, OffsetFetch v1-v10 (one group at a time), OffsetDelete v0.
//!
//! A shard may hold millions, so one takes 40 bytes in a list of its group: topic and topic id are numbers of the shard's,
//! and what few commits have (metadata, an expiry of their own) is kept apart. Sorted lists in pieces and trees, not hash
//! tables: they never stop to grow.

mod commit;
mod delete;
mod fetch;
mod sorted;

use std::collections::BTreeMap;
use std::ops::Bound;

use engine::ids::TopicId;

use super::interner::Interner;
use super::pending::Undo;
use super::records::{OffsetValue, Record};
use super::{Core, Text};
use sorted::Sorted;

pub use commit::commit_answer;

/// (topic, partition), the topic as a number.
type Key = (u32, i32);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Committed {
    offset: i64,
    commit_unix_ms: i64,
    leader_epoch: i32,
    topic_id: u32,
    extra: Option<Box<Extra>>,
}

const _: () = assert!(size_of::<Committed>() == 32);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Extra {
    metadata: Box<str>,
    expire_unix_ms: i64,
}

/// The committed offsets of a shard's groups.
#[derive(Debug, Default)]
pub(super) struct OffsetStore {
    topics: Interner<Text>,
    ids: Interner<TopicId>,
    groups: BTreeMap<Text, Sorted<Key, Committed>>,
    count: usize,
}

/// One offset as it is looked at.
pub(super) struct Seen<'s> {
    pub topic: &'s Text,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: &'s str,
    pub commit_unix_ms: i64,
    pub expire_unix_ms: i64,
    pub topic_id: TopicId,
}

/// A place among a group's offsets, to go on from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(Key);

impl OffsetStore {
    pub fn len(&self) -> usize {
        self.count
    }

    /// Drops offsets, so many at most but for the rest of a piece.
    pub fn shed(&mut self, left: &mut usize) {
        while *left > 0
            && let Some(mut first) = self.groups.first_entry()
        {
            let dropped = first.get_mut().shed(*left);
            self.count -= dropped;
            *left = left.saturating_sub(dropped);
            if first.get().is_empty() {
                first.remove();
            }
        }
        if self.groups.is_empty() {
            self.topics.shed(left);
            self.ids.shed(left);
        }
    }

    pub fn has(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<Seen<'_>> {
        let key = (self.topics.find(topic)?, partition);
        let committed = self.groups.get(group)?.get(&key)?;
        Some(self.seen(key, committed))
    }

    /// The group's offsets behind a place, topic by topic.
    pub fn of_group(&self, group: &str, from: Option<Place>) -> impl Iterator<Item = (Place, Seen<'_>)> {
        let from = from.map_or(Bound::Unbounded, |place| Bound::Excluded(place.0));
        let offsets = self.groups.get(group).into_iter();
        offsets
            .flat_map(move |offsets| offsets.from(from))
            .map(|(key, committed)| (Place(*key), self.seen(*key, committed)))
    }

    /// The group's offsets of one topic.
    pub fn of_topic(&self, group: &str, topic: &str) -> impl Iterator<Item = Seen<'_>> {
        let found = self.groups.get(group).zip(self.topics.find(topic)).into_iter();
        found
            .flat_map(|(offsets, number)| {
                let of_topic = offsets.from(Bound::Included((number, i32::MIN)));
                of_topic.take_while(move |((of, _), _)| *of == number)
            })
            .map(|(key, committed)| self.seen(*key, committed))
    }

    /// Whether any group has an offset of this topic.
    pub fn mentions(&self, topic: &str) -> bool {
        self.topics.find(topic).is_some()
    }

    /// Puts an offset in place of another, or removes it; tells what was there.
    pub fn replace(
        &mut self,
        group: &Text,
        topic: &str,
        partition: i32,
        value: Option<OffsetValue>,
    ) -> Option<OffsetValue> {
        match value {
            Some(value) => self.insert(group, topic, partition, value),
            None => self.remove(group, topic, partition),
        }
    }

    /// As [`Self::replace`], recorded and undone with its append.
    pub fn put(
        &mut self,
        core: &mut Core,
        group: &Text,
        topic: &str,
        partition: i32,
        value: Option<OffsetValue>,
    ) {
        let was = self.replace(group, topic, partition, value.clone());
        let topic: Text = match self.topics.find(topic) {
            Some(number) => self.topics.value(number).clone(),
            None => topic.into(),
        };
        let record = |value| Record::Offset { group: group.clone(), topic: topic.clone(), partition, value };
        core.changed(record(value), Undo::Record(record(was)));
    }

    fn insert(
        &mut self,
        group: &Text,
        topic: &str,
        partition: i32,
        value: OffsetValue,
    ) -> Option<OffsetValue> {
        let number = self.topics.take(topic, || topic.into());
        let topic_id = self.ids.take(&value.topic_id, || value.topic_id);
        let plain = value.metadata.is_empty() && value.expire_unix_ms < 0;
        let extra = Extra { metadata: value.metadata, expire_unix_ms: value.expire_unix_ms };
        let committed = Committed {
            offset: value.offset,
            commit_unix_ms: value.commit_unix_ms,
            leader_epoch: value.leader_epoch,
            topic_id,
            extra: (!plain).then(|| Box::new(extra)),
        };
        let offsets = match self.groups.get_mut(group) {
            Some(offsets) => offsets,
            None => self.groups.entry(group.clone()).or_default(),
        };
        let was = offsets.insert((number, partition), committed);
        if was.is_none() {
            self.count += 1;
        }
        was.map(|was| self.forget(number, was))
    }

    fn remove(&mut self, group: &str, topic: &str, partition: i32) -> Option<OffsetValue> {
        let number = self.topics.find(topic)?;
        let offsets = self.groups.get_mut(group)?;
        let was = offsets.remove(&(number, partition))?;
        if offsets.is_empty() {
            self.groups.remove(group);
        }
        self.count -= 1;
        Some(self.forget(number, was))
    }

    /// What a removed entry said; its numbers are given back.
    fn forget(&mut self, topic: u32, was: Committed) -> OffsetValue {
        let topic_id = *self.ids.value(was.topic_id);
        self.ids.give_back(was.topic_id);
        self.topics.give_back(topic);
        let extra =
            was.extra.map_or_else(|| Extra { metadata: "".into(), expire_unix_ms: -1 }, |extra| *extra);
        OffsetValue {
            offset: was.offset,
            leader_epoch: was.leader_epoch,
            metadata: extra.metadata,
            commit_unix_ms: was.commit_unix_ms,
            expire_unix_ms: extra.expire_unix_ms,
            topic_id,
        }
    }

    fn seen<'s>(&'s self, (topic, partition): Key, committed: &'s Committed) -> Seen<'s> {
        Seen {
            topic: self.topics.value(topic),
            partition,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.extra.as_ref().map_or("", |extra| &extra.metadata),
            commit_unix_ms: committed.commit_unix_ms,
            expire_unix_ms: committed.extra.as_ref().map_or(-1, |extra| extra.expire_unix_ms),
            topic_id: *self.ids.value(committed.topic_id),
        }
    }
}
