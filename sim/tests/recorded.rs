//! A real driver's operations, cut by a power failure: a sample of the cuts in every test run, all of them at night.

use rt::sim::CrashPlan;
use sim::recorded::{Recording, record};

const BATCHES: u64 = 12;
const CUTS: usize = 60;
const PLANS: [CrashPlan; 4] = [
    CrashPlan::STRICT,
    CrashPlan::RANDOM,
    CrashPlan { sector_bytes: 4096, ..CrashPlan::RANDOM },
    CrashPlan::KILLED,
];

fn recording() -> Recording {
    let folder = tempfile::tempdir().expect("a folder");
    record(folder.path(), BATCHES, 1).expect("the broker runs on this host's own driver")
}

#[test]
fn hazard_a5_a_power_cut_anywhere_in_a_real_drivers_operations_loses_nothing_acknowledged() {
    let recording = recording();
    assert!(recording.acknowledged() >= 100, "{} batches acknowledged", recording.acknowledged());
    let mut plans = PLANS.into_iter().cycle();
    for nth in 0..=CUTS {
        let cut = recording.events() * nth / CUTS;
        let plan = plans.next().expect("it goes round");
        if let Err(why) = recording.check_cut(cut, plan, nth as u64) {
            panic!("{why}");
        }
    }
}
