//! What happens to the groups of a core: counted for the metrics, and told to the operator where a member went that did
//! not leave by itself. A client makes members go as often as it likes, under names that it chose: so many lines in a
//! while, and so much of a name, are said. The metrics count all.

use std::cell::RefCell;
use std::time::Duration;

use coord::group::{Counted, Reason, Removed};
use rt::Instant;

use crate::shown::shown;

/// The most lines in [`LINES_TIME`]: of groups that are well there are a few an hour.
const LINES_MAX: u32 = 10;
const LINES_TIME: Duration = Duration::from_secs(10);

/// What is shown of a name that a client chose, in characters.
const NAME_CHARS_MAX: usize = 100;

#[derive(Debug, Default)]
pub struct Tally {
    counted: RefCell<Counted>,
    lines: RefCell<Lines>,
}

impl Tally {
    pub fn counted(&self) -> Counted {
        *self.counted.borrow()
    }

    pub fn take_up(&self, now: Instant, counted: &Counted, removed: &[Removed]) {
        self.counted.borrow_mut().add(counted);
        for one in removed {
            let lines = self.lines.borrow_mut().next(now, one);
            lines.iter().for_each(|line| rt::say!("{line}"));
        }
    }
}

/// What was said of late.
#[derive(Debug, Default)]
struct Lines {
    began: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Lines {
    /// What to say of a member that was removed: nothing where enough was said.
    fn next(&mut self, now: Instant, removed: &Removed) -> Vec<String> {
        let mut lines = Vec::new();
        if self.began.is_none_or(|began| now - began >= LINES_TIME) {
            if self.left_out > 0 {
                lines.push(format!("corelog: {} more members of groups were removed", self.left_out));
            }
            *self = Lines { began: Some(now), ..Lines::default() };
        }
        if self.said == LINES_MAX {
            self.left_out += 1;
            return lines;
        }
        self.said += 1;
        let mut line = line(removed);
        if self.said == LINES_MAX {
            line +=
                "; further ones of the next seconds are only counted (corelog_group_members_removed_total)";
        }
        lines.push(line);
        lines
    }
}

fn line(Removed { group, member, why, left }: &Removed) -> String {
    let why = match why {
        Reason::Left => "it left",
        Reason::Session => "its session timed out",
        Reason::Rebalance => "it did not rejoin, sync or give up partitions in time",
        Reason::Replaced => "another process took its place with its group.instance.id",
        Reason::Full => "the group has no room",
    };
    let (group, member) = (name(group), name(member));
    format!("corelog: group {group}: member {member} is removed, {why}; members left: {left}")
}

fn name(text: &str) -> String {
    match text.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}...", shown(&text[..end])),
        None => shown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(member: &str, why: Reason) -> Removed {
        Removed { group: "bill\ning".into(), member: member.into(), why, left: 2 }
    }

    #[test]
    fn a_line_holds_no_more_of_a_name_than_can_be_read() {
        let check = |member: &str, why, expect: &str| {
            let expect = format!("corelog: group bill\\ning: member {expect}; members left: 2");
            assert_eq!(line(&removed(member, why)), expect);
        };
        check("a-1", Reason::Session, "a-1 is removed, its session timed out");
        check("\u{1b}[2J", Reason::Full, "\\u{1b}[2J is removed, the group has no room");
        let (long, cut) = ("ß".repeat(NAME_CHARS_MAX + 1), "ß".repeat(NAME_CHARS_MAX));
        check(&cut, Reason::Full, &format!("{cut} is removed, the group has no room"));
        check(&long, Reason::Full, &format!("{cut}... is removed, the group has no room"));
    }

    #[test]
    fn lines_are_bounded_in_a_while_and_what_was_left_out_is_said() {
        let mut lines = Lines::default();
        let mut said_at = |seconds| {
            lines.next(Instant::START + Duration::from_secs(seconds), &removed("m", Reason::Session))
        };
        let first: Vec<String> = (0..u64::from(LINES_MAX)).flat_map(|_| said_at(5)).collect();
        assert_eq!(first.len(), 10);
        assert!(first[..9].iter().all(|line| line.ends_with("left: 2")), "{first:?}");
        assert!(first[9].contains("only counted"), "{first:?}");
        assert_eq!((said_at(6), said_at(14)), (Vec::new(), Vec::new()));
        let next = said_at(15);
        assert_eq!((next.len(), &*next[0]), (2, "corelog: 2 more members of groups were removed"));
        assert_eq!(said_at(16).len(), 1);
        assert_eq!(said_at(40).len(), 1, "nothing was left out");
    }
}
