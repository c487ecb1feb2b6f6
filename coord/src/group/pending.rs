//! What waits for appends to become durable: answers, what follows from an append, and how to undo it.

use std::collections::VecDeque;

use super::call::{Answer, CallId, translate};
use super::classic::{Plan, Takeover};
use super::records::Record;
use super::{Append, Effects, Group, Shard, Text};
use crate::error_code::ErrorCode;

/// What follows when an append is durable, or when it failed.
pub(super) enum After {
    /// A classic group has no members any more.
    Emptied { group: Text, generation: i32 },
    /// A leader's plan takes effect.
    Synced { group: Text, plan: Plan },
    /// A static member has a new id.
    Replaced { group: Text, takeover: Box<Takeover> },
}

/// How one change is taken back.
pub(super) enum Undo {
    /// The former value of that key.
    Record(Record),
    /// The group as it was; None where there was none.
    Group { id: Text, was: Option<Group> },
}

pub(super) enum Held {
    Answer {
        call: CallId,
        answer: Box<Answer>,
        /// When it is answered with an error instead.
        due_ms: u64,
    },
    After(After),
}

/// How many entries an empty queue keeps room for. A rebalance of thousands fills it for a moment.
const ROOM_KEPT: usize = 256;

/// Queues in the order of decisions, each entry with the append it waits for.
#[derive(Default)]
pub(super) struct Pending {
    last: u64,
    /// Appends whose end is not known.
    open: VecDeque<u64>,
    held: VecDeque<(u64, Held)>,
    undo: VecDeque<(u64, Undo)>,
}

impl Pending {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.held.len() + self.undo.len()
    }

    /// Nothing waits for an append any more.
    pub fn forget_appends(&mut self) {
        self.open.clear();
    }

    /// The first of what is held, for good.
    pub fn take_held(&mut self) -> Option<Held> {
        self.held.pop_front().map(|(_, held)| held)
    }

    /// Drops how changes would be taken back, so many at most.
    pub fn shed(&mut self, left: &mut usize) {
        while *left > 0 && self.undo.pop_front().is_some() {
            *left -= 1;
        }
    }

    /// When the first answer has waited for too long.
    pub fn first_due(&self) -> Option<u64> {
        self.held.iter().find_map(|(_, held)| match held {
            Held::Answer { due_ms, .. } => Some(*due_ms),
            Held::After(_) => None,
        })
    }

    /// Gives up room that was needed for a moment.
    fn trim(&mut self) {
        if self.held.is_empty() && self.held.capacity() > ROOM_KEPT {
            self.held = VecDeque::new();
        }
        if self.undo.is_empty() && self.undo.capacity() > ROOM_KEPT {
            self.undo = VecDeque::new();
        }
    }

    fn next_done(&mut self) -> Option<Held> {
        let oldest_open = self.open.front().copied().unwrap_or(u64::MAX);
        let (seq, _) = self.held.front()?;
        if *seq >= oldest_open {
            return None;
        }
        self.held.pop_front().map(|(_, held)| held)
    }
}

impl Shard {
    /// Turns what the step decided into effects; holds back what must wait.
    pub(super) fn flush(&mut self, out: &mut Effects) {
        let records = std::mem::take(&mut self.core.records);
        let mut cuts = std::mem::take(&mut self.core.cuts);
        cuts.retain(|cut| *cut > 0 && *cut < records.len());
        if !records.is_empty() {
            cuts.push(records.len());
        }
        let mut records = records.into_iter();
        let mut undo = self.core.undo.drain(..).peekable();
        let mut start = 0;
        for end in cuts {
            if end == start {
                continue;
            }
            self.pending.last += 1;
            let seq = self.pending.last;
            let encode = |record: Record| record.encode().expect("names come from strings of the wire");
            let batch = records.by_ref().take(end - start).map(encode).collect();
            out.appends.push(Append { seq, records: batch });
            self.pending.open.push_back(seq);
            while let Some((_, undo)) = undo.next_if(|(before, _)| *before < end) {
                self.pending.undo.push_back((seq, undo));
            }
            start = end;
        }
        out.resolves.append(&mut self.core.resolves);
        out.counted.add(&std::mem::take(&mut self.core.counted));
        out.removed.append(&mut self.core.removed);
        assert!(undo.next().is_none(), "only an append makes something to undo");
        drop(undo);
        if self.core.undo.capacity() > ROOM_KEPT {
            self.core.undo = Vec::new();
        }
        let waits_for = self.pending.open.back().copied();
        let seq = waits_for.unwrap_or(self.pending.last);
        assert!(waits_for.is_some() || self.core.after.is_empty(), "only an append has consequences");
        self.pending.held.extend(self.core.after.drain(..).map(|after| (seq, Held::After(after))));
        let due_ms = self.core.now.ms.saturating_add(self.core.settings.offsets_commit_timeout_ms);
        for (call, answer) in self.core.answers.drain(..) {
            match waits_for {
                Some(seq) => self.pending.held.push_back((seq, Held::Answer { call, answer, due_ms })),
                None => out.answers.push((call, answer)),
            }
        }
    }

    pub(super) fn durable(&mut self, seq: u64, out: &mut Effects) {
        while self.pending.open.front().is_some_and(|open| *open <= seq) {
            self.pending.open.pop_front();
        }
        while self.pending.undo.front().is_some_and(|(of, _)| *of <= seq) {
            self.pending.undo.pop_front();
        }
        while let Some(held) = self.pending.next_done() {
            match held {
                Held::Answer { call, answer, .. } => out.answers.push((call, answer)),
                Held::After(after) => self.after(after, Ok(())),
            }
        }
        self.pending.trim();
    }

    pub(super) fn failed(&mut self, seq: u64, why: ErrorCode) {
        while self.pending.undo.back().is_some_and(|(of, _)| *of >= seq) {
            let Some((_, undo)) = self.pending.undo.pop_back() else { break };
            self.revert(undo, why);
        }
        while self.pending.open.back().is_some_and(|open| *open >= seq) {
            self.pending.open.pop_back();
        }
        let from = self.pending.held.partition_point(|(of, _)| *of < seq);
        let mut afters = Vec::new();
        for (of, held) in self.pending.held.split_off(from) {
            match held {
                Held::Answer { call, mut answer, .. } => {
                    answer.fail(if of == seq { why } else { why_not_later(why) });
                    self.core.answers.push((call, answer));
                }
                Held::After(after) => afters.push(after),
            }
        }
        // Latest first, as everything is undone.
        for after in afters.into_iter().rev() {
            self.after(after, Err(why));
        }
    }

    /// Answers what has waited for too long. Nothing is undone: it may become durable yet, as in Kafka.
    pub(super) fn give_up_waiting(&mut self, out: &mut Effects) {
        let mut consequences = Vec::new();
        while let Some((seq, held)) = self.pending.held.pop_front() {
            match held {
                Held::Answer { call, mut answer, due_ms } if due_ms <= self.core.now.ms => {
                    // Consumers before 3.9 do not ask for offsets again after the other code.
                    let is_fetch = matches!(*answer, Answer::FetchOffsets(_));
                    let why = translate(ErrorCode::RequestTimedOut);
                    answer.fail(if is_fetch { ErrorCode::NotCoordinator } else { why });
                    out.answers.push((call, answer));
                }
                Held::After(_) => consequences.push((seq, held)),
                Held::Answer { .. } => {
                    self.pending.held.push_front((seq, held));
                    break;
                }
            }
        }
        for one in consequences.into_iter().rev() {
            self.pending.held.push_front(one);
        }
    }

    fn revert(&mut self, undo: Undo, why: ErrorCode) {
        match undo {
            Undo::Record(Record::Offset { group, topic, partition, value }) => {
                self.offsets.replace(&group, &topic, partition, value);
            }
            Undo::Record(record) => {
                if let Some(Group::Consumer(group)) = self.groups.get_mut(record.group()) {
                    group.apply(&record);
                    if let Record::Current { member, value: Some(_), .. } = &record {
                        group.start_timers(&mut self.core, member);
                    }
                }
            }
            Undo::Group { id, was } => {
                let never_was = match was {
                    Some(mut group) => {
                        match &mut group {
                            Group::Classic(group) => group.restored(&mut self.core),
                            Group::Consumer(group) => group.restored(&mut self.core),
                        }
                        self.groups.insert(id, group)
                    }
                    None => self.groups.remove(&id),
                };
                match never_was {
                    Some(Group::Classic(mut group)) => {
                        group.dismiss(&mut self.core, why);
                        group.stop(&mut self.core);
                    }
                    Some(Group::Consumer(mut group)) => group.stop(&mut self.core),
                    None => {}
                }
            }
        }
    }

    fn after(&mut self, after: After, outcome: Result<(), ErrorCode>) {
        match after {
            After::Emptied { group, generation } => {
                if let (Some(Group::Classic(group)), Err(_)) = (self.groups.get_mut(&group), outcome) {
                    group.emptied_unrecorded(generation);
                }
            }
            After::Synced { group, plan } => {
                if let Some(Group::Classic(group)) = self.groups.get_mut(&group) {
                    group.synced(&mut self.core, plan, outcome);
                }
            }
            After::Replaced { group, takeover } => {
                if let Some(Group::Classic(group)) = self.groups.get_mut(&group) {
                    group.replaced(&mut self.core, *takeover, outcome);
                }
            }
        }
    }
}

/// What those are told that were decided after an append that was not made: that a record cannot be written says nothing
/// about theirs, and they may ask again.
fn why_not_later(why: ErrorCode) -> ErrorCode {
    if why == ErrorCode::UnknownServerError { ErrorCode::NotCoordinator } else { why }
}
