//! `bench groups join`: from the first join until every member holds partitions and every partition has one holder.
//!
//! All connections are made before the clock starts. `--step` stops twice for those who look at the broker meanwhile.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::crew::Crew;
use super::{NS_PER_MS, Scene, on_stage, set_usage, used_by_now};
use crate::cli::{self, JoinGroup};
use crate::link::Error;
use crate::progress::Progress;
use crate::report::Report;

/// Partitions of a new topic where none are asked for, unless there are more members.
const PARTITIONS_USUAL: u32 = 12;
const STEP_POLL: Duration = Duration::from_millis(20);

pub fn run(options: &JoinGroup) -> Result<Report, Error> {
    let asked = options.clone();
    let partitions = partitions(&options.members, options.members.members);
    on_stage(&options.members.target, partitions, move |scene| join(scene, asked))
}

/// As many as are asked for, else enough for `at_most` members.
pub fn partitions(options: &cli::Members, at_most: u32) -> i32 {
    let enough = i32::try_from(at_most.max(PARTITIONS_USUAL)).expect("the command line has a limit");
    options.partitions.unwrap_or(enough)
}

async fn join(mut scene: Scene, options: JoinGroup) -> Result<Report, Error> {
    let members = options.members.members;
    let crew = Crew::gather(&mut scene, &options.members, members).await?;
    let progress = Progress::new(options.members.output.quiet, crew.now());
    let links = crew.connect_many(members).await?;
    if options.step {
        step(&crew, &scene, &progress, "connected").await?;
    }
    let before = used_by_now(&scene.pids);
    let start = crew.now();
    for (index, link) in links.into_iter().enumerate() {
        crew.enter(index, link, true);
    }
    let settled_at = crew.settle(&progress).await?;
    let after = used_by_now(&scene.pids);
    if options.step {
        step(&crew, &scene, &progress, "assigned").await?;
    }
    crew.dissolve(members).await?;
    let mut report = Report { command: "groups join", ..Report::default() };
    crew.describe(&mut report, &mut scene, &options.members).await?;
    report.figures.insert("assigned_after_ms", settled_at.saturating_sub(start) as f64 / NS_PER_MS);
    set_usage(&mut report, before, after);
    Ok(report)
}

/// Waits for a line on stdin while the members go on.
async fn step(crew: &Crew, scene: &Scene, progress: &Progress, state: &str) -> Result<(), Error> {
    progress.say(&format!("{state}; waiting for a line on stdin"));
    let gone_on = Arc::new(AtomicBool::new(false));
    let go_on = gone_on.clone();
    std::thread::spawn(move || {
        // An end or an error of stdin is also a word to go on.
        let _nothing_to_read = io::stdin().lock().read_line(&mut String::new());
        go_on.store(true, Ordering::Release);
    });
    while !gone_on.load(Ordering::Acquire) {
        crew.fail_if_failed()?;
        scene.core.sleep(STEP_POLL).await;
    }
    Ok(())
}
