//! `bench groups`: what a group coordinator does, measured over the plain protocol, so against any broker.
//!
//! - [`crew`]: members as tasks, each on its own connection; [`classic`] and [`consumer`] are how they speak.
//! - [`ownership`]: who holds what as the members see it: the judge of every run, and the clock of pauses.
//! - [`coordinator`], [`offsets`]: where groups are led, what they committed.
//! - [`join`], [`pause`], [`commit`], [`fill`], [`consume`]: the commands.

mod classic;
mod commit;
mod consume;
mod consumer;
mod coordinator;
mod crew;
mod fill;
mod join;
mod offsets;
mod ownership;
mod pause;

use std::path::Path;
use std::time::Duration;

use rt::Core;

use crate::cli::{Groups, Target, TopicShape};
use crate::histogram::{self, Latencies};
use crate::link::{Error, Link, resolve};
use crate::process::Broker;
use crate::produce::{Watched, new_run};
use crate::report::Report;
use crate::run_on_core;
use crate::topic::{self, Topic};
use crate::usage;

const NS_PER_S: f64 = 1e9;
const NS_PER_MS: f64 = 1e6;

pub fn run(options: &Groups) -> Result<Report, Error> {
    let has_histograms = matches!(options, Groups::Pause(_) | Groups::Commit(_));
    if options.output().hdr.is_some() && !has_histograms {
        return Err(Error::Protocol(
            "there is no histogram to keep: --hdr is for pause and commit".to_owned(),
        ));
    }
    match options {
        Groups::Join(options) => join::run(options),
        Groups::Pause(options) => pause::run(options),
        Groups::Commit(options) => commit::run(options),
        Groups::Fill(options) => fill::run(options),
        Groups::Consume(options) => consume::run(options),
    }
}

/// Where a run goes.
struct Scene {
    core: Core,
    bootstrap: String,
    link: Link,
    topic: Topic,
    pids: Vec<u32>,
}

/// Finds the broker and the topic, which is created with `partitions` where it is missing, and runs `act` there.
fn on_stage<F, Fut>(target: &Target, partitions: i32, act: F) -> Result<Report, Error>
where
    F: FnOnce(Scene) -> Fut + 'static,
    Fut: Future<Output = Result<Report, Error>>,
{
    let broker = Broker::find(target.bootstrap.as_deref(), target.data.as_deref())?;
    let pids = Watched::of(target, &broker).pids;
    let (bootstrap, name) = (broker.bootstrap.clone(), target.topic.clone());
    run_on_core(move |core| async move {
        let mut link = Link::connect(&core, resolve(&bootstrap)?).await?;
        let shape =
            TopicShape { partitions, replication_factor: -1, durability: None, topic_config: Vec::new() };
        let topic = topic::find(&mut link, &name, Some(&shape)).await?;
        act(Scene { core, bootstrap, link, topic, pids }).await
    })
}

/// A group that no earlier run used.
fn new_group() -> String {
    format!("bench-{:08x}", new_run())
}

/// CPU time so far, of this process and of the brokers.
type Used = (Option<usage::Sample>, Option<usage::Sample>);

fn used_by_now(pids: &[u32]) -> Used {
    (usage::sample_all(&[std::process::id()]), usage::sample_all(pids))
}

fn set_usage(report: &mut Report, before: Used, after: Used) {
    let between = |before: Option<_>, after: Option<_>| Some(usage::between(before?, after?));
    report.set_usage(between(before.0, after.0), between(before.1, after.1), 0);
}

/// When what a histogram holds was measured.
struct Span {
    began_ms: i64,
    seconds: f64,
}

/// Puts the histograms into the report, and into the file where one is asked for.
fn set_latencies(
    report: &mut Report,
    taken: &[(&'static str, Latencies)],
    span: &Span,
    file: Option<&Path>,
) -> Result<(), Error> {
    report.latencies = taken.iter().map(|(name, latencies)| (*name, latencies.quantiles())).collect();
    let Some(path) = file else { return Ok(()) };
    let conditions = report.conditions.iter().map(|(key, value)| format!("{key}={value}"));
    let entries: Vec<_> = taken
        .iter()
        .map(|(tag, latencies)| histogram::Entry {
            tag,
            latencies,
            began: Duration::from_millis(u64::try_from(span.began_ms).unwrap_or(0)),
            lasted: Duration::from_secs_f64(span.seconds),
        })
        .collect();
    Ok(histogram::write_file(path, &conditions.collect::<Vec<_>>().join("; "), &entries)?)
}
