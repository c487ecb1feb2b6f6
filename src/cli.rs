//! The command line: what can be asked of the binary, and which module answers.
//!
//! Each command is one file below `cli/`; this one only parses and routes. Exit status: 0 when it was done, 1 when it
//! could not be, 2 when it was asked wrongly.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Problems, Setting};

mod alter;
mod config;
mod doctor;
mod group;
mod log;
mod own_configs;
mod remote;
mod start;
mod topic;

const EXAMPLES: &str = "\
Examples:
  corelog start                               one broker on this machine, with safe defaults
  corelog topic create orders --partitions 12 a topic on it
  corelog group describe billing              its members, offsets and lag
  corelog log dump --data ./data              what a stopped broker's folder holds, and where it is damaged
  corelog doctor                              what this machine lacks, and the command that mends it
  corelog config example > corelog.toml       every key with its default, commented
  corelog config check corelog.toml           is it valid, and what is in force
";

/// A storage broker that speaks the Apache Kafka protocol: one shard per core, io_uring, direct I/O.
#[derive(Debug, Parser)]
#[command(name = "corelog", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check and explain corelog.toml
    Config(config::Command),
    /// Run a broker
    Start(start::Command),
    /// Create, list, describe and delete topics
    Topic(topic::Command),
    /// List, describe, reset and delete consumer groups
    Group(group::Command),
    /// Look into a stopped broker's data folder, and mend what is damaged there
    Log(log::Command),
    /// Look at this machine: what it lacks for the broker, what that means, and the command that mends it
    Doctor(doctor::Command),
}

/// Where the config comes from; the same for every command that reads it.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Config file; without one the defaults hold
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key, by its dotted path; may be repeated, the last one wins
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// The config with `--set` laid over it, and `extra` (options of the command's own) over that.
    pub fn load(&self, extra: &[Setting]) -> Result<Config, Problems> {
        let mut settings = Vec::new();
        let mut problems = Vec::new();
        for text in &self.set {
            match Setting::parse(text) {
                Ok(setting) => settings.push(setting),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        settings.extend(extra.iter().cloned());
        Config::load(self.config.as_deref(), &settings)
    }
}

/// Parses the arguments of this process and does what they say.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Config(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Group(command) => command.run(),
        Command::Log(command) => command.run(),
        Command::Start(command) => command.run(),
        Command::Topic(command) => command.run(),
    }
}

/// The one way a command tells that it could not.
fn fail(error: impl std::fmt::Display) -> ExitCode {
    rt::say!("{error}");
    ExitCode::FAILURE
}

/// Prints without failing when the reader has gone, as in `corelog config example | head`.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
