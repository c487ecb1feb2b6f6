//! What a seed stands for: how many lives the broker has, how each of them ends, and what goes wrong meanwhile.

use crate::random::Random;
use engine::journal;
use rt::sim::CrashPlan;

/// How a life of the broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Told to stop, it flushes and closes; then the power goes all the same.
    Stopped,
    /// kill -9 after so many operations that change the disk: completed writes stay.
    Killed { after_ops: u64 },
    /// The power goes after so many operations; what was not synced is lost by the plan.
    PowerCut { after_ops: u64, plan: CrashPlan },
}

#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub end: End,
    /// Chance of a reset at each receive and send.
    pub reset_per_million: u32,
    pub slow_disk_per_million: u32,
    pub disk_latency_nanos_max: u64,
    /// Chances per million of an error of a disk operation, a write that comes short, and a read that does.
    pub disk_error_per_million: u32,
    pub short_per_million: u32,
    /// For a while the disk has no room.
    pub disk_full: bool,
    /// Batches each producer tries to get acknowledged.
    pub batches: u64,
}

impl Life {
    /// Nothing fails, and it ends when it is told to.
    pub fn calm() -> Life {
        Life {
            end: End::Stopped,
            reset_per_million: 0,
            slow_disk_per_million: 0,
            disk_latency_nanos_max: 300_000,
            disk_error_per_million: 0,
            short_per_million: 0,
            disk_full: false,
            batches: 3,
        }
    }

    fn draw(random: &mut Random) -> Life {
        let ops_max = if random.one_in(3) { 60 } else { 400 };
        let after_ops = random.between(1, ops_max);
        let end = match random.between(0, 8) {
            0 => End::Stopped,
            1..4 => End::Killed { after_ops },
            _rest => End::PowerCut { after_ops, plan: power_cut(random) },
        };
        Life {
            end,
            reset_per_million: random.pick(&[0, 0, 300, 3_000, 20_000]),
            slow_disk_per_million: random.pick(&[0, 0, 2_000]),
            disk_latency_nanos_max: random.pick(&[20_000, 300_000, 2_000_000]),
            disk_error_per_million: random.pick(&[0, 0, 0, 1_000, 8_000]),
            short_per_million: random.pick(&[0, 0, 20_000]),
            disk_full: random.one_in(8),
            batches: random.between(5, 40),
        }
    }

    /// Whether something other than a connection may fail in it.
    pub fn disk_may_fail(&self) -> bool {
        self.disk_error_per_million > 0 || self.disk_full
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub cores: u16,
    pub lives: Vec<Life>,
    pub journal: journal::Limits,
}

const LIVES_MAX: u64 = 5;
const CORES_MAX: u64 = 4;

impl Plan {
    pub fn draw(random: &mut Random) -> Plan {
        let cores = u16::try_from(random.between(1, CORES_MAX)).expect("a few cores");
        let mut lives: Vec<Life> = (0..random.between(2, LIVES_MAX)).map(|_| Life::draw(random)).collect();
        // At last nothing fails: everything promised must be there, and everything must work.
        lives.push(Life::calm());
        let journal = journal::Limits {
            file_bytes: random.pick(&[8 << 10, 24 << 10, 256 << 10]),
            flushes_min: random.pick(&[1, 1, 2]),
        };
        Plan { cores, lives, journal }
    }
}

fn power_cut(random: &mut Random) -> CrashPlan {
    let wide = CrashPlan { sector_bytes: 4096, ..CrashPlan::RANDOM };
    random.pick(&[CrashPlan::STRICT, CrashPlan::RANDOM, CrashPlan::RANDOM, wide])
}
