//! `cargo run -p sim -- --seed N [--until N]`: runs seeds, each twice, and says what each of them saw.

use std::process::ExitCode;

use corelog::settings::Faults;

const USAGE: &str = "usage: sim --seed N [--until N] [--quiet]";

struct Wish {
    seeds: std::ops::Range<u64>,
    quiet: bool,
}

fn main() -> ExitCode {
    let Some(wish) = wish(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut failed = 0_u64;
    let count = wish.seeds.end - wish.seeds.start;
    let mut acknowledged = 0;
    for seed in wish.seeds {
        let report = sim::run(seed, Faults::default());
        acknowledged += report.counts.acknowledged;
        let again = sim::run(seed, Faults::default());
        let fault = match &report.violation {
            Some(why) => Some(why.clone()),
            None if again != report => Some("the same seed gave two traces".to_owned()),
            None => None,
        };
        if let Some(why) = fault {
            failed += 1;
            println!("FAIL seed {seed}: {why}\n     rerun: cargo run -p sim -- --seed {seed}");
        } else if !wish.quiet {
            println!("ok   seed {seed}: trace {:016x}, {:?}", report.trace, report.counts);
        }
    }
    println!("{} passed, {failed} failed, 0 skipped ({acknowledged} batches acknowledged)", count - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wish(mut arguments: impl Iterator<Item = String>) -> Option<Wish> {
    let (mut from, mut until, mut quiet) = (None, None, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => from = Some(arguments.next()?.parse::<u64>().ok()?),
            "--until" => until = Some(arguments.next()?.parse::<u64>().ok()?),
            "--quiet" => quiet = true,
            _other => return None,
        }
    }
    let from = from?;
    let seeds = from..until.unwrap_or(from + 1);
    (!seeds.is_empty()).then_some(Wish { seeds, quiet })
}
