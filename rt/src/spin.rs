//! Whether a core looks around a little longer before it sleeps. A wake-up costs 15-20 microseconds where the CPU has
//! nothing else to do; where it has, a spinning core takes from clients and neighbours more than it gains. So it is
//! bounded, off unless the configuration says that the core has a CPU of its own, and given up for as long as it
//! brings nothing or as the scheduler takes the CPU away.

use crate::time::Instant;
use std::time::Duration;

/// Outcomes remembered; it goes on while more than half of them were hits.
const REMEMBERED: u32 = u32::BITS;
/// While given up, one sleep in so many is spun before, to see whether that has changed.
const TRIAL_EVERY: u32 = 64;
/// How often the scheduler's account is looked at.
const WINDOW: Duration = Duration::from_secs(1);
/// Involuntary switches within a window from which on the CPU counts as shared.
const SWITCHES_MAX: u64 = 10;

const THREAD_STATUS: &str = "/proc/thread-self/status";

pub(crate) struct Spin {
    /// The longest it looks around; zero: never.
    bound: Duration,
    /// One bit for each of the last times, set where something came before the end.
    hits: u32,
    /// Sleeps since the last trial.
    untried: u32,
    window_ends: Instant,
    /// As of the last look.
    switches: Option<u64>,
    shared: bool,
}

impl Spin {
    pub(crate) fn new(bound: Duration) -> Spin {
        Spin { bound, hits: u32::MAX, untried: 0, window_ends: Instant::START, switches: None, shared: false }
    }

    /// How long to look around before this sleep. `switches`: how often this thread lost its CPU so far.
    pub(crate) fn before_sleep(&mut self, now: Instant, switches: impl FnOnce() -> u64) -> Option<Duration> {
        if self.bound.is_zero() {
            return None;
        }
        if now >= self.window_ends {
            let count = switches();
            let before = self.switches.replace(count).unwrap_or(count);
            self.shared = count.saturating_sub(before) > SWITCHES_MAX;
            self.window_ends = now + WINDOW;
        }
        if self.shared {
            return None;
        }
        if self.hits.count_ones() * 2 <= REMEMBERED {
            self.untried += 1;
            if self.untried < TRIAL_EVERY {
                return None;
            }
            self.untried = 0;
        }
        Some(self.bound)
    }

    pub(crate) fn ended(&mut self, hit: bool) {
        self.hits = (self.hits << 1) | u32::from(hit);
    }
}

/// How often the scheduler took the CPU from the calling thread; zero where the kernel does not say.
pub(crate) fn involuntary_switches() -> u64 {
    std::fs::read_to_string(THREAD_STATUS).ok().and_then(|status| switches_in(&status)).unwrap_or(0)
}

fn switches_in(status: &str) -> Option<u64> {
    let count = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_micros(50);

    fn spins(spin: &mut Spin, sleeps: u32, hit: bool) -> usize {
        let mut spun = 0;
        for _ in 0..sleeps {
            if spin.before_sleep(Instant::START, || 0).is_some() {
                spin.ended(hit);
                spun += 1;
            }
        }
        spun
    }

    #[test]
    fn a_bound_of_zero_never_spins() {
        assert_eq!(spins(&mut Spin::new(Duration::ZERO), 1_000, true), 0);
    }

    #[test]
    fn what_brings_nothing_is_given_up_but_for_trials_and_taken_up_again() {
        let mut spin = Spin::new(BOUND);
        assert_eq!(spins(&mut spin, 16, false), 16);
        assert_eq!(spins(&mut spin, 640, false), 10);
        // The oldest outcomes have to go first.
        spins(&mut spin, 17 * TRIAL_EVERY, true);
        assert_eq!(spins(&mut spin, 100, true), 100);
    }

    #[test]
    fn a_thread_that_loses_its_cpu_does_not_spin_until_it_keeps_it() {
        let mut spin = Spin::new(BOUND);
        let at = |seconds| Instant::START + Duration::from_secs(seconds);
        assert_eq!(spin.before_sleep(at(0), || 50), Some(BOUND));
        assert_eq!(spin.before_sleep(at(1), || 100), None);
        assert_eq!(spin.before_sleep(at(1), || unreachable!("the window has not ended")), None);
        assert_eq!(spin.before_sleep(at(2), || 101), Some(BOUND));
    }

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(
            switches_in("Threads:\t1\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t12\n"),
            Some(12)
        );
        assert_eq!(switches_in("Threads:\t1\n"), None);
        let told = std::fs::read_to_string(THREAD_STATUS).expect("it is there");
        assert!(switches_in(&told).is_some(), "{told}");
    }
}
