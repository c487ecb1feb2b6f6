//! Who leads a partition, and who is in sync: pure changes of one partition, and their walk over the image.
//!
//! The in-sync set never becomes empty: its last member stays in it, gone or not, because only that one is known to have
//! every acknowledged record. A partition without an active in-sync replica has no leader; nobody else is elected.

use std::sync::Arc;

use engine::ids::{LeaderEpoch, PartitionId};

use super::image::{Image, NodeId, Partition, Topic};
use super::{Change, invalid};
use crate::error_code::{ErrorCode, Refusal};

/// Whether the partition changed.
type Changed = Result<bool, Refusal>;

/// A new partition: the first active replica leads, the active ones are in sync.
pub(super) fn first(image: &Image, replicas: &[NodeId]) -> Result<Partition, Refusal> {
    if replicas.is_empty() || has_repeat(replicas) {
        return Err(assignment("A partition's replicas must be distinct, and at least one."));
    }
    if let Some(unknown) = replicas.iter().find(|node| image.broker(**node).is_none()) {
        return Err(assignment(format!("No broker {unknown} is registered.")));
    }
    let isr: Vec<NodeId> = replicas.iter().copied().filter(|node| image.is_active(*node)).collect();
    let Some(leader) = isr.first().copied() else {
        return Err(assignment("All replicas of a partition are fenced."));
    };
    Ok(Partition {
        replicas: replicas.to_vec(),
        isr,
        leader: Some(leader),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
    })
}

/// `node` stops leading; an active in-sync replica takes over, in the order of the replicas, or nobody does.
pub(super) fn resign(image: &Image, partition: &mut Partition, node: NodeId) -> Changed {
    if partition.leader != Some(node) {
        return Ok(false);
    }
    let may_lead =
        |other: &&NodeId| **other != node && partition.isr.contains(other) && image.is_active(**other);
    let leader = partition.replicas.iter().find(may_lead).copied();
    lead(partition, leader)
}

/// `node` has recovered its log: where it leads, or nobody does and it is in sync, it leads in a new epoch.
pub(super) fn reclaim(partition: &mut Partition, node: NodeId) -> Changed {
    let leaderless = partition.leader.is_none() && partition.isr.contains(&node);
    if partition.leader != Some(node) && !leaderless {
        return Ok(false);
    }
    lead(partition, Some(node))
}

/// `node` is not in sync any more, unless it is the last that is; it does not lead in either case.
pub(super) fn leave_in_sync(image: &Image, partition: &mut Partition, node: NodeId) -> Changed {
    let mut changed = resign(image, partition, node)?;
    if partition.isr.len() > 1 && partition.isr.contains(&node) {
        partition.isr.retain(|member| *member != node);
        if !changed {
            raise_partition_epoch(partition)?;
        }
        changed = true;
    }
    Ok(changed)
}

/// The leader's report of who is in sync.
pub(super) fn set_in_sync(image: &Image, partition: &mut Partition, isr: &[NodeId]) -> Changed {
    let is_replica = |node: &NodeId| partition.replicas.contains(node);
    if isr.is_empty() || has_repeat(isr) || !isr.iter().all(is_replica) {
        return Err(invalid("The in-sync set must be a non-empty set of replicas."));
    }
    if partition.leader.is_none_or(|leader| !isr.contains(&leader)) {
        return Err(invalid("The leader must be in the in-sync set."));
    }
    if let Some(fenced) = isr.iter().find(|node| !image.is_active(**node)) {
        return Err(Refusal::new(ErrorCode::IneligibleReplica, format!("Node {fenced} is fenced.")));
    }
    partition.isr = isr.to_vec();
    raise_partition_epoch(partition)?;
    Ok(true)
}

fn lead(partition: &mut Partition, leader: Option<NodeId>) -> Changed {
    let epoch = partition.leader_epoch.0.checked_add(1);
    partition.leader_epoch = LeaderEpoch(epoch.ok_or_else(|| invalid("The leader epochs are used up."))?);
    partition.leader = leader;
    raise_partition_epoch(partition)?;
    Ok(true)
}

fn raise_partition_epoch(partition: &mut Partition) -> Result<(), Refusal> {
    let epoch = partition.partition_epoch.checked_add(1);
    partition.partition_epoch = epoch.ok_or_else(|| invalid("The partition epochs are used up."))?;
    Ok(())
}

/// Applies `change` to every partition of the cluster; one change per topic that was touched.
pub(super) fn change_all(
    image: &Image,
    mut change: impl FnMut(&Image, &mut Partition) -> Changed,
) -> Result<Vec<Change>, Refusal> {
    change_all_with_id(image, |image, _, partition| change(image, partition))
}

/// As `change_all`, for changes that depend on which partition it is.
pub(super) fn change_all_with_id(
    image: &Image,
    mut change: impl FnMut(&Image, PartitionId, &mut Partition) -> Changed,
) -> Result<Vec<Change>, Refusal> {
    let mut changes = Vec::new();
    for topic in image.topics() {
        let ids = topic.ids().map(|(id, _)| id).collect::<Vec<_>>();
        changes.extend(change_topic(topic, &ids, |id, partition| change(image, id, partition))?);
    }
    Ok(changes)
}

/// Applies `change` to the listed partitions, all of them or none; unknown ones refuse the whole.
pub(super) fn change_listed(
    image: &Image,
    listed: &[PartitionId],
    mut change: impl FnMut(&Image, &mut Partition) -> Changed,
) -> Result<Vec<Change>, Refusal> {
    let mut listed = listed.to_vec();
    listed.sort_unstable();
    listed.dedup();
    let mut changes = Vec::new();
    for ids in listed.chunk_by(|a, b| a.topic == b.topic) {
        let unknown = || Refusal::new(ErrorCode::UnknownTopicOrPartition, "There is no such partition.");
        let [first, ..] = ids else { continue };
        let topic = image.topic_by_id(first.topic).ok_or_else(unknown)?;
        if ids.iter().any(|id| topic.partition(id.index).is_none()) {
            return Err(unknown());
        }
        changes.extend(change_topic(topic, ids, |_, partition| change(image, partition))?);
    }
    Ok(changes)
}

/// Copies the topic only when a partition of it changes.
fn change_topic(
    topic: &Arc<Topic>,
    ids: &[PartitionId],
    mut change: impl FnMut(PartitionId, &mut Partition) -> Changed,
) -> Result<Option<Change>, Refusal> {
    let mut changed = Vec::new();
    for id in ids {
        let Some(partition) = topic.partition(id.index) else { continue };
        let mut partition = partition.clone();
        if change(*id, &mut partition)? {
            changed.push((id.index, partition));
        }
    }
    if changed.is_empty() {
        return Ok(None);
    }
    let mut topic = (**topic).clone();
    let indexes = changed.iter().map(|(index, _)| *index).collect();
    for (index, partition) in changed {
        let slot = usize::try_from(index).ok().and_then(|index| topic.partitions.get_mut(index));
        *slot.expect("the partition was read above") = partition;
    }
    Ok(Some(Change::Partitions { topic: Arc::new(topic), indexes }))
}

fn has_repeat(nodes: &[NodeId]) -> bool {
    let mut sorted = nodes.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

fn assignment(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidReplicaAssignment, message)
}
