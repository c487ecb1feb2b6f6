//! Seeds of the whole broker, each run twice, and a real driver's operations cut at every one of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corelog::settings::Faults;
use rt::sim::CrashPlan;

const USAGE: &str = "\
usage: sim --seed N [--until N] [--quiet]    the runs that the seeds stand for
       sim --record DIR [--quiet]            a broker's run in this folder on the host's own driver, cut everywhere";

/// Batches of each producer of a recorded run.
const RECORDED_BATCHES: u64 = 25;
const PLANS: [CrashPlan; 4] = [
    CrashPlan::STRICT,
    CrashPlan::RANDOM,
    CrashPlan { sector_bytes: 4096, ..CrashPlan::RANDOM },
    CrashPlan::KILLED,
];

#[derive(Default)]
struct Wish {
    seed: Option<u64>,
    until: Option<u64>,
    record: Option<PathBuf>,
    quiet: bool,
}

/// What passed and what failed, as the closing line says it.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
}

fn main() -> ExitCode {
    let outcome = match wish(std::env::args().skip(1)) {
        Some(Wish { seed: Some(seed), until, record: None, quiet }) => {
            Ok(seeds(seed..until.unwrap_or(seed + 1), quiet))
        }
        Some(Wish { seed: None, until: None, record: Some(folder), quiet }) => cuts(&folder, quiet),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(tally) => {
            println!("{} passed, {} failed, 0 skipped", tally.passed, tally.failed);
            if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

impl Tally {
    fn count(&mut self, outcome: Result<String, String>, quiet: bool) {
        match outcome {
            Ok(what) => {
                self.passed += 1;
                if !quiet {
                    println!("ok   {what}");
                }
            }
            Err(why) => {
                self.failed += 1;
                println!("FAIL {why}");
            }
        }
    }
}

fn seeds(seeds: std::ops::Range<u64>, quiet: bool) -> Tally {
    let mut tally = Tally::default();
    let mut acknowledged = 0;
    for seed in seeds {
        let (report, again) = (sim::run(seed, Faults::default()), sim::run(seed, Faults::default()));
        acknowledged += report.counts.acknowledged;
        let rerun = format!("rerun: cargo run -p sim -- --seed {seed}");
        let outcome = match &report.violation {
            Some(why) => Err(format!("seed {seed}: {why}\n     {rerun}")),
            None if again != report => Err(format!("seed {seed}: it gave two traces\n     {rerun}")),
            None => Ok(format!("seed {seed}: trace {:016x}, {:?}", report.trace, report.counts)),
        };
        tally.count(outcome, quiet);
    }
    println!("{acknowledged} batches acknowledged");
    tally
}

/// Every cut with one plan, in turn.
fn cuts(folder: &Path, quiet: bool) -> Result<Tally, String> {
    let recording = sim::recorded::record(folder, RECORDED_BATCHES, 1)?;
    println!("{} events, {} batches acknowledged", recording.events(), recording.acknowledged());
    let mut tally = Tally::default();
    for (cut, plan) in (0..=recording.events()).zip(PLANS.into_iter().cycle()) {
        let seed = u64::try_from(cut).map_err(|error| error.to_string())?;
        tally.count(recording.check_cut(cut, plan, seed).map(|()| format!("cut {cut}, {plan:?}")), quiet);
    }
    Ok(tally)
}

fn wish(mut arguments: impl Iterator<Item = String>) -> Option<Wish> {
    let mut wish = Wish::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => wish.seed = Some(arguments.next()?.parse().ok()?),
            "--until" => wish.until = Some(arguments.next()?.parse().ok()?),
            "--record" => wish.record = Some(arguments.next()?.into()),
            "--quiet" => wish.quiet = true,
            _other => return None,
        }
    }
    Some(wish)
}
