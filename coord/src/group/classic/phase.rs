//! The join phase: who is waited for, and what its end brings.

use std::collections::BTreeMap;

use super::super::pending::After;
use super::super::timers::Key;
use super::super::{Core, Reason, Text};
use super::{ClassicGroup, InitialDelay, State};
use crate::error_code::ErrorCode;

impl ClassicGroup {
    /// A change came: everybody rejoins, unless they are at it.
    pub(super) fn rebalance_or_complete(&mut self, core: &mut Core) {
        match self.state {
            State::Stable | State::Completing | State::Empty => self.prepare_rebalance(core),
            State::Preparing => self.complete_join_if_all_are_in(core),
        }
    }

    /// Begins a join phase. Out of Empty it waits a while, since consumers of one application start together.
    pub(super) fn prepare_rebalance(&mut self, core: &mut Core) {
        if self.state == State::Completing {
            self.give_up_assignment(core, ErrorCode::RebalanceInProgress);
        }
        self.sync.cancel();
        self.members.values_mut().for_each(|member| member.must_sync = false);
        let from_empty = self.state == State::Empty;
        self.become_(core, State::Preparing);
        if from_empty {
            let delay_ms = core.settings.group_initial_rebalance_delay_ms;
            let left_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms);
            self.initial = Some(InitialDelay { delay_ms, left_ms, joined: false });
            self.end_join_phase_in(core, delay_ms);
        } else if self.are_all_in() {
            self.complete_join(core);
        } else {
            self.end_join_phase_in(core, self.rebalance_timeout_ms());
        }
    }

    /// Sets the timer of the phase that the group is in.
    pub(super) fn restart_phase(&mut self, core: &mut Core) {
        let timeout_ms = self.rebalance_timeout_ms();
        match self.state {
            State::Preparing => self.end_join_phase_in(core, timeout_ms),
            State::Completing => self.end_sync_phase_in(core, timeout_ms),
            State::Stable | State::Empty => {}
        }
    }

    fn end_sync_phase_in(&mut self, core: &mut Core, ms: u64) {
        let key = || Key::Sync(self.id.clone());
        self.sync.set(core.now.ms.saturating_add(ms), &mut core.timers, key);
    }

    /// Whether there is nobody to wait for.
    fn are_all_in(&self) -> bool {
        self.waiting == self.members.len() && self.pending.is_empty()
    }

    pub(super) fn complete_join_if_all_are_in(&mut self, core: &mut Core) {
        if self.state != State::Preparing {
            return;
        }
        if self.initial.is_some() && !self.members.is_empty() {
            return;
        }
        if self.are_all_in() {
            self.complete_join(core);
        } else if self.members.is_empty() {
            // Only ids that may never be used: the group is empty now.
            self.end_join_phase_in(core, 0);
        }
    }

    fn end_join_phase_in(&mut self, core: &mut Core, ms: u64) {
        let key = || Key::Join(self.id.clone());
        self.join.set(core.now.ms.saturating_add(ms), &mut core.timers, key);
    }

    /// The join phase's timer came up.
    pub(super) fn join_phase_over(&mut self, core: &mut Core) {
        if self.state != State::Preparing {
            return;
        }
        if let Some(initial) = self.initial.filter(|initial| initial.joined && initial.left_ms > 0) {
            let delay_ms = core.settings.group_initial_rebalance_delay_ms.min(initial.left_ms);
            let left_ms = initial.left_ms.saturating_sub(initial.delay_ms);
            self.initial = Some(InitialDelay { delay_ms, left_ms, joined: false });
            self.end_join_phase_in(core, delay_ms);
        } else {
            self.complete_join(core);
        }
    }

    /// Ends the join phase: who did not come is out, but for static members, which may come back.
    fn complete_join(&mut self, core: &mut Core) {
        self.join.cancel();
        self.initial = None;
        let is_absent = |member: &super::Member| member.parked_join.is_none() && member.instance.is_none();
        let absent: Vec<Text> =
            self.members.iter().filter(|(_, m)| is_absent(m)).map(|(id, _)| id.clone()).collect();
        for id in &absent {
            self.refuse_parked(core, id, ErrorCode::UnknownMemberId);
            self.remove_for(core, id, Reason::Rebalance);
        }
        if !self.elect_present_leader() && !self.members.is_empty() {
            // Only absent static members: their sessions decide.
            self.end_join_phase_in(core, self.rebalance_timeout_ms());
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.become_(core, State::Empty);
            self.record_empty(core);
            return;
        }
        self.protocol = self.selected_protocol();
        self.become_(core, State::Completing);
        self.tell_generation(core);
        self.end_sync_phase_in(core, self.rebalance_timeout_ms());
    }

    fn record_empty(&mut self, core: &mut Core) {
        self.unrecorded = false;
        self.record(core, &BTreeMap::new());
        core.after.push(After::Emptied { group: self.id.clone(), generation: self.generation });
    }

    /// The record of being empty failed. Its members are gone all the same; a sweep tries again.
    pub fn emptied_unrecorded(&mut self, generation: i32) {
        self.unrecorded = self.state == State::Empty && self.generation == generation;
    }

    pub fn record_again(&mut self, core: &mut Core) {
        if self.unrecorded && self.state == State::Empty {
            self.record_empty(core);
        }
    }

    fn tell_generation(&mut self, core: &mut Core) {
        let ids: Vec<Text> = self.members.keys().cloned().collect();
        for id in &ids {
            let Some(member) = self.members.get_mut(id) else { continue };
            member.is_new = false;
            member.must_sync = true;
            if let Some(parked) = member.parked_join.take() {
                self.waiting -= 1;
                let answer = self.generation_answer(id, self.is_leader(id));
                core.answer(parked.call, parked.join(answer));
            }
            self.renew(core, id);
        }
    }

    /// The leader must have rejoined: another leads where it has not. False where nobody has.
    fn elect_present_leader(&mut self) -> bool {
        let is_present = |id: &Text| self.members.get(id).is_some_and(|member| member.parked_join.is_some());
        if self.leader.as_ref().is_some_and(is_present) {
            return true;
        }
        let present = self.members.iter().find(|(_, member)| member.parked_join.is_some());
        match present.map(|(id, _)| id.clone()) {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }
}
