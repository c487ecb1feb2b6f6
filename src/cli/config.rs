//! `corelog config check FILE` and `corelog config example`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use tuning::Machine;

use super::{ConfigArgs, fail, print};
use crate::config::units::format_bytes;
use crate::config::{Config, InForce, keys};

#[derive(Args, Debug)]
pub struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Validate a file for this machine and print what would be in force; status 1 when it is not valid
    Check {
        /// The file, usually corelog.toml
        file: PathBuf,
        /// Override one key, as `corelog start` would
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print config and what is in force as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a file with every key, its default and what it is for
    Example,
}

#[derive(Serialize)]
struct Report<'a> {
    config: &'a Config,
    in_force: &'a InForce,
}

impl Command {
    pub fn run(self) -> ExitCode {
        match self.what {
            What::Example => print(&keys::example()),
            What::Check { file, set, json } => check(file, set, json),
        }
    }
}

fn check(file: PathBuf, set: Vec<String>, json: bool) -> ExitCode {
    let name = file.display().to_string();
    let args = ConfigArgs { config: Some(file), set };
    let settled = args.load(&[]).and_then(|config| Ok((config.resolve(&Machine::here())?, config)));
    let (in_force, config) = match settled {
        Ok(settled) => settled,
        Err(problems) => return fail(problems),
    };
    if json {
        let report = Report { config: &config, in_force: &in_force };
        return match serde_json::to_string_pretty(&report) {
            Ok(text) => print(&format!("{text}\n")),
            Err(error) => fail(error),
        };
    }
    print(&format!("{name} is valid. On this machine:\n{}", describe(&config, &in_force)))
}

fn describe(config: &Config, in_force: &InForce) -> String {
    let budget = format_bytes(in_force.memory_budget_bytes);
    let mut lines = vec![
        ("cores", in_force.plan.to_string()),
        ("memory", format!("{budget} ({})", in_force.memory_reason)),
        ("durability", config.durability.to_string()),
        ("listener", format!("kafka {}", config.listeners.kafka)),
        ("admin", config.admin.listen.as_ref().map_or("nowhere".to_owned(), ToString::to_string)),
        ("data", config.data.dir.display().to_string()),
        ("request", format!("at most {}", format_bytes(in_force.request_bytes_max))),
        ("fetch", format!("at most {}", format_bytes(in_force.fetch_bytes_max))),
    ];
    lines.extend(in_force.plan.notes.iter().map(|note| ("note", note.clone())));
    lines.into_iter().map(|(name, value)| format!("  {name:<11} {value}\n")).collect()
}
