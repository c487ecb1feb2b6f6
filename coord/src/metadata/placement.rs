//! Which brokers hold a new partition's replicas: stripes over the brokers, racks alternating.
//!
//! Active brokers come first, so that as many partitions as possible have a leader and a full in-sync set at once; fenced
//! ones fill up what the replication factor still asks for, at the end of the lists. Randomness is an argument.

use std::collections::BTreeMap;

use super::image::{Image, NodeId};

/// Replicas for `partitions` new partitions, or why there are none, in Kafka's words.
pub fn place(
    image: &Image,
    partitions: usize,
    replication_factor: usize,
    random: u64,
) -> Result<Vec<Vec<NodeId>>, String> {
    let registered = image.brokers().len();
    if replication_factor == 0 {
        return Err("Invalid replication factor 0: the replication factor must be positive.".to_owned());
    }
    if replication_factor > registered {
        return Err(format!(
            "The target replication factor of {replication_factor} cannot be reached because only {registered} \
             broker(s) are registered."
        ));
    }
    let active = racks_alternating(image, false);
    if active.is_empty() {
        return Err("All brokers are currently fenced.".to_owned());
    }
    let fenced = racks_alternating(image, true);
    let start = random % u64::try_from(active.len()).expect("a usize fits").max(1);
    let start = usize::try_from(start).expect("it is below a length");
    let from_active = replication_factor.min(active.len());
    let replicas = |partition: usize| {
        let mut replicas = stripe(&active, start.wrapping_add(partition), from_active);
        replicas.extend(stripe(&fenced, start.wrapping_add(partition), replication_factor - from_active));
        replicas
    };
    Ok((0..partitions).map(replicas).collect())
}

/// `count` brokers: the leader moves by one each partition, the distance to the followers grows each round, so that one
/// broker's leaders have their followers spread over all others.
fn stripe(ring: &[NodeId], turn: usize, count: usize) -> Vec<NodeId> {
    let (Some(others), true) = (ring.len().checked_sub(1), count > 0) else { return Vec::new() };
    let leader = turn % ring.len();
    let shift = (turn / ring.len()).checked_rem(others).unwrap_or(0);
    let follower = |nth: usize| (leader + 1 + (shift + nth) % others.max(1)) % ring.len();
    std::iter::once(leader).chain((0..count - 1).map(follower)).map(|at| ring[at]).collect()
}

/// The brokers in an order where neighbours are of different racks as far as the racks allow.
fn racks_alternating(image: &Image, fenced: bool) -> Vec<NodeId> {
    let mut racks: BTreeMap<Option<&str>, Vec<NodeId>> = BTreeMap::new();
    for broker in image.brokers().filter(|broker| broker.fenced == fenced) {
        racks.entry(broker.rack.as_deref()).or_default().push(broker.node);
    }
    let rounds = racks.values().map(Vec::len).max().unwrap_or(0);
    (0..rounds).flat_map(|round| racks.values().filter_map(move |rack| rack.get(round).copied())).collect()
}
