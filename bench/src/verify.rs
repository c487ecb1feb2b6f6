//! `bench verify`: reads a topic back and has every record judged.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use engine::batch::walk::{Records, decompress_records};
use engine::batch::{Batch, Codec};
use rt::Core;

use crate::cli;
use crate::ledger::Ledger;
use crate::link::{Error, Link, resolve};
use crate::process::Broker;
use crate::progress::{Patience, Progress};
use crate::reading::{Arrived, Extent, READ_PATIENCE, Reading};
use crate::report::Report;
use crate::run_on_core;
use crate::topic;
use crate::verdict::{Expected, Judge, Verdict};

/// Far above any batch that this tool writes.
pub const UNPACKED_BYTES_MAX: usize = 256 << 20;
const POLL: Duration = Duration::from_millis(20);

pub fn run(options: &cli::Verify) -> Result<Report, Error> {
    let broker = Broker::find_to_read(options.target.bootstrap.as_deref(), options.target.data.as_deref())?;
    let ledger = match &options.ledger {
        Some(path) => Some(Ledger::read(path)?),
        None => None,
    };
    let topic = ledger.as_ref().map_or(options.target.topic.clone(), |ledger| ledger.topic.clone());
    let mut report = Report { command: "verify", ..Report::default() };
    report.conditions.insert("topic", topic.clone());
    report.conditions.insert("bootstrap", broker.bootstrap.clone());
    if let Some(ledger) = &ledger {
        report.run = Some(format!("{:08x}", ledger.run));
        if !ledger.ended_in_order {
            report
                .notes
                .push("the ledger's writer did not end in order; judged is what it wrote down".to_owned());
        }
    }
    let expected = Expected { run: options.run, records: options.records, ledger };
    let reader = Reader { fetch: options.fetch.clone(), consumers: options.consumers };
    let began = std::time::Instant::now();
    let verdict = read_back(&broker.bootstrap, &topic, &reader, expected, options.output.quiet)?;
    let seconds = began.elapsed().as_secs_f64();
    report.set_rates(verdict.records, 0, verdict.bytes, verdict.bytes, seconds);
    report.verdict = Some(verdict);
    Ok(report)
}

/// How it is read.
#[derive(Clone)]
pub struct Reader {
    pub fetch: cli::Fetch,
    pub consumers: u16,
}

/// After a run: with one consumer and ordinary answers.
impl Default for Reader {
    fn default() -> Reader {
        Reader { fetch: cli::Fetch { fetch_bytes: 8 << 20, partition_fetch_bytes: 1 << 20 }, consumers: 1 }
    }
}

/// Reads the whole topic and judges it.
pub fn read_back(
    bootstrap: &str,
    topic: &str,
    reader: &Reader,
    expected: Expected,
    is_quiet: bool,
) -> Result<Verdict, Error> {
    let (bootstrap, topic, reader) = (bootstrap.to_owned(), topic.to_owned(), reader.clone());
    run_on_core(
        move |core| async move { judge(&core, &bootstrap, &topic, &reader, expected, is_quiet).await },
    )
}

async fn judge(
    core: &Core,
    bootstrap: &str,
    topic: &str,
    reader: &Reader,
    expected: Expected,
    is_quiet: bool,
) -> Result<Verdict, Error> {
    let mut link = Link::connect(core, resolve(bootstrap)?).await?;
    let topic = topic::find(&mut link, topic, None).await?;
    let judge = Rc::new(RefCell::new(Judge::new(expected)));
    let told = judge.clone();
    let start = core.now().as_nanos();
    let reading =
        Reading::start(core, &reader.fetch, reader.consumers, &topic, Extent::WholeLog, move |arrived| {
            judge_batch(&mut told.borrow_mut(), &arrived);
        })
        .await?;
    for (partition, log_start) in &reading.log_starts {
        judge.borrow_mut().partition(*partition, *log_start);
    }
    let mut progress = Progress::new(is_quiet, start);
    let mut patience = Patience::new(READ_PATIENCE, start);
    while !reading.is_over() {
        core.sleep(POLL).await;
        let now = core.now().as_nanos();
        reading.look(&mut patience, &progress, now)?;
        if progress.is_due(now) {
            progress.show(
                now - start,
                now,
                reading.counts.records.get(),
                reading.counts.bytes.get(),
                "   read back",
            );
        }
    }
    progress.end();
    if let Some((error, _)) = reading.counts.errors.borrow().first_key_value() {
        return Err(Error::Protocol(error.clone()));
    }
    drop(reading);
    Ok(judge.take().finish())
}

fn judge_batch(judge: &mut Judge, arrived: &Arrived<'_>) {
    let (batch, partition) = (&arrived.batch, arrived.partition);
    let base = batch.base_offset().0;
    if !batch.crc_is_valid() {
        judge.damaged_batch(partition, base, "the batch's checksum is wrong");
        return;
    }
    if batch.is_control() {
        judge.not_ours(partition, base, batch.next_offset().0);
        return;
    }
    match batch.compression() {
        Some(Codec::None) => judge_records(judge, arrived, batch, batch.records_bytes()),
        Some(_) => match decompress_records(batch, UNPACKED_BYTES_MAX) {
            Ok(records) => judge_records(judge, arrived, batch, &records),
            Err(_) => judge.damaged_batch(partition, base, "the batch cannot be unpacked"),
        },
        None => judge.damaged_batch(partition, base, "the batch names no known codec"),
    }
}

fn judge_records(judge: &mut Judge, arrived: &Arrived<'_>, batch: &Batch<'_>, records: &[u8]) {
    for record in Records::new(batch, records) {
        let Ok(record) = record else {
            judge.damaged_batch(
                arrived.partition,
                batch.base_offset().0,
                "a record of the batch cannot be read",
            );
            return;
        };
        if record.offset.0 >= arrived.from {
            judge.record(arrived.partition, record.offset.0, record.value.unwrap_or_default());
        }
    }
}
