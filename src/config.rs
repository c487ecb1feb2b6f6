//! `corelog.toml`, read, judged and typed.
//!
//! A file and any number of `key=value` overrides become a [`Config`], or all that is wrong with them at once. The
//! keys, defaults and ranges stand in [`keys`]; what can only be judged together with the machine (memory, cores) is
//! settled by [`Config::resolve`], whose result, [`InForce`], is what the broker runs with.
//!
//! Invariant: a `Config` holds only values inside their documented ranges, whatever the file said.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tuning::plan::Wish;

#[doc(hidden)]
pub mod fuzz;
mod in_force;
pub mod keys;
mod read;
mod source;
pub mod units;
mod values;

#[cfg(test)]
mod tests;

pub use in_force::InForce;
pub use source::{Place, Setting};

/// What is wrong with one setting: where, and a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub message: String,
}

/// At least one problem; shown one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            match &problem.place {
                Place::Default => write!(f, "{}", problem.message)?,
                place => write!(f, "{place}: {}", problem.message)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    pub node: Node,
    pub listeners: Listeners,
    pub admin: Admin,
    pub data: Data,
    pub cores: Wish,
    pub runtime: Runtime,
    pub memory: Memory,
    pub durability: Durability,
    pub topics: Topics,
    pub groups: Groups,
    pub limits: Limits,
    #[serde(skip)]
    pub places: Places,
}

/// Where the keys that were given stand, for messages about what they are together. No part of a config's value.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<&'static str, Place>);

impl Places {
    /// The place of the first of these keys that was given.
    pub fn first_of(&self, paths: &[&str]) -> Place {
        paths.iter().find_map(|path| self.0.get(path)).cloned().unwrap_or(Place::Default)
    }
}

impl PartialEq for Places {
    fn eq(&self, _: &Places) -> bool {
        true
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    pub id: i32,
    pub rack: Option<String>,
}

/// A host, as a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listeners {
    pub kafka: Address,
    pub advertised: Option<Address>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Admin {
    pub listen: Option<Address>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Data {
    pub dir: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Runtime {
    pub driver: Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    Auto,
    Ring,
    Posix,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub budget: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    Bytes(u64),
    /// Percent of the smaller of RAM and the container's limit.
    Share(u8),
}

/// What acknowledged means for topics that do not say so themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum Durability {
    Fsync,
    /// The bounds are `i64::MAX` where there is none, as Kafka writes it.
    Write {
        flush_messages: i64,
        flush_ms: i64,
    },
}

/// Defaults for topics; named after Kafka's broker settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topics {
    pub num_partitions: i32,
    pub auto_create: bool,
    pub retention_ms: i64,
    pub retention_bytes: i64,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub max_message_bytes: u32,
    pub compression_type: String,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub retention_check_interval_ms: i64,
    pub cleaner_backoff_ms: i64,
    pub cleaner_delete_retention_ms: i64,
    pub producer_id_expiration_ms: i64,
}

/// Consumer groups; named after Kafka's broker settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Groups {
    pub initial_rebalance_delay_ms: i64,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub max_size: usize,
    pub offset_metadata_max_bytes: usize,
    pub offsets_commit_timeout_ms: i64,
    pub offsets_retention_minutes: i64,
    pub offsets_retention_check_interval_ms: i64,
    pub offsets_topic_num_partitions: i32,
    pub offsets_topic_segment_bytes: u64,
    pub consumer_max_size: usize,
    pub consumer_session_timeout_ms: i32,
    pub consumer_heartbeat_interval_ms: i32,
    pub consumer_assignment_interval_ms: i32,
    /// What a group may ask for instead.
    pub consumer_session_timeout_bounds_ms: RangeInclusive<i32>,
    pub consumer_heartbeat_interval_bounds_ms: RangeInclusive<i32>,
    pub consumer_assignment_interval_bounds_ms: RangeInclusive<i32>,
    /// Comma-separated; the first one is the default.
    pub consumer_assignors: String,
    pub consumer_migration_policy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// `None` means auto: settled by [`Config::resolve`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub request_bytes_max: Option<u64>,
    pub connections_max: u32,
    pub connection_requests_in_flight_max: u32,
    pub connection_bytes_in_flight_max: Option<u64>,
    pub connection_idle_ms_max: u64,
    pub fetch_sessions_max: u32,
    pub fetch_bytes_max: Option<u64>,
    pub fetch_waiters_max: u32,
    pub mailbox_messages_max: u32,
    pub partitions_max: u32,
    pub describe_partitions_max: u32,
}

impl Config {
    /// Reads the file, if one is given, and lays the arguments over it. Later arguments win.
    pub fn load(file: Option<&Path>, arguments: &[Setting]) -> Result<Config, Problems> {
        let Some(path) = file else { return Config::parse("", "", arguments) };
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Config::parse(&name, &text, arguments),
            Err(error) => {
                let message = match error.kind() {
                    io::ErrorKind::InvalidData => {
                        format!(
                            "the config file {name} is not UTF-8 text, which TOML must be; is it the right file?"
                        )
                    }
                    _ => format!("cannot read the config file {name}: {error}"),
                };
                Err(Problems(vec![Problem { place: Place::Default, message }]))
            }
        }
    }

    /// As [`Config::load`], from text.
    pub fn parse(name: &str, text: &str, arguments: &[Setting]) -> Result<Config, Problems> {
        let (mut settings, mut problems) = source::parse_file(name, text);
        if !problems.is_empty() {
            // Behind a syntax error keys land in the wrong section; judging them would only confuse.
            return Err(Problems(problems));
        }
        settings.extend(arguments.iter().cloned());
        let values = values::Values::judge(&settings, &mut problems);
        let config = read::config(&values, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            Some(_) | None => Err(Problems(problems)),
        }
    }
}

impl Address {
    /// `HOST:PORT`, with `[...]` around an IPv6 address.
    pub fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ',';
        (!host.is_empty() && !host.contains(bad)).then(|| Address { host: host.to_string(), port })
    }

    /// `0.0.0.0` and `[::]` can be listened on but not connected to from elsewhere.
    pub fn is_wildcard(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// The first address the name stands for. `key` is where it can be changed.
    pub fn resolve(&self, key: &str) -> Result<SocketAddr, String> {
        let hint = format!("name an address of this host in {key}, such as 127.0.0.1:{}", self.port);
        let mut found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| format!("the listener {self} cannot be resolved: {error}; {hint}"))?;
        found.next().ok_or_else(|| format!("the listener {self} stands for no address; {hint}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Listeners {
    /// What clients are told, given the port that was bound.
    pub fn advertised(&self, bound_port: u16) -> Address {
        let Address { host, port } = self.advertised.as_ref().unwrap_or(&self.kafka).clone();
        // Without an address of its own, what is advertised is where the listener really is.
        let port = if port == 0 || self.advertised.is_none() { bound_port } else { port };
        Address { host, port }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Durability::Write { flush_messages, flush_ms } = self else {
            return write!(f, "fsync: acknowledged records are on stable media");
        };
        write!(f, "write: acknowledged records survive the process, not the host")?;
        if *flush_messages < i64::MAX {
            write!(f, "; flushed every {flush_messages} records")?;
        }
        if *flush_ms < i64::MAX {
            write!(f, "; flushed every {flush_ms} ms")?;
        }
        Ok(())
    }
}
