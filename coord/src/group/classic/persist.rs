//! A classic group as a record, and out of one.

use std::collections::BTreeMap;
use std::rc::Rc;

use net::messages::group_records::{GroupMetadataValue, MemberMetadata};

use super::super::records::{MemberValue, Record, classic_value};
use super::super::shared::Shared;
use super::super::timers::Deadline;
use super::super::{Bytes, Core, Text};
use super::{ClassicGroup, Member, State};

impl ClassicGroup {
    /// Records the group as it will be with these assignments.
    pub(super) fn record(&self, core: &mut Core, assignments: &BTreeMap<Text, Bytes>) {
        let value = Some(self.value(assignments));
        core.records.push(Record::Classic { group: self.id.clone(), value });
    }

    /// Records the group with the assignments that are in force.
    pub fn persist(&self, core: &mut Core) {
        let assigned = |(id, member): (&Text, &Member)| (id.clone(), member.assignment.clone());
        self.record(core, &self.members.iter().map(assigned).collect());
    }

    pub fn value<'g>(&'g self, assignments: &'g BTreeMap<Text, Bytes>) -> Vec<u8> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let bytes = |bytes: Option<&'g Bytes>| bytes.map_or(&[][..], |bytes| bytes).into();
        let member = |(id, member): (&'g Text, &'g Member)| MemberMetadata {
            member_id: id.as_ref().into(),
            group_instance_id: member.instance.as_deref().map(Into::into),
            client_id: member.client_id.as_ref().into(),
            client_host: member.client_host.as_ref().into(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: bytes(member.metadata(protocol)),
            assignment: bytes(assignments.get(id)),
        };
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().into(),
            generation: self.generation,
            protocol: self.protocol.as_deref().map(Into::into),
            leader: self.leader.as_deref().map(Into::into),
            current_state_timestamp: self.state_since_unix_ms,
            members: self.members.iter().map(member).collect(),
        };
        classic_value(&value).expect("its names came as strings of the wire")
    }

    /// Takes over the members of a consumer group, with their assignments, and is Stable.
    pub fn adopt(&mut self, generation: i32, members: Vec<(Text, Rc<MemberValue>, Bytes)>) {
        for (id, value, assignment) in members {
            let Some(classic) = &value.classic else { continue };
            let member = Member {
                instance: value.instance.clone(),
                client_id: value.client_id.clone(),
                client_host: value.client_host.clone(),
                session_timeout_ms: classic.session_timeout_ms,
                rebalance_timeout_ms: value.rebalance_timeout_ms,
                protocols: classic.protocols.clone(),
                assignment,
                is_new: false,
                must_sync: false,
                parked_join: None,
                parked_sync: None,
                deadline: Deadline::default(),
            };
            if let Some(instance) = &member.instance {
                self.instances.insert(instance.clone(), id.clone());
            }
            super::count_protocols(&mut self.protocols, &member, true);
            self.members.insert(id, member);
        }
        self.generation = generation;
        self.protocol_type = Some(super::CONSUMER.into());
        self.protocol = self.selected_protocol();
        self.leader = self.members.keys().next().cloned();
        self.state = State::Stable;
    }

    /// The group as a record tells it: without members it is Empty, else Stable; sessions start when loading ends.
    pub fn read(id: Text, value: &GroupMetadataValue<'_>, shared: &mut Shared) -> ClassicGroup {
        let mut group = ClassicGroup::new(id, value.current_state_timestamp);
        group.protocol_type = named(&value.protocol_type);
        group.generation = value.generation;
        group.protocol = value.protocol.as_deref().and_then(named);
        group.leader = value.leader.as_deref().and_then(named);
        if !value.members.is_empty() {
            group.state = State::Stable;
        }
        let protocol = group.protocol.clone().unwrap_or_else(|| Text::from(""));
        for member in &value.members {
            let id = Text::from(&*member.member_id);
            let rebalance_timeout_ms = match member.rebalance_timeout {
                // Version 0 has only one timeout.
                -1 => member.session_timeout,
                timeout => timeout,
            };
            let read = Member {
                instance: member.group_instance_id.as_deref().map(Text::from),
                client_id: shared.text(&member.client_id),
                client_host: shared.text(&member.client_host),
                session_timeout_ms: member.session_timeout,
                rebalance_timeout_ms,
                protocols: Box::new([(protocol.clone(), shared.bytes(&member.subscription))]),
                assignment: Bytes::from(&*member.assignment),
                is_new: false,
                must_sync: false,
                parked_join: None,
                parked_sync: None,
                deadline: Deadline::default(),
            };
            if let Some(instance) = &read.instance {
                group.instances.insert(instance.clone(), id.clone());
            }
            super::count_protocols(&mut group.protocols, &read, true);
            group.members.insert(id, read);
        }
        group
    }
}

/// Kafka writes an absent name as an empty one.
fn named(name: &str) -> Option<Text> {
    (!name.is_empty()).then(|| Text::from(name))
}
