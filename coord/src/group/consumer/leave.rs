//! How members go: by themselves, by a session or a revocation that ran out; and how a group ends.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::super::per_topic::Owned;
use super::super::records::{CurrentValue, MemberState, Record};
use super::super::{Core, Text};
use super::{ConsumerGroup, LEAVE_STATIC_EPOCH};

impl ConsumerGroup {
    pub(super) fn park_member(&mut self, core: &mut Core, id: &Text) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.revocation.cancel();
        let current = CurrentValue {
            epoch: LEAVE_STATIC_EPOCH,
            previous_epoch: member.current.epoch,
            state: MemberState::Stable,
            revoking: Owned::default(),
            assigned: member.current.assigned.clone(),
        };
        let value = Some(Rc::new(current));
        self.put(core, Record::Current { group: self.id.clone(), member: id.clone(), value });
    }

    /// Takes members out; what they had goes to the others with the group's next epoch.
    pub fn remove_members(&mut self, core: &mut Core, ids: &BTreeSet<Text>) {
        let count = self.members.len();
        ids.iter().for_each(|id| self.forget_member(core, id));
        if self.members.len() < count {
            self.follow_metadata(core, true);
        }
    }

    /// Takes a member out; the group's epoch stays.
    pub fn forget_member(&mut self, core: &mut Core, id: &Text) {
        let Some(member) = self.members.get(id) else { return };
        let regex = member.value.regex.clone();
        self.drop_member(core, id);
        if let Some(regex) = regex {
            self.forget_regex(core, &regex);
        }
    }

    /// The tombstones of a member, in the order in which they can be replayed.
    pub(super) fn drop_member(&mut self, core: &mut Core, id: &Text) {
        let (group, member) = (self.id.clone(), id.clone());
        self.put(core, Record::Current { group: group.clone(), member: member.clone(), value: None });
        self.put(core, Record::Target { group: group.clone(), member: member.clone(), value: None });
        self.put(core, Record::Member { group, member, value: None });
    }

    /// The tombstones of all members.
    pub fn member_tombstones(&self) -> Vec<Record> {
        let tombstones = self.members.keys().flat_map(|member| {
            let (group, member) = (self.id.clone(), member.clone());
            [
                Record::Current { group: group.clone(), member: member.clone(), value: None },
                Record::Target { group: group.clone(), member: member.clone(), value: None },
                Record::Member { group, member, value: None },
            ]
        });
        tombstones.collect()
    }

    /// The tombstones of a group without members: its epoch comes last, it is what makes the group.
    pub fn tombstones(&self) -> Vec<Record> {
        let group = || self.id.clone();
        let regexes = self.regexes.keys();
        let mut records: Vec<Record> = regexes
            .map(|regex| Record::Regex { group: group(), regex: regex.clone(), value: None })
            .collect();
        records.push(Record::TargetEpoch { group: group(), value: None });
        records.push(Record::DroppedSubscriptions { group: group() });
        records.push(Record::Epoch { group: group(), value: None });
        records
    }
}
