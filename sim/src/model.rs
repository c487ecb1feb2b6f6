//! The model broker: what was promised to clients over all lives, and what contradicts it.
//!
//! Promises: a topic whose creation was acknowledged is there until its deletion is asked for, and stays gone once that
//! was acknowledged; no producer id is handed out twice; of each partition, see [`partition`], of each group [`group`]. What was asked for and
//! never answered may have happened or not, until it is seen.

pub mod group;
pub mod partition;

use std::collections::{BTreeMap, BTreeSet};

use group::Group;
use partition::Partition;

pub type TopicId = [u8; 16];

/// What a topic's records were promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Acknowledged is on stable media.
    Fsync,
    /// Acknowledged survives the process.
    Write,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Presence {
    /// Creation was acknowledged, or the topic was seen.
    There,
    Gone,
    /// A creation or a deletion was not answered.
    Unknown,
}

struct Topic {
    presence: Presence,
    id: Option<TopicId>,
    durability: Durability,
    partitions: Vec<Partition>,
}

#[derive(Default)]
pub struct Model {
    topics: BTreeMap<String, Topic>,
    groups: BTreeMap<&'static str, Group>,
    producer_ids: BTreeSet<i64>,
    values: u64,
    violation: Option<String>,
    pub counts: Counts,
}

/// What a run has seen, so that a test can tell whether it tested anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub acknowledged: u64,
    pub unanswered: u64,
    pub read: u64,
    /// Commits of offsets that were acknowledged, and assignments that members were given.
    pub committed: u64,
    pub assigned: u64,
    pub lives: u64,
    pub lives_cut: u64,
}

impl Model {
    /// The first contradiction is the one that counts.
    pub fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// A number that no record had.
    pub fn value_next(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// Numbers up to this one were used before.
    pub fn skip_values(&mut self, last: u64) {
        self.values = self.values.max(last);
    }

    pub fn producer_id(&mut self, id: i64) {
        if !self.producer_ids.insert(id) {
            self.fail(format!("producer id {id} was handed out twice"));
        }
    }

    pub fn partition(&mut self, topic: &str, index: i32) -> &mut Partition {
        let topic = self.topics.get_mut(topic).expect("the workload names topics it created");
        &mut topic.partitions[usize::try_from(index).expect("partitions count from 0")]
    }

    /// Notes what `check` finds wrong about a partition.
    pub fn check<T>(
        &mut self,
        topic: &str,
        index: i32,
        check: impl FnOnce(&mut Partition) -> Result<T, String>,
    ) -> Option<T> {
        match check(self.partition(topic, index)) {
            Ok(fine) => Some(fine),
            Err(why) => {
                self.fail(format!("{topic}-{index}: {why}"));
                None
            }
        }
    }

    pub fn group(&mut self, name: &'static str) -> &mut Group {
        self.groups.entry(name).or_default()
    }

    /// Notes what `check` finds wrong about a group.
    pub fn check_group(&mut self, name: &'static str, check: impl FnOnce(&mut Group) -> Result<(), String>) {
        if let Err(why) = check(self.group(name)) {
            self.fail(format!("group {name}: {why}"));
        }
    }

    // Topics.

    pub fn creating(&mut self, name: &str, durability: Durability, partitions: i32, compacted: bool) {
        let known = self.topics.get(name).is_some_and(|topic| topic.presence != Presence::Gone);
        if !known {
            let partitions = (0..partitions).map(|_| Partition::new(compacted)).collect();
            let topic = Topic { presence: Presence::Unknown, id: None, durability, partitions };
            self.topics.insert(name.to_owned(), topic);
        }
    }

    /// The creation was acknowledged, or refused because the topic is there already.
    pub fn is_there(&mut self, name: &str, id: Option<TopicId>) {
        let topic = self.topics.get_mut(name).expect("a creation was asked for before");
        let was = topic.presence;
        topic.presence = Presence::There;
        let known = topic.id;
        topic.id = known.or(id);
        if was == Presence::Gone {
            self.fail(format!("topic {name} is there after its deletion was acknowledged"));
        }
        if known.is_some() && id.is_some() && known != id {
            self.fail(format!("topic {name} has another id than before"));
        }
    }

    pub fn deleting(&mut self, name: &str) {
        self.topics.get_mut(name).expect("a creation was asked for before").presence = Presence::Unknown;
    }

    /// The deletion was acknowledged, or refused because the topic is not there.
    pub fn is_gone(&mut self, name: &str) {
        let topic = self.topics.get_mut(name).expect("a creation was asked for before");
        let was = std::mem::replace(&mut topic.presence, Presence::Gone);
        if was == Presence::There {
            self.fail(format!("topic {name} is gone, and nobody deleted it"));
        }
    }

    pub fn may_be_there(&self, name: &str) -> bool {
        self.topics.get(name).is_some_and(|topic| topic.presence != Presence::Gone)
    }

    /// All topics of a broker that has just started, with the leader epochs of their partitions.
    pub fn started_with(&mut self, found: &BTreeMap<String, (TopicId, Vec<i32>)>) {
        // The broker's own come and go as it likes.
        for (name, (id, epochs)) in found.iter().filter(|(name, _)| !name.starts_with("__")) {
            if !self.topics.contains_key(name) {
                return self.fail(format!("topic {name} is there, and nobody created it"));
            }
            self.is_there(name, Some(*id));
            if epochs.len() != self.topics[name].partitions.len() {
                return self.fail(format!("topic {name} has {} partitions", epochs.len()));
            }
            for (index, epoch) in (0..).zip(epochs) {
                self.check(name, index, |partition| partition.begin_epoch(*epoch));
            }
        }
        let missing: Vec<String> =
            self.topics.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        missing.iter().for_each(|name| self.is_gone(name));
    }

    /// Topics that are there, with their partitions.
    pub fn topics(&self) -> Vec<(String, i32)> {
        let there = self.topics.iter().filter(|(_, topic)| topic.presence == Presence::There);
        let count = |topic: &Topic| i32::try_from(topic.partitions.len()).expect("a few partitions");
        there.map(|(name, topic)| (name.clone(), count(topic))).collect()
    }

    /// A life ended. `power` says whether the host went with it.
    pub fn life_ended(&mut self, power: bool) {
        self.counts.lives += 1;
        self.groups.values_mut().for_each(Group::life_ended);
        for topic in self.topics.values_mut().filter(|topic| power && topic.durability == Durability::Write) {
            topic.partitions.iter_mut().for_each(Partition::may_have_lost);
        }
    }
}
