//! `bench`: the load generator. It speaks the plain Kafka protocol, so it drives any broker that does.
//!
//! - [`schedule`], [`payload`], [`batches`]: what is sent, and when it is meant to be.
//! - [`writing`], [`reading`], [`link`], [`topic`]: how it goes over connections; on one core of `rt`.
//! - [`produce`], [`consume`], [`e2e`], [`groups`], [`verify`], [`null_broker`], [`disk`]: the commands.
//! - [`histogram`], [`report`], [`verdict`], [`ledger`], [`usage`], [`stages`], [`progress`]: what is found and how it is told.
//!
//! Ends with 0 when all went well, 1 when a run could not be made, 2 when it was made and something is wrong: records
//! refused, or faults found.

mod batches;
mod cli;
mod consume;
mod disk;
mod e2e;
mod groups;
mod histogram;
mod ledger;
mod link;
mod null_broker;
mod payload;
mod process;
mod produce;
mod progress;
mod reading;
mod report;
mod schedule;
mod stages;
mod topic;
mod usage;
mod verdict;
mod verify;
mod writing;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use link::Error;
use report::Report;

/// Receive buffers of thousands of connections, or of a few with large answers.
const MEMORY_BYTES: usize = 1 << 30;
const FAULTS: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.command {
        Command::Produce(options) => produce::run(options).map(|report| show(&report, &options.output)),
        Command::Consume(options) => consume::run(options).map(|report| show(&report, &options.output)),
        Command::E2e(options) => e2e::run(options).map(|report| show(&report, &options.output)),
        Command::Verify(options) => verify::run(options).map(|report| show(&report, &options.output)),
        Command::Groups(options) => groups::run(options).map(|report| show(&report, options.output())),
        Command::NullBroker(options) => null_broker::run(options).map(|()| ExitCode::SUCCESS),
        Command::Disk(options) => disk::run(options).map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        ExitCode::FAILURE
    })
}

fn show(report: &Report, output: &cli::Output) -> ExitCode {
    if output.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(FAULTS) }
}

/// Runs `main` on one core of this thread.
fn run_on_core<F, Fut, T>(main: F) -> Result<T, Error>
where
    F: FnOnce(rt::Core) -> Fut,
    Fut: Future<Output = Result<T, Error>> + 'static,
    T: 'static,
{
    let config = rt::Config { memory_bytes: MEMORY_BYTES, ..rt::Config::new(1) };
    rt::block_on_one(config, main)?
}
