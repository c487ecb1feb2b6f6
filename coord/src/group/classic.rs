//! A group of the classic protocol: members join, one of them assigns, all are told.
//!
//! ```text
//! Empty -> PreparingRebalance -> CompletingRebalance -> Stable      the generation rises at each join phase's end
//!            ^        |                  |                |         (also where it ends without members: Empty)
//!            |        +-> Empty          |                |
//!            +---------------------------+----------------+         joins, leaves, expired sessions, takeovers
//! ```
//!
//! Only what a leader's plan made is persisted (and the change to Empty, and a static member's new id); a rebalance in
//! flight, ids that were given out but not yet used, and sessions are lost with the shard. A group that was never joined
//! ("simple") has no protocol type and lives by its offsets.
//!
//! Invariants: as many members are counted as waiting as hold a parked JoinGroup; a member parked in Join or Sync does
//! not expire; every parked call is answered exactly once, whatever happens to its member; `protocols` counts how many
//! members offer each name.

mod admin;
mod join;
mod leave;
mod member;
mod persist;
mod phase;
mod sync;

use std::collections::{BTreeMap, BTreeSet};

use net::messages::subscription::ConsumerProtocolSubscription;
use net::wire::{Decode, Reader};

use super::call::Answer;
use super::settings::NEW_MEMBER_JOIN_TIMEOUT_MS;
use super::sweep::Expiry;
use super::timers::{Deadline, Entry, Key};
use super::unload::shed;
use super::{Bytes, Core, Reason, Text};
use crate::error_code::ErrorCode;

pub(super) use join::{MEMBER_ID_REQUIRED_VERSION, Takeover, member_id, rebalance_timeout_ms};
pub(super) use member::{Member, Parked};
pub(super) use sync::Plan;

/// The protocol type of consumers; others (Connect) keep their own.
pub(super) const CONSUMER: &str = "consumer";

/// The versions of the subscription that consumers put into their metadata.
const SUBSCRIPTION_VERSION_MAX: i16 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Empty,
    Preparing,
    Completing,
    Stable,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Preparing => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// The first join phase of a group waits a little for more members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InitialDelay {
    delay_ms: u64,
    left_ms: u64,
    /// Somebody has joined since it began.
    joined: bool,
}

pub(super) struct ClassicGroup {
    pub id: Text,
    state: State,
    /// -1 where it is not known.
    state_since_unix_ms: i64,
    /// None before anybody joined.
    protocol_type: Option<Text>,
    generation: i32,
    protocol: Option<Text>,
    leader: Option<Text>,
    members: BTreeMap<Text, Member>,
    instances: BTreeMap<Text, Text>,
    /// Ids given out by MEMBER_ID_REQUIRED, until their session would end.
    pending: BTreeMap<Text, Deadline>,
    protocols: BTreeMap<Text, usize>,
    waiting: usize,
    join: Deadline,
    sync: Deadline,
    initial: Option<InitialDelay>,
    /// The generation whose plan is on its way into the log. There is one: a second one behind it would come back from
    /// the log in place of that which was told.
    planned: Option<i32>,
    /// The log still has members of it: that it became empty could not be recorded.
    unrecorded: bool,
}

impl ClassicGroup {
    /// A group without members, as a commit or the first join makes it.
    pub fn new(id: Text, unix_ms: i64) -> ClassicGroup {
        ClassicGroup {
            id,
            state: State::Empty,
            state_since_unix_ms: unix_ms,
            protocol_type: None,
            generation: 0,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            protocols: BTreeMap::new(),
            waiting: 0,
            join: Deadline::default(),
            sync: Deadline::default(),
            initial: None,
            planned: None,
            unrecorded: false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    pub fn is_consumer_type(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol(&self) -> Option<&Text> {
        self.protocol.as_ref()
    }

    pub fn members(&self) -> impl Iterator<Item = (&Text, &Member)> {
        self.members.iter()
    }

    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// All rejoin, since another has left with what they shall share.
    pub fn rebalance(&mut self, core: &mut Core) {
        self.prepare_rebalance(core);
    }

    /// Whether nothing but offsets keeps it.
    pub fn may_go(&self) -> bool {
        self.is_empty() && self.pending.is_empty()
    }

    /// The topics that its members read; None where that cannot be known.
    pub fn subscribed_topics(&self) -> Option<BTreeSet<Text>> {
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_ref().filter(|_| self.is_consumer_type())?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let subscription = subscription(member.metadata(protocol)?)?;
            topics.extend(subscription.topics.iter().map(|topic| Text::from(topic.as_ref())));
        }
        Some(topics)
    }

    /// When its offsets expire.
    pub fn expiry(&self) -> Expiry {
        match (&self.protocol_type, self.state) {
            (None, _) => Expiry::SinceCommit(None),
            (Some(_), State::Empty) if self.state_since_unix_ms >= 0 => {
                Expiry::Since(self.state_since_unix_ms)
            }
            (Some(_), State::Empty) => Expiry::SinceCommit(None),
            (Some(_), State::Stable) => match self.subscribed_topics() {
                Some(topics) => Expiry::SinceCommit(Some(topics)),
                None => Expiry::Never,
            },
            (Some(_), State::Preparing | State::Completing) => Expiry::Never,
        }
    }

    pub fn knows(&self, member: &str, instance: Option<&str>) -> bool {
        self.members.contains_key(member)
            || instance.is_some_and(|instance| self.instances.contains_key(instance))
    }

    /// Starts the sessions after loading; a group that is too big begins a rebalance, which drops the last to rejoin.
    pub fn loaded(&mut self, core: &mut Core) {
        let ids: Vec<Text> = self.members.keys().cloned().collect();
        for id in &ids {
            self.renew(core, id);
        }
        if self.state == State::Stable && self.members.len() > core.settings.group_max_size {
            self.prepare_rebalance(core);
        }
    }

    /// Back in its place after another group had it. Its timers were dropped then.
    pub fn restored(&mut self, core: &mut Core) {
        self.members.values_mut().for_each(|member| member.deadline = Deadline::default());
        (self.join, self.sync) = (Deadline::default(), Deadline::default());
        let ids: Vec<Text> = std::mem::take(&mut self.pending).into_keys().collect();
        for id in ids {
            let mut deadline = Deadline::default();
            let key = || Key::Pending(self.id.clone(), id.clone());
            let session_ms = u64::try_from(core.settings.group_max_session_timeout_ms).unwrap_or(0);
            deadline.set(core.now.ms.saturating_add(session_ms), &mut core.timers, key);
            self.pending.insert(id, deadline);
        }
        match self.planned.take() {
            // What became of the plan was told while the group was not here.
            Some(_) if self.state == State::Completing => self.prepare_rebalance(core),
            Some(_) | None => self.restart_phase(core),
        }
        self.loaded(core);
    }

    /// Answers every parked call: the group is no longer here.
    pub fn dismiss(&mut self, core: &mut Core, why: ErrorCode) {
        let ids: Vec<Text> = self.members.keys().cloned().collect();
        for id in &ids {
            self.refuse_parked(core, id, why);
        }
    }

    /// Sends members away and drops them, so many at most; whether nothing is left.
    pub fn shed(&mut self, core: &mut Core, left: &mut usize) -> bool {
        while *left > 0
            && let Some(id) = self.members.keys().next().cloned()
        {
            self.refuse_parked(core, &id, ErrorCode::NotCoordinator);
            self.members.remove(&id);
            *left -= 1;
        }
        shed(&mut self.instances, left);
        shed(&mut self.pending, left);
        shed(&mut self.protocols, left);
        *left > 0
    }

    /// Finds out whether the member may speak for itself: its instance first, as clients expect.
    fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            return match self.instances.get(instance) {
                None => Err(ErrorCode::UnknownMemberId),
                Some(holder) if **holder != *member => Err(ErrorCode::FencedInstanceId),
                Some(_) => Ok(()),
            };
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// The member's session starts anew.
    fn renew(&mut self, core: &mut Core, id: &Text) {
        let Some(member) = self.members.get_mut(id) else { return };
        let session_ms = u64::try_from(member.session_timeout_ms).unwrap_or(0);
        let at = core.now.ms.saturating_add(session_ms);
        let key = || Key::Member(self.id.clone(), id.clone());
        member.deadline.set(at, &mut core.timers, key);
    }

    /// A timer of this group's came up.
    pub fn fire(&mut self, core: &mut Core, at: Entry, key: &Key) {
        let now = core.now.ms;
        match key {
            Key::Member(_, id) => {
                let Some(member) = self.members.get_mut(id) else { return };
                let due = member.deadline.fires(at, now, &mut core.timers, || key.clone());
                // A parked member does not heartbeat, but a new one waits only so long.
                if due && (member.is_new || !member.is_parked()) {
                    self.expel(core, id);
                }
            }
            Key::Pending(_, id) => {
                let Some(deadline) = self.pending.get_mut(id) else { return };
                if deadline.fires(at, now, &mut core.timers, || key.clone()) {
                    self.pending.remove(id);
                    self.complete_join_if_all_are_in(core);
                }
            }
            Key::Join(_) => {
                if self.join.fires(at, now, &mut core.timers, || key.clone()) {
                    self.join_phase_over(core);
                }
            }
            Key::Sync(_) => {
                if self.sync.fires(at, now, &mut core.timers, || key.clone()) {
                    self.sync_phase_over(core);
                }
            }
            Key::Session(..) | Key::Revocation(..) | Key::Rejoin(..) | Key::Expiry => {}
        }
    }

    /// Removes a member that is gone; the others share what it had.
    fn expel(&mut self, core: &mut Core, id: &Text) {
        self.refuse_parked(core, id, ErrorCode::UnknownMemberId);
        self.remove_for(core, id, Reason::Session);
        self.rebalance_after_removal(core);
    }

    fn rebalance_after_removal(&mut self, core: &mut Core) {
        match self.state {
            State::Stable | State::Completing => self.prepare_rebalance(core),
            State::Preparing => self.complete_join_if_all_are_in(core),
            State::Empty => {}
        }
    }

    /// Takes a member in. The first one leads, and says what the group is about.
    fn add(&mut self, core: &mut Core, id: Text, protocol_type: Text, member: Member) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.forget_pending(core, &id);
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.waiting += usize::from(member.parked_join.is_some());
        count_protocols(&mut self.protocols, &member, true);
        self.members.insert(id.clone(), member);
        let at = core.now.ms.saturating_add(NEW_MEMBER_JOIN_TIMEOUT_MS);
        if let Some(member) = self.members.get_mut(&id) {
            let key = || Key::Member(self.id.clone(), id.clone());
            member.deadline.set(at, &mut core.timers, key);
        }
    }

    /// Drops an id that was given out; whether it was.
    fn forget_pending(&mut self, core: &mut Core, id: &str) -> bool {
        let found = self.pending.remove(id);
        found.map(|mut deadline| deadline.clear(&mut core.timers)).is_some()
    }

    /// Drops all timers: another group, or none, takes its place.
    pub fn stop(&mut self, core: &mut Core) {
        let members = self.members.values_mut().map(|member| &mut member.deadline);
        let all = members.chain(self.pending.values_mut()).chain([&mut self.join, &mut self.sync]);
        all.for_each(|deadline| deadline.clear(&mut core.timers));
    }

    /// As [`Self::remove`], of a member that nothing takes the place of.
    fn remove_for(&mut self, core: &mut Core, id: &Text, why: Reason) {
        if self.remove(core, id).is_some() {
            core.removed(&self.id, id, why, self.members.len());
        }
    }

    /// Takes a member out; its parked calls have been answered.
    fn remove(&mut self, core: &mut Core, id: &Text) -> Option<Member> {
        let mut member = self.members.remove(id)?;
        member.deadline.clear(&mut core.timers);
        assert!(!member.is_parked(), "a parked call is answered before its member goes");
        count_protocols(&mut self.protocols, &member, false);
        if let Some(instance) = &member.instance
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove(instance);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Answers what the member has parked with an error.
    fn refuse_parked(&mut self, core: &mut Core, id: &Text, why: ErrorCode) {
        let Some(member) = self.members.get_mut(id) else { return };
        if let Some(parked) = member.parked_join.take() {
            self.waiting -= 1;
            // Who lost its id is told no id, so that it asks for another.
            let told = if why == ErrorCode::UnknownMemberId { "" } else { &**id };
            core.answer(parked.call, parked.join_refused(told, why));
        }
        if let Some(parked) = member.parked_sync.take() {
            core.answer(parked.call, Answer::Sync(sync::refused(why)));
        }
    }

    /// The longest rebalance timeout of all members; 0 without members.
    fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        longest.map_or(0, |ms| u64::try_from(ms).unwrap_or(0))
    }

    /// Whether a member with these protocols fits to the others.
    fn accepts<'p>(&self, protocol_type: &str, mut names: impl Iterator<Item = &'p str>) -> bool {
        if self.state == State::Empty || self.members.is_empty() {
            return !protocol_type.is_empty() && names.next().is_some();
        }
        let all = self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && names.any(|name| self.protocols.get(name).copied() == Some(all))
    }

    /// Each member votes for the first of its protocols that all support; of equal counts the first name wins.
    fn selected_protocol(&self) -> Option<Text> {
        let all = self.members.len();
        let is_candidate = |name: &&Text| self.protocols.get(*name).copied() == Some(all);
        let mut votes: BTreeMap<&Text, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().map(|(name, _)| name).find(is_candidate)?;
            *votes.entry(vote).or_default() += 1;
        }
        let best = votes.into_iter().max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(a.0)));
        best.map(|(name, _)| name.clone())
    }

    fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    fn become_(&mut self, core: &Core, state: State) {
        self.state = state;
        self.state_since_unix_ms = core.now.unix_ms;
    }

    fn assignment(&self, id: &str) -> Bytes {
        self.members.get(id).map_or_else(|| Bytes::from([]), |member| member.assignment.clone())
    }
}

fn count_protocols(counts: &mut BTreeMap<Text, usize>, member: &Member, added: bool) {
    for (name, _) in &member.protocols {
        if added {
            *counts.entry(name.clone()).or_default() += 1;
        } else if let Some(count) = counts.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(name);
            }
        }
    }
}

/// What a consumer subscribes to, out of its protocol metadata; None where that is something else.
pub(super) fn subscription(metadata: &[u8]) -> Option<ConsumerProtocolSubscription<'_>> {
    let mut r = Reader::new(metadata);
    let version = r.i16().ok().filter(|version| *version >= 0)?;
    ConsumerProtocolSubscription::decode(&mut r, version.min(SUBSCRIPTION_VERSION_MAX)).ok()
}

#[cfg(test)]
impl ClassicGroup {
    /// Nothing is in flight.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Empty | State::Stable) && self.waiting == 0
    }

    pub fn leader_for_tests(&self) -> String {
        self.leader.as_deref().unwrap_or_default().to_owned()
    }

    /// What the module doc promises.
    pub fn check_invariants(&self) {
        let waiting = self.members.values().filter(|member| member.parked_join.is_some()).count();
        assert_eq!(waiting, self.waiting);
        let mut counts = BTreeMap::new();
        self.members.values().for_each(|member| count_protocols(&mut counts, member, true));
        assert_eq!(counts, self.protocols);
        for (instance, id) in &self.instances {
            assert_eq!(self.members[id].instance.as_ref(), Some(instance));
        }
        assert_eq!(self.leader.is_none(), self.members.is_empty());
        assert!(self.leader.as_ref().is_none_or(|leader| self.members.contains_key(leader)));
        assert_eq!(self.state == State::Empty, self.members.is_empty() && self.state != State::Preparing);
        if self.waiting > 0 {
            assert!(
                matches!(self.state, State::Preparing | State::Stable),
                "only a takeover waits in Stable"
            );
        }
    }
}

#[cfg(test)]
pub(super) fn member_id_for_tests(prefix: &str) -> Text {
    join::member_id(prefix, [7; 16])
}
