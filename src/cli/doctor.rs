//! `corelog doctor`: gathers the facts, leaves the judging to `tuning::doctor`, prints.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tuning::Machine;
use tuning::doctor::{Facts, Finding, Severity, examine, render};
use tuning::probe::{Disk, probe_disk, probe_host, probe_uring};

use super::{ConfigArgs, fail, print};
use crate::config::{Config, Driver};

#[derive(Args, Debug)]
#[command(after_help = "\
Nothing is changed: each command is printed for you to judge and run. A file of 16 KiB is written to the
data folder and removed. Status 1 when something keeps the broker from running as configured.

Examples:
  corelog doctor
  corelog doctor --config corelog.toml
  corelog doctor --set data.dir=/var/lib/corelog --json
")]
pub struct Command {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print facts and findings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    facts: &'a Facts,
}

impl Command {
    pub fn run(self) -> ExitCode {
        let config = match self.config.load(&[]) {
            Ok(config) => config,
            Err(problems) => return fail(problems),
        };
        let facts = gather(&config, &Machine::here());
        let findings = examine(&facts);
        let text = if self.json {
            match serde_json::to_string_pretty(&Report { findings: &findings, facts: &facts }) {
                Ok(text) => format!("{text}\n"),
                Err(error) => return fail(error),
            }
        } else {
            render(&findings)
        };
        let printed = print(&text);
        if findings.iter().any(|finding| finding.severity == Severity::Problem) {
            ExitCode::FAILURE
        } else {
            printed
        }
    }
}

fn gather(config: &Config, machine: &Machine) -> Facts {
    let root = Path::new("/");
    let resolved = config.resolve(machine);
    let memory_budget_bytes = resolved.as_ref().ok().map(|in_force| in_force.memory_budget_bytes);
    Facts {
        machine: machine.clone(),
        plan: resolved.map(|in_force| in_force.plan).map_err(|problems| problems.to_string()),
        uring: probe_uring(root),
        host: probe_host(root),
        data_dir: config.data.dir.clone(),
        disk: look_at(root, &config.data.dir),
        has_fallback_driver: config.runtime.driver != Driver::Ring,
        connections_max: u64::from(config.limits.connections_max),
        memory_budget_bytes,
    }
}

/// The data folder, or before the first start the nearest parent that exists.
fn look_at(root: &Path, folder: &Path) -> Result<Disk, String> {
    let absolute = std::path::absolute(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let existing: PathBuf = absolute.ancestors().find(|parent| parent.is_dir()).unwrap_or(root).to_path_buf();
    probe_disk(root, &existing).map_err(|error| format!("{}: {error}", existing.display()))
}
