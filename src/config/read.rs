//! From judged values to the typed [`Config`], and the relations between keys that need no machine.

use std::path::PathBuf;

use tuning::plan::Wish;

use super::values::{Typed, Values};
use super::*;

/// `None` only beside a problem.
pub fn config(values: &Values, problems: &mut Vec<Problem>) -> Option<Config> {
    relations(values, problems);
    let from = Reader(values);
    Some(Config {
        node: Node {
            id: from.integer("node.id"),
            rack: Some(from.text("node.rack")).filter(|rack| !rack.is_empty()),
        },
        listeners: Listeners {
            kafka: from.address("listeners.kafka")?,
            advertised: from.address("listeners.advertised"),
        },
        admin: Admin { listen: from.address("admin.listen") },
        data: Data { dir: PathBuf::from(from.text("data.dir")) },
        cores: from.wish(),
        runtime: Runtime {
            driver: match from.text("runtime.driver").as_str() {
                "ring" => Driver::Ring,
                "posix" => Driver::Posix,
                _ => Driver::Auto,
            },
        },
        memory: Memory { budget: from.budget() },
        durability: from.durability(),
        topics: from.topics(),
        groups: from.groups(),
        limits: from.limits(),
        places: values.places(),
    })
}

fn relations(values: &Values, problems: &mut Vec<Problem>) {
    let mut report = |path: &str, message: &str| {
        problems.push(Problem { place: values.place(path).clone(), message: message.to_string() });
    };
    let from = Reader(values);
    if from.text("data.dir").is_empty() {
        report("data.dir", "data.dir is empty; name the folder that shall hold the logs");
    }
    let write = from.text("durability.default") == "write";
    for key in ["durability.flush_messages", "durability.flush_ms"] {
        if values.is_given(key) && !write {
            let message = format!(
                "{key} bounds what durability.default = \"write\" may lose, but every acknowledged record is flushed \
                 under \"fsync\"; drop it or set durability.default = \"write\""
            );
            report(key, &message);
        }
    }
    let kafka = from.address("listeners.kafka");
    let advertised = from.address("listeners.advertised");
    if kafka.is_some_and(|kafka| kafka.is_wildcard()) && advertised.is_none() {
        let message = "listeners.kafka takes connections on every interface, but clients cannot be told to connect \
                       to that; set listeners.advertised to the name or address they reach this host by, such as \
                       \"broker1.example.com:9092\"";
        report("listeners.kafka", message);
    }
    if advertised.is_some_and(|address| address.is_wildcard()) {
        let message =
            "listeners.advertised is an address nobody can connect to; name the host as clients reach it";
        report("listeners.advertised", message);
    }
    let least = |path: &str| from.integer::<i64>(path);
    if least("groups.group.min.session.timeout.ms") > least("groups.group.max.session.timeout.ms") {
        let path = "groups.group.min.session.timeout.ms";
        report(path, "groups.group.min.session.timeout.ms exceeds groups.group.max.session.timeout.ms");
    }
    if least("groups.group.consumer.heartbeat.interval.ms")
        >= least("groups.group.consumer.session.timeout.ms")
    {
        let path = "groups.group.consumer.heartbeat.interval.ms";
        report(
            path,
            "groups.group.consumer.heartbeat.interval.ms must be less than groups.group.consumer.session.timeout.ms",
        );
    }
    let (batch, segment) = ("topics.message.max.bytes", "topics.log.segment.bytes");
    let (batch_bytes, segment_bytes) = (from.bytes(batch), from.bytes(segment));
    if batch_bytes > segment_bytes {
        let message = format!(
            "{segment} is {segment_bytes} bytes and {batch} is {batch_bytes}, but a batch must fit in one segment; set \
             {batch} to {segment_bytes} or less, or {segment} to {batch_bytes} or more"
        );
        report(if values.is_given(segment) { segment } else { batch }, &message);
    }
}

struct Reader<'a>(&'a Values);

impl Reader<'_> {
    /// The range of the key must lie inside the type asked for; a test reads every key at both ends.
    fn integer<T: TryFrom<i64>>(&self, path: &str) -> T {
        match self.0.get(path) {
            Typed::Integer(number) => {
                T::try_from(*number).ok().expect("the key's range lies inside the type")
            }
            other => unreachable!("{path} is {other:?}"),
        }
    }

    fn text(&self, path: &str) -> String {
        match self.0.get(path) {
            Typed::Text(text) => text.clone(),
            other => unreachable!("{path} is {other:?}"),
        }
    }

    fn address(&self, path: &str) -> Option<Address> {
        match self.0.get(path) {
            Typed::Address(address) => address.clone(),
            other => unreachable!("{path} is {other:?}"),
        }
    }

    fn bytes(&self, path: &str) -> u64 {
        self.bytes_or_auto(path).expect("this key has no auto")
    }

    fn bytes_or_auto(&self, path: &str) -> Option<u64> {
        match self.0.get(path) {
            Typed::Bytes(bytes) => Some(*bytes),
            Typed::Auto => None,
            other => unreachable!("{path} is {other:?}"),
        }
    }

    fn budget(&self) -> Budget {
        match self.0.get("memory.budget") {
            Typed::Budget(budget) => *budget,
            other => unreachable!("memory.budget is {other:?}"),
        }
    }

    fn wish(&self) -> Wish {
        let count = match self.0.get("cores.count") {
            Typed::Auto => None,
            Typed::Integer(_) => Some(self.integer("cores.count")),
            other => unreachable!("cores.count is {other:?}"),
        };
        let pin = match self.0.get("cores.pin") {
            Typed::Pin(pin) => pin.clone(),
            other => unreachable!("cores.pin is {other:?}"),
        };
        let numa = match self.0.get("cores.numa") {
            Typed::Numa(numa) => *numa,
            other => unreachable!("cores.numa is {other:?}"),
        };
        let spin_us = match self.0.get("cores.spin") {
            Typed::Auto => None,
            Typed::Integer(_) => Some(self.integer("cores.spin")),
            other => unreachable!("cores.spin is {other:?}"),
        };
        Wish { count, pin, spare: self.integer("cores.spare"), numa, spin_us }
    }

    fn durability(&self) -> Durability {
        if self.text("durability.default") == "fsync" {
            return Durability::Fsync;
        }
        let flush_messages = self.integer("durability.flush_messages");
        let flush_ms = self.integer("durability.flush_ms");
        // A flush after every record is what fsync means, and what Kafka's flush.messages=1 means.
        if flush_messages == 1 { Durability::Fsync } else { Durability::Write { flush_messages, flush_ms } }
    }

    fn topics(&self) -> Topics {
        let log_append = self.text("topics.log.message.timestamp.type") == "LogAppendTime";
        Topics {
            num_partitions: self.integer("topics.num.partitions"),
            auto_create: self.0.get("topics.auto.create.topics.enable") == &Typed::Bool(true),
            retention_ms: self.integer("topics.log.retention.ms"),
            retention_bytes: self.integer("topics.log.retention.bytes"),
            segment_bytes: self.bytes("topics.log.segment.bytes"),
            segment_ms: self.integer("topics.log.roll.ms"),
            max_message_bytes: narrow(self.bytes("topics.message.max.bytes")),
            compression_type: self.text("topics.compression.type"),
            timestamp_type: if log_append { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            timestamp_before_max_ms: self.integer("topics.log.message.timestamp.before.max.ms"),
            timestamp_after_max_ms: self.integer("topics.log.message.timestamp.after.max.ms"),
            retention_check_interval_ms: self.integer("topics.log.retention.check.interval.ms"),
            cleaner_backoff_ms: self.integer("topics.log.cleaner.backoff.ms"),
            cleaner_delete_retention_ms: self.integer("topics.log.cleaner.delete.retention.ms"),
            producer_id_expiration_ms: self.integer("topics.producer.id.expiration.ms"),
        }
    }

    fn groups(&self) -> Groups {
        Groups {
            initial_rebalance_delay_ms: self.integer("groups.group.initial.rebalance.delay.ms"),
            min_session_timeout_ms: self.integer("groups.group.min.session.timeout.ms"),
            max_session_timeout_ms: self.integer("groups.group.max.session.timeout.ms"),
            max_size: self.integer("groups.group.max.size"),
            offset_metadata_max_bytes: self.integer("groups.offset.metadata.max.bytes"),
            offsets_commit_timeout_ms: self.integer("groups.offsets.commit.timeout.ms"),
            offsets_retention_minutes: self.integer("groups.offsets.retention.minutes"),
            offsets_retention_check_interval_ms: self.integer("groups.offsets.retention.check.interval.ms"),
            offsets_topic_num_partitions: self.integer("groups.offsets.topic.num.partitions"),
            offsets_topic_segment_bytes: self.bytes("groups.offsets.topic.segment.bytes"),
            consumer_max_size: self.integer("groups.group.consumer.max.size"),
            consumer_session_timeout_ms: self.integer("groups.group.consumer.session.timeout.ms"),
            consumer_heartbeat_interval_ms: self.integer("groups.group.consumer.heartbeat.interval.ms"),
            consumer_assignment_interval_ms: self.integer("groups.group.consumer.assignment.interval.ms"),
            consumer_session_timeout_bounds_ms: self.integer("groups.group.consumer.min.session.timeout.ms")
                ..=self.integer("groups.group.consumer.max.session.timeout.ms"),
            consumer_heartbeat_interval_bounds_ms: self
                .integer("groups.group.consumer.min.heartbeat.interval.ms")
                ..=self.integer("groups.group.consumer.max.heartbeat.interval.ms"),
            consumer_assignment_interval_bounds_ms: self
                .integer("groups.group.consumer.min.assignment.interval.ms")
                ..=self.integer("groups.group.consumer.max.assignment.interval.ms"),
            consumer_assignors: self.text("groups.group.consumer.assignors"),
            consumer_migration_policy: self.text("groups.group.consumer.migration.policy"),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            request_bytes_max: self.bytes_or_auto("limits.request_bytes_max"),
            connections_max: self.integer("limits.connections_max"),
            connection_requests_in_flight_max: self.integer("limits.connection_requests_in_flight_max"),
            connection_bytes_in_flight_max: self.bytes_or_auto("limits.connection_bytes_in_flight_max"),
            connection_idle_ms_max: self.integer("limits.connection_idle_ms_max"),
            fetch_sessions_max: self.integer("limits.fetch_sessions_max"),
            fetch_bytes_max: self.bytes_or_auto("limits.fetch_bytes_max"),
            fetch_waiters_max: self.integer("limits.fetch_waiters_max"),
            mailbox_messages_max: self.integer("limits.mailbox_messages_max"),
            partitions_max: self.integer("limits.partitions_max"),
            describe_partitions_max: self.integer("limits.describe_partitions_max"),
        }
    }
}

fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).expect("the key's range lies inside the type")
}
