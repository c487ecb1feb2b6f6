//! When each record is meant to leave: the open-loop schedule, and the batches cut from it.
//!
//! A schedule is arithmetic, not a queue: tick `i` of a run at `rate` records a second is due `i / rate` seconds after its
//! start, whether or not anybody was awake then. Ticks are never skipped; a sender that falls behind finds them all due and
//! its latencies, which are taken from the due time, show the wait. This is what keeps coordinated omission out.
//!
//! Invariants: ticks are handed out once, in order, without gaps; no tick is handed out before it is due.

use std::ops::Range;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The ticks of one sender among `senders`: global ticks `sender`, `sender + senders`, ...
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Records per second of all senders together.
    rate: u64,
    senders: u64,
    sender: u64,
    /// Nanoseconds, on the clock that `now` is read from.
    start: u64,
    /// How many of this sender's ticks there are.
    ticks: u64,
}

/// What a sender should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Send the records of these ticks as one batch.
    Send { first: u64, count: u64 },
    /// Nothing to send before this time.
    Wait { until: u64 },
    /// All ticks were sent.
    Done,
}

impl Schedule {
    pub fn new(rate: u64, senders: u64, sender: u64, start: u64, total_ticks: u64) -> Schedule {
        assert!(rate > 0, "a schedule needs a rate");
        assert!(sender < senders, "sender {sender} of {senders}");
        let ticks = share_of(total_ticks, senders, sender);
        Schedule { rate, senders, sender, start, ticks }
    }

    /// The time at which this sender's tick is due.
    pub fn due_at(&self, tick: u64) -> u64 {
        let global = u128::from(tick) * u128::from(self.senders) + u128::from(self.sender);
        let after = (global * NANOS_PER_SECOND).div_ceil(u128::from(self.rate));
        self.start.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// How many of this sender's ticks are due by `now`: tick `due_by(now) - 1` is, tick `due_by(now)` is not.
    pub fn due_by(&self, now: u64) -> u64 {
        if now < self.start {
            return 0;
        }
        let elapsed = u128::from(now - self.start);
        // Global tick g is due when ceil(g * 1e9 / rate) <= elapsed, which for integers is g <= elapsed * rate / 1e9.
        let last_global = elapsed * u128::from(self.rate) / NANOS_PER_SECOND;
        if last_global < u128::from(self.sender) {
            return 0;
        }
        let count = (last_global - u128::from(self.sender)) / u128::from(self.senders) + 1;
        u64::try_from(count).unwrap_or(u64::MAX).min(self.ticks)
    }

    /// Cuts the next batch: full ones at once, others when their first record has lingered.
    pub fn plan(&self, next: u64, now: u64, linger: u64, batch_records_max: u64) -> Plan {
        assert!(batch_records_max > 0, "a batch holds at least one record");
        if next >= self.ticks {
            return Plan::Done;
        }
        let waiting = self.due_by(now).saturating_sub(next);
        if waiting >= batch_records_max {
            return Plan::Send { first: next, count: batch_records_max };
        }
        let lingered_at = self.due_at(next).saturating_add(linger);
        let is_last = next + waiting == self.ticks;
        if waiting > 0 && (now >= lingered_at || is_last) {
            return Plan::Send { first: next, count: waiting };
        }
        let last_of_batch = (next + batch_records_max - 1).min(self.ticks - 1);
        Plan::Wait { until: lingered_at.min(self.due_at(last_of_batch)).max(now + 1) }
    }
}

/// How many of `total` things dealt out in turn to `of` takers the taker `index` gets.
pub fn share_of(total: u64, of: u64, index: u64) -> u64 {
    assert!(index < of);
    total / of + u64::from(index < total % of)
}

/// The partitions, out of those given, that connection `connection` of `connections` writes to or reads. When there are fewer
/// partitions than connections they are shared.
pub fn partitions_of(partitions: &[i32], connections: usize, connection: usize) -> Vec<i32> {
    assert!(connection < connections);
    if partitions.is_empty() {
        return Vec::new();
    }
    if partitions.len() < connections {
        return vec![partitions[connection % partitions.len()]];
    }
    partitions.iter().copied().skip(connection).step_by(connections).collect()
}

/// The part of a run that is measured: from the end of the warm-up to the end of the run.
#[derive(Clone, Debug)]
pub struct Window(pub Range<u64>);

impl Window {
    pub fn contains(&self, at: u64) -> bool {
        self.0.contains(&at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_by_is_the_inverse_of_due_at() {
        for (rate, senders) in [(1, 1), (3, 2), (7, 3), (1_000, 4), (999_983, 16), (5_000_000, 1)] {
            for sender in 0..senders {
                let schedule = Schedule::new(rate, senders, sender, 1_000, 50_000);
                for tick in (0..schedule.ticks).step_by(7) {
                    let at = schedule.due_at(tick);
                    assert_eq!(
                        schedule.due_by(at),
                        (tick + 1).min(schedule.ticks),
                        "rate {rate} tick {tick}"
                    );
                    assert!(at == 1_000 || schedule.due_by(at - 1) <= tick, "rate {rate} tick {tick}");
                }
            }
        }
    }

    #[test]
    fn every_tick_is_handed_out_once_and_never_early() {
        let (linger, batch_max) = (2_000_000, 16);
        let schedule = Schedule::new(10_000, 1, 0, 0, 1_000);
        let (mut next, mut now, mut late_once) = (0, 0, false);
        loop {
            match schedule.plan(next, now, linger, batch_max) {
                Plan::Send { first, count } => {
                    assert_eq!(first, next);
                    assert!(count >= 1);
                    assert!(count <= batch_max);
                    assert!(schedule.due_at(first + count - 1) <= now);
                    next = first + count;
                }
                Plan::Wait { until } => {
                    assert!(until > now);
                    now = until;
                    // One long stall: what was due meanwhile must still come.
                    if next > 500 && !late_once {
                        late_once = true;
                        now += 20_000_000;
                    }
                }
                Plan::Done => break,
            }
        }
        assert_eq!(next, 1_000);
        assert!(late_once);
    }

    #[test]
    fn without_linger_a_record_leaves_alone_and_a_late_sender_catches_up_in_batches() {
        let schedule = Schedule::new(1_000, 1, 0, 0, 10);
        assert_eq!(schedule.plan(0, 0, 0, 8), Plan::Send { first: 0, count: 1 });
        assert_eq!(schedule.plan(1, 0, 0, 8), Plan::Wait { until: 1_000_000 });
        assert_eq!(schedule.plan(1, 4_500_000, 0, 8), Plan::Send { first: 1, count: 4 });
        assert_eq!(schedule.plan(1, 60_000_000, 0, 8), Plan::Send { first: 1, count: 8 });
        assert_eq!(schedule.plan(9, 60_000_000, 0, 8), Plan::Send { first: 9, count: 1 });
        assert_eq!(schedule.plan(10, 60_000_000, 0, 8), Plan::Done);
    }

    #[test]
    fn linger_gathers_until_the_first_record_has_waited_or_the_batch_is_full() {
        let schedule = Schedule::new(1_000, 1, 0, 0, 100);
        assert_eq!(schedule.plan(0, 0, 5_000_000, 100), Plan::Wait { until: 5_000_000 });
        assert_eq!(schedule.plan(0, 5_000_000, 5_000_000, 100), Plan::Send { first: 0, count: 6 });
        assert_eq!(schedule.plan(0, 0, 5_000_000, 3), Plan::Wait { until: 2_000_000 });
    }

    #[test]
    fn partitions_are_dealt_out_and_shared_when_they_are_few() {
        assert_eq!(partitions_of(&[0, 1, 2, 3, 4], 2, 1), [1, 3]);
        assert_eq!(partitions_of(&[0, 1], 4, 3), [1]);
        assert_eq!(partitions_of(&[], 4, 3), Vec::<i32>::new());
        assert_eq!((0..3).map(|index| share_of(10, 3, index)).collect::<Vec<_>>(), [4, 3, 3]);
    }
}
