//! `bench groups pause`: what those who stay notice when another member comes and goes.
//!
//! Three times are taken. A member's pause: it holds nothing, from the answer that took its last partition away until one
//! gives it some. A partition's pause: nobody holds it, whoever did before and does after. Settling: from the newcomer's
//! first request, or from the leaver's last look, until everything is held again; the heartbeats' interval is part of it.

use std::time::Duration;

use rt::Core;

use super::crew::Crew;
use super::join::partitions;
use super::{NS_PER_S, Scene, Span, on_stage, set_latencies, set_usage, used_by_now};
use crate::cli::PauseGroup;
use crate::histogram::Latencies;
use crate::link::Error;
use crate::progress::Progress;
use crate::report::Report;

pub fn run(options: &PauseGroup) -> Result<Report, Error> {
    let asked = options.clone();
    let partitions = partitions(&options.members, options.members.members + 1);
    on_stage(&options.members.target, partitions, move |scene| pause(scene, asked))
}

async fn pause(mut scene: Scene, options: PauseGroup) -> Result<Report, Error> {
    let members = options.members.members;
    let crew = Crew::gather(&mut scene, &options.members, members + 1).await?;
    let mut progress = Progress::new(options.members.output.quiet, crew.now());
    for (index, link) in crew.connect_many(members).await?.into_iter().enumerate() {
        crew.enter(index, link, true);
        // As in life, their heartbeats are spread over the interval; the classic protocol's rebalances bring them together.
        scene.core.sleep(options.members.heartbeat / members).await;
    }
    crew.settle(&progress).await?;
    // Those of the beginning are another command's matter.
    drop(crew.take_pauses());
    let began_ms = scene.core.wall_ms();
    let (mut coming, mut going) = (Latencies::default(), Latencies::default());
    let (before, start) = (used_by_now(&scene.pids), crew.now());
    for round in 0..options.churn {
        let newcomer = (members + round) as usize;
        let link = crew.connect().await?;
        some_time(&scene.core, options.members.heartbeat, 2 * round).await;
        let came_at = crew.now();
        crew.enter(newcomer, link, false);
        coming.record(crew.settle(&progress).await?.saturating_sub(came_at));
        some_time(&scene.core, options.members.heartbeat, 2 * round + 1).await;
        let left_at = crew.let_go(newcomer).await?;
        going.record(crew.settle(&progress).await?.saturating_sub(left_at));
        let now = crew.now();
        if progress.is_due(now) {
            progress.tell(
                now - start,
                now,
                &format!("{} of {} members came and went", round + 1, options.churn),
            );
        }
    }
    progress.end();
    let (after, end) = (used_by_now(&scene.pids), crew.now());
    let (member_pauses, partition_pauses) = crew.take_pauses();
    crew.dissolve(members).await?;
    let mut report = Report { command: "groups pause", ..Report::default() };
    crew.describe(&mut report, &mut scene, &options.members).await?;
    report.conditions.insert("churn", options.churn.to_string());
    set_usage(&mut report, before, after);
    let taken = [
        ("member pause", member_pauses),
        ("partition pause", partition_pauses),
        ("settled after a join", coming),
        ("settled after a leave", going),
    ];
    let span = Span { began_ms, seconds: (end - start) as f64 / NS_PER_S };
    set_latencies(&mut report, &taken, &span, options.members.output.hdr.as_deref())?;
    Ok(report)
}

/// How long a broker may wait before it assigns a group of the consumer protocol anew, by default
/// (`group.consumer.assignment.interval.ms`): a group is left alone as long, or pauses would be mostly that.
const ASSIGNMENT_INTERVAL: Duration = Duration::from_secs(1);

/// Members come and go at any moment, not in step with the heartbeats of those who stay. A partition that moves is taken with
/// its next holder's next heartbeat, so most of its pause is where in the interval that happens to be: the moments are spread
/// evenly over it (by the golden ratio), lest a run of few measures its luck.
async fn some_time(core: &Core, heartbeat: Duration, number: u32) {
    const GOLDEN: f64 = 0.618_034;
    core.sleep(ASSIGNMENT_INTERVAL + heartbeat.mul_f64((f64::from(number) * GOLDEN).fract())).await;
}
