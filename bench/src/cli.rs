//! The command line.

mod groups;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::batch::Codec;

pub use groups::{CommitGroups, ConsumeGroup, FillGroups, Groups, JoinGroup, Members, PauseGroup, Protocol};

use crate::payload::{RECORD_BYTES_MAX, RECORD_BYTES_MIN};

/// Load and measurements for any broker that speaks the Kafka protocol.
///
/// Without --bootstrap, a broker listening on 127.0.0.1:9092 is used; when there is none, the `corelog` beside this program
/// is started on a fresh folder and stopped at the end.
#[derive(Parser, Debug)]
#[command(name = "bench", version, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bench produce --acks all                        how much goes through, ten seconds, 12 partitions, 1 KiB records
  bench produce --rate 1000 --linger-ms 0         how long an acknowledgement takes, at a fixed rate (open loop)
  bench produce --ledger run.ledger               note what was acknowledged; after a crash:
  bench verify --ledger run.ledger                is all of it there, once, in order?
  bench e2e --rate 1000                           from the intended send time to the consumer
  bench groups join --members 100                 how long a group takes until every partition has its owner";

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Write records and measure throughput and acknowledgement latency.
    Produce(Produce),
    /// Read a topic from its beginning to its end and measure the rate.
    Consume(Consume),
    /// Write at a fixed rate, read at the same time, and measure from intended send time to arrival.
    E2e(E2e),
    /// Read everything back and check every record: loss, duplication, reordering, corruption.
    Verify(Verify),
    /// Consumer groups: joining, rebalance pauses, commits, loading committed offsets, consuming.
    #[command(subcommand)]
    Groups(Groups),
    /// Serve as a broker that stores nothing and answers at once: the ceiling of this tool.
    NullBroker(NullBroker),
    /// Measure what the disk below a folder gives with direct I/O: the limit that no broker can pass.
    Disk(Disk),
}

#[derive(Args, Clone, Debug)]
pub struct Target {
    /// HOST:PORT of a broker [default: 127.0.0.1:9092 if something listens there, else a broker of our own].
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap: Option<String>,
    /// Whoever writes creates it when it is missing.
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// Where a broker of our own keeps its data [default: a fresh temporary folder, removed at the end].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Process ids of the brokers, for their CPU time, memory and device writes. A broker of our own is always sampled.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub broker_pid: Vec<u32>,
    /// HOST:PORT of a Corelog's metrics (its admin.listen): where its time went and how often it copied, in the measured
    /// window. A broker of our own is always asked.
    #[arg(long, value_name = "HOST:PORT")]
    pub broker_metrics: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub struct TopicShape {
    /// Partitions, when the topic is created.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub partitions: i32,
    /// Replicas, when the topic is created; -1 is the broker's default.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub replication_factor: i16,
    /// Sets corelog.durability when the topic is created. Only Corelog knows it; never sent unless given.
    #[arg(long, value_enum)]
    pub durability: Option<Durability>,
    /// Any other topic config at creation, such as flush.messages=1.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub topic_config: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    Fsync,
    Write,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::Fsync => "fsync",
            Durability::Write => "write",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    #[value(name = "all", alias = "-1")]
    All,
}

impl Acks {
    pub fn on_wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Acks::None => "0",
            Acks::Leader => "1",
            Acks::All => "all",
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct Load {
    #[arg(long, value_enum, default_value = "all", allow_negative_numbers = true)]
    pub acks: Acks,
    /// Bytes of a record's value, such as 100, 1KiB, 16k.
    #[arg(long, default_value = "1KiB", value_parser = parse_record_size)]
    pub record_size: usize,
    /// How long is measured, after the warm-up [default: 10s].
    #[arg(long, value_parser = parse_some_time, conflicts_with = "records")]
    pub duration: Option<Duration>,
    /// Write so many records instead.
    #[arg(long, value_parser = parse_count)]
    pub records: Option<u64>,
    /// Not measured [default: 1s; with --records none].
    #[arg(long, value_parser = parse_duration)]
    pub warmup: Option<Duration>,
    /// Producers, each with its own connection to every leader.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: u16,
    /// How long a record waits for company.
    #[arg(long, default_value_t = 0.0, value_parser = parse_ms)]
    pub linger_ms: f64,
    /// Most bytes of one batch.
    #[arg(long, default_value = "64KiB", value_parser = parse_bytes)]
    pub batch_bytes: usize,
    /// Most unanswered requests of one connection.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub in_flight: u16,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none", value_parser = parse_codec)]
    pub compression: Codec,
    /// Write as idempotent producers do.
    #[arg(long)]
    pub idempotent: bool,
}

impl Load {
    pub fn warmup(&self) -> Duration {
        let usual = if self.records.is_some() { Duration::ZERO } else { Duration::from_secs(1) };
        self.warmup.unwrap_or(usual)
    }

    pub fn duration(&self) -> Duration {
        self.duration.unwrap_or(Duration::from_secs(10))
    }
}

#[derive(Args, Clone, Debug)]
pub struct Output {
    /// One JSON object on stdout instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Keep the raw histograms in this file (HdrHistogram interval log, nanoseconds).
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// No progress line.
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Produce {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub shape: TopicShape,
    #[command(flatten)]
    pub load: Load,
    /// Open loop: so many records a second of all connections, sent when they are due, latency taken from the due time.
    /// Without it: closed loop, as fast as the answers come.
    #[arg(long, value_parser = parse_count)]
    pub rate: Option<u64>,
    /// Note every acknowledged batch in this file, for `bench verify --ledger`.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Read everything back afterwards and check every record.
    #[arg(long)]
    pub verify: bool,
    /// Do not measure this tool's own ceiling (against a null broker, one second after a closed-loop run).
    #[arg(long)]
    pub no_ceiling: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args, Clone, Debug)]
pub struct Consume {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub fetch: Fetch,
    /// Consumers; they share the partitions.
    #[arg(long, visible_alias = "connections", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub consumers: u16,
    /// End after this time even when there is more.
    #[arg(long, value_parser = parse_some_time)]
    pub duration: Option<Duration>,
    /// End after so many records.
    #[arg(long, value_parser = parse_count)]
    pub records: Option<u64>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args, Clone, Debug)]
pub struct Fetch {
    /// Most bytes of one answer.
    #[arg(long, default_value = "8MiB", value_parser = parse_bytes)]
    pub fetch_bytes: usize,
    /// Most bytes of one partition in an answer.
    #[arg(long, default_value = "1MiB", value_parser = parse_bytes)]
    pub partition_fetch_bytes: usize,
}

#[derive(Args, Clone, Debug)]
pub struct E2e {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub shape: TopicShape,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub fetch: Fetch,
    /// Consumers; they share the partitions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub consumers: u16,
    /// Records a second of all producers together.
    #[arg(long, default_value = "1000", value_parser = parse_count)]
    pub rate: u64,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args, Clone, Debug)]
pub struct Verify {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub fetch: Fetch,
    /// Consumers; they share the partitions.
    #[arg(long, visible_alias = "connections", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub consumers: u16,
    /// Hold the broker to what this file says was acknowledged.
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Judge only this run (its id as the report of `produce` gives it).
    #[arg(long, value_parser = parse_run, value_name = "ID")]
    pub run: Option<u32>,
    /// At least so many records must be there.
    #[arg(long, value_parser = parse_count)]
    pub records: Option<u64>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Args, Clone, Debug)]
pub struct NullBroker {
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub listen: String,
    /// Partitions of every topic that is asked for.
    #[arg(long, default_value_t = 12)]
    pub partitions: i32,
}

#[derive(Args, Clone, Debug)]
pub struct Disk {
    /// The folder; a file of 512 MiB is made in it and removed.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub data: PathBuf,
    /// How long each shape is measured.
    #[arg(long, default_value = "2s", value_parser = parse_some_time)]
    pub duration: Duration,
    /// One JSON array on stdout instead of the table.
    #[arg(long)]
    pub json: bool,
}

/// 1000, 64k, 64KiB, 1MB: letters k, m, g are powers of 1024 here, with or without `iB` or `B`.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: usize = number.parse().map_err(|_| format!("{text:?} is not a size"))?;
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("{text:?} is not a size; write 1000, 64KiB or 1MiB")),
    };
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= 1 << 30)
        .ok_or_else(|| format!("{text} is above 1 GiB"))
}

fn parse_record_size(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text)?;
    if !(RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&bytes) {
        return Err(format!("a record has {RECORD_BYTES_MIN} to {RECORD_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// 1000000, 1_000_000, 100k, 2M: powers of ten.
fn parse_count(text: &str) -> Result<u64, String> {
    let plain = text.replace('_', "");
    let (number, factor) = match plain.to_ascii_lowercase() {
        t if t.ends_with('k') => (t[..t.len() - 1].to_owned(), 1_000),
        t if t.ends_with('m') => (t[..t.len() - 1].to_owned(), 1_000_000),
        t => (t, 1),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a count"))?;
    number.checked_mul(factor).filter(|count| *count > 0).ok_or_else(|| format!("{text} is out of range"))
}

/// 10, 10s, 500ms, 2m.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    let seconds: f64 =
        number.parse().map_err(|_| format!("{text:?} is not a time; write 10s, 500ms or 2m"))?;
    Duration::try_from_secs_f64(seconds * unit_s).map_err(|_| format!("{text:?} is not a time"))
}

/// A time in which something can be measured.
fn parse_some_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).and_then(|time| match time.is_zero() {
        true => Err("nothing can be measured in no time; write 10s, 500ms or 2m".to_owned()),
        false => Ok(time),
    })
}

fn parse_ms(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|ms| (0.0..=60_000.0).contains(ms))
        .ok_or_else(|| "0 to 60000 milliseconds".to_owned())
}

fn parse_codec(text: &str) -> Result<Codec, String> {
    Codec::from_name(text).ok_or_else(|| "none, gzip, snappy, lz4 or zstd".to_owned())
}

fn parse_run(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 16).map_err(|_| "a run's id has up to eight hexadecimal digits".to_owned())
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let line = "bench produce --acks=all --record-size 100 --rate 2k --durability write --topic-config flush.messages=1";
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        let Command::Produce(produce) = cli.command else { panic!("produce was asked for") };
        assert_eq!(
            (produce.load.acks.on_wire(), produce.load.record_size, produce.rate),
            (-1, 100, Some(2_000))
        );
    }

    #[test]
    fn sizes_counts_and_times() {
        let sizes = [("100", 100), ("1KiB", 1024), ("16k", 16_384), ("1MB", 1 << 20)];
        for (text, want) in sizes {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        assert!(parse_bytes("1x").is_err());
        assert!(parse_bytes("k").is_err());
        assert!(parse_record_size("31").is_err());
        assert_eq!(parse_count("1_000"), Ok(1_000));
        assert_eq!(parse_count("2M"), Ok(2_000_000));
        assert!(parse_count("0").is_err());
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert!(parse_duration("-1s").is_err());
        assert_eq!((parse_duration("0"), parse_some_time("0").is_err()), (Ok(Duration::ZERO), true));
    }
}
