//! Every key of `corelog.toml`: what kind of value it takes, its default and what it is for.
//!
//! This table is the only place where a key, a default or a range is written down: the reader, the suggestions for
//! misspelt keys and the example file all come from it.

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Integer {
        min: i64,
        max: i64,
    },
    /// An integer, or a text with a unit such as `"64MiB"`.
    Bytes {
        min: u64,
        max: u64,
    },
    /// As `Bytes`, or `"auto"`.
    BytesOrAuto {
        min: u64,
        max: u64,
    },
    /// As `Bytes`, or a share such as `"30%"`.
    BytesOrShare {
        min: u64,
        max: u64,
    },
    /// An integer, or `"auto"`.
    IntegerOrAuto {
        min: i64,
        max: i64,
    },
    Bool,
    Choice(&'static [&'static str]),
    /// Any text; empty means unset.
    Text,
    /// `"HOST:PORT"`; the empty text is allowed where `optional`.
    Address {
        optional: bool,
    },
    /// `"auto"`, `"off"` or a list of CPU numbers.
    Pin,
    /// `"auto"`, `"spread"` or a node number.
    Numa,
}

#[derive(Debug)]
pub struct Key {
    /// Dotted path; the first part is the section.
    pub path: &'static str,
    pub kind: Kind,
    /// As it would stand in the file.
    pub default: &'static str,
    pub doc: &'static str,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const NUMBER_MAX: i64 = i64::MAX;

/// The budget cannot be smaller: below it one large request per core would not fit beside the reservations.
pub const MEMORY_BUDGET_MIN: u64 = 256 * MIB;

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

const fn integer(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

/// Introduces each section of the example file.
pub const SECTIONS: &[(&str, &str)] = &[
    ("node", "Who this broker is."),
    ("listeners", "Where clients connect, and the address they are told to come back to."),
    ("admin", "What operators read over HTTP: /metrics for Prometheus, and /healthz."),
    ("data", "Where records are kept."),
    ("cores", "Which CPUs the shards run on. Each shard is one thread that owns its partitions."),
    ("runtime", "How disk and network are driven."),
    ("memory", "The memory of all buffers and caches, fixed at start-up."),
    ("durability", "What an acknowledgement means, for topics that do not say so themselves."),
    ("topics", "Defaults for topics, under Kafka's names. Topics may override them."),
    ("groups", "Consumer groups, under Kafka's names."),
    ("limits", "Every limit. At a limit a client is slowed down or told so; nothing is lost."),
];

pub const KEYS: &[Key] = &[
    key(
        "node.id",
        integer(0, i32::MAX as i64),
        "1",
        "Unique in its cluster; clients see it as the broker id.",
    ),
    key("node.rack", Kind::Text, "\"\"", "Shown to clients, which may prefer brokers of their own rack."),
    key(
        "listeners.kafka",
        Kind::Address { optional: false },
        "\"127.0.0.1:9092\"",
        "Address to listen on. Port 0 picks a free one. Use \"0.0.0.0:9092\" for all interfaces, and set advertised.",
    ),
    key(
        "listeners.advertised",
        Kind::Address { optional: true },
        "\"\"",
        "Address that clients are told. Empty: the one listened on. Port 0: the port listened on.",
    ),
    key(
        "admin.listen",
        Kind::Address { optional: true },
        "\"\"",
        "Address to listen on, such as \"127.0.0.1:9644\"; empty: nowhere. There is no authentication: keep it off public interfaces.",
    ),
    key("data.dir", Kind::Text, "\"corelog-data\"", "Folder of all logs, relative to the working directory."),
    key(
        "cores.count",
        Kind::IntegerOrAuto { min: 1, max: 256 },
        "\"auto\"",
        "Number of shards. Auto: every CPU this process may use, less the spare ones.",
    ),
    key(
        "cores.pin",
        Kind::Pin,
        "\"auto\"",
        "One CPU per shard, as in [2, 3, 4]; \"off\" pins none; auto pins from 4 unshared CPUs on.",
    ),
    key("cores.spare", integer(0, 8191), "0", "CPUs kept free for interrupts, clients and other programs."),
    key(
        "cores.numa",
        Kind::Numa,
        "\"auto\"",
        "\"auto\" stays on one NUMA node where it can, \"spread\" uses all in turn, a number names the only one.",
    ),
    key(
        "cores.spin",
        Kind::IntegerOrAuto { min: 0, max: 1_000 },
        "\"auto\"",
        "Microseconds a shard looks around before it sleeps, while that pays. Auto: 50 if all are pinned and CPUs are left, else 0.",
    ),
    key(
        "runtime.driver",
        Kind::Choice(&["auto", "ring", "posix"]),
        "\"auto\"",
        "\"ring\" is io_uring; \"posix\" does without, at more CPU. Auto takes ring where the host allows it; the banner says why.",
    ),
    key(
        "memory.budget",
        Kind::BytesOrShare { min: MEMORY_BUDGET_MIN, max: 64 * TIB },
        "\"30%\"",
        "A size such as \"4GiB\", or a share of RAM or of the container's limit, whichever is smaller; at least 256MiB.",
    ),
    key(
        "durability.default",
        Kind::Choice(&["fsync", "write"]),
        "\"fsync\"",
        "fsync: acknowledged records are on stable media. write: they survive the death of the process, not of the host.",
    ),
    key(
        "durability.flush_messages",
        integer(1, NUMBER_MAX),
        "9223372036854775807",
        "With write: records after which the device is flushed anyway.",
    ),
    key(
        "durability.flush_ms",
        integer(1, NUMBER_MAX),
        "9223372036854775807",
        "With write: milliseconds after which the device is flushed anyway.",
    ),
    key(
        "topics.num.partitions",
        integer(1, 10_000),
        "1",
        "Partitions of a topic that does not say how many.",
    ),
    key(
        "topics.auto.create.topics.enable",
        Kind::Bool,
        "true",
        "Create a topic when a client first asks for it.",
    ),
    key(
        "topics.log.retention.ms",
        integer(-1, NUMBER_MAX),
        "604800000",
        "Age at which segments go; -1 keeps them.",
    ),
    key(
        "topics.log.retention.bytes",
        integer(-1, NUMBER_MAX),
        "-1",
        "Size of a partition kept; -1 is no bound.",
    ),
    key(
        "topics.log.segment.bytes",
        Kind::Bytes { min: MIB, max: i32::MAX as u64 },
        "1073741824",
        "Size at which a new segment begins.",
    ),
    key("topics.log.roll.ms", integer(1, NUMBER_MAX), "604800000", "Age at which a new segment begins."),
    key(
        "topics.message.max.bytes",
        Kind::Bytes { min: KIB, max: GIB },
        "1048588",
        "Largest record batch, after compression.",
    ),
    key(
        "topics.compression.type",
        Kind::Choice(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "\"producer\"",
        "Keep what the producer sent, or store everything with one codec.",
    ),
    key(
        "topics.log.message.timestamp.type",
        Kind::Choice(&["CreateTime", "LogAppendTime"]),
        "\"CreateTime\"",
        "Keep the producer's timestamps, or stamp records on arrival.",
    ),
    key(
        "topics.log.message.timestamp.before.max.ms",
        integer(0, NUMBER_MAX),
        "9223372036854775807",
        "How far in the past a producer's timestamp may lie.",
    ),
    key(
        "topics.log.message.timestamp.after.max.ms",
        integer(0, NUMBER_MAX),
        "3600000",
        "How far in the future a producer's timestamp may lie.",
    ),
    key(
        "topics.log.retention.check.interval.ms",
        integer(100, NUMBER_MAX),
        "300000",
        "How often expired segments and silent producers are looked for.",
    ),
    key(
        "topics.log.cleaner.backoff.ms",
        integer(100, NUMBER_MAX),
        "15000",
        "How often logs are looked for that are due to be compacted.",
    ),
    key(
        "topics.log.cleaner.delete.retention.ms",
        integer(0, NUMBER_MAX),
        "86400000",
        "How long a compacted topic keeps a tombstone.",
    ),
    key(
        "topics.producer.id.expiration.ms",
        integer(1, i32::MAX as i64),
        "86400000",
        "Idle time after which an idempotent producer is forgotten.",
    ),
    key(
        "groups.group.initial.rebalance.delay.ms",
        integer(0, i32::MAX as i64),
        "3000",
        "How long the first rebalance of an empty group waits for more members.",
    ),
    key(
        "groups.group.min.session.timeout.ms",
        integer(1, i32::MAX as i64),
        "6000",
        "Shortest session timeout that a member of the classic protocol may ask for.",
    ),
    key("groups.group.max.session.timeout.ms", integer(1, i32::MAX as i64), "1800000", "Longest one."),
    key("groups.group.max.size", integer(1, i32::MAX as i64), "2147483647", "Members of one classic group."),
    key(
        "groups.offset.metadata.max.bytes",
        integer(0, i32::MAX as i64),
        "4096",
        "Longest text that may be committed with an offset.",
    ),
    key(
        "groups.offsets.commit.timeout.ms",
        integer(1, i32::MAX as i64),
        "5000",
        "How long an answer waits for its record to become durable.",
    ),
    key(
        "groups.offsets.retention.minutes",
        integer(1, i32::MAX as i64),
        "10080",
        "How long the offsets of a group without members, or without the topic, are kept.",
    ),
    key(
        "groups.offsets.retention.check.interval.ms",
        integer(1, NUMBER_MAX),
        "600000",
        "How often expired offsets are looked for.",
    ),
    key(
        "groups.offsets.topic.num.partitions",
        integer(1, 10_000),
        "50",
        "Partitions of __consumer_offsets, which spread the groups over the cores; read when it is created.",
    ),
    key(
        "groups.offsets.topic.segment.bytes",
        Kind::Bytes { min: MIB, max: i32::MAX as u64 },
        "104857600",
        "Size of its segments.",
    ),
    key(
        "groups.group.consumer.max.size",
        integer(1, i32::MAX as i64),
        "2147483647",
        "Members of one group of the consumer protocol.",
    ),
    key(
        "groups.group.consumer.session.timeout.ms",
        integer(1, i32::MAX as i64),
        "45000",
        "Silence after which a member of the consumer protocol is removed.",
    ),
    key(
        "groups.group.consumer.heartbeat.interval.ms",
        integer(1, i32::MAX as i64),
        "5000",
        "How often its members are told to send heartbeats.",
    ),
    key(
        "groups.group.consumer.assignment.interval.ms",
        integer(0, i32::MAX as i64),
        "1000",
        "Least time between two assignments of a group.",
    ),
    key(
        "groups.group.consumer.min.session.timeout.ms",
        integer(1, i32::MAX as i64),
        "45000",
        "Least session timeout that a group's own config may ask for.",
    ),
    key("groups.group.consumer.max.session.timeout.ms", integer(1, i32::MAX as i64), "60000", "Largest one."),
    key(
        "groups.group.consumer.min.heartbeat.interval.ms",
        integer(1, i32::MAX as i64),
        "5000",
        "Least heartbeat interval that a group's own config may ask for.",
    ),
    key(
        "groups.group.consumer.max.heartbeat.interval.ms",
        integer(1, i32::MAX as i64),
        "15000",
        "Largest one.",
    ),
    key(
        "groups.group.consumer.min.assignment.interval.ms",
        integer(0, i32::MAX as i64),
        "0",
        "Least assignment interval that a group's own config may ask for.",
    ),
    key(
        "groups.group.consumer.max.assignment.interval.ms",
        integer(0, i32::MAX as i64),
        "15000",
        "Largest one.",
    ),
    key(
        "groups.group.consumer.assignors",
        Kind::Choice(&["uniform,range", "range,uniform", "uniform", "range"]),
        "\"uniform,range\"",
        "Assignors of the consumer protocol; the first one is the default.",
    ),
    key(
        "groups.group.consumer.migration.policy",
        Kind::Choice(&["bidirectional", "upgrade", "downgrade", "disabled"]),
        "\"bidirectional\"",
        "Whether live groups may change between the classic and the consumer protocol.",
    ),
    key(
        "limits.request_bytes_max",
        Kind::BytesOrAuto { min: 64 * KIB, max: GIB },
        "\"auto\"",
        "Largest request. Auto: 100 MiB, or a fifth of one core's memory where that is less.",
    ),
    key("limits.connections_max", integer(1, 1_000_000), "15000", "Open client connections."),
    key(
        "limits.connection_requests_in_flight_max",
        integer(1, 100_000),
        "128",
        "Requests of one connection that wait for an answer; the next one stays in the socket.",
    ),
    key(
        "limits.connection_bytes_in_flight_max",
        Kind::BytesOrAuto { min: 64 * KIB, max: GIB },
        "\"auto\"",
        "Bytes of those requests, each until its answer has left. Auto: as request_bytes_max.",
    ),
    key(
        "limits.connection_idle_ms_max",
        integer(1_000, NUMBER_MAX),
        "600000",
        "A connection idle for longer is closed.",
    ),
    key(
        "limits.fetch_sessions_max",
        integer(0, 1_000_000),
        "1000",
        "Incremental fetch sessions kept; 0 keeps none.",
    ),
    key(
        "limits.fetch_bytes_max",
        Kind::BytesOrAuto { min: KIB, max: GIB },
        "\"auto\"",
        "Largest fetch answer, save for one batch that exceeds it alone. Auto: 55 MiB, or a quarter of one core's memory.",
    ),
    key(
        "limits.fetch_waiters_max",
        integer(1, 10_000_000),
        "65536",
        "Parked fetches per core; more are answered at once.",
    ),
    key(
        "limits.mailbox_messages_max",
        integer(16, 1_048_576),
        "1024",
        "Messages queued from one core to another.",
    ),
    key(
        "limits.partitions_max",
        integer(1, 1_000_000),
        "100000",
        "Partitions of this broker; a topic beyond them is refused.",
    ),
    key(
        "limits.describe_partitions_max",
        integer(1, 100_000),
        "2000",
        "Partitions in one DescribeTopicPartitions answer.",
    ),
];

pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Kafka's names for what has another name, or another unit, here.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("log.retention.hours", "topics.log.retention.ms"),
    ("log.retention.minutes", "topics.log.retention.ms"),
    ("log.roll.hours", "topics.log.roll.ms"),
    ("log.flush.interval.messages", "durability.flush_messages"),
    ("log.flush.interval.ms", "durability.flush_ms"),
    ("log.dirs", "data.dir"),
    ("log.dir", "data.dir"),
    ("broker.id", "node.id"),
    ("broker.rack", "node.rack"),
    ("advertised.listeners", "listeners.advertised"),
    ("max.connections", "limits.connections_max"),
    ("connections.max.idle.ms", "limits.connection_idle_ms_max"),
    ("socket.request.max.bytes", "limits.request_bytes_max"),
    ("fetch.max.bytes", "limits.fetch_bytes_max"),
];

/// The known key that was probably meant: what Kafka calls it or the same last words in another place first, then the nearest spelling.
pub fn nearest(path: &str) -> Option<&'static str> {
    let (section, rest) = path.split_once('.').unwrap_or(("", path));
    if let Some((_, ours)) = OTHER_NAMES.iter().find(|(kafkas, _)| *kafkas == path || *kafkas == rest) {
        return Some(ours);
    }
    let ending = |key: &&Key| {
        let known = key.path.split_once('.').map_or(key.path, |(_, rest)| rest);
        known == rest || (!rest.is_empty() && known.ends_with(&format!(".{rest}"))) || key.path == rest
    };
    let same_section = KEYS.iter().filter(ending).find(|key| key.path.starts_with(&format!("{section}.")));
    if let Some(key) = same_section.or_else(|| KEYS.iter().find(ending)) {
        return Some(key.path);
    }
    let normal = |text: &str| text.replace(['-', '_'], ".").to_ascii_lowercase();
    let scored = KEYS
        .iter()
        .map(|key| (strsim::normalized_damerau_levenshtein(&normal(key.path), &normal(path)), key));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= NEAR_ENOUGH).then_some(best.1.path)
}

/// Below this likeness a suggestion confuses more than it helps.
const NEAR_ENOUGH: f64 = 0.6;

/// The commented example file: every key with its default.
pub fn example() -> String {
    let mut out = String::from(
        "# corelog.toml: every key, with its default. Keep what you change and drop the rest.\n\
         #\n\
         #   corelog config check corelog.toml    says what is wrong and what is in force\n\
         #   corelog start --config corelog.toml --set cores.count=4\n",
    );
    for (section, doc) in SECTIONS {
        out.push_str(&format!("\n# {doc}\n[{section}]\n"));
        let inside =
            KEYS.iter().filter_map(|key| Some((key.path.strip_prefix(section)?.strip_prefix('.')?, key)));
        for (name, key) in inside {
            // These two need durability.default = "write", so they stand as comments.
            let comment = if key.path.starts_with("durability.flush") { "# " } else { "" };
            out.push_str(&format!("# {}\n{comment}{name} = {}\n", key.doc, key.default));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_gets_the_one_that_was_meant() {
        let check = |wrong: &str, expect: Option<&str>| assert_eq!(nearest(wrong), expect, "{wrong}");
        check("cores.cuont", Some("cores.count"));
        check("core.count", Some("cores.count"));
        check("topics.retention.ms", Some("topics.log.retention.ms"));
        check("num.partitions", Some("topics.num.partitions"));
        check("topic.num_partitions", Some("topics.num.partitions"));
        check("limits.max_connections", Some("limits.connections_max"));
        check("listener.kafka", Some("listeners.kafka"));
        check("topics.log.retention.hours", Some("topics.log.retention.ms"));
        check("log.dirs", Some("data.dir"));
        check("zzz", None);
    }

    #[test]
    fn what_kafka_names_otherwise_is_a_key_here() {
        for (kafkas, ours) in OTHER_NAMES {
            assert!(find(ours).is_some(), "{ours}");
            assert!(find(&format!("topics.{kafkas}")).is_none(), "{kafkas}");
        }
    }

    #[test]
    fn every_key_has_a_section_and_stands_once() {
        for (at, key) in KEYS.iter().enumerate() {
            let section = key.path.split('.').next().unwrap_or_default();
            assert!(SECTIONS.iter().any(|(name, _)| *name == section), "{}", key.path);
            assert!(!KEYS[..at].iter().any(|other| other.path == key.path), "{} stands twice", key.path);
        }
    }
}
