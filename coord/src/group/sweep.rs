//! Walks over all groups: for offsets that have expired and groups that have nothing left, and for the offsets of a
//! deleted topic. A walk stops after a bounded number of groups and offsets and goes on in the next step.

use std::collections::VecDeque;
use std::ops::Bound;

use engine::ids::TopicId;

use super::offsets::{Place, Seen};
use super::pending::Undo;
use super::records::Record;
use super::settings::{GROUPS_PER_STEP_MAX, MEMBERS_PER_STEP_MAX, OFFSETS_PER_STEP_MAX};
use super::{Group, Shard, Text};
use crate::metadata::Topic;

/// The most deleted topics that wait for their walk; beyond it the oldest is dropped, and its offsets expire.
const DELETED_TOPICS_MAX: usize = 100_000;

/// The walks that are under way.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    expiry: Option<Cursor>,
    deleted: VecDeque<(Text, TopicId)>,
    deleting: Cursor,
}

/// Where a walk stands: behind a group, or inside of one.
#[derive(Clone, Debug, Default)]
struct Cursor {
    done: Option<Text>,
    inside: Option<Place>,
}

/// From when the retention of a group's offsets is counted. A commit that said itself for how long it lasts goes then, but no
/// offset of a topic that is subscribed does.
pub(super) enum Expiry {
    Never,
    Since(i64),
    /// Since the commit, but for the topics that are subscribed.
    SinceCommit(Option<std::collections::BTreeSet<Text>>),
}

impl Sweeps {
    pub fn expire(&mut self) {
        self.expiry.get_or_insert_default();
    }

    pub fn delete_topic(&mut self, topic: &Topic) {
        if self.deleted.len() == DELETED_TOPICS_MAX {
            self.deleted.pop_front();
            self.deleting = Cursor::default();
        }
        self.deleted.push_back((topic.name.as_str().into(), topic.id));
    }

    /// Forgets what was to be walked over, so much at most.
    pub fn shed(&mut self, left: &mut usize) {
        self.expiry = None;
        while *left > 0 && self.deleted.pop_front().is_some() {
            *left -= 1;
        }
    }

    pub fn are_busy(&self) -> bool {
        self.expiry.is_some() || !self.deleted.is_empty()
    }
}

impl Shard {
    pub(super) fn sweep(&mut self) {
        if let Some((topic, id)) = self.sweeps.deleted.front().cloned() {
            let cursor = std::mem::take(&mut self.sweeps.deleting);
            match self.delete_topic(cursor, &topic, id) {
                Some(cursor) => self.sweeps.deleting = cursor,
                None => drop(self.sweeps.deleted.pop_front()),
            }
        } else if let Some(cursor) = self.sweeps.expiry.take() {
            self.sweeps.expiry = self.expire(cursor);
        }
    }

    fn delete_topic(&mut self, cursor: Cursor, topic: &Text, id: TopicId) -> Option<Cursor> {
        if !self.offsets.mentions(topic) {
            return None;
        }
        let next = self.groups_behind(&cursor, GROUPS_PER_STEP_MAX);
        let last = next.last()?.clone();
        for group in next {
            let is_of = |seen: &Seen<'_>| seen.topic_id == id || seen.topic_id == TopicId::default();
            let found: Vec<i32> = self
                .offsets
                .of_topic(&group, topic)
                .filter(is_of)
                .map(|seen| seen.partition)
                .take(OFFSETS_PER_STEP_MAX)
                .collect();
            let more = found.len() == OFFSETS_PER_STEP_MAX;
            for partition in found {
                self.offsets.put(&mut self.core, &group, topic, partition, None);
            }
            if more {
                // The same group again: what is left of it.
                let done = self.groups.range::<Text, _>(..&group).next_back().map(|(id, _)| id.clone());
                return Some(Cursor { done, inside: None });
            }
            self.core.cut();
        }
        Some(Cursor { done: Some(last), inside: None })
    }

    fn expire(&mut self, mut cursor: Cursor) -> Option<Cursor> {
        let mut groups = GROUPS_PER_STEP_MAX;
        let mut offsets = OFFSETS_PER_STEP_MAX;
        let mut members = 0;
        while groups > 0 && offsets > 0 && members < MEMBERS_PER_STEP_MAX {
            let group = self.groups_behind(&cursor, 1).pop()?;
            members += self.groups.get(&group).map_or(0, Group::member_count);
            match self.expire_in(&group, cursor.inside, &mut offsets) {
                Some(place) => {
                    cursor.inside = Some(place);
                    return Some(cursor);
                }
                None => cursor = Cursor { done: Some(group), inside: None },
            }
            self.core.cut();
            groups -= 1;
        }
        Some(cursor)
    }

    /// Where to go on inside of this group; None when it is done.
    fn expire_in(&mut self, group: &Text, from: Option<Place>, budget: &mut usize) -> Option<Place> {
        if let Some(Group::Classic(group)) = self.groups.get_mut(group) {
            group.record_again(&mut self.core);
        }
        let now = self.core.now.unix_ms;
        let retention = self.core.settings.offsets_retention_ms;
        let (expiry, is_empty) = match self.groups.get(group)? {
            Group::Classic(group) => (group.expiry(), group.may_go()),
            Group::Consumer(group) => (group.expiry(), group.is_empty()),
        };
        let is_expired = |seen: &Seen<'_>| {
            let base = match &expiry {
                Expiry::Never => return false,
                Expiry::Since(base) => *base,
                Expiry::SinceCommit(Some(subscribed)) if subscribed.contains(seen.topic) => return false,
                Expiry::SinceCommit(_) => seen.commit_unix_ms,
            };
            match seen.expire_unix_ms {
                0.. => now >= seen.expire_unix_ms,
                _ => now.saturating_sub(base) >= retention,
            }
        };
        let mut last = None;
        let mut expired = Vec::new();
        for (place, seen) in self.offsets.of_group(group, from).take(*budget) {
            last = Some(place);
            *budget -= 1;
            if is_expired(&seen) {
                expired.push((seen.topic.clone(), seen.partition));
            }
        }
        self.core.counted.offset_expirations += expired.len() as u64;
        for (topic, partition) in expired {
            self.offsets.put(&mut self.core, group, &topic, partition, None);
        }
        if *budget == 0 {
            return last;
        }
        if is_empty && !self.offsets.has(group) {
            self.remove_group(group);
        }
        None
    }

    /// Ends a group that has neither members nor offsets.
    pub(super) fn remove_group(&mut self, id: &Text) {
        let Some(mut was) = self.groups.remove(id) else { return };
        was.stop(&mut self.core);
        match &was {
            Group::Classic(_) => {
                let record = Record::Classic { group: id.clone(), value: None };
                self.core.changed(record, Undo::Group { id: id.clone(), was: Some(was) });
            }
            Group::Consumer(group) => {
                let records = group.tombstones();
                self.core
                    .undo
                    .push((self.core.records.len(), Undo::Group { id: id.clone(), was: Some(was) }));
                self.core.records.extend(records);
            }
        }
    }

    fn groups_behind(&self, cursor: &Cursor, count: usize) -> Vec<Text> {
        let from = cursor.done.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.groups.range::<Text, _>((from, Bound::Unbounded)).take(count).map(|(id, _)| id.clone()).collect()
    }
}
