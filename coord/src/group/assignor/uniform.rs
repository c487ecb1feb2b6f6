//! Uniform: as even as can be, and as little moved as that allows.
//!
//! Where all subscribe to the same topics each member has a quota, keeps what it has up to that, and what is left fills
//! the others up in order. Where they do not, free partitions go to the least loaded subscriber of their topic, topics
//! with the most partitions for each subscriber first; then passes move single partitions from the more to the less
//! loaded, until there is nothing to gain or the passes are used up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use engine::ids::TopicId;

use super::super::per_topic::Partitions;
use super::Subscriber;

/// The most passes that even out what differing subscriptions made uneven.
const BALANCE_PASSES_MAX: usize = 16;

type Partition = (TopicId, i32);

pub fn assign(members: &[Subscriber], counts: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let Some(first) = members.first() else { return Vec::new() };
    let assigned = if members.iter().all(|member| member.topics == first.topics) {
        alike(members, counts)
    } else {
        unlike(members, counts)
    };
    assigned.into_iter().map(|partitions| partitions.into_iter().collect()).collect()
}

/// What a member's target still holds of topics that it subscribes to and that have that partition.
fn kept<'m>(
    member: &'m Subscriber,
    counts: &'m BTreeMap<TopicId, i32>,
) -> impl Iterator<Item = Partition> + 'm {
    member
        .target
        .iter()
        .filter(|(topic, _)| member.topics.contains(topic))
        .flat_map(|(topic, list)| list.iter().map(move |partition| (topic, *partition)))
        .filter(|(topic, partition)| counts.get(topic).is_some_and(|count| partition < count))
}

fn all<'m>(
    topics: &'m BTreeSet<TopicId>,
    counts: &'m BTreeMap<TopicId, i32>,
) -> impl Iterator<Item = Partition> + 'm {
    let count = |topic: &TopicId| counts.get(topic).copied().unwrap_or(0);
    topics.iter().flat_map(move |topic| (0..count(topic)).map(move |partition| (*topic, partition)))
}

fn alike(members: &[Subscriber], counts: &BTreeMap<TopicId, i32>) -> Vec<Vec<Partition>> {
    let topics = &members[0].topics;
    let total = all(topics, counts).count();
    let (quota, mut longer) = (total / members.len(), total % members.len());
    let mut taken = BTreeSet::new();
    let mut assigned = Vec::with_capacity(members.len());
    for member in members {
        let mut mine = Vec::new();
        for partition in kept(member, counts) {
            let room = mine.len() < quota || (mine.len() == quota && longer > 0);
            // A former target that two members share is nobody's but the first one's.
            if room && taken.insert(partition) {
                longer -= usize::from(mine.len() == quota);
                mine.push(partition);
            }
        }
        assigned.push(mine);
    }
    let mut free = all(topics, counts).filter(|partition| !taken.contains(partition));
    for mine in &mut assigned {
        while mine.len() < quota {
            let Some(partition) = free.next() else { break };
            mine.push(partition);
        }
    }
    for mine in &mut assigned {
        if mine.len() == quota && longer > 0 {
            let Some(partition) = free.next() else { break };
            mine.push(partition);
            longer -= 1;
        }
    }
    assigned
}

fn unlike(members: &[Subscriber], counts: &BTreeMap<TopicId, i32>) -> Vec<Vec<Partition>> {
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        for topic in member.topics.iter() {
            subscribers.entry(*topic).or_default().push(at);
        }
    }
    let mut owners: BTreeMap<Partition, usize> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        for partition in kept(member, counts) {
            owners.entry(partition).or_insert(at);
        }
    }
    let mut loads = vec![0usize; members.len()];
    owners.values().for_each(|at| loads[*at] += 1);
    let mut order: Vec<(&TopicId, &Vec<usize>)> = subscribers.iter().collect();
    let count = |topic: &TopicId| counts.get(topic).map_or(0, |count| count.unsigned_abs() as usize);
    order.sort_by_key(|(topic, among)| (Reverse(count(topic) * 1_000 / among.len()), **topic));
    for (topic, among) in &order {
        let mut queue = ByLoad::new(among, &loads);
        for partition in 0..counts.get(topic).copied().unwrap_or(0) {
            owners.entry((**topic, partition)).or_insert_with(|| queue.give(&mut loads));
        }
    }
    for _ in 0..BALANCE_PASSES_MAX {
        let mut moved = false;
        let mut queue = None;
        for ((topic, _), owner) in &mut owners {
            let queue = match &mut queue {
                Some((of, queue)) if of == topic => queue,
                other => &mut other.insert((*topic, ByLoad::new(&subscribers[topic], &loads))).1,
            };
            if loads[*owner] > queue.least() + 1 {
                queue.take(*owner, &mut loads);
                *owner = queue.give(&mut loads);
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let mut assigned = vec![Vec::new(); members.len()];
    owners.into_iter().for_each(|(partition, at)| assigned[at].push(partition));
    assigned
}

/// The subscribers of a topic, the least loaded first, and of those the first: each with its load. Both may be thousands,
/// so nothing looks at all subscribers for each partition.
struct ByLoad(BTreeSet<(usize, usize)>);

impl ByLoad {
    fn new(among: &[usize], loads: &[usize]) -> ByLoad {
        ByLoad(among.iter().map(|at| (loads[*at], *at)).collect())
    }

    fn least(&self) -> usize {
        self.0.first().map_or(usize::MAX - 1, |(load, _)| *load)
    }

    /// Gives one more to the least loaded.
    fn give(&mut self, loads: &mut [usize]) -> usize {
        let (load, at) = self.0.pop_first().expect("a topic that is listed has a subscriber");
        self.0.insert((load + 1, at));
        loads[at] += 1;
        at
    }

    fn take(&mut self, at: usize, loads: &mut [usize]) {
        assert!(self.0.remove(&(loads[at], at)), "an owner subscribes to what it owns");
        loads[at] -= 1;
        self.0.insert((loads[at], at));
    }
}
