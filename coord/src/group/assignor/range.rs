//! Range: each topic by itself, cut into as many contiguous runs as it has subscribers. Not sticky; topics with as many
//! partitions are cut alike, so that their partitions of one number meet at one member.

use std::collections::BTreeMap;

use engine::ids::TopicId;

use super::super::per_topic::Partitions;
use super::Subscriber;

pub fn assign(members: &[Subscriber], counts: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    // Static members first: their places do not change with the ids of their processes.
    order.sort_by(|a, b| {
        let key = |at: usize| (members[at].instance.is_none(), &members[at].instance, &members[at].id);
        key(*a).cmp(&key(*b))
    });
    let mut runs: Vec<Vec<(TopicId, i32)>> = vec![Vec::new(); members.len()];
    for (topic, count) in counts {
        let subscribers: Vec<usize> =
            order.iter().copied().filter(|at| members[*at].topics.contains(topic)).collect();
        let Ok(among) = i32::try_from(subscribers.len()) else { continue };
        if among == 0 {
            continue;
        }
        let (each, longer) = (count / among, count % among);
        let mut next = 0;
        for (place, at) in (0..).zip(subscribers) {
            let end = next + each + i32::from(place < longer);
            runs[at].extend((next..end).map(|partition| (*topic, partition)));
            next = end;
        }
    }
    runs.into_iter().map(|run| run.into_iter().collect()).collect()
}
