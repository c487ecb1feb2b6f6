//! `corelog log`: looks into a stopped broker's data folder, and mends it. The work is `engine::repair`; here is what is
//! asked and how it is told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use coord::metadata::Metadata;
use engine::folder::{Folder, Identity};
use engine::ids::{LeaderEpoch, PartitionId};
use engine::raft_log;
use engine::repair::{self, PartitionFacts, Report};
use rt::Core;

use super::{fail, print};
use crate::metadata_log::metadata_of;

mod dump;

/// Memory for reading: pieces of files.
const TOOL_MEMORY_BYTES: usize = 64 << 20;

#[derive(Args, Debug)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Args, Clone, Debug)]
struct Which {
    /// The data folder. No broker may be running on it
    #[arg(long, value_name = "DIR", default_value = "corelog-data")]
    data: PathBuf,
    /// Only this topic
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition of each topic
    #[arg(long)]
    partition: Option<i32>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show what the folder holds: partitions, segments, batches, checkpoints, the metadata log, and any damage.
    /// Changes nothing; status 1 if anything is damaged
    Dump {
        #[command(flatten)]
        which: Which,
        /// Show every batch too
        #[arg(long)]
        batches: bool,
        /// Print JSON (with every batch)
        #[arg(long)]
        json: bool,
    },
    /// Mend what a start refuses: says first what will be done and what is lost, keeps every damaged byte in a file
    /// beside, and touches nothing that is not damaged
    Repair {
        #[command(flatten)]
        which: Which,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Do it; without this and without --dry-run nothing is done either
        #[arg(long, conflicts_with = "dry_run")]
        yes: bool,
    },
}

impl Command {
    pub fn run(self) -> ExitCode {
        let config = rt::Config { memory_bytes: TOOL_MEMORY_BYTES, ..rt::Config::new(1) };
        let done = rt::block_on_one(config, move |core| async move {
            match self.action {
                Action::Dump { which, batches, json } => dump::dump(&core, &which, batches, json).await,
                Action::Repair { which, dry_run, yes } => mend(&core, &which, dry_run, yes).await,
            }
        });
        match done {
            Ok(Ok(status)) => status,
            Ok(Err(why)) => fail(why),
            Err(error) => fail(format!("the runtime could not start: {error}")),
        }
    }
}

/// Everything that was asked for, and the metadata if it is readable.
async fn look(core: &Core, which: &Which) -> Result<(Report, Option<Metadata>), String> {
    if let Err(error) = core.list_dir(which.data.join("logs")).await {
        let data = which.data.display();
        return Err(format!(
            "{data} is no broker's data folder ({data}/logs: {error}); name one with --data DIR"
        ));
    }
    let generations = raft_log::inspect(core, &which.data.join("raft")).await;
    let generations = generations.map_err(|error| format!("{}: {error}", which.data.display()))?;
    let recovered = generations.into_iter().rev().find(|one| !one.groups.is_empty()).map(|one| one.recovered);
    let metadata = recovered.and_then(|recovered| metadata_of(recovered).ok());
    let (epochs, names) = known(metadata.as_ref());
    let only = |id: PartitionId| {
        let topic_fits = which.topic.as_ref().is_none_or(|topic| names.get(&id.topic.0) == Some(topic));
        topic_fits && which.partition.is_none_or(|index| index == id.index)
    };
    let report =
        repair::inspect(core, &which.data, &epochs, &only).await.map_err(|error| error.to_string())?;
    if report.partitions.is_empty() && (which.topic.is_some() || which.partition.is_some()) {
        return Err("no partition in this folder fits --topic and --partition".to_owned());
    }
    Ok((report, metadata))
}

type Known = (HashMap<PartitionId, LeaderEpoch>, HashMap<[u8; 16], String>);

/// The leader epochs and the topics' names that the metadata knows.
fn known(metadata: Option<&Metadata>) -> Known {
    let (mut epochs, mut names) = Known::default();
    for topic in metadata.iter().flat_map(|metadata| metadata.image().topics()) {
        names.insert(topic.id.0, topic.name.clone());
        epochs.extend(topic.ids().map(|(id, partition)| (id, partition.leader_epoch)));
    }
    (epochs, names)
}

async fn mend(core: &Core, which: &Which, dry_run: bool, yes: bool) -> Result<ExitCode, String> {
    let _held = Folder::hold(core, &which.data).await.map_err(|error| error.to_string())?;
    let (report, metadata) = look(core, which).await?;
    let mut plan = Vec::new();
    let identity = identity(&report, metadata.as_ref(), &mut plan);
    for generation in report.raft.iter().filter(|generation| generation.damage.is_some()) {
        dump::plan_of_metadata(generation, &mut plan);
    }
    let damaged: Vec<&PartitionFacts> = report.partitions.iter().filter(|one| one.is_damaged()).collect();
    damaged.iter().for_each(|one| dump::plan_of(one, &mut plan));
    if plan.is_empty() {
        return Ok(print("nothing is damaged\n"));
    }
    println!("{}", plan.join("\n"));
    if !yes {
        let next =
            if dry_run { "nothing was changed" } else { "nothing was changed; run it again with --yes" };
        println!("{next}");
        return Ok(ExitCode::from(u8::from(!dry_run)));
    }
    carry_out(core, &which.data, &report, identity, &damaged).await
}

/// What the folder's identity must be, if its own is damaged.
fn identity(report: &Report, metadata: Option<&Metadata>, plan: &mut Vec<String>) -> Option<[u8; 16]> {
    if report.identity != Identity::Unknown {
        return None;
    }
    // A folder is the storage of one broker: of the only one that its metadata knows.
    let brokers: Vec<_> = metadata.iter().flat_map(|metadata| metadata.image().brokers()).collect();
    match brokers.as_slice() {
        [one] => {
            plan.push(
                "the folder's identity is damaged: it is written anew, as the metadata log names it"
                    .to_owned(),
            );
            Some(one.storage)
        }
        _ => {
            plan.push(
                "the folder's identity is damaged, and the metadata log does not tell it: NOT MENDED"
                    .to_owned(),
            );
            None
        }
    }
}

async fn carry_out(
    core: &Core,
    data: &Path,
    report: &Report,
    identity: Option<[u8; 16]>,
    damaged: &[&PartitionFacts],
) -> Result<ExitCode, String> {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    if let Some(uuid) = identity {
        let restored = Folder::restore_identity(core, data, uuid).await;
        restored.map_err(|error| format!("the identity could not be written: {error}"))?;
        done.push("wrote the folder's identity".to_owned());
    }
    for generation in report.raft.iter().filter(|generation| generation.damage.is_some()) {
        match raft_log::cut(core, generation).await {
            Ok(what) => done.extend(what),
            Err(error) => failed.push(format!("{}: {error}", generation.path.display())),
        }
    }
    for partition in damaged {
        match repair::mend(core, partition).await {
            Ok(what) => done.extend(what),
            Err(error) => failed.push(format!("{}: {error}", partition.dir.display())),
        }
    }
    println!("{}", done.join("\n"));
    if failed.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(format!("NOT MENDED\n{}", failed.join("\n"))) }
}
