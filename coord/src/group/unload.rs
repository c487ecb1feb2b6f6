//! The end of a shard: whoever waits is sent away, and what it held is dropped. To free a million offsets takes longer than
//! a core may be kept, so a step drops so much, and the next one is due at once.
//!
//! From its first step on nothing else is done: what became of appends matters no more, since none of it will be seen.

use std::collections::BTreeMap;

use super::pending::Held;
use super::settings::UNLOADED_PER_STEP_MAX;
use super::{Group, Phase, Shard};
use crate::error_code::ErrorCode;

impl Shard {
    pub(super) fn begin_unload(&mut self) {
        self.phase = Phase::Unloading;
        self.pending.forget_appends();
    }

    pub(super) fn unload(&mut self) {
        let mut left = UNLOADED_PER_STEP_MAX;
        let left = &mut left;
        while *left > 0
            && let Some(held) = self.pending.take_held()
        {
            if let Held::Answer { call, mut answer, .. } = held {
                answer.fail(ErrorCode::NotCoordinator);
                self.core.answers.push((call, answer));
            }
            *left -= 1;
        }
        while *left > 0
            && let Some(mut first) = self.groups.first_entry()
        {
            let is_empty = match first.get_mut() {
                Group::Classic(group) => group.shed(&mut self.core, left),
                Group::Consumer(group) => group.shed(left),
            };
            if is_empty {
                first.remove();
                *left -= 1;
            }
        }
        self.offsets.shed(left);
        self.core.timers.shed(left);
        self.pending.shed(left);
        self.sweeps.shed(left);
        shed(&mut self.core.configs, left);
        self.core.shared.shed(left);
        if *left > 0 {
            self.phase = Phase::Unloaded;
        }
    }
}

/// Drops entries, so many at most.
pub(super) fn shed<K: Ord, V>(map: &mut BTreeMap<K, V>, left: &mut usize) {
    while *left > 0 && map.pop_first().is_some() {
        *left -= 1;
    }
}
