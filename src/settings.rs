//! What every core has to know of the broker's config, settled once at start-up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use coord::group::MigrationPolicy;
use coord::metadata::config::Defaults;
use coord::metadata::settings::{Compression, Durability, TimestampType, effective};
use coord::metadata::{Listener, NodeId, Topic};
use engine::batch::Codec;
use engine::compaction::Policy;
use engine::log::LogConfig;

use crate::config::{self, Config, InForce};
use tuning::Machine;
use tuning::machine::{self, Cpu, Kernel};

/// The name and security protocol (PLAINTEXT) of the only listener there is.
const LISTENER_NAME: &str = "PLAINTEXT";
const PLAINTEXT: i16 = 0;

/// The limits of a core.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub request_bytes_max: usize,
    /// Of the whole broker.
    pub connections_max: usize,
    pub requests_per_connection_max: usize,
    pub in_flight_bytes_max: usize,
    pub idle: Duration,
    pub fetch_sessions_max: usize,
    pub fetch_bytes_max: usize,
    /// Fetches of one core that wait for data.
    pub fetch_waiters_max: usize,
    /// In one DescribeTopicPartitions answer.
    pub describe_partitions_max: usize,
    /// Of the whole broker, and what sets that bound.
    pub partitions_max: usize,
    pub partitions_bound: &'static str,
    /// From one core to another.
    pub mailbox_messages_max: usize,
}

/// How the topic that groups live in is created.
#[derive(Clone, Copy, Debug)]
pub struct OffsetsTopic {
    pub num_partitions: i32,
    pub segment_bytes: u64,
}

/// Files that are open besides logs and connections: of the process, and of each core.
const FILES_OF_PROCESS: u64 = 24;
const FILES_OF_CORE: u64 = 8;

impl Limits {
    /// No more partitions than files can be opened for: each has one for its active segment. A quarter is left to
    /// connections and older segments. `None` is unlimited.
    pub fn bound_by_open_files(&mut self, open_files: Option<u64>, cores: u16) {
        let Some(open_files) = open_files else { return };
        let for_logs = open_files.saturating_sub(FILES_OF_PROCESS + FILES_OF_CORE * u64::from(cores)) / 4 * 3;
        let for_logs = usize::try_from(for_logs).unwrap_or(usize::MAX);
        if for_logs < self.partitions_max {
            self.partitions_max = for_logs;
            self.partitions_bound =
                "each needs an open file; raise the limit of open files, ulimit -n, and start it again";
        }
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub node_id: NodeId,
    pub rack: Option<String>,
    pub core_count: u16,
    pub data: PathBuf,
    pub limits: Limits,
    pub auto_create_topics: bool,
    /// As the file has them; [`crate::shard::Shard::defaults`] knows what was changed since.
    pub defaults: Defaults,
    pub retention_check: Duration,
    pub compaction_check: Duration,
    pub groups: coord::group::Settings,
    pub offsets_topic: OffsetsTopic,
    pub producer_expiration_ms: i64,
    pub journal: engine::journal::Limits,
    #[doc(hidden)]
    pub faults: Faults,
}

/// Broken variants, so that the simulator can show that it notices. Never set outside its tests.
#[doc(hidden)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    pub engine: engine::log::Faults,
    /// A produce is answered before its records are committed.
    pub ack_before_durable: bool,
    /// What a group coordinator decided takes effect before its record is durable.
    pub hasty_coordinator: bool,
    /// A fetch reads to the end of the log.
    pub read_uncommitted: bool,
}

impl Settings {
    /// What a config text means on a machine that does not exist, with so many CPUs and so much memory.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn simulated(config: &str, cpus: usize, memory_bytes: u64) -> Result<Settings, String> {
        let cpu = |id| Cpu { id, package: 0, core: id, node: 0, siblings: vec![id], allowed: true };
        let kernel = Kernel { major: 0, minor: 0, release: "simulated".to_owned() };
        let cpus = (0..cpus).map(cpu).collect();
        let machine = Machine { cpus, kernel, memory_bytes, limits: machine::Limits::default() };
        let config = Config::parse("simulated", config, &[]).map_err(|problems| problems.to_string())?;
        let in_force = config.resolve(&machine).map_err(|problems| problems.to_string())?;
        Settings::new(&config, &in_force)
    }

    /// The settings of a broker with this config on this machine.
    ///
    /// # Errors
    /// Says which default for topics is not valid, and why.
    pub fn new(config: &Config, in_force: &InForce) -> Result<Settings, String> {
        let core_count =
            u16::try_from(in_force.plan.shards.len()).map_err(|_| "too many cores".to_owned())?;
        let topics = &config.topics;
        let defaults = Defaults::new(topic_defaults(config), topics.num_partitions, 1);
        Ok(Settings {
            node_id: NodeId(config.node.id),
            rack: config.node.rack.clone(),
            core_count,
            data: config.data.dir.clone(),
            limits: limits(config, in_force, usize::from(core_count)),
            auto_create_topics: topics.auto_create,
            defaults: defaults.map_err(|refusal| refusal.message)?,
            retention_check: Duration::from_millis(
                u64::try_from(topics.retention_check_interval_ms).unwrap_or(0),
            ),
            compaction_check: Duration::from_millis(u64::try_from(topics.cleaner_backoff_ms).unwrap_or(0)),
            groups: groups(&config.groups),
            offsets_topic: OffsetsTopic {
                num_partitions: config.groups.offsets_topic_num_partitions,
                segment_bytes: config.groups.offsets_topic_segment_bytes,
            },
            producer_expiration_ms: topics.producer_id_expiration_ms,
            journal: engine::journal::Limits::default(),
            faults: Faults::default(),
        })
    }

    /// What a log of this topic has to know, on a broker that has these defaults by now.
    pub fn log_config(&self, topic: &Topic, defaults: &Defaults) -> LogConfig {
        let settings = effective(&topic.configs, defaults);
        // What groups are is never lost to a setting: neither to retention nor to a weaker durability (hazard A12).
        let internal = topic.is_internal();
        LogConfig {
            segment_bytes: settings.segment_bytes,
            segment_ms: settings.segment_ms,
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            deletes: settings.cleanup_delete && !internal,
            compacted: settings.cleanup_compact || internal,
            compaction: Policy {
                min_dirty_ratio: settings.min_cleanable_dirty_ratio,
                min_lag_ms: settings.min_compaction_lag_ms,
                max_lag_ms: settings.max_compaction_lag_ms,
            },
            delete_retention_ms: settings.delete_retention_ms,
            durability: if internal {
                engine::log::Durability::Fsync
            } else {
                durability(settings.durability)
            },
            max_message_bytes: settings.max_message_bytes,
            timestamp_type: match settings.timestamp_type {
                TimestampType::CreateTime => engine::batch::TimestampType::CreateTime,
                TimestampType::LogAppendTime => engine::batch::TimestampType::LogAppendTime,
            },
            before_max_ms: settings.timestamp_before_max_ms,
            after_max_ms: settings.timestamp_after_max_ms,
            compression: codec(settings.compression),
            strict: settings.strict,
            producer_expiration_ms: self.producer_expiration_ms,
            ..LogConfig::default()
        }
    }
}

/// The listener as clients are told of it.
pub fn listener(host: String, port: u16) -> Listener {
    Listener { name: LISTENER_NAME.to_owned(), host, port, security_protocol: PLAINTEXT }
}

fn limits(config: &Config, in_force: &InForce, cores: usize) -> Limits {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let limits = &config.limits;
    Limits {
        request_bytes_max: bytes(in_force.request_bytes_max),
        connections_max: count(limits.connections_max),
        requests_per_connection_max: count(limits.connection_requests_in_flight_max),
        in_flight_bytes_max: bytes(in_force.connection_bytes_in_flight_max),
        idle: Duration::from_millis(limits.connection_idle_ms_max),
        fetch_sessions_max: count(limits.fetch_sessions_max).div_ceil(cores),
        fetch_bytes_max: bytes(in_force.fetch_bytes_max),
        fetch_waiters_max: count(limits.fetch_waiters_max),
        describe_partitions_max: count(limits.describe_partitions_max),
        partitions_max: count(limits.partitions_max),
        partitions_bound: "limits.partitions_max",
        mailbox_messages_max: count(limits.mailbox_messages_max),
    }
}

fn groups(config: &config::Groups) -> coord::group::Settings {
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    coord::group::Settings {
        group_max_size: config.max_size,
        group_min_session_timeout_ms: config.min_session_timeout_ms,
        group_max_session_timeout_ms: config.max_session_timeout_ms,
        group_initial_rebalance_delay_ms: positive(config.initial_rebalance_delay_ms),
        offset_metadata_max_bytes: config.offset_metadata_max_bytes,
        offsets_commit_timeout_ms: positive(config.offsets_commit_timeout_ms),
        offsets_retention_ms: config.offsets_retention_minutes * 60_000,
        offsets_retention_check_interval_ms: positive(config.offsets_retention_check_interval_ms),
        consumer_max_size: config.consumer_max_size,
        consumer_session_timeout_ms: config.consumer_session_timeout_ms,
        consumer_heartbeat_interval_ms: config.consumer_heartbeat_interval_ms,
        consumer_assignment_interval_ms: config.consumer_assignment_interval_ms,
        consumer_session_timeout_bounds_ms: config.consumer_session_timeout_bounds_ms.clone(),
        consumer_heartbeat_interval_bounds_ms: config.consumer_heartbeat_interval_bounds_ms.clone(),
        consumer_assignment_interval_bounds_ms: config.consumer_assignment_interval_bounds_ms.clone(),
        consumer_assignors: config.consumer_assignors.split(',').map(str::to_owned).collect(),
        consumer_migration_policy: match config.consumer_migration_policy.as_str() {
            "disabled" => MigrationPolicy::Disabled,
            "downgrade" => MigrationPolicy::Downgrade,
            "upgrade" => MigrationPolicy::Upgrade,
            _ => MigrationPolicy::Bidirectional,
        },
        ..coord::group::Settings::default()
    }
}

/// The broker's defaults under the topics' names.
fn topic_defaults(config: &Config) -> BTreeMap<String, String> {
    let topics = &config.topics;
    let mut defaults = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(defaults.insert(name.to_owned(), value));
    // What is as in Kafka was not chosen, and clients are told so.
    let chosen = |name: &String, value: &mut String| {
        coord::metadata::config::find(name).is_none_or(|key| key.default != value)
    };
    set("retention.ms", topics.retention_ms.to_string());
    set("retention.bytes", topics.retention_bytes.to_string());
    set("delete.retention.ms", topics.cleaner_delete_retention_ms.to_string());
    set("segment.bytes", topics.segment_bytes.to_string());
    set("segment.ms", topics.segment_ms.to_string());
    set("max.message.bytes", topics.max_message_bytes.to_string());
    set("compression.type", topics.compression_type.clone());
    set("message.timestamp.before.max.ms", topics.timestamp_before_max_ms.to_string());
    set("message.timestamp.after.max.ms", topics.timestamp_after_max_ms.to_string());
    let timestamp_type = match topics.timestamp_type {
        config::TimestampType::CreateTime => "CreateTime",
        config::TimestampType::LogAppendTime => "LogAppendTime",
    };
    set("message.timestamp.type", timestamp_type.to_owned());
    match config.durability {
        config::Durability::Fsync => set("corelog.durability", "fsync".to_owned()),
        config::Durability::Write { flush_messages, flush_ms } => {
            set("corelog.durability", "write".to_owned());
            set("flush.messages", flush_messages.to_string());
            set("flush.ms", flush_ms.to_string());
        }
    }
    defaults.retain(chosen);
    defaults
}

/// The engine writes "never" as 0.
fn durability(durability: Durability) -> engine::log::Durability {
    let bound = |bound: u64| if bound == u64::MAX { 0 } else { bound };
    match durability {
        Durability::Fsync => engine::log::Durability::Fsync,
        Durability::Write { flush_messages, flush_ms } => engine::log::Durability::Write {
            flush_messages: bound(flush_messages),
            flush_ms: bound(flush_ms),
        },
    }
}

fn codec(compression: Compression) -> Option<Codec> {
    match compression {
        Compression::Producer => None,
        Compression::Uncompressed => Some(Codec::None),
        Compression::Gzip => Some(Codec::Gzip),
        Compression::Snappy => Some(Codec::Snappy),
        Compression::Lz4 => Some(Codec::Lz4),
        Compression::Zstd => Some(Codec::Zstd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_open_files_mean_few_partitions() {
        let limits = Settings::simulated("", 2, 1 << 30).expect("valid").limits;
        let bounded = |open_files| {
            let mut limits = limits;
            limits.bound_by_open_files(open_files, 2);
            (limits.partitions_max, limits.partitions_bound.contains("ulimit -n"))
        };
        assert_eq!(bounded(Some(64)), (18, true));
        assert_eq!(bounded(Some(10)), (0, true));
        assert_eq!(bounded(Some(1 << 30)), (limits.partitions_max, false));
        assert_eq!(bounded(None), (limits.partitions_max, false));
    }
}
