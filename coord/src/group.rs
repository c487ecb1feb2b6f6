//! The group coordinator of one partition of `__consumer_offsets`: a state machine, without I/O and without a clock.
//!
//! A [`Shard`] holds the groups whose ids hash to its partition, and what they committed. The caller gives it requests,
//! the passing of time, and what became of its appends; it gives back answers and records to append. As in Kafka's
//! coordinator runtime a decision makes records, the records change the state at once, and what it was changed from is
//! kept until they are durable: a failed append undoes its own changes and those of all later ones.
//!
//! Invariants:
//! - Every call gets exactly one answer, and what waits for its append no later than `offsets.commit.timeout.ms`.
//! - An answer leaves only when everything appended before it was decided is durable. Reads too: what they show can no
//!   longer be undone. (Kafka's reads show the last durable state at once instead; a commit is not seen earlier there.)
//! - The state that the durable records make when they are loaded is the state without the undurable ones, but for what
//!   Kafka does not persist either: a rebalance in flight, pending ids, sessions.
//! - A step's work is bounded: long ones (loading, its end, sweeps for expired offsets and deleted topics, unloading) are cut into
//!   steps that are due at once.
//!
//! How to drive it: [`Shard::new`], a [`Input::Load`] for each record of the partition up to its end, [`Input::Loaded`],
//! then requests ([`Shard::call`]) as they come and a [`Input::Tick`] whenever [`Shard::deadline`] has come. An [`Append`] is one atomic
//! batch; appends become durable in order. It is told by `Durable` or `Failed`, never awaited. What it does not do:
//! authorization, the look-up of topics that do not exist, routing; [`call`] says what the caller fills in.

pub mod assignor;
mod budget;
pub mod call;
mod classic;
mod consumer;
mod counted;
pub mod fuzz;
mod interner;
mod migrate;
pub mod offsets;
mod partition;
mod pending;
pub mod per_topic;
pub mod records;
pub mod regex;
pub mod settings;
mod shared;
mod sweep;
mod timers;
mod unload;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

use crate::error_code::ErrorCode;
use crate::metadata::{Image, Topic};

pub use budget::Budget;
pub use call::{Answer, Call, CallId, Request, translate};
pub use counted::{Counted, Reason, Removed};
pub use partition::partition_for;
pub use records::RecordBytes;
pub use settings::{GroupConfig, MigrationPolicy, Settings};

use classic::ClassicGroup;
use consumer::ConsumerGroup;
use offsets::OffsetStore;
use pending::{After, Pending, Undo};
use records::Record;
use settings::{GROUPS_PER_STEP_MAX, MEMBERS_PER_STEP_MAX, TIMERS_PER_STEP_MAX};
use shared::Shared;
use sweep::Sweeps;
use timers::{Entry, Key, Timers};

/// A name, shared by whatever mentions it within the shard.
pub type Text = Rc<str>;

/// Bytes that only clients understand.
pub type Bytes = Rc<[u8]>;

/// The cluster's metadata, of which a core has one copy: it is large, so it is changed in place, by the caller and between
/// steps, who then says [`Input::Metadata`].
pub type SharedImage = Rc<RefCell<Image>>;

/// The time of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Of a clock that never jumps; for timers.
    pub ms: u64,
    /// Of the wall clock; for what is recorded.
    pub unix_ms: i64,
}

/// What a step is told, but for what it is asked: that is [`Shard::call`].
pub enum Input<'a> {
    /// Time has passed.
    Tick,
    /// The append of that number, and those before it, are durable.
    Durable {
        seq: u64,
    },
    /// The append of that number was not made, and no later one will be.
    Failed {
        seq: u64,
        why: ErrorCode,
    },
    /// A record of the partition, in order.
    Load {
        key: &'a [u8],
        value: Option<&'a [u8]>,
    },
    /// The partition's end was reached.
    Loaded,
    /// The cluster's metadata has changed.
    Metadata,
    TopicDeleted(&'a Topic),
    /// What the resource GROUP of that name sets now.
    Config {
        group: &'a str,
        config: GroupConfig,
    },
    /// What a [`Resolve`] asked for: the topics that each expression matches, of those that the members may see.
    Resolved {
        group: &'a str,
        patterns: &'a [(String, Vec<String>)],
    },
    /// Another broker leads the partition: every waiting call is sent there, and what is held is dropped, by this step and
    /// the ticks that are due at once.
    Unload,
}

/// A batch to append atomically.
#[derive(Clone, PartialEq, Debug)]
pub struct Append {
    pub seq: u64,
    pub records: Vec<RecordBytes>,
}

/// What a step wants done.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Effects {
    pub appends: Vec<Append>,
    pub answers: Vec<(CallId, Box<Answer>)>,
    pub resolves: Vec<Resolve>,
    pub counted: Counted,
    pub removed: Vec<Removed>,
}

/// Expressions to match against the names of all topics, with [`regex::Pattern`]; told by `Resolved`. It takes long where
/// topics are many, so it is not done here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolve {
    pub group: String,
    pub patterns: Vec<String>,
}

/// What is wrong with the partition: the shard must not come up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damaged(pub records::Error);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Loading,
    /// Loaded; sessions are being started, group by group.
    Settling {
        done: Option<Text>,
    },
    Active,
    Unloading,
    Unloaded,
}

enum Group {
    Classic(Box<ClassicGroup>),
    Consumer(Box<ConsumerGroup>),
}

impl Group {
    fn member_count(&self) -> usize {
        match self {
            Group::Classic(group) => group.member_count(),
            Group::Consumer(group) => group.member_count(),
        }
    }

    fn stop(&mut self, core: &mut Core) {
        match self {
            Group::Classic(group) => group.stop(core),
            Group::Consumer(group) => group.stop(core),
        }
    }
}

/// What every group's decisions share: the settings, the time, and what the step has come to so far.
struct Core {
    settings: Settings,
    configs: BTreeMap<Text, GroupConfig>,
    image: SharedImage,
    /// Counts the images, from 1.
    image_version: u64,
    now: Now,
    timers: Timers,
    shared: Shared,
    records: Vec<Record>,
    /// Where the records may be cut into several appends.
    cuts: Vec<usize>,
    /// Each with the number of records before it: it belongs to the append of the next one.
    undo: Vec<(usize, Undo)>,
    answers: Vec<(CallId, Box<Answer>)>,
    after: Vec<After>,
    resolves: Vec<Resolve>,
    counted: Counted,
    removed: Vec<Removed>,
}

impl Core {
    fn answer(&mut self, call: CallId, answer: Answer) {
        self.answers.push((call, Box::new(answer)));
    }

    fn session_timeout_ms(&self, group: &str) -> i32 {
        let own = self.configs.get(group).and_then(|config| config.consumer_session_timeout_ms);
        own.unwrap_or(self.settings.consumer_session_timeout_ms)
    }

    fn heartbeat_interval_ms(&self, group: &str) -> i32 {
        let own = self.configs.get(group).and_then(|config| config.consumer_heartbeat_interval_ms);
        own.unwrap_or(self.settings.consumer_heartbeat_interval_ms)
    }

    fn assignment_interval_ms(&self, group: &str) -> i32 {
        let own = self.configs.get(group).and_then(|config| config.consumer_assignment_interval_ms);
        own.unwrap_or(self.settings.consumer_assignment_interval_ms)
    }

    /// A change that has been made, and how to take it back.
    fn changed(&mut self, record: Record, undo: Undo) {
        self.undo.push((self.records.len(), undo));
        self.records.push(record);
    }

    /// What follows need not be appended atomically with what came before.
    fn cut(&mut self) {
        self.cuts.push(self.records.len());
    }
}

/// The coordinator of one partition.
pub struct Shard {
    core: Core,
    phase: Phase,
    groups: BTreeMap<Text, Group>,
    offsets: OffsetStore,
    pending: Pending,
    sweeps: Sweeps,
}

impl Shard {
    /// A shard that waits for its records.
    pub fn new(settings: Settings, image: SharedImage) -> Shard {
        Shard {
            core: Core {
                settings,
                configs: BTreeMap::new(),
                image,
                image_version: 1,
                now: Now::default(),
                timers: Timers::default(),
                shared: Shared::default(),
                records: Vec::new(),
                cuts: Vec::new(),
                undo: Vec::new(),
                answers: Vec::new(),
                after: Vec::new(),
                resolves: Vec::new(),
                counted: Counted::default(),
                removed: Vec::new(),
            },
            phase: Phase::Loading,
            groups: BTreeMap::new(),
            offsets: OffsetStore::default(),
            pending: Pending::default(),
            sweeps: Sweeps::default(),
        }
    }

    /// When the next `Tick` is due; in the past where there is more to do at once.
    pub fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Settling { .. } | Phase::Unloading => Some(0),
            Phase::Active if self.sweeps.are_busy() => Some(0),
            Phase::Active => self.core.timers.first().into_iter().chain(self.pending.first_due()).min(),
            Phase::Loading | Phase::Unloaded => None,
        }
    }

    /// One step: a request. Its answer may come with any later step.
    pub fn call(&mut self, now: Now, call: &Call<'_>, request: Request<'_>, out: &mut Effects) {
        self.core.now = now;
        self.asked(call, request);
        self.flush(out);
    }

    /// One step. After an error the shard is dropped.
    pub fn step(&mut self, now: Now, input: Input<'_>, out: &mut Effects) -> Result<(), Damaged> {
        self.core.now = now;
        match input {
            Input::Tick if self.phase == Phase::Unloading => self.unload(),
            _ if self.is_ending() => {}
            Input::Tick => self.tick(out),
            Input::Durable { seq } => self.durable(seq, out),
            Input::Failed { seq, why } => self.failed(seq, translate(why)),
            Input::Load { key, value } => self.load(key, value).map_err(Damaged)?,
            Input::Loaded => {
                assert!(self.phase == Phase::Loading, "a shard is loaded once");
                self.phase = Phase::Settling { done: None };
            }
            Input::Metadata => self.core.image_version += 1,
            Input::TopicDeleted(topic) => self.sweeps.delete_topic(topic),
            Input::Config { group, config } => {
                if config == GroupConfig::default() {
                    self.core.configs.remove(group);
                } else {
                    self.core.configs.insert(group.into(), config);
                }
            }
            Input::Resolved { group, patterns } => self.resolved(group, patterns),
            Input::Unload => self.begin_unload(),
        }
        self.flush(out);
        Ok(())
    }

    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Unloading | Phase::Unloaded)
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// How many offsets are committed.
    pub fn offset_count(&self) -> usize {
        self.offsets.len()
    }

    fn asked(&mut self, call: &Call<'_>, request: Request<'_>) {
        let refusal = match self.phase {
            Phase::Active => None,
            Phase::Loading | Phase::Settling { .. } => Some(match request {
                // A member that is told NONE stays; its session starts when loading ends.
                Request::Heartbeat(_) => ErrorCode::None,
                // Java's poll() throws LOAD_IN_PROGRESS here; this code it has known from the first version on.
                Request::Sync(_) => ErrorCode::RebalanceInProgress,
                Request::Join(_)
                | Request::Leave(_)
                | Request::Commit(_)
                | Request::FetchOffsets(_)
                | Request::DeleteOffsets(_)
                | Request::Describe { .. }
                | Request::List { .. }
                | Request::Delete { .. }
                | Request::ConsumerHeartbeat(_)
                | Request::ConsumerDescribe { .. } => ErrorCode::CoordinatorLoadInProgress,
            }),
            Phase::Unloading | Phase::Unloaded => Some(ErrorCode::NotCoordinator),
        };
        match refusal {
            Some(why) => self.core.answer(call.id, request.refused(why)),
            None => self.dispatch(call, request),
        }
    }

    fn dispatch(&mut self, call: &Call<'_>, request: Request<'_>) {
        match request {
            Request::Join(request) => self.join(call, request),
            Request::Sync(request) => self.sync(call, request),
            Request::Heartbeat(request) => self.heartbeat(call, &request),
            Request::Leave(request) => self.leave(call, &request),
            Request::Commit(request) => self.commit_offsets(call, request),
            Request::FetchOffsets(request) => self.fetch_offsets(call, &request),
            Request::DeleteOffsets(request) => self.delete_offsets(call, &request),
            Request::Describe { group } => self.describe(call, &group),
            Request::List { states, types } => self.list(call, &states, &types),
            Request::Delete { group } => self.delete_group(call, &group),
            Request::ConsumerHeartbeat(request) => self.consumer_heartbeat(call, &request),
            Request::ConsumerDescribe { group } => self.consumer_describe(call, &group),
        }
    }

    fn tick(&mut self, out: &mut Effects) {
        match &self.phase {
            Phase::Settling { done } => {
                let done = done.clone();
                self.settle(done);
            }
            Phase::Active => {
                self.give_up_waiting(out);
                for _ in 0..TIMERS_PER_STEP_MAX {
                    let Some((at, key)) = self.core.timers.pop(self.core.now.ms) else { break };
                    self.fire(at, &key);
                }
                self.sweep();
            }
            Phase::Loading | Phase::Unloading | Phase::Unloaded => {}
        }
    }

    /// Starts the sessions of some groups.
    fn settle(&mut self, done: Option<Text>) {
        let from = done.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let mut members = 0;
        for (id, group) in
            self.groups.range_mut::<Text, _>((from, Bound::Unbounded)).take(GROUPS_PER_STEP_MAX)
        {
            match group {
                Group::Classic(group) => group.loaded(&mut self.core),
                Group::Consumer(group) => group.loaded(&mut self.core),
            }
            last = Some(id.clone());
            members += group.member_count();
            if members >= MEMBERS_PER_STEP_MAX {
                break;
            }
        }
        if last.is_some() {
            self.phase = Phase::Settling { done: last };
        } else {
            self.phase = Phase::Active;
            let interval = self.core.settings.offsets_retention_check_interval_ms;
            self.core.timers.push(self.core.now.ms.saturating_add(interval), Key::Expiry);
        }
    }

    fn fire(&mut self, at: Entry, key: &Key) {
        match key {
            Key::Member(group, _) | Key::Pending(group, _) | Key::Join(group) | Key::Sync(group) => {
                if let Some(Group::Classic(group)) = self.groups.get_mut(group) {
                    group.fire(&mut self.core, at, key);
                }
            }
            Key::Session(group, member) | Key::Revocation(group, member) | Key::Rejoin(group, member) => {
                if let Some(Group::Consumer(found)) = self.groups.get_mut(group)
                    && found.is_due(&mut self.core, at, key)
                {
                    let is_session = matches!(key, Key::Session(..));
                    let why = if is_session { Reason::Session } else { Reason::Rebalance };
                    self.remove_consumer_members(group, &BTreeSet::from([member.clone()]), why);
                }
            }
            Key::Expiry => {
                self.sweeps.expire();
                self.core.shared.forget_unused();
                let interval = self.core.settings.offsets_retention_check_interval_ms;
                self.core.timers.push(self.core.now.ms.saturating_add(interval), Key::Expiry);
            }
        }
    }

    fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), records::Error> {
        assert!(self.phase == Phase::Loading, "records are loaded before the end is");
        let Some(record) = Record::decode(key, value)? else { return Ok(()) };
        match record {
            Record::Offset { group, topic, partition, value } => {
                if value.is_some() && !self.groups.contains_key(&group) {
                    // A group that lives by its offsets alone, unless its own records follow.
                    let simple = ClassicGroup::new(group.clone(), self.core.now.unix_ms);
                    self.groups.insert(group.clone(), Group::Classic(Box::new(simple)));
                }
                self.offsets.replace(&group, &topic, partition, value);
            }
            Record::Classic { group, value: Some(value) } => {
                let value = records::read_classic_value(&value)?;
                let loaded = ClassicGroup::read(group.clone(), &value, &mut self.core.shared);
                self.groups.insert(group, Group::Classic(Box::new(loaded)));
            }
            Record::Classic { group, value: None } => {
                // An upgrade writes this before the records of the new type, and compaction may keep it behind them.
                if let Some(Group::Classic(_)) = self.groups.get(&group) {
                    self.groups.remove(&group);
                }
            }
            Record::Epoch { group, value: None } => {
                if let Some(Group::Consumer(_)) = self.groups.get(&group) {
                    self.groups.remove(&group);
                }
            }
            Record::Epoch { .. }
            | Record::TargetEpoch { .. }
            | Record::Target { .. }
            | Record::Current { .. }
            | Record::Regex { .. } => self.load_consumer(&record),
            Record::Member { group, member, value } => {
                let value =
                    value.map(|value| Rc::new(Rc::unwrap_or_clone(value).shared(&mut self.core.shared)));
                self.load_consumer(&Record::Member { group, member, value });
            }
            Record::DroppedSubscriptions { .. } => {}
        }
        Ok(())
    }

    /// Compaction may have dropped any earlier record of the group: the first that is left makes it, in place of a
    /// classic one.
    fn load_consumer(&mut self, record: &Record) {
        if !matches!(self.groups.get(record.group()), Some(Group::Consumer(_))) {
            if record.is_tombstone() {
                return;
            }
            let id = record.group().clone();
            self.groups.insert(id.clone(), Group::Consumer(Box::new(ConsumerGroup::new(id))));
        }
        if let Some(Group::Consumer(group)) = self.groups.get_mut(record.group()) {
            group.apply(record);
        }
    }
}

#[cfg(test)]
mod tests;
