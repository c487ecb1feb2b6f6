//! One line on stderr while a run goes on: rewritten in place on a terminal, a new one every few seconds elsewhere.

use std::io::{self, IsTerminal, Write};

use crate::report::grouped;

const TERMINAL_EVERY_NS: u64 = 200_000_000;
const ELSEWHERE_EVERY_NS: u64 = 5_000_000_000;
const NS_PER_S: f64 = 1e9;
const MB: f64 = 1e6;

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
        (self.last_at, self.last_records, self.last_bytes, self.wrote) = (now, records, bytes, true);
        let line = format!(
            "{:6.1} s   {:>11} records   {:>10} /s   {mb:7.1} MB/s{more}",
            since_start as f64 / NS_PER_S,
            grouped(records),
            grouped(rate as u64)
        );
        self.write(&if self.is_terminal { format!("\r\x1b[K{line}") } else { format!("{line}\n") });
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
