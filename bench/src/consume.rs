//! `bench consume`: how fast a topic is read from its beginning to its end.
//!
//! As ordinary consumers do it: whole batches, their checksums taken, records counted by the batches' headers.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rt::Core;

use crate::cli;
use crate::link::{Error, Link, resolve};
use crate::process::Broker;
use crate::produce::Watched;
use crate::progress::{Patience, Progress};
use crate::reading::{Extent, READ_PATIENCE, Reading};
use crate::report::Report;
use crate::run_on_core;
use crate::stages::{self, Scraping};
use crate::topic::{self, Topic};
use crate::usage;
use crate::writing::nanos;

const POLL: Duration = Duration::from_millis(20);
const NS_PER_S: f64 = 1e9;

pub fn run(options: &cli::Consume) -> Result<Report, Error> {
    let broker = Broker::find_to_read(options.target.bootstrap.as_deref(), options.target.data.as_deref())?;
    let watched = Watched::of(&options.target, &broker);
    let (bootstrap, asked) = (broker.bootstrap.clone(), options.clone());
    run_on_core(move |core| async move {
        let mut link = Link::connect(&core, resolve(&bootstrap)?).await?;
        let topic = topic::find(&mut link, &asked.target.topic, None).await?;
        read(&core, &asked, &topic, &bootstrap, &watched).await
    })
}

async fn read(
    core: &Core,
    options: &cli::Consume,
    topic: &Topic,
    bootstrap: &str,
    watched: &Watched,
) -> Result<Report, Error> {
    let damaged = Rc::new(Cell::new(0u64));
    let (damaged_seen, start) = (damaged.clone(), core.now().as_nanos());
    let page = || watched.metrics.as_deref().map(|address| Scraping::start(address).end()).transpose();
    let page_before = page()?;
    let before = (usage::sample_all(&[std::process::id()]), usage::sample_all(&watched.pids));
    let reading =
        Reading::start(core, &options.fetch, options.consumers, topic, Extent::WholeLog, move |arrived| {
            if !arrived.batch.crc_is_valid() {
                damaged_seen.set(damaged_seen.get() + 1);
            }
        })
        .await?;
    let end = options.duration.map_or(u64::MAX, |duration| start + nanos(duration));
    let mut progress = Progress::new(options.output.quiet, start);
    let mut patience = Patience::new(READ_PATIENCE, start);
    while !reading.is_over() {
        core.sleep(POLL).await;
        let (now, counts) = (core.now().as_nanos(), &reading.counts);
        reading.look(&mut patience, &progress, now)?;
        if progress.is_due(now) {
            progress.show(now - start, now, counts.records.get(), counts.bytes.get(), "");
        }
        if now >= end || options.records.is_some_and(|records| counts.records.get() >= records) {
            reading.stop();
            break;
        }
    }
    progress.end();
    let after = (usage::sample_all(&[std::process::id()]), usage::sample_all(&watched.pids));
    let page_after = page()?;
    let used = |before: Option<_>, after: Option<_>| Some(usage::between(before?, after?));
    let counts = &reading.counts;
    let mut report = Report { command: "consume", ..Report::default() };
    for (key, value) in [
        ("topic", topic.name.clone()),
        ("bootstrap", bootstrap.to_owned()),
        ("partitions", topic.leaders.len().to_string()),
        ("consumers", options.consumers.to_string()),
        ("answer", format!("{} B", options.fetch.fetch_bytes)),
        ("of one partition", format!("{} B", options.fetch.partition_fetch_bytes)),
    ] {
        report.conditions.insert(key, value);
    }
    let seconds = reading.last_bytes_at.get().saturating_sub(start) as f64 / NS_PER_S;
    let (records, bytes) = (counts.records.get(), counts.bytes.get());
    report.set_rates(records, counts.batches.get(), bytes, bytes, seconds);
    report.set_usage(used(before.0, after.0), used(before.1, after.1), bytes);
    report.broker_stages =
        page_before.zip(page_after).map(|(before, after)| stages::between(&before, &after));
    report.errors = counts.errors.borrow().clone();
    if damaged.get() > 0 {
        report.errors.insert("batches with a wrong checksum".to_owned(), damaged.get());
    }
    if let Some(first) = reading.first_bytes_at.get() {
        report.notes.push(format!(
            "{} fetches; first bytes after {:.1} ms",
            counts.fetches.get(),
            (first - start) as f64 / 1e6
        ));
    }
    report.notes.push("values are not taken apart here: both MB/s are of whole batches".to_owned());
    Ok(report)
}
