//! One step of a member towards its target. Pure.
//!
//! A member first gives up, then takes: while the client still has something that is not to be its own the member stays
//! in its old epoch. When it has confirmed, the member takes the target's epoch, with what is free of its target; what
//! others still have follows as they give it up.
//!
//! ```text
//! Stable --(another target)--> Unrevoked --(confirmed)--> Unreleased --(others gave up)--> Stable
//!    |                                                      ^    |
//!    +---(nothing to give up)-------------------------------+    +--> Stable where all is free
//! ```

use std::collections::BTreeSet;

use engine::ids::TopicId;

use super::super::per_topic::{Owned, Partitions};
use super::super::records::{CurrentValue, MemberState};

/// Where the member shall get to.
pub struct Goal<'g> {
    pub epoch: i32,
    pub target: &'g Partitions,
    /// The topics that the member subscribes to now: the others are withdrawn at once, whatever the target says.
    pub subscribed: &'g BTreeSet<TopicId>,
}

/// `owned` is what the client says it has, None where it does not say. `is_free`: nobody has that partition.
pub fn step(
    current: &CurrentValue,
    goal: &Goal<'_>,
    owned: Option<&Partitions>,
    is_free: impl Fn(TopicId, i32) -> bool,
) -> CurrentValue {
    match current.state {
        MemberState::Unrevoked if still_owns(owned, &current.revoking) => {
            // It is told again; what it has unsubscribed from meanwhile is withdrawn too.
            let (kept, dropped) = split(&current.assigned, |topic, _| goal.subscribed.contains(&topic));
            let revoking = current.revoking.each().chain(dropped.each()).collect();
            CurrentValue { assigned: kept, revoking, ..current.clone() }
        }
        // What was given up brings the member an epoch on, so that its next assignment is told from the last one.
        MemberState::Unrevoked => {
            advance(current, current.epoch.saturating_add(1).min(goal.epoch), goal, owned, is_free)
        }
        MemberState::Stable if current.epoch == goal.epoch => {
            let is_subscribed = |topic: TopicId| goal.subscribed.contains(&topic);
            if current.assigned.iter().all(|(topic, _)| is_subscribed(topic)) {
                return current.clone();
            }
            advance(current, current.epoch, goal, owned, is_free)
        }
        MemberState::Stable | MemberState::Unreleased | MemberState::Unknown => {
            advance(current, current.epoch, goal, owned, is_free)
        }
    }
}

fn advance(
    current: &CurrentValue,
    epoch: i32,
    goal: &Goal<'_>,
    owned: Option<&Partitions>,
    is_free: impl Fn(TopicId, i32) -> bool,
) -> CurrentValue {
    let wanted = |topic: TopicId, partition| {
        goal.subscribed.contains(&topic) && goal.target.contains(topic, partition)
    };
    let (kept, revoking) = split(&current.assigned, wanted);
    if still_owns(owned, &revoking) {
        let previous_epoch = if epoch == current.epoch { current.previous_epoch } else { current.epoch };
        let state = MemberState::Unrevoked;
        return CurrentValue { epoch, previous_epoch, state, assigned: kept, revoking };
    }
    let mut is_complete = true;
    let mut assigned: Vec<(TopicId, i32, i32)> = kept.each().collect();
    for (topic, list) in goal.target.iter().filter(|(topic, _)| goal.subscribed.contains(topic)) {
        for partition in list.iter().copied().filter(|index| kept.epoch(topic, *index).is_none()) {
            // What it has just given up itself it may have again.
            let is_its_own = current.revoking.epoch(topic, partition).is_some();
            if is_its_own || is_free(topic, partition) {
                assigned.push((topic, partition, goal.epoch));
            } else {
                is_complete = false;
            }
        }
    }
    let epoch = goal.epoch;
    CurrentValue {
        epoch,
        previous_epoch: if epoch == current.epoch { current.previous_epoch } else { current.epoch },
        state: if is_complete { MemberState::Stable } else { MemberState::Unreleased },
        assigned: assigned.into_iter().collect(),
        revoking: Owned::default(),
    }
}

/// Whether the client has any of these, as far as it says.
fn still_owns(owned: Option<&Partitions>, revoking: &Owned) -> bool {
    match owned {
        None => !revoking.is_empty(),
        Some(owned) => revoking.each().any(|(topic, partition, _)| owned.contains(topic, partition)),
    }
}

fn split(owned: &Owned, keep: impl Fn(TopicId, i32) -> bool) -> (Owned, Owned) {
    let (kept, dropped): (Vec<_>, Vec<_>) =
        owned.each().partition(|(topic, partition, _)| keep(*topic, *partition));
    (kept.into_iter().collect(), dropped.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TopicId = TopicId([1; 16]);

    fn owned(partitions: &[(i32, i32)]) -> Owned {
        partitions.iter().map(|(partition, epoch)| (T, *partition, *epoch)).collect()
    }

    fn partitions(list: &[i32]) -> Partitions {
        list.iter().map(|partition| (T, *partition)).collect()
    }

    fn at(epoch: i32, state: MemberState, assigned: &[(i32, i32)], revoking: &[(i32, i32)]) -> CurrentValue {
        CurrentValue { epoch, previous_epoch: 0, state, assigned: owned(assigned), revoking: owned(revoking) }
    }

    /// The epoch, the state, what is assigned and what is being revoked after one step towards target 0..3 at epoch 5.
    fn check(current: &CurrentValue, client: Option<&[i32]>, taken: &[i32], expect: &CurrentValue) {
        let (target, subscribed) = (partitions(&[0, 1, 2]), BTreeSet::from([T]));
        let goal = Goal { epoch: 5, target: &target, subscribed: &subscribed };
        let client = client.map(partitions);
        let got = step(current, &goal, client.as_ref(), |_, partition| !taken.contains(&partition));
        let got = CurrentValue { previous_epoch: 0, ..got };
        assert_eq!(&got, expect, "{current:?} {client:?} {taken:?}");
    }

    #[test]
    fn steps() {
        use MemberState::{Stable, Unreleased, Unrevoked};
        let settled = at(5, Stable, &[(0, 5), (1, 5), (2, 5)], &[]);
        check(&at(0, Stable, &[], &[]), Some(&[]), &[], &settled);
        check(&at(0, Stable, &[], &[]), Some(&[]), &[1], &at(5, Unreleased, &[(0, 5), (2, 5)], &[]));
        check(&at(5, Unreleased, &[(0, 5), (2, 5)], &[]), None, &[], &settled);
        check(&at(5, Unreleased, &[(0, 5)], &[]), None, &[1, 2], &at(5, Unreleased, &[(0, 5)], &[]));
        // What it keeps keeps its epoch; what it must give up holds it back, said or not said.
        let old = at(4, Stable, &[(0, 2), (7, 4)], &[]);
        let told = at(4, Unrevoked, &[(0, 2)], &[(7, 4)]);
        check(&old, None, &[], &told);
        check(&old, Some(&[0, 7]), &[], &told);
        check(&told, None, &[], &told);
        check(&told, Some(&[7]), &[], &told);
        check(&told, Some(&[0]), &[], &at(5, Stable, &[(0, 2), (1, 5), (2, 5)], &[]));
        check(&old, Some(&[0]), &[], &at(5, Stable, &[(0, 2), (1, 5), (2, 5)], &[]));
        // A partition that it gave up and that is to be its own again is its own.
        check(&at(4, Unrevoked, &[], &[(1, 3)]), Some(&[]), &[1], &settled);
        check(&settled, Some(&[]), &[], &settled);
    }

    #[test]
    fn unsubscribed_topics_are_withdrawn_at_once() {
        let target = partitions(&[0, 1]);
        let nothing = BTreeSet::new();
        let goal = Goal { epoch: 5, target: &target, subscribed: &nothing };
        let settled = at(5, MemberState::Stable, &[(0, 5), (1, 5)], &[]);
        let told = step(&settled, &goal, None, |_, _| true);
        assert_eq!(told, at(5, MemberState::Unrevoked, &[], &[(0, 5), (1, 5)]));
        let done = step(&told, &goal, Some(&partitions(&[])), |_, _| true);
        assert_eq!((done.epoch, done.state, done.assigned), (5, MemberState::Stable, Owned::default()));
    }
}
