//! The target: which topics there are, whether that has changed, and who shall have what.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::ids::TopicId;

use super::super::assignor::{Assignor, Subscriber, assign};
use super::super::per_topic::Partitions;
use super::super::records::{MemberValue, Record};
use super::super::{Core, Text};
use super::ConsumerGroup;
use crate::metadata::{Image, Topic};

impl ConsumerGroup {
    /// Raises the group's epoch, if the members ask for it or the topics that they read are not what they were.
    pub fn follow_metadata(&mut self, core: &mut Core, changed: bool) {
        if !changed && self.seen_image == core.image_version {
            return;
        }
        self.seen_image = core.image_version;
        let hash = metadata_hash(&core.image.borrow(), &self.subscribed_topics());
        if changed || hash != self.hash {
            let value = Some((self.epoch.saturating_add(1), hash));
            self.put(core, Record::Epoch { group: self.id.clone(), value });
        }
    }

    /// Computes the target that belongs to the group's epoch, but not more often than the assignment interval allows.
    pub(super) fn follow_epoch(&mut self, core: &mut Core) {
        let interval_ms = i64::from(core.assignment_interval_ms(&self.id));
        let since_ms = core.now.unix_ms.saturating_sub(self.target_unix_ms);
        // A clock that was set back must not hold it up.
        if self.epoch <= self.target_epoch || (0..interval_ms).contains(&since_ms) {
            return;
        }
        let mut counts = BTreeMap::new();
        let mut known = BTreeMap::new();
        let mut subscribers = Vec::with_capacity(self.members.len());
        for (id, member) in &self.members {
            let value = &*member.value;
            // Most members say the same: their topics are looked up once.
            let topics: &Rc<BTreeSet<TopicId>> = known
                .entry((&value.topics, &value.regex))
                .or_insert_with(|| Rc::new(self.subscribed_ids(&core.image.borrow(), value)));
            subscribers.push(Subscriber {
                id: id.clone(),
                instance: value.instance.clone(),
                topics: topics.clone(),
                target: self.targets.get(id).cloned().unwrap_or_default(),
            });
        }
        for id in known.values().flat_map(|topics| topics.iter()) {
            let count = core.image.borrow().topic_by_id(*id).map_or(0, |topic| topic.partitions.len());
            counts.insert(*id, i32::try_from(count).unwrap_or(i32::MAX));
        }
        let assignor = Assignor::find(self.assignor_name(core)).unwrap_or(Assignor::Uniform);
        let targets = assign(assignor, &subscribers, &counts);
        assert_eq!(targets.len(), subscribers.len());
        for (subscriber, target) in subscribers.into_iter().zip(targets) {
            if *subscriber.target != target || !self.targets.contains_key(&subscriber.id) {
                let value = Some(Rc::new(target));
                self.put(core, Record::Target { group: self.id.clone(), member: subscriber.id, value });
            }
        }
        let value = Some((self.epoch, core.now.unix_ms));
        self.put(core, Record::TargetEpoch { group: self.id.clone(), value });
        core.counted.rebalances_consumer += 1;
    }

    /// The assignor that most members ask for, of equals the one that the broker has first; else the broker's first.
    pub(super) fn assignor_name<'c>(&'c self, core: &'c Core) -> &'c str {
        let mut votes: BTreeMap<&Text, usize> = BTreeMap::new();
        for name in self.members.values().filter_map(|member| member.value.assignor.as_ref()) {
            *votes.entry(name).or_default() += 1;
        }
        let ours = &core.settings.consumer_assignors;
        let place = |name: &str| ours.iter().position(|one| one == name).unwrap_or(ours.len());
        let best = votes.into_iter().max_by_key(|(name, count)| (*count, Reverse(place(name))));
        let first = ours.first().map_or("uniform", String::as_str);
        best.map_or(first, |(name, _)| name)
    }

    /// The ids of the topics that a member reads and that exist.
    pub(super) fn subscribed_ids(&self, image: &Image, member: &MemberValue) -> BTreeSet<TopicId> {
        let resolved = member.regex.as_ref().and_then(|regex| self.regexes.get(regex));
        let resolved = resolved.into_iter().flat_map(|value| value.topics.iter());
        let names = member.topics.iter().chain(resolved);
        names.filter_map(|name| image.topic(name)).map(|topic| topic.id).collect()
    }

    pub(super) fn target(&self, id: &str) -> Rc<Partitions> {
        self.targets.get(id).cloned().unwrap_or_default()
    }
}

/// What the target depends on of these topics: their ids, partitions and racks. Written into records, so it must not
/// change with the release (FNV-1a). No topics hash to 0.
pub(in super::super) fn metadata_hash(image: &Image, topics: &BTreeSet<Text>) -> i64 {
    let mut hash = Fnv::default();
    for topic in topics.iter().filter_map(|name| image.topic(name)) {
        hash.topic(image, topic);
    }
    hash.finish()
}

#[derive(Default)]
struct Fnv(Option<u64>);

impl Fnv {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    fn bytes(&mut self, bytes: &[u8]) {
        let start = self.0.unwrap_or(Self::OFFSET);
        self.0 =
            Some(bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(Self::PRIME)));
    }

    fn topic(&mut self, image: &Image, topic: &Topic) {
        self.bytes(&topic.id.0);
        self.bytes(topic.name.as_bytes());
        for partition in &topic.partitions {
            self.bytes(&[0xff]);
            let brokers = partition.replicas.iter().filter_map(|node| image.broker(*node));
            let mut racks: Vec<&str> = brokers.filter_map(|broker| broker.rack.as_deref()).collect();
            racks.sort_unstable();
            racks.iter().for_each(|rack| {
                self.bytes(rack.as_bytes());
                self.bytes(&[0xfe]);
            });
        }
    }

    fn finish(self) -> i64 {
        self.0.unwrap_or(0).cast_signed()
    }
}
