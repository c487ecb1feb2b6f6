//! Term and vote survive what they must, and damage is refused.

use super::*;
use rt::sim::{CrashPlan, Sim, SimConfig, SimDisk, Stopped};
use std::cell::RefCell;

const DIR: &str = "/data/raft";

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: format!("{index}@{term}").into_bytes() }
}

/// What must be found after the next crash, and what may.
#[derive(Default)]
struct Model {
    durable: Recovered,
    proposed: Option<Recovered>,
    violation: Option<String>,
}

async fn life(core: Core, model: Rc<RefCell<Model>>) {
    let (log, found) = match RaftLog::open(&core, Path::new(DIR)).await {
        Ok(opened) => opened,
        Err(error) => {
            model.borrow_mut().violation = Some(error.to_string());
            return;
        }
    };
    {
        let mut model = model.borrow_mut();
        if found != model.durable && Some(&found) != model.proposed.as_ref() {
            model.violation = Some(format!("found {found:?} instead of {:?}", model.durable));
            return;
        }
        model.durable = found.clone();
    }
    let mut state = found;
    for step in 0..30 {
        let last = state.snapshot.index + state.entries.len() as u64;
        let term = state.hard_state.term + u64::from(core.random_u64() & 3 == 0);
        let hard_state = HardState { term, vote: core.random_u64() % 3, commit: last };
        let compacts = step % 11 == 10;
        let mut next = state.clone();
        next.hard_state = hard_state;
        if compacts {
            next.snapshot = RaftSnapshot { index: last, term, data: vec![7; 5000] };
            next.entries.clear();
        } else {
            // Now and then the last entry is overwritten by one of a later term.
            let overwrites = core.random_u64() & 3 == 0 && !next.entries.is_empty();
            let index = if overwrites { last } else { last + 1 };
            next.apply(Record::Entry(entry(index, term))).expect("continues");
        }
        model.borrow_mut().proposed = Some(next.clone());
        let done = match compacts {
            true => log.compact(next.snapshot.clone(), hard_state, Vec::new()).await,
            false => log.append(&next.entries[next.entries.len() - 1..], Some(hard_state)).await,
        };
        if done.is_err() {
            return;
        }
        model.borrow_mut().durable = next.clone();
        state = next;
    }
}

#[test]
fn hazard_a12_term_vote_and_entries_survive_every_power_cut() {
    for seed in 1..60u64 {
        let model = Rc::new(RefCell::new(Model::default()));
        let mut disk = SimDisk::new();
        for number in 0..5 {
            let sim = Sim::with_disk(seed ^ number, SimConfig::default(), disk.clone());
            disk.crash_at_op(disk.op_count() + 1 + (seed * 31 + number * 17) % 45);
            let ended = sim.run(|core| life(core, model.clone()));
            assert!(matches!(ended, Ok(_) | Err(Stopped::Crashed)), "seed {seed}: {ended:?}");
            let violation = model.borrow_mut().violation.take();
            assert_eq!(violation, None, "seed {seed}, life {number}");
            let plan = match (seed + number) % 3 {
                0 => CrashPlan::KILLED,
                _ if seed & 1 == 0 => CrashPlan::RANDOM,
                _ => CrashPlan::STRICT,
            };
            disk = sim.crash(plan);
        }
    }
}

#[test]
fn what_a_killed_process_left_is_durable_before_anything_is_built_on_it() {
    for killed_at in 1..20 {
        let disk = SimDisk::new();
        disk.crash_at_op(killed_at);
        let sim = Sim::with_disk(1, SimConfig::default(), disk);
        let _ = sim.run(|core| async move {
            RaftLog::open(&core, Path::new(DIR)).await.expect("opens");
        });
        let sim = Sim::with_disk(2, SimConfig::default(), sim.crash(CrashPlan::KILLED));
        let appended = sim.run(|core| async move {
            let (log, _) = RaftLog::open(&core, Path::new(DIR)).await.expect("opens");
            log.append(&[entry(1, 1)], None).await.expect("appends");
        });
        appended.expect("runs to its end");
        let sim = Sim::with_disk(3, SimConfig::default(), sim.crash(CrashPlan::STRICT));
        let found = sim.run(|core| async move {
            RaftLog::open(&core, Path::new(DIR)).await.expect("opens").1.entries.len()
        });
        assert_eq!(found, Ok(vec![1]), "killed at operation {killed_at}");
    }
}

#[test]
fn hazard_a12_a_flipped_bit_refuses_the_start() {
    let written = || {
        let sim = Sim::new(3, SimConfig::default());
        let done = sim.run(|core| async move {
            let (log, _) = RaftLog::open(&core, Path::new(DIR)).await.expect("opens");
            for index in 1..=5 {
                log.append(&[entry(index, 1)], Some(HardState { term: 1, vote: 2, commit: index }))
                    .await
                    .expect("appends");
            }
        });
        done.expect("runs");
        sim.crash(CrashPlan::STRICT)
    };
    // A bit of the header, of the length, of the checksum and of a body, in the first, a middle and the last group.
    for group in [0u64, 3, 5] {
        for byte in [0, 9, 17, 21, 26, 40] {
            let disk = written();
            disk.flip_bit(format!("{DIR}/raft-0000000001.log"), (group * 4096 + byte) * 8);
            let sim = Sim::with_disk(1, SimConfig::default(), disk);
            let opened = sim.run(|core| async move {
                RaftLog::open(&core, Path::new(DIR)).await.map(|(_, found)| found).map_err(|e| e.to_string())
            });
            let opened = opened.expect("runs").remove(0);
            assert!(opened.is_err(), "group {group}, byte {byte}: {opened:?}");
        }
    }
}

#[test]
fn a_failed_write_is_not_tried_again() {
    let sim = Sim::new(3, SimConfig::default());
    let disk = sim.disk();
    let done = sim.run(|core| {
        let disk = disk.clone();
        async move {
            let (log, _) = RaftLog::open(&core, Path::new(DIR)).await.expect("opens");
            disk.fail_next(rt::sim::OpKind::Write, rt::sim::Fault::Error(5));
            assert!(log.append(&[entry(1, 1)], None).await.is_err());
            assert!(matches!(log.append(&[entry(1, 1)], None).await, Err(RaftLogError::Poisoned)));
        }
    });
    done.expect("runs");
}
