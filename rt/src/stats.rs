//! What one core counts about itself. Plain numbers: whoever exports them takes a copy.

use crate::op::Op;

/// Buckets of the stall histogram: bucket `i` counts polls of `2^i` to `2^(i+1)` microseconds, bucket 0 also less.
pub const STALL_BUCKETS: usize = 24;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Times the driver entered the kernel to submit or to wait.
    pub enters: u64,
    /// Times it went to sleep there.
    pub sleeps: u64,
    /// Times the core looked around before it would have slept, and those of them that found something.
    pub spins: u64,
    pub spins_hit: u64,
    /// Times another thread had to ring for this core.
    pub doorbells: u64,
    pub reads: u64,
    pub writes: u64,
    pub syncs: u64,
    pub receives: u64,
    pub sends: u64,
    pub accepts: u64,
    pub connects: u64,
    /// Operations done by helper threads.
    pub helped: u64,
    pub cancelled: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub polls: u64,
    pub panics: u64,
    /// How long single polls kept the core.
    pub stalls: [u64; STALL_BUCKETS],
    pub tasks: usize,
    pub operations_in_flight: usize,
}

impl Stats {
    /// An operation ended well.
    pub(crate) fn finished(&mut self, op: &Op, count: usize) {
        let bytes = u64::try_from(count).unwrap_or(0);
        match op {
            Op::Read { .. } => (self.reads, self.read_bytes) = (self.reads + 1, self.read_bytes + bytes),
            Op::Write { .. } => {
                (self.writes, self.written_bytes) = (self.writes + 1, self.written_bytes + bytes)
            }
            Op::Recv { .. } => {
                (self.receives, self.received_bytes) = (self.receives + 1, self.received_bytes + bytes);
            }
            Op::Send { .. } => (self.sends, self.sent_bytes) = (self.sends + 1, self.sent_bytes + bytes),
            Op::Fsync { .. } => self.syncs += 1,
            Op::Accept { .. } => self.accepts += 1,
            Op::Connect { .. } => self.connects += 1,
            _helped => (),
        }
    }

    /// Adds what a driver counted to what the core counted.
    pub(crate) fn add_driver(&mut self, driver: &Stats) {
        self.enters += driver.enters;
        self.sleeps += driver.sleeps;
        self.reads += driver.reads;
        self.writes += driver.writes;
        self.syncs += driver.syncs;
        self.receives += driver.receives;
        self.sends += driver.sends;
        self.accepts += driver.accepts;
        self.connects += driver.connects;
        self.helped += driver.helped;
        self.read_bytes += driver.read_bytes;
        self.written_bytes += driver.written_bytes;
        self.received_bytes += driver.received_bytes;
        self.sent_bytes += driver.sent_bytes;
    }

    pub(crate) fn polled(&mut self, nanos: u64) {
        self.polls += 1;
        self.stalls[stall_bucket(nanos)] += 1;
    }

    /// Polls that kept the core for at least a millisecond (1,024 microseconds).
    pub fn stalls_over_a_millisecond(&self) -> u64 {
        self.stalls[10..].iter().sum()
    }

    /// What the stall histogram says, in one line.
    pub fn describe_stalls(&self) -> String {
        let longest = self.stalls.iter().rposition(|count| *count > 0).unwrap_or(0);
        let over = self.stalls_over_a_millisecond();
        let polls = self.polls;
        let longest = match 2_u64 << longest {
            us @ ..1_000 => format!("{us} us"),
            us => format!("{} ms", us.div_ceil(1_000)),
        };
        match over {
            0 => format!(
                "no task kept it busy for a millisecond; the longest of {polls} turns took less than {longest}"
            ),
            _ => format!(
                "{over} of {polls} turns of its tasks kept it busy for a millisecond or more, the longest for less than \
                 {longest}"
            ),
        }
    }
}

fn stall_bucket(nanos: u64) -> usize {
    let micros = nanos / 1_000;
    let log = micros.checked_ilog2().unwrap_or(0) as usize;
    log.min(STALL_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_told_with_the_bound_of_its_bucket() {
        let mut stats = Stats::default();
        [500, 3_000, 100_000].into_iter().for_each(|nanos| stats.polled(nanos));
        let expected = "no task kept it busy for a millisecond; the longest of 3 turns took less than 128 us";
        assert_eq!(stats.describe_stalls(), expected);
        stats.polled(1_500_000);
        let expected = "1 of 4 turns of its tasks kept it busy for a millisecond or more, the longest for less than 3 ms";
        assert_eq!(stats.describe_stalls(), expected);
    }

    #[test]
    fn buckets_are_powers_of_two() {
        let check = |nanos, bucket| assert_eq!(stall_bucket(nanos), bucket, "{nanos}");
        check(0, 0);
        check(999, 0);
        check(2_000, 1);
        check(1_024_000, 10);
        check(u64::MAX, STALL_BUCKETS - 1);
    }
}
