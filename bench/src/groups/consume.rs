//! `bench groups consume`: a group reads all of a topic. Its members join, each reads what it was assigned to the end that
//! the topic had, all the time heartbeating, and commits; what was committed must read back.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::coordinator;
use super::crew::Crew;
use super::join::partitions;
use super::offsets::{self, Commit};
use super::{NS_PER_MS, NS_PER_S, Scene, on_stage, set_usage, used_by_now};
use crate::cli::ConsumeGroup;
use crate::link::{Error, Link};
use crate::progress::{Patience, Progress};
use crate::reading::{Extent, READ_PATIENCE, Reading};
use crate::report::Report;
use crate::topic::{self, LATEST, describe_code};

const POLL: Duration = Duration::from_millis(5);

pub fn run(options: &ConsumeGroup) -> Result<Report, Error> {
    let asked = options.clone();
    let partitions = partitions(&options.members, options.members.members);
    on_stage(&options.members.target, partitions, move |scene| consume(scene, asked))
}

async fn consume(mut scene: Scene, options: ConsumeGroup) -> Result<Report, Error> {
    let members = options.members.members;
    let crew = Crew::gather(&mut scene, &options.members, members).await?;
    let mut progress = Progress::new(options.members.output.quiet, crew.now());
    let links = crew.connect_many(members).await?;
    let before = used_by_now(&scene.pids);
    let joined_from = crew.now();
    for (index, link) in links.into_iter().enumerate() {
        crew.enter(index, link, true);
    }
    crew.settle(&progress).await?;
    let shares: Vec<Vec<i32>> = (0..members as usize).map(|index| crew.stands(index).0).collect();
    let damaged = Rc::new(Cell::new(0u64));
    let damaged_seen = damaged.clone();
    let start = crew.now();
    let core = scene.core.clone();
    let visit = move |arrived: crate::reading::Arrived<'_>| {
        if !arrived.batch.crc_is_valid() {
            damaged_seen.set(damaged_seen.get() + 1);
        }
    };
    let reading =
        Reading::start_shared(&core, &options.fetch, shares.clone(), &scene.topic, Extent::WholeLog, visit)
            .await?;
    let mut patience = Patience::new(READ_PATIENCE, start);
    while !reading.is_over() {
        core.sleep(POLL).await;
        crew.fail_if_failed()?;
        let (now, counts) = (crew.now(), &reading.counts);
        reading.look(&mut patience, &progress, now)?;
        if progress.is_due(now) {
            progress.show(now - start, now, counts.records.get(), counts.bytes.get(), "");
        }
    }
    progress.end();
    let read_by = reading.last_bytes_at.get();
    let ends = commit_all(&crew, &mut scene, &shares).await?;
    let (committed_at, after) = (crew.now(), used_by_now(&scene.pids));
    let still: Vec<Vec<i32>> = (0..members as usize).map(|index| crew.stands(index).0).collect();
    crew.dissolve(members).await?;
    let mut report = Report { command: "groups consume", ..Report::default() };
    crew.describe(&mut report, &mut scene, &options.members).await?;
    let counts = &reading.counts;
    let (records, bytes) = (counts.records.get(), counts.bytes.get());
    let seconds = read_by.saturating_sub(start) as f64 / NS_PER_S;
    report.set_rates(records, counts.batches.get(), bytes, bytes, seconds);
    report.figures.insert("first_join_to_last_commit_ms", (committed_at - joined_from) as f64 / NS_PER_MS);
    set_usage(&mut report, before, after);
    for (what, count) in counts.errors.borrow().iter() {
        report.errors.insert(what.clone(), *count);
    }
    let expected: i64 = ends.iter().map(|(partition, end)| end - reading.log_starts[partition]).sum();
    for (what, count) in [
        ("batches with a wrong checksum", damaged.get()),
        ("records that were there and not read, or the reverse", records.abs_diff(expected.unsigned_abs())),
        ("rebalances while nobody came or went", u64::from(still != shares)),
    ] {
        if count > 0 {
            report.errors.insert(what.to_owned(), count);
        }
    }
    report.notes.push("the committed offsets were read back: each is its partition's end".to_owned());
    report.notes.push("values are not taken apart here: both MB/s are of whole batches".to_owned());
    Ok(report)
}

/// Every member commits the end of what it read; the ends, read back from the coordinator.
async fn commit_all(crew: &Crew, scene: &mut Scene, shares: &[Vec<i32>]) -> Result<Vec<(i32, i64)>, Error> {
    let mut ends = Vec::new();
    for (leader, partitions) in scene.topic.by_leader() {
        let mut link = Link::connect(&scene.core, leader).await?;
        ends.extend(topic::offsets(&mut link, &crew.topic, &partitions, LATEST).await?);
    }
    ends.sort_unstable();
    let (_, mut link) = coordinator::find(&mut scene.link, &crew.group).await?;
    for (index, share) in shares.iter().enumerate() {
        let (_, id, generation) = crew.stands(index);
        let offsets: Vec<(i32, i64)> =
            ends.iter().filter(|(partition, _)| share.contains(partition)).copied().collect();
        let member = Some((id.as_str(), generation));
        let commit = Commit { group: &crew.group, topic: &crew.topic, offsets: &offsets, member };
        offsets::commit(&mut link, &commit).await?;
    }
    let found = offsets::fetch(&mut link, &[&crew.group]).await?;
    let mut found = found
        .map_err(|code| Error::Protocol(format!("offsets cannot be read back: {}", describe_code(code))))?;
    match found.remove(&crew.group) {
        Some(found) if found.iter().map(|(partition, end)| (*partition, *end)).eq(ends.iter().copied()) => {
            Ok(ends)
        }
        found => Err(Error::Protocol(format!("the group committed {ends:?} and has {found:?}"))),
    }
}
