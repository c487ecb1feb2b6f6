//! A group of the consumer protocol (KIP-848): members say what they want, the coordinator says who has what.
//!
//! Three epochs: the group's rises with whatever makes another assignment necessary; the target's follows it when an
//! assignor has run; each member's follows the target when the member has given up what is no longer its own.
//!
//! ```text
//! heartbeat -> member changed? -> group epoch + 1 -> target (assignor) -> one step of this member towards its target
//!              Member record      Epoch record       Target, TargetEpoch  Current record
//! ```
//!
//! The state is exactly what the records say: every change goes through [`ConsumerGroup::put`], which applies a record as
//! loading would and remembers the value that it replaced. Only timers, and what is known of the metadata, are not
//! recorded.
//!
//! Invariants: a partition is assigned to, or being revoked from, at most one member; no member's epoch is above the
//! target's, nor the target's above the group's.

mod classic_members;
mod describe;
mod heartbeat;
mod leave;
mod lookup;
mod offsets;
mod reconcile;
mod regexes;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::ids::TopicId;

use super::pending::Undo;
use super::per_topic::{Owned, Partitions};
use super::records::{CurrentValue, MemberState, MemberValue, Record, RegexValue};
use super::sweep::Expiry;
use super::timers::{Deadline, Entry, Key};
use super::unload::shed;
use super::{Core, Text};

pub(super) use target::metadata_hash;

/// The first epoch of a group and of its target; a first real assignment has the next one.
const FIRST_EPOCH: i32 = 1;

/// What a member says that leaves for good, and a static one that will come back.
const LEAVE_EPOCH: i32 = -1;
const LEAVE_STATIC_EPOCH: i32 = -2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Empty,
    Assigning,
    Reconciling,
    Stable,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Assigning => "Assigning",
            State::Reconciling => "Reconciling",
            State::Stable => "Stable",
        }
    }
}

pub(super) struct Member {
    pub value: Rc<MemberValue>,
    pub current: Rc<CurrentValue>,
    session: Deadline,
    revocation: Deadline,
    /// The member's epoch when it was told to give up partitions.
    revocation_epoch: i32,
    /// When a classic member must have joined, or synced.
    rejoin: Deadline,
}

pub(super) struct ConsumerGroup {
    pub id: Text,
    epoch: i32,
    hash: i64,
    target_epoch: i32,
    target_unix_ms: i64,
    members: BTreeMap<Text, Member>,
    targets: BTreeMap<Text, Rc<Partitions>>,
    instances: BTreeMap<Text, Text>,
    regexes: BTreeMap<Text, Rc<RegexValue>>,
    /// How many members subscribe to each name, and by each expression: nothing looks at all members for that.
    names: BTreeMap<Text, usize>,
    expressions: BTreeMap<Text, usize>,
    /// By topic and partition: the epoch of the member that has it, or has yet to give it up; -1 for none.
    owners: BTreeMap<TopicId, Vec<i32>>,
    /// The metadata that the hash was last computed for.
    seen_image: u64,
    resolution: regexes::Resolution,
}

impl ConsumerGroup {
    pub fn new(id: Text) -> ConsumerGroup {
        ConsumerGroup {
            id,
            epoch: FIRST_EPOCH,
            hash: 0,
            target_epoch: FIRST_EPOCH,
            target_unix_ms: 0,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            instances: BTreeMap::new(),
            regexes: BTreeMap::new(),
            names: BTreeMap::new(),
            expressions: BTreeMap::new(),
            owners: BTreeMap::new(),
            seen_image: 0,
            resolution: regexes::Resolution::default(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Whether all members speak the classic protocol.
    pub fn is_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|member| member.value.classic.is_some())
    }

    /// Whether all but this one do, and there are others.
    pub fn is_classic_without(&self, gone: &BTreeSet<Text>) -> bool {
        let mut others = self.members.iter().filter(|(other, _)| !gone.contains(*other)).peekable();
        others.peek().is_some() && others.all(|(_, member)| member.value.classic.is_some())
    }

    /// Each member with its target.
    pub fn members(&self) -> impl Iterator<Item = (&Text, &Rc<MemberValue>, Rc<Partitions>)> {
        self.members.iter().map(|(id, member)| (id, &member.value, self.target(id)))
    }

    pub fn state(&self) -> State {
        let is_settled = |member: &Member| {
            member.current.state == MemberState::Stable && member.current.epoch == self.target_epoch
        };
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch > self.target_epoch {
            State::Assigning
        } else if self.members.values().all(is_settled) {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    /// The names of all topics that a member reads, by name or by a resolved expression.
    pub fn subscribed_topics(&self) -> BTreeSet<Text> {
        let mut topics: BTreeSet<Text> = self.names.keys().cloned().collect();
        let resolved = self.expressions.keys().filter_map(|regex| self.regexes.get(regex));
        topics.extend(resolved.flat_map(|value| value.topics.iter().cloned()));
        topics
    }

    pub fn expiry(&self) -> Expiry {
        Expiry::SinceCommit(Some(self.subscribed_topics()))
    }

    /// Applies a change, records it, and remembers how to take it back.
    fn put(&mut self, core: &mut Core, record: Record) {
        if let Record::Member { member, value: None, .. } = &record
            && let Some(member) = self.members.get_mut(member)
        {
            member.stop(core);
        }
        let was = self.apply(&record);
        core.changed(record, Undo::Record(was));
    }

    /// What a record says becomes the state; the record that would bring back the former one.
    pub fn apply(&mut self, record: &Record) -> Record {
        let group = self.id.clone();
        match record {
            Record::Epoch { value, .. } => {
                let was = (self.epoch, self.hash);
                (self.epoch, self.hash) = value.unwrap_or((FIRST_EPOCH, 0));
                Record::Epoch { group, value: Some(was) }
            }
            Record::TargetEpoch { value, .. } => {
                let was = (self.target_epoch, self.target_unix_ms);
                (self.target_epoch, self.target_unix_ms) = value.unwrap_or((FIRST_EPOCH, 0));
                Record::TargetEpoch { group, value: Some(was) }
            }
            Record::Member { member, value, .. } => {
                let was = self.set_member(member, value.as_ref());
                Record::Member { group, member: member.clone(), value: was }
            }
            Record::Target { member, value, .. } => {
                let was = match value {
                    Some(value) => self.targets.insert(member.clone(), value.clone()),
                    None => self.targets.remove(member),
                };
                Record::Target { group, member: member.clone(), value: was }
            }
            Record::Current { member, value, .. } => {
                let was = self.set_current(member, value.as_ref());
                Record::Current { group, member: member.clone(), value: was }
            }
            Record::Regex { regex, value, .. } => {
                let was = match value {
                    Some(value) => self.regexes.insert(regex.clone(), value.clone()),
                    None => self.regexes.remove(regex),
                };
                Record::Regex { group, regex: regex.clone(), value: was }
            }
            Record::Offset { .. } | Record::Classic { .. } | Record::DroppedSubscriptions { .. } => {
                unreachable!("not a record of a consumer group")
            }
        }
    }

    fn set_member(&mut self, id: &Text, value: Option<&Rc<MemberValue>>) -> Option<Rc<MemberValue>> {
        let was = self.members.get(id).map(|member| member.value.clone());
        if let Some(was) = &was {
            self.count_subscriptions(was, false);
        }
        if let Some(value) = value {
            self.count_subscriptions(value, true);
        }
        if let Some(instance) = was.as_ref().and_then(|was| was.instance.as_ref())
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove(instance);
        }
        let Some(value) = value else {
            self.set_current(id, None);
            self.members.remove(id);
            return was;
        };
        if let Some(instance) = &value.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        match self.members.get_mut(id) {
            Some(member) => member.value = value.clone(),
            None => drop(self.members.insert(id.clone(), Member::new(value.clone()))),
        }
        was
    }

    fn count_subscriptions(&mut self, value: &MemberValue, added: bool) {
        let count = |counts: &mut BTreeMap<Text, usize>, name: &Text| {
            if added {
                *counts.entry(name.clone()).or_default() += 1;
            } else if let Some(count) = counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(name);
                }
            }
        };
        value.topics.iter().for_each(|name| count(&mut self.names, name));
        value.regex.iter().for_each(|regex| count(&mut self.expressions, regex));
    }

    /// A compacted log may tell what a member has before it tells the member.
    fn set_current(&mut self, id: &Text, value: Option<&Rc<CurrentValue>>) -> Option<Rc<CurrentValue>> {
        if value.is_some() && !self.members.contains_key(id) {
            self.members.insert(id.clone(), Member::new(Rc::new(MemberValue::unknown())));
        }
        let member = self.members.get_mut(id)?;
        let fresh = Rc::new(CurrentValue::fresh());
        let was = std::mem::replace(&mut member.current, value.cloned().unwrap_or(fresh));
        let now = member.current.clone();
        self.own(&was.assigned, was.epoch, -1);
        self.own(&was.revoking, was.epoch, -1);
        self.own(&now.assigned, -1, now.epoch);
        self.own(&now.revoking, -1, now.epoch);
        for (topic, _) in was.assigned.iter().chain(was.revoking.iter()) {
            if self.owners.get(&topic).is_some_and(|epochs| epochs.iter().all(|epoch| *epoch == -1)) {
                self.owners.remove(&topic);
            }
        }
        (*was != CurrentValue::fresh()).then_some(was)
    }

    /// Moves partitions from one epoch to another. A partition that somebody else took meanwhile, as a compacted log may
    /// tell it, stays with that one.
    fn own(&mut self, partitions: &Owned, from: i32, to: i32) {
        for (topic, partition, _) in partitions.each() {
            let Ok(index) = usize::try_from(partition) else { continue };
            let epochs = self.owners.entry(topic).or_default();
            if to != -1 && epochs.len() <= index && index < crate::metadata::TOPIC_PARTITIONS_MAX {
                epochs.resize(index + 1, -1);
            }
            if let Some(epoch) = epochs.get_mut(index)
                && (to != -1 || *epoch == from)
            {
                *epoch = to;
            }
        }
    }

    fn is_free(&self, topic: TopicId, partition: i32) -> bool {
        let epoch = self.owners.get(&topic).zip(usize::try_from(partition).ok());
        epoch.and_then(|(epochs, index)| epochs.get(index)).is_none_or(|epoch| *epoch == -1)
    }

    /// Starts the sessions after loading. Members of which only fragments are left are none.
    pub fn loaded(&mut self, core: &mut Core) {
        let fragments = self.members.iter().filter(|(_, member)| member.value.client_id.is_empty());
        let fragments: Vec<Text> = fragments
            .filter(|(_, member)| *member.value == MemberValue::unknown())
            .map(|(id, _)| id.clone())
            .collect();
        for id in fragments {
            self.set_member(&id, None);
            self.targets.remove(&id);
        }
        let ids: Vec<Text> = self.members.keys().cloned().collect();
        for id in &ids {
            self.start_timers(core, id);
        }
    }

    /// Drops all timers: another group, or none, takes its place.
    pub fn stop(&mut self, core: &mut Core) {
        self.members.values_mut().for_each(|member| member.stop(core));
    }

    /// Drops what it holds, so much at most; whether nothing is left. Its members are answered at once, so none waits.
    pub fn shed(&mut self, left: &mut usize) -> bool {
        shed(&mut self.members, left);
        shed(&mut self.targets, left);
        shed(&mut self.instances, left);
        shed(&mut self.regexes, left);
        shed(&mut self.names, left);
        shed(&mut self.expressions, left);
        shed(&mut self.owners, left);
        *left > 0
    }

    /// Back in its place after another group had it. Its timers were dropped then, and what its expressions stand for was
    /// told to nobody.
    pub fn restored(&mut self, core: &mut Core) {
        self.resolution = regexes::Resolution::default();
        for member in self.members.values_mut() {
            *member = Member { current: member.current.clone(), ..Member::new(member.value.clone()) };
        }
        self.loaded(core);
    }

    /// After loading, or when a removal is taken back.
    pub fn start_timers(&mut self, core: &mut Core, id: &Text) {
        self.renew(core, id);
        self.watch_revocation(core, id);
    }

    fn renew(&mut self, core: &mut Core, id: &Text) {
        let session_ms = core.session_timeout_ms(&self.id);
        let Some(member) = self.members.get_mut(id) else { return };
        let session_ms = match &member.value.classic {
            Some(classic) => classic.session_timeout_ms,
            None => session_ms,
        };
        let at = core.now.ms.saturating_add(u64::try_from(session_ms).unwrap_or(0));
        member.session.set(at, &mut core.timers, || Key::Session(self.id.clone(), id.clone()));
    }

    /// A member that has to give up partitions has its rebalance timeout to do so.
    fn watch_revocation(&mut self, core: &mut Core, id: &Text) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.current.state != MemberState::Unrevoked {
            member.revocation.cancel();
            return;
        }
        if member.revocation.is_set() && member.revocation_epoch == member.current.epoch {
            return;
        }
        member.revocation_epoch = member.current.epoch;
        let timeout_ms = u64::try_from(member.value.rebalance_timeout_ms).unwrap_or(0);
        let at = core.now.ms.saturating_add(timeout_ms);
        member.revocation.set(at, &mut core.timers, || Key::Revocation(self.id.clone(), id.clone()));
    }

    /// Whether the timer that came up means that its member is to go.
    pub fn is_due(&mut self, core: &mut Core, at: Entry, key: &Key) -> bool {
        let now = core.now.ms;
        match key {
            Key::Session(_, id) => {
                let Some(member) = self.members.get_mut(id) else { return false };
                member.session.fires(at, now, &mut core.timers, || key.clone())
            }
            Key::Revocation(_, id) => {
                let Some(member) = self.members.get_mut(id) else { return false };
                member.revocation.fires(at, now, &mut core.timers, || key.clone())
                    && member.current.epoch == member.revocation_epoch
            }
            Key::Rejoin(_, id) => {
                let Some(member) = self.members.get_mut(id) else { return false };
                member.rejoin.fires(at, now, &mut core.timers, || key.clone())
            }
            Key::Member(..) | Key::Pending(..) | Key::Join(_) | Key::Sync(_) | Key::Expiry => false,
        }
    }
}

impl Member {
    fn new(value: Rc<MemberValue>) -> Member {
        Member {
            value,
            current: Rc::new(CurrentValue::fresh()),
            session: Deadline::default(),
            revocation: Deadline::default(),
            revocation_epoch: 0,
            rejoin: Deadline::default(),
        }
    }

    fn stop(&mut self, core: &mut Core) {
        let all = [&mut self.session, &mut self.revocation, &mut self.rejoin];
        all.into_iter().for_each(|deadline| deadline.clear(&mut core.timers));
    }
}

impl MemberValue {
    /// Of a member that has not said anything.
    fn unknown() -> MemberValue {
        MemberValue {
            instance: None,
            rack: None,
            client_id: "".into(),
            client_host: "".into(),
            topics: [].into(),
            regex: None,
            rebalance_timeout_ms: -1,
            assignor: None,
            classic: None,
        }
    }
}

impl CurrentValue {
    /// Of a member that has had nothing yet.
    fn fresh() -> CurrentValue {
        CurrentValue {
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: Owned::default(),
            revoking: Owned::default(),
        }
    }
}

#[cfg(test)]
impl ConsumerGroup {
    pub fn has_member(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    /// What the module doc promises.
    pub fn check_invariants(&self) {
        assert!(self.target_epoch <= self.epoch);
        let mut held = BTreeMap::new();
        for (id, member) in &self.members {
            let current = &member.current;
            assert!(current.epoch <= self.target_epoch, "{id}: {current:?}");
            for (topic, partition, epoch) in current.assigned.each().chain(current.revoking.each()) {
                assert!(epoch <= self.target_epoch);
                let other = held.insert((topic, partition), id);
                assert_eq!(other, None, "{topic:?}-{partition} has two owners");
            }
            if let Some(instance) = &member.value.instance {
                assert_eq!(self.instances.get(instance), Some(id));
            }
        }
        for (topic, epochs) in &self.owners {
            assert!(epochs.iter().any(|epoch| *epoch != -1), "{topic:?} is forgotten with its last owner");
            for (partition, epoch) in (0..).zip(epochs) {
                let holder = held.get(&(*topic, partition)).map(|id| self.members[*id].current.epoch);
                assert_eq!(holder.unwrap_or(-1), *epoch, "{topic:?}-{partition}");
            }
        }
        let names = self.members.values().flat_map(|member| member.value.topics.iter());
        let names: BTreeSet<&Text> = names.collect();
        assert!(names.into_iter().eq(self.names.keys()));
        let expressions: BTreeSet<&Text> =
            self.members.values().filter_map(|member| member.value.regex.as_ref()).collect();
        assert!(expressions.into_iter().eq(self.expressions.keys()));
        assert!(self.targets.keys().all(|id| self.members.contains_key(id)));
    }
}
