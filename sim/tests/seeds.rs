//! Seeds of the whole broker. `SEEDS` says how many; the nightly script asks for thousands.

use corelog::settings::Faults;

const SEEDS_DEFAULT: u64 = 80;
/// Seeds that are run a second time, to see that nothing but the seed decides.
const TWICE: u64 = 6;

fn rerun(seed: u64) -> String {
    format!("rerun: cargo run -p sim -- --seed {seed}")
}

#[test]
fn no_seed_breaks_a_promise() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS_DEFAULT);
    let (mut acknowledged, mut committed, mut cut) = (0, 0, 0);
    for seed in 1..=seeds {
        let report = sim::run(seed, Faults::default());
        if let Some(why) = report.violation {
            panic!("seed {seed}: {why}\n{}", rerun(seed));
        }
        acknowledged += report.counts.acknowledged;
        committed += report.counts.committed;
        cut += report.counts.lives_cut;
    }
    assert!(acknowledged > 20 * seeds, "only {acknowledged} batches were acknowledged");
    assert!(committed > 5 * seeds, "only {committed} offsets were committed");
    assert!(cut > seeds / 2, "only {cut} lives were cut short");
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in 1..=TWICE {
        let (first, second) = (sim::run(seed, Faults::default()), sim::run(seed, Faults::default()));
        assert_eq!(first, second, "{}", rerun(seed));
    }
    let traces = (1..=TWICE).map(|seed| sim::run(seed, Faults::default()).trace);
    let different: std::collections::BTreeSet<u64> = traces.collect();
    assert_eq!(different.len() as u64, TWICE, "other seeds are other runs");
}
