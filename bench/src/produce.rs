//! `bench produce`: one run of writing, and this tool's own ceiling beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use rt::Core;

use crate::cli::{self, Acks};
use crate::histogram::{self, Latencies};
use crate::ledger;
use crate::link::{Error, Link, resolve};
use crate::process::Broker;
use crate::progress::{Pace, Patience, Progress};
use crate::report::Report;
use crate::run_on_core;
use crate::stages::{self, Scraping, Stages};
use crate::topic::{self, Topic};
use crate::usage;
use crate::verdict::Expected;
use crate::verify;
use crate::writing::{ANSWER_PATIENCE, Plans, Run};

const POLL: Duration = Duration::from_millis(50);
const CEILING_WARMUP: Duration = Duration::from_millis(200);
const CEILING_TIME: Duration = Duration::from_secs(1);
const NS_PER_S: f64 = 1e9;

/// What one run of writing brought.
pub struct Outcome {
    pub report: Report,
    pub latencies: Latencies,
    pub began_ms: i64,
}

pub fn run(options: &cli::Produce) -> Result<Report, Error> {
    let broker = Broker::find(options.target.bootstrap.as_deref(), options.target.data.as_deref())?;
    let plans = Plans { run: new_run(), load: options.load.clone(), rate: options.rate };
    let watched = Watched::of(&options.target, &broker);
    let bootstrap = broker.bootstrap.clone();
    let (asked, run) = (options.clone(), plans.run);
    let (mut outcome, topic) = run_on_core(move |core| async move {
        let mut link = Link::connect(&core, resolve(&bootstrap)?).await?;
        let topic = topic::find(&mut link, &asked.target.topic, Some(&asked.shape)).await?;
        let ledger = match &asked.ledger {
            Some(path) => Some(ledger::Writer::create(path, plans.run, &topic.name)?),
            None => None,
        };
        let outcome = write(&core, plans, &topic, ledger, &watched, asked.output.quiet).await?;
        Ok::<_, Error>((outcome, topic))
    })?;
    let report = &mut outcome.report;
    describe(report, options, &topic, &broker.bootstrap);
    if options.rate.is_none() && !options.no_ceiling {
        match ceiling(options, topic.partitions().len()) {
            Ok(records_per_s) => report.set_ceiling(records_per_s),
            Err(error) => report.notes.push(format!("the ceiling could not be measured: {error}")),
        }
    }
    if let Some(path) = &options.output.hdr {
        keep_histogram(path, report, "ack", &outcome.latencies, outcome.began_ms)?;
    }
    if options.verify {
        let expected = Expected { run: Some(run), records: Some(report.total_acknowledged), ledger: None };
        report.verdict = Some(verify::read_back(
            &broker.bootstrap,
            &topic.name,
            &verify::Reader::default(),
            expected,
            true,
        )?);
    }
    Ok(outcome.report)
}

/// Runs to the end, with the progress line, and takes the figures.
pub async fn write(
    core: &Core,
    plans: Plans,
    topic: &Topic,
    ledger: Option<ledger::Writer>,
    watched: &Watched,
    is_quiet: bool,
) -> Result<Outcome, Error> {
    let began_ms = core.wall_ms();
    let run = Run::start(core, plans.clone(), topic, ledger).await?;
    let mut progress = Progress::new(is_quiet, core.now().as_nanos());
    let mut meter = Meter::default();
    let mut patience = Patience::new(ANSWER_PATIENCE, core.now().as_nanos());
    while !run.is_over() {
        core.sleep(POLL).await;
        let now = core.now().as_nanos();
        meter.look(&run, now, watched);
        if progress.is_due(now) {
            let lately = run.counts.latencies_lately.take();
            let more = format!("   p99 {:8.2} ms   {} in flight", lately.p99_ms(), run.in_flight());
            let records = run.counts.total_acked.get();
            let bytes = records * plans.load.record_size as u64;
            progress.show(now - run.start_ns(), now, records, bytes, &more);
        }
        // With nothing under way there is nothing to wait for, as at a low rate.
        let mark = if run.in_flight() == 0 { now } else { run.answered() };
        match patience.look(now, mark) {
            Pace::Moving => {}
            Pace::Silent => progress.say(&format!("no answer comes; waiting for {}", run.waits_for())),
            Pace::Over => {
                let (waited, behind) = (ANSWER_PATIENCE.as_secs(), run.waits_for());
                run.counts.error(format!("no answer within {waited} s: {behind}"));
                run.give_up();
                break;
            }
        }
        if let Some(why) = run.hopeless() {
            run.give_up();
            run.finish().await;
            progress.end();
            return Err(Error::Protocol(why));
        }
        run.flush_ledger();
        if run.has_sent_all() {
            break;
        }
    }
    run.finish().await;
    meter.end(&run, core.now().as_nanos(), watched);
    progress.end();
    let mut report = report(&run, &plans, &meter);
    report.broker_stages = meter.stages()?;
    Ok(Outcome { report, latencies: run.counts.latencies.take(), began_ms })
}

fn report(run: &Run, plans: &Plans, meter: &Meter) -> Report {
    let counts = &run.counts;
    let mut report =
        Report { command: "produce", run: Some(format!("{:08x}", plans.run)), ..Report::default() };
    let records = counts.acked_in_window.get();
    let end = run.window.0.end.min(counts.last_ack.get().max(run.window.0.start));
    // A run that ended early, as when the broker died, is measured to its last answer.
    let ended_early = counts.last_ack.get() + NS_PER_S as u64 / 2 < run.window.0.end;
    let end = if ended_early || run.window.0.end == u64::MAX { end } else { run.window.0.end };
    let seconds = end.saturating_sub(run.window.0.start) as f64 / NS_PER_S;
    let value_bytes = records * plans.load.record_size as u64;
    report.set_rates(
        records,
        counts.batches_in_window.get(),
        value_bytes,
        counts.bytes_in_window.get(),
        seconds,
    );
    if let Some(rate) = plans.rate {
        report.set_target(rate);
    }
    report.latencies = BTreeMap::from([("ack latency", counts.latencies.borrow().quantiles())]);
    report.set_usage(meter.client(), meter.brokers(), meter.bytes());
    report.total_sent = counts.total_sent.get();
    report.total_acknowledged = counts.total_acked.get();
    report.total_failed = counts.total_failed.get();
    report.errors = counts.errors.borrow().clone();
    report
}

/// The brokers of a run, as far as they can be looked at.
#[derive(Default)]
pub struct Watched {
    pub pids: Vec<u32>,
    pub metrics: Option<String>,
}

impl Watched {
    pub fn of(target: &cli::Target, broker: &Broker) -> Watched {
        Watched {
            pids: broker.pid().into_iter().chain(target.broker_pid.iter().copied()).collect(),
            metrics: broker.metrics(target.broker_metrics.as_deref()),
        }
    }
}

/// What processes used while the window lasted, and what the broker tells of it.
#[derive(Default)]
struct Meter {
    before: Option<Reading>,
    after: Option<Reading>,
}

struct Reading {
    client: Option<usage::Sample>,
    brokers: Option<usage::Sample>,
    bytes: u64,
    scraping: Option<Scraping>,
}

impl Meter {
    fn look(&mut self, run: &Run, now: u64, watched: &Watched) {
        if self.before.is_none() && now >= run.window.0.start {
            self.before = Some(Reading::take(run, watched));
        }
        if self.after.is_none() && now >= run.window.0.end {
            self.after = Some(Reading::take(run, watched));
        }
    }

    fn end(&mut self, run: &Run, now: u64, watched: &Watched) {
        self.look(run, now, watched);
        self.after.get_or_insert_with(|| Reading::take(run, watched));
    }

    fn client(&self) -> Option<usage::Usage> {
        Some(usage::between(self.before.as_ref()?.client?, self.after.as_ref()?.client?))
    }

    fn brokers(&self) -> Option<usage::Usage> {
        Some(usage::between(self.before.as_ref()?.brokers?, self.after.as_ref()?.brokers?))
    }

    fn bytes(&self) -> u64 {
        self.before.as_ref().zip(self.after.as_ref()).map_or(0, |(before, after)| after.bytes - before.bytes)
    }

    /// Waits for the two pages.
    fn stages(&mut self) -> Result<Option<Stages>, Error> {
        let page = |reading: &mut Option<Reading>| reading.as_mut()?.scraping.take();
        let (Some(before), Some(after)) = (page(&mut self.before), page(&mut self.after)) else {
            return Ok(None);
        };
        Ok(Some(stages::between(&before.end()?, &after.end()?)))
    }
}

impl Reading {
    fn take(run: &Run, watched: &Watched) -> Reading {
        Reading {
            client: usage::sample_all(&[std::process::id()]),
            brokers: usage::sample_all(&watched.pids),
            bytes: run.counts.total_bytes.get(),
            scraping: watched.metrics.as_deref().map(Scraping::start),
        }
    }
}

pub fn new_run() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) as u32
}

/// The same load against a null broker in a process of its own, for a second.
fn ceiling(options: &cli::Produce, partitions: usize) -> Result<f64, Error> {
    let broker = Broker::null(partitions)?;
    let mut load = options.load.clone();
    (load.records, load.duration, load.warmup) = (None, Some(CEILING_TIME), Some(CEILING_WARMUP));
    let plans = Plans { run: new_run(), load, rate: None };
    let (bootstrap, name) = (broker.bootstrap.clone(), options.target.topic.clone());
    run_on_core(move |core| async move {
        let mut link = Link::connect(&core, resolve(&bootstrap)?).await?;
        let topic = topic::find(&mut link, &name, None).await?;
        let outcome = write(&core, plans, &topic, None, &Watched::default(), true).await?;
        Ok(outcome.report.records_per_s)
    })
}

fn describe(report: &mut Report, options: &cli::Produce, topic: &Topic, bootstrap: &str) {
    report.conditions = conditions(&options.load, topic, bootstrap);
    let loop_kind = if options.rate.is_some() { "open, from the intended time" } else { "closed" };
    report.conditions.insert("loop", loop_kind.to_owned());
    if topic.was_created {
        if let Some(durability) = options.shape.durability {
            report.conditions.insert("durability", durability.name().to_owned());
        }
        for (key, value) in &options.shape.topic_config {
            report.notes.push(format!("topic config {key}={value}"));
        }
    } else if options.shape.durability.is_some() || !options.shape.topic_config.is_empty() {
        report.notes.push("the topic was there already: its configs were left as they are".to_owned());
    }
    if options.load.acks == Acks::None {
        report.notes.push(
            "acks=0: latencies are until the socket took the request; nothing was acknowledged".to_owned(),
        );
    }
}

pub fn conditions(load: &cli::Load, topic: &Topic, bootstrap: &str) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("acks", load.acks.name().to_owned()),
        ("batch", format!("{} B", load.batch_bytes)),
        ("bootstrap", bootstrap.to_owned()),
        ("compression", load.compression.name().to_owned()),
        ("connections", load.connections.to_string()),
        ("idempotent", load.idempotent.to_string()),
        ("in flight", load.in_flight.to_string()),
        ("linger", format!("{} ms", load.linger_ms)),
        ("partitions", topic.leaders.len().to_string()),
        ("record", format!("{} B", load.record_size)),
        ("topic", topic.name.clone()),
    ])
}

pub fn keep_histogram(
    path: &std::path::Path,
    report: &Report,
    tag: &str,
    latencies: &Latencies,
    began_ms: i64,
) -> Result<(), Error> {
    let comment: Vec<String> =
        report.conditions.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let entry = histogram::Entry {
        tag,
        latencies,
        began: Duration::from_millis(u64::try_from(began_ms).unwrap_or(0)),
        lasted: Duration::from_secs_f64(report.seconds),
    };
    Ok(histogram::write_file(path, &comment.join("; "), &[entry])?)
}
