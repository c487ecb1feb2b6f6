//! A live group changes its type: a classic one when a first member speaks the consumer protocol, a consumer one when the
//! last such member is gone. Members and assignments are taken along, so nobody stops reading for it.
//!
//! Either way the records of one type end and those of the other begin in one append; should that fail, the former group
//! is put back as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use net::messages::assignment::{ConsumerProtocolAssignment, TopicPartition};
use net::wire::{Decode, Encode, Reader, Writer};

use engine::ids::TopicId;

use super::classic::{self, ClassicGroup};
use super::consumer::{self, ConsumerGroup};
use super::pending::Undo;
use super::per_topic::{Owned, Partitions};
use super::records::{ClassicValue, CurrentValue, MemberState, MemberValue, Record};
use super::{Bytes, Core, Group, Reason, Shard, Text};
use crate::error_code::{ErrorCode, Refusal};
use crate::metadata::Image;

/// The versions of the assignment inside of SyncGroup.
const ASSIGNMENT_VERSION_MAX: i16 = 3;

impl Shard {
    /// Turns a classic group with members into a consumer group.
    pub(super) fn upgrade(&mut self, id: &Text) -> Result<(), Refusal> {
        let Some(Group::Classic(group)) = self.groups.get_mut(id) else { return Ok(()) };
        let records = upgraded(&self.core, group).map_err(|why| {
            let message = format!("Cannot upgrade classic group {id} to a consumer group: {why}.");
            Refusal::new(ErrorCode::GroupIdNotFound, message)
        })?;
        // Whoever waits for the others rejoins, and finds the new group.
        group.dismiss(&mut self.core, ErrorCode::RebalanceInProgress);
        group.stop(&mut self.core);
        let mut next = Box::new(ConsumerGroup::new(id.clone()));
        let was = self.groups.remove(id);
        self.core.undo.push((self.core.records.len(), Undo::Group { id: id.clone(), was }));
        self.core.records.push(Record::Classic { group: id.clone(), value: None });
        for record in records {
            next.apply(&record);
            self.core.records.push(record);
        }
        next.loaded(&mut self.core);
        self.groups.insert(id.clone(), Group::Consumer(next));
        Ok(())
    }

    /// Takes members out of a consumer group; the rest becomes a classic group if all of them speak that protocol.
    pub(super) fn remove_consumer_members(&mut self, id: &Text, members: &BTreeSet<Text>, why: Reason) {
        let Some(Group::Consumer(group)) = self.groups.get_mut(id) else { return };
        if members.is_empty() {
            return;
        }
        let left = group.member_count().saturating_sub(members.len());
        members.iter().for_each(|member| self.core.removed(id, member, why, left));
        if group.is_classic_without(members) && may_downgrade(&self.core, left) {
            // Without another epoch: who is up to date is told of the rebalance instead of being fenced.
            members.iter().for_each(|member| group.forget_member(&mut self.core, member));
            self.downgrade(id);
            if let Some(Group::Classic(group)) = self.groups.get_mut(id) {
                group.rebalance(&mut self.core);
            }
        } else {
            group.remove_members(&mut self.core, members);
        }
    }

    /// Turns a consumer group into a classic one if all its members speak that protocol; whether it did.
    pub(super) fn downgrade_if_classic(&mut self, id: &Text) -> bool {
        let Some(Group::Consumer(group)) = self.groups.get(id) else { return false };
        let downgrades = group.is_classic() && may_downgrade(&self.core, group.member_count());
        if downgrades {
            self.downgrade(id);
        }
        downgrades
    }

    fn downgrade(&mut self, id: &Text) {
        let Some(Group::Consumer(mut group)) = self.groups.remove(id) else { return };
        group.stop(&mut self.core);
        let mut next = Box::new(ClassicGroup::new(id.clone(), self.core.now.unix_ms));
        let members = group.members().map(|(id, value, target)| {
            let metadata = value.classic.as_ref().and_then(|classic| classic.protocols.first());
            let version = metadata.and_then(|(_, metadata)| version_of(metadata)).unwrap_or(0);
            (id.clone(), value.clone(), assignment_bytes(&self.core.image.borrow(), &target, version))
        });
        next.adopt(group.epoch(), members.collect());
        let mut records = group.member_tombstones();
        records.extend(group.tombstones());
        let was = Some(Group::Consumer(group));
        self.core.undo.push((self.core.records.len(), Undo::Group { id: id.clone(), was }));
        self.core.records.extend(records);
        next.persist(&mut self.core);
        next.loaded(&mut self.core);
        self.groups.insert(id.clone(), Group::Classic(next));
    }
}

fn may_downgrade(core: &Core, member_count: usize) -> bool {
    core.settings.consumer_migration_policy.downgrades() && member_count <= core.settings.group_max_size
}

/// The records of the consumer group that a classic one becomes, or why it cannot.
fn upgraded(core: &Core, group: &ClassicGroup) -> Result<Vec<Record>, &'static str> {
    if !core.settings.consumer_migration_policy.upgrades() {
        return Err("the migration policy does not allow it");
    }
    if !group.is_consumer_type() {
        return Err("it is not a group of consumers");
    }
    if group.member_count() > core.settings.consumer_max_size {
        return Err("it has too many members");
    }
    let id = || group.id.clone();
    let generation = group.generation();
    let (mut members, mut targets, mut currents) = (Vec::new(), Vec::new(), Vec::new());
    let mut topics = BTreeSet::new();
    let mut owned: BTreeMap<(TopicId, i32), ()> = BTreeMap::new();
    for (member_id, member) in group.members() {
        let (value, assigned) = converted(core, member, group.protocol())?;
        // Two members may hold one partition if their leader said so; here the first has it.
        let assigned: Partitions =
            assigned.into_iter().filter(|partition| owned.insert(*partition, ()).is_none()).collect();
        let has: Owned = assigned
            .iter()
            .flat_map(|(topic, list)| list.iter().map(move |partition| (topic, *partition, generation)))
            .collect();
        let current = CurrentValue {
            epoch: generation,
            previous_epoch: generation,
            state: MemberState::Stable,
            assigned: has,
            revoking: Owned::default(),
        };
        let member = || member_id.clone();
        topics.extend(value.topics.iter().cloned());
        members.push(Record::Member { group: id(), member: member(), value: Some(Rc::new(value)) });
        targets.push(Record::Target { group: id(), member: member(), value: Some(Rc::new(assigned)) });
        currents.push(Record::Current { group: id(), member: member(), value: Some(Rc::new(current)) });
    }
    let mut records = members;
    // Its topics are as they were: that alone moves nobody's partitions.
    let hash = consumer::metadata_hash(&core.image.borrow(), &topics);
    records.push(Record::Epoch { group: id(), value: Some((generation, hash)) });
    records.append(&mut targets);
    records.push(Record::TargetEpoch { group: id(), value: Some((generation, 0)) });
    records.append(&mut currents);
    Ok(records)
}

/// What a classic member says, and what it has.
type Converted = (MemberValue, Vec<(TopicId, i32)>);

fn converted(
    core: &Core,
    member: &classic::Member,
    protocol: Option<&Text>,
) -> Result<Converted, &'static str> {
    let metadata = match protocol {
        Some(protocol) => member.metadata(protocol),
        None => member.protocols.first().map(|(_, metadata)| metadata),
    };
    let subscription = metadata
        .and_then(|metadata| classic::subscription(metadata))
        .ok_or("a member's subscription cannot be read")?;
    let assigned = assigned_partitions(&core.image.borrow(), &member.assignment)?;
    let value = MemberValue {
        instance: member.instance.clone(),
        rack: subscription.rack_id.as_deref().map(Text::from),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topics: sorted(subscription.topics.iter().map(|topic| &**topic)),
        regex: None,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        assignor: None,
        classic: Some(ClassicValue {
            session_timeout_ms: member.session_timeout_ms,
            protocols: member.protocols.clone(),
        }),
    };
    Ok((value, assigned))
}

/// Names, each once and in order.
pub(super) fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> Rc<[Text]> {
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().map(Text::from).collect()
}

/// The partitions of an assignment, of topics that exist. What a custom assignor adds would be lost.
fn assigned_partitions(image: &Image, assignment: &[u8]) -> Result<Vec<(TopicId, i32)>, &'static str> {
    if assignment.is_empty() {
        return Ok(Vec::new());
    }
    const UNREADABLE: &str = "a member's assignment cannot be read";
    let mut r = Reader::new(assignment);
    let version = r.i16().ok().filter(|version| *version >= 0).ok_or(UNREADABLE)?;
    let assignment = ConsumerProtocolAssignment::decode(&mut r, version.min(ASSIGNMENT_VERSION_MAX))
        .map_err(|_| UNREADABLE)?;
    if assignment.user_data.is_some_and(|data| !data.is_empty()) {
        return Err("a custom assignor is in use");
    }
    let of = |topic: &TopicPartition<'_>| {
        let id = image.topic(&topic.topic).map(|topic| topic.id);
        id.into_iter().flat_map(|id| topic.partitions.iter().map(move |p| (id, *p))).collect::<Vec<_>>()
    };
    Ok(assignment.assigned_partitions.iter().flat_map(of).collect())
}

/// An assignment as a classic consumer reads it.
pub(super) fn assignment_bytes(image: &Image, partitions: &Partitions, version: i16) -> Bytes {
    let version = version.clamp(0, ASSIGNMENT_VERSION_MAX);
    let topics = partitions.iter().filter_map(|(id, list)| {
        let name = &image.topic_by_id(id)?.name;
        Some(TopicPartition { topic: name.as_str().into(), partitions: list.clone() })
    });
    let content = ConsumerProtocolAssignment { assigned_partitions: topics.collect(), user_data: None };
    let mut w = Writer::new();
    w.i16(version);
    content.encode(&mut w, version).expect("topic names are short");
    w.into_body().expect("an assignment is smaller than a frame").into()
}

/// The version of the consumer protocol that a subscription is written in.
pub(super) fn version_of(metadata: &[u8]) -> Option<i16> {
    Reader::new(metadata).i16().ok()
}
