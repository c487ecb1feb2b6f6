//! `bench e2e`: from a record's intended send time to its arrival at a consumer, both on this core and this clock.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use engine::batch::Batch;
use engine::batch::walk::{Records, decompress_records};
use rt::Core;

use crate::cli;
use crate::histogram::Latencies;
use crate::link::{Error, Link, resolve};
use crate::payload::read_head;
use crate::process::Broker;
use crate::produce::{Watched, conditions, keep_histogram, new_run, write};
use crate::reading::{Arrived, Extent, Reading};
use crate::report::Report;
use crate::run_on_core;
use crate::topic;
use crate::verify::UNPACKED_BYTES_MAX;
use crate::writing::Plans;

/// How long the last records may take to arrive.
const ARRIVAL_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// What has arrived so far. Records of the warm-up are told by their sequence of arrival time, so all are kept.
#[derive(Default)]
struct Arrivals {
    latencies: Latencies,
    records: u64,
    foreign: u64,
}

pub fn run(options: &cli::E2e) -> Result<Report, Error> {
    let broker = Broker::find(options.target.bootstrap.as_deref(), options.target.data.as_deref())?;
    let watched = Watched::of(&options.target, &broker);
    let (bootstrap, asked) = (broker.bootstrap.clone(), options.clone());
    run_on_core(move |core| async move { measure(&core, &asked, &bootstrap, &watched).await })
}

async fn measure(
    core: &Core,
    options: &cli::E2e,
    bootstrap: &str,
    watched: &Watched,
) -> Result<Report, Error> {
    let mut link = Link::connect(core, resolve(bootstrap)?).await?;
    let topic = topic::find(&mut link, &options.target.topic, Some(&options.shape)).await?;
    let plans = Plans { run: new_run(), load: options.load.clone(), rate: Some(options.rate) };
    let arrivals = Rc::new(RefCell::new(Arrivals::default()));
    let seen = arrivals.clone();
    let (run, warm_at) = (plans.run, core.now() + options.load.warmup());
    let warm_at = warm_at.as_nanos();
    let reading =
        Reading::start(core, &options.fetch, options.consumers, &topic, Extent::Tail, move |arrived| {
            seen.borrow_mut().batch(&arrived, run, warm_at);
        })
        .await?;
    let mut outcome = write(core, plans, &topic, None, watched, options.output.quiet).await?;
    let acknowledged = outcome.report.total_acknowledged;
    let give_up_at = core.now() + ARRIVAL_WAIT;
    while arrivals.borrow().records < acknowledged && core.now() < give_up_at && !reading.is_over() {
        core.sleep(POLL).await;
    }
    reading.stop();
    let report = &mut outcome.report;
    report.command = "e2e";
    report.conditions = conditions(&options.load, &topic, bootstrap);
    report.conditions.insert("loop", "open, from the intended time".to_owned());
    report.conditions.insert("consumers", options.consumers.to_string());
    report.latencies.insert("end to end", arrivals.borrow().latencies.quantiles());
    report.errors.extend(reading.counts.errors.borrow().clone());
    let arrived = arrivals.borrow().records;
    if arrived < acknowledged {
        report.errors.insert("acknowledged records that did not arrive".to_owned(), acknowledged - arrived);
    }
    if arrivals.borrow().foreign > 0 {
        report.notes.push(format!("{} records of others arrived meanwhile", arrivals.borrow().foreign));
    }
    if let Some(path) = &options.output.hdr {
        keep_histogram(path, report, "e2e", &arrivals.borrow().latencies, outcome.began_ms)?;
    }
    Ok(outcome.report)
}

impl Arrivals {
    fn batch(&mut self, arrived: &Arrived<'_>, run: u32, warm_at: u64) {
        let batch = &arrived.batch;
        let plain = unpack(batch);
        for record in Records::new(batch, plain.as_deref().unwrap_or(batch.records_bytes())).flatten() {
            let head =
                record.value.and_then(|value| read_head(value).ok()).filter(|head| head.stream.run == run);
            let Some(head) = head else {
                self.foreign += 1;
                continue;
            };
            self.records += 1;
            if head.intended >= warm_at {
                self.latencies.record(arrived.now.saturating_sub(head.intended));
            }
        }
    }
}

/// The unpacked records of a compressed batch.
fn unpack(batch: &Batch<'_>) -> Option<Vec<u8>> {
    let is_plain = batch.compression().is_none_or(|codec| codec == engine::batch::Codec::None);
    if is_plain { None } else { decompress_records(batch, UNPACKED_BYTES_MAX).ok() }
}
