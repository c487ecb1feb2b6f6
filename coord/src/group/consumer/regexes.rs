//! What the group's regular expressions stand for. Asked for by an effect, told by an input, recorded where it changed.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::super::Group;
use super::super::records::{Record, RegexValue};
use super::super::{Core, Resolve, Shard, Text};
use super::ConsumerGroup;

/// The state of asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Resolution {
    is_asked: bool,
    /// When it was asked last, and for which metadata.
    asked_ms: Option<u64>,
    asked_image: u64,
}

impl Shard {
    /// The names that each expression matches, of all topics that the members may see.
    pub(in super::super) fn resolved(&mut self, group: &str, patterns: &[(String, Vec<String>)]) {
        if let Some(Group::Consumer(group)) = self.groups.get_mut(group) {
            group.resolved(&mut self.core, patterns);
        }
    }
}

impl ConsumerGroup {
    /// Asks anew when an expression is new, when topics came or went, and now and then, since what a member may see can
    /// change; never more often than the shortest interval allows.
    pub(super) fn ask_to_resolve(&mut self, core: &mut Core) {
        if self.expressions.is_empty() || self.resolution.is_asked {
            return;
        }
        let since_ms = self.resolution.asked_ms.map(|at| core.now.ms.saturating_sub(at));
        if since_ms.is_some_and(|since_ms| since_ms < core.settings.regex_refresh_min_ms) {
            return;
        }
        let is_stale = since_ms.is_none_or(|since_ms| since_ms >= core.settings.regex_refresh_max_ms)
            || self.resolution.asked_image != core.image_version
            || self.expressions.keys().any(|regex| !self.regexes.contains_key(regex));
        if is_stale {
            let patterns = self.expressions.keys().map(|regex| regex.to_string()).collect();
            core.resolves.push(Resolve { group: self.id.to_string(), patterns });
            self.resolution =
                Resolution { is_asked: true, asked_ms: Some(core.now.ms), asked_image: core.image_version };
        }
    }

    fn resolved(&mut self, core: &mut Core, patterns: &[(String, Vec<String>)]) {
        self.resolution.is_asked = false;
        let mut changed = false;
        for (pattern, names) in patterns {
            let Some((regex, _)) = self.expressions.get_key_value(&**pattern) else { continue };
            let regex = regex.clone();
            let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            let topics: Box<[Text]> = names.into_iter().map(Text::from).collect();
            let known = self.regexes.get(&regex);
            if known.is_some_and(|known| known.topics == topics) {
                continue;
            }
            changed |= known.is_some() || !topics.is_empty();
            let version = i64::try_from(core.image_version).unwrap_or(i64::MAX);
            let value = Some(Rc::new(RegexValue { topics, version, unix_ms: core.now.unix_ms }));
            self.put(core, Record::Regex { group: self.id.clone(), regex, value });
        }
        if changed {
            self.follow_metadata(core, true);
        }
    }

    /// Drops what an expression stands for when nobody subscribes by it any more.
    pub(super) fn forget_regex(&mut self, core: &mut Core, regex: &Text) {
        if !self.expressions.contains_key(regex) && self.regexes.contains_key(regex) {
            let record = Record::Regex { group: self.id.clone(), regex: regex.clone(), value: None };
            self.put(core, record);
        }
    }
}
