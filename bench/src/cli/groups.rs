//! `bench groups`: what its commands are told.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Fetch, Output, Target, parse_count, parse_duration, parse_some_time};

/// Most members of a group; each has its own connection.
const MEMBERS_MAX: i64 = 10_000;
const PARTITIONS_MAX: i64 = 100_000;

#[derive(Subcommand, Debug)]
pub enum Groups {
    /// From the first join until every member has its assignment and every partition one owner.
    Join(JoinGroup),
    /// How long members and partitions are without each other while members come and go.
    Pause(PauseGroup),
    /// Commits per second and how long one takes.
    Commit(CommitGroups),
    /// Commit many distinct offsets; or, with --wait-loaded, wait until a restarted broker gives all of them back.
    Fill(FillGroups),
    /// Join a group, read all of a topic, and commit: the rate of the whole group.
    Consume(ConsumeGroup),
}

impl Groups {
    pub fn output(&self) -> &Output {
        match self {
            Groups::Join(options) => &options.members.output,
            Groups::Pause(options) => &options.members.output,
            Groups::Commit(options) => &options.output,
            Groups::Fill(options) => &options.output,
            Groups::Consume(options) => &options.members.output,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// JoinGroup and SyncGroup, eager: whoever hears of a rebalance gives up everything.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848): the broker assigns, and partitions move one by one.
    Consumer,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Classic => "classic",
            Protocol::Consumer => "consumer",
        }
    }
}

/// One group and how its members behave.
#[derive(Args, Clone, Debug)]
pub struct Members {
    #[command(flatten)]
    pub target: Target,
    #[arg(long, value_enum, default_value = "classic")]
    pub protocol: Protocol,
    /// Members from the start, each on a connection of its own.
    #[arg(long, visible_alias = "consumers", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=MEMBERS_MAX))]
    pub members: u32,
    /// Partitions, when the topic is created [default: 12, or one for each member].
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=PARTITIONS_MAX))]
    pub partitions: Option<i32>,
    /// The group's id [default: a new one].
    #[arg(long)]
    pub group: Option<String>,
    /// Between two heartbeats of a member. Members of the consumer protocol keep to it too, not to what the broker proposes.
    #[arg(long, default_value = "500ms", value_parser = parse_some_time)]
    pub heartbeat: Duration,
    #[arg(long, default_value = "45s", value_parser = parse_some_time)]
    pub session_timeout: Duration,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args, Clone, Debug)]
pub struct JoinGroup {
    #[command(flatten)]
    pub members: Members,
    /// Waits for a line on stdin twice, and says so on stderr: when all are connected, and when all are assigned. For those
    /// who look at the broker's memory in between.
    #[arg(long)]
    pub step: bool,
}

#[derive(Args, Clone, Debug)]
pub struct PauseGroup {
    #[command(flatten)]
    pub members: Members,
    /// How often one more member joins and, when all is settled, leaves again.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub churn: u32,
}

#[derive(Args, Clone, Debug)]
pub struct CommitGroups {
    #[command(flatten)]
    pub target: Target,
    /// Groups; the connections share them.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub groups: u32,
    /// Offsets of one commit: so many partitions of the topic, which is created with as many.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
    /// Each has one commit under way at a time, as a consumer has.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=MEMBERS_MAX))]
    pub connections: u32,
    /// Open loop: so many commits a second of all connections, sent when they are due, latency taken from the due time.
    #[arg(long, value_parser = parse_count)]
    pub rate: Option<u64>,
    /// How long is measured, after the warm-up.
    #[arg(long, default_value = "10s", value_parser = parse_some_time)]
    pub duration: Duration,
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Do not measure this tool's own ceiling (against a null broker, one second after a closed-loop run).
    #[arg(long)]
    pub no_ceiling: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args, Clone, Debug)]
pub struct FillGroups {
    #[command(flatten)]
    pub target: Target,
    /// Distinct offsets, of all groups together.
    #[arg(long, default_value = "100000", value_parser = parse_count)]
    pub offsets: u64,
    /// Offsets of one group: so many partitions of the topic, which is created with as many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
    /// Begins the names of the groups.
    #[arg(long, default_value = "bench-fill")]
    pub group: String,
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=MEMBERS_MAX))]
    pub connections: u32,
    /// Commit nothing: ask until the broker, which may be starting, gives back what an earlier run committed, and tell how
    /// long that took.
    #[arg(long, requires = "bootstrap")]
    pub wait_loaded: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args, Clone, Debug)]
pub struct ConsumeGroup {
    #[command(flatten)]
    pub members: Members,
    #[command(flatten)]
    pub fetch: Fetch,
}
