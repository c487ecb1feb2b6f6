//! Brokers that break a promise: each must be noticed by some seed, or the checkers prove nothing.

use corelog::settings::Faults;

const SEEDS_MAX: u64 = 200;

/// What the first seed that notices says.
fn is_caught(faults: Faults) -> String {
    let found = (1..=SEEDS_MAX).find_map(|seed| sim::run(seed, faults).violation);
    found.expect("the simulator notices this fault")
}

fn of_engine(faults: engine::log::Faults) -> Faults {
    Faults { engine: faults, ..Faults::default() }
}

#[test]
fn an_acknowledgement_before_the_disk_has_it_is_caught() {
    let caught = is_caught(Faults { ack_before_durable: true, ..Faults::default() });
    assert!(caught.contains("was promised") || caught.contains("is record"), "{caught}");
}

#[test]
fn hazard_a12_a_coordinator_that_answers_before_the_disk_has_it_is_caught() {
    let caught = is_caught(Faults { hasty_coordinator: true, ..Faults::default() });
    assert!(caught.contains("is committed for") || caught.contains("is given"), "{caught}");
}

#[test]
fn hazard_a1_a_start_in_the_old_epoch_is_caught() {
    let engine = engine::log::Faults { resume_old_epoch: true, ..engine::log::Faults::default() };
    let caught = is_caught(of_engine(engine));
    assert!(caught.contains("names record") || caught.contains("came back after epoch"), "{caught}");
}

#[test]
fn hazard_a6_a_duplicate_that_is_answered_before_its_original_is_caught() {
    let engine = engine::log::Faults { hasty_duplicates: true, ..engine::log::Faults::default() };
    let caught = is_caught(of_engine(engine));
    assert!(caught.contains("was promised") || caught.contains("is record"), "{caught}");
}

#[test]
fn a_read_beyond_the_high_watermark_is_caught() {
    let caught = is_caught(Faults { read_uncommitted: true, ..Faults::default() });
    assert!(caught.contains("beyond the high watermark"), "{caught}");
}

#[test]
fn a_start_that_does_not_look_into_journals_is_caught() {
    let engine = engine::log::Faults { forgotten_journal: true, ..engine::log::Faults::default() };
    is_caught(of_engine(engine));
}

#[test]
fn hazard_a2_segments_swapped_without_an_intent_are_caught() {
    let engine = engine::log::Faults { no_swap_intent: true, ..engine::log::Faults::default() };
    is_caught(of_engine(engine));
}

#[test]
fn a_log_that_does_not_flush_is_caught() {
    let engine = engine::log::Faults { skip_flush: true, ..engine::log::Faults::default() };
    is_caught(of_engine(engine));
}

#[test]
fn hazard_a5_a_log_that_does_not_sync_its_folder_is_caught() {
    let engine = engine::log::Faults { skip_dir_sync: true, ..engine::log::Faults::default() };
    is_caught(of_engine(engine));
}
