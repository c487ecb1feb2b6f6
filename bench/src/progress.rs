//! One line on stderr while a run goes on: rewritten in place on a terminal, a new one every few seconds elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::report::grouped;

const TERMINAL_EVERY_NS: u64 = 200_000_000;
const ELSEWHERE_EVERY_NS: u64 = 5_000_000_000;
const NS_PER_S: f64 = 1e9;
const MB: f64 = 1e6;

/// After so long without progress it is said what is waited for, once for each standstill.
pub const SILENT_AT_MOST: Duration = Duration::from_secs(5);

/// Watches for a standstill, so that nobody sits before a silent program.
pub struct Patience {
    limit: Duration,
    mark: u64,
    since: u64,
    has_told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    Moving,
    /// It stands still for so long that the user should hear of it: said once.
    Silent,
    /// The limit is over.
    Over,
}

impl Patience {
    pub fn new(limit: Duration, now: u64) -> Patience {
        Patience { limit, mark: 0, since: now, has_told: false }
    }

    /// `mark` is any number that changes with progress.
    pub fn look(&mut self, now: u64, mark: u64) -> Pace {
        if mark != self.mark {
            (self.mark, self.since, self.has_told) = (mark, now, false);
        }
        let still = Duration::from_nanos(now.saturating_sub(self.since));
        if still >= self.limit {
            return Pace::Over;
        }
        if still >= SILENT_AT_MOST && !std::mem::replace(&mut self.has_told, true) {
            return Pace::Silent;
        }
        Pace::Moving
    }
}

pub struct Progress {
    is_quiet: bool,
    is_terminal: bool,
    last_at: u64,
    last_records: u64,
    last_bytes: u64,
    wrote: bool,
}

impl Progress {
    pub fn new(is_quiet: bool, now: u64) -> Progress {
        let is_terminal = io::stderr().is_terminal();
        Progress { is_quiet, is_terminal, last_at: now, last_records: 0, last_bytes: 0, wrote: false }
    }

    pub fn is_due(&self, now: u64) -> bool {
        let every = if self.is_terminal { TERMINAL_EVERY_NS } else { ELSEWHERE_EVERY_NS };
        !self.is_quiet && now >= self.last_at + every
    }

    /// Shows the rate since the last time; `records` and `bytes` are totals.
    pub fn show(&mut self, since_start: u64, now: u64, records: u64, bytes: u64, more: &str) {
        let seconds = ((now - self.last_at) as f64 / NS_PER_S).max(1e-9);
        let rate = (records - self.last_records) as f64 / seconds;
        let mb = (bytes - self.last_bytes) as f64 / seconds / MB;
        (self.last_records, self.last_bytes) = (records, bytes);
        let line = format!(
            "{:>11} records   {:>10} /s   {mb:7.1} MB/s{more}",
            grouped(records),
            grouped(rate as u64)
        );
        self.tell(since_start, now, &line);
    }

    /// Shows how far it is, in the caller's words.
    pub fn tell(&mut self, since_start: u64, now: u64, what: &str) {
        (self.last_at, self.wrote) = (now, true);
        let line = format!("{:6.1} s   {what}", since_start as f64 / NS_PER_S);
        self.write(&if self.is_terminal { format!("\r\x1b[K{line}") } else { format!("{line}\n") });
    }

    /// Says something on a line of its own, also where the progress line is not wanted.
    pub fn say(&self, what: &str) {
        self.end();
        self.write(&format!("bench: {what}\n"));
    }

    /// Leaves the terminal's line free.
    pub fn end(&self) {
        if self.wrote && self.is_terminal {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // Nobody to show it to is no reason to end a run.
        let _not_shown = io::stderr().write_all(text.as_bytes()).and_then(|()| io::stderr().flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_told_once_and_ends() {
        let at = |seconds: u64| seconds * NS_PER_S as u64;
        let mut patience = Patience::new(Duration::from_secs(30), at(0));
        let seen: Vec<Pace> = [(4, 0), (5, 0), (6, 0), (7, 1), (11, 1), (12, 1), (36, 1), (37, 1)]
            .map(|(seconds, mark)| patience.look(at(seconds), mark))
            .to_vec();
        use Pace::{Moving, Over, Silent};
        assert_eq!(seen, [Moving, Silent, Moving, Moving, Moving, Silent, Moving, Over]);
    }
}
