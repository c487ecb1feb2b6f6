//! A topic's configs as the engine and the handlers want them: typed, defaults filled in, durability resolved.

use std::collections::BTreeMap;

use super::config::{self, DURABILITY, Defaults};

/// What an acknowledgement promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// On stable media.
    Fsync,
    /// The direct write has completed. The device is flushed after so many messages or milliseconds at the latest;
    /// `u64::MAX` is never.
    Write { flush_messages: u64, flush_ms: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What batches are stored as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// As the producer sent them.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, PartialEq, Debug)]
pub struct TopicSettings {
    pub segment_bytes: u64,
    pub segment_ms: i64,
    /// Whether old segments go; without it they stay for ever.
    pub cleanup_delete: bool,
    pub cleanup_compact: bool,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub delete_retention_ms: i64,
    /// -1 is no bound.
    pub retention_ms: i64,
    /// -1 is no bound.
    pub retention_bytes: i64,
    pub max_message_bytes: u32,
    pub min_insync_replicas: u32,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub compression: Compression,
    /// Compressed batches are opened and checked.
    pub strict: bool,
    pub durability: Durability,
}

/// The settings of a topic with these configs on a broker with these defaults.
///
/// Values were validated before they were stored; one that a later release stored and this one cannot read counts as
/// its default, because a topic must be served rather than refused for a tuning it cannot follow.
pub fn effective(configs: &BTreeMap<String, String>, defaults: &Defaults) -> TopicSettings {
    let values = Values { configs, defaults };
    let policy = values.text("cleanup.policy");
    TopicSettings {
        segment_bytes: u64::from(values.unsigned("segment.bytes")),
        segment_ms: values.long("segment.ms"),
        cleanup_delete: config::elements(policy).any(|policy| policy == "delete"),
        cleanup_compact: config::elements(policy).any(|policy| policy == "compact"),
        min_cleanable_dirty_ratio: values.ratio("min.cleanable.dirty.ratio"),
        min_compaction_lag_ms: values.long("min.compaction.lag.ms"),
        max_compaction_lag_ms: values.long("max.compaction.lag.ms"),
        delete_retention_ms: values.long("delete.retention.ms"),
        retention_ms: values.long("retention.ms"),
        retention_bytes: values.long("retention.bytes"),
        max_message_bytes: values.unsigned("max.message.bytes"),
        min_insync_replicas: values.unsigned("min.insync.replicas"),
        timestamp_type: match values.text("message.timestamp.type") {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        timestamp_before_max_ms: values.long("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: values.long("message.timestamp.after.max.ms"),
        compression: match values.text("compression.type") {
            "uncompressed" => Compression::Uncompressed,
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => Compression::Producer,
        },
        strict: values.text(config::VALIDATION) == "strict",
        durability: durability(&values),
    }
}

struct Values<'a> {
    configs: &'a BTreeMap<String, String>,
    defaults: &'a Defaults,
}

impl<'a> Values<'a> {
    fn text(&self, name: &'static str) -> &'a str {
        let key = config::find(name).expect("settings ask for keys of the table");
        match self.configs.get(name) {
            Some(value) if config::validate_one(name, value).is_ok() => value.trim(),
            Some(_) | None => self.defaults.get(key).trim(),
        }
    }

    fn long(&self, name: &'static str) -> i64 {
        self.text(name).parse().expect("stored values and defaults are valid")
    }

    fn ratio(&self, name: &'static str) -> f64 {
        self.text(name).parse().expect("stored values and defaults are valid")
    }

    /// An INT whose valid range has no negative values.
    fn unsigned(&self, name: &'static str) -> u32 {
        self.text(name).parse().expect("stored values and defaults are valid")
    }
}

/// The topic's word, then the broker's, then `fsync`. At each level `corelog.durability` beats Kafka's flush settings:
/// `flush.messages=1` or `flush.ms=0` ask for every record to be flushed, anything larger for a bound. Kafka's own
/// default, "never", is not a wish for less than we promise by default.
/// `write` and one of the first two on the same topic are refused when they are set (`config::validate_together`).
fn durability(values: &Values<'_>) -> Durability {
    let bounds = Durability::Write {
        flush_messages: values.long("flush.messages").unsigned_abs(),
        flush_ms: values.long("flush.ms").unsigned_abs(),
    };
    let topic = |name: &str| values.configs.get(name).map(|value| value.trim());
    let broker = |name: &str| values.defaults.explicit(name).map(str::trim);
    let word = asked(topic).or_else(|| asked(broker));
    match word {
        Some(Asked::Write) => unbounded_as_never(bounds),
        Some(Asked::Fsync) | None => Durability::Fsync,
    }
}

enum Asked {
    Fsync,
    Write,
}

fn asked<'a>(level: impl Fn(&str) -> Option<&'a str>) -> Option<Asked> {
    match level(DURABILITY) {
        Some("write") => return Some(Asked::Write),
        Some("fsync") => return Some(Asked::Fsync),
        Some(_) | None => {}
    }
    let number = |name: &str| level(name).and_then(|value| value.parse::<i64>().ok());
    let messages = number("flush.messages").filter(|messages| *messages != i64::MAX);
    let ms = number("flush.ms").filter(|ms| *ms != i64::MAX);
    match (messages, ms) {
        (Some(..=1), _) | (_, Some(..=0)) => Some(Asked::Fsync),
        (Some(_), _) | (_, Some(_)) => Some(Asked::Write),
        (None, None) => None,
    }
}

/// Kafka writes "never" as the largest LONG.
fn unbounded_as_never(durability: Durability) -> Durability {
    let never = |bound: u64| if bound == i64::MAX.unsigned_abs() { u64::MAX } else { bound };
    match durability {
        Durability::Fsync => Durability::Fsync,
        Durability::Write { flush_messages, flush_ms } => {
            Durability::Write { flush_messages: never(flush_messages), flush_ms: never(flush_ms) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    const NEVER: u64 = u64::MAX;

    fn check(topic: &[(&str, &str)], broker: &[(&str, &str)], expect: Durability) {
        let defaults = Defaults::new(map(broker), 1, 1).expect("valid defaults");
        assert_eq!(effective(&map(topic), &defaults).durability, expect, "topic {topic:?} broker {broker:?}");
    }

    #[test]
    fn durability_is_the_strongest_unless_less_was_asked_for() {
        let write = |flush_messages, flush_ms| Durability::Write { flush_messages, flush_ms };
        check(&[], &[], Durability::Fsync);
        check(&[("flush.messages", "1")], &[], Durability::Fsync);
        check(&[("flush.messages", "9223372036854775807")], &[], Durability::Fsync);
        check(&[("flush.messages", "100")], &[], write(100, NEVER));
        check(&[("flush.ms", "1000")], &[], write(NEVER, 1000));
        check(&[("flush.ms", "0")], &[], Durability::Fsync);
        check(&[("flush.messages", "1"), ("flush.ms", "1000")], &[], Durability::Fsync);
        check(&[("flush.ms", "1000"), (DURABILITY, "fsync")], &[], Durability::Fsync);
        check(&[(DURABILITY, "write")], &[], write(NEVER, NEVER));
        check(&[(DURABILITY, "write"), ("flush.messages", "9")], &[], write(9, NEVER));
        check(&[], &[(DURABILITY, "write")], write(NEVER, NEVER));
        check(&[("flush.messages", "1")], &[(DURABILITY, "write")], Durability::Fsync);
        check(&[("flush.ms", "5")], &[(DURABILITY, "fsync")], write(NEVER, 5));
        check(&[], &[("flush.ms", "7")], write(NEVER, 7));
        check(&[(DURABILITY, "write")], &[("flush.ms", "7")], write(NEVER, 7));
    }

    #[test]
    fn defaults_are_kafkas_and_a_topic_overrides_the_broker() {
        let plain = effective(&BTreeMap::new(), &Defaults::default());
        assert_eq!(plain.segment_bytes, 1 << 30);
        assert_eq!(plain.max_message_bytes, 1_048_588);
        assert_eq!((plain.retention_ms, plain.retention_bytes), (604_800_000, -1));
        assert!(plain.cleanup_delete);
        assert!(!plain.cleanup_compact);
        let broker = Defaults::new(map(&[("retention.ms", "5"), ("segment.ms", "6")]), 1, 1).expect("valid");
        let both = effective(&map(&[("retention.ms", "-1"), ("compression.type", "zstd")]), &broker);
        assert_eq!((both.retention_ms, both.segment_ms), (-1, 6));
        assert_eq!(both.compression, Compression::Zstd);
        assert!(!effective(&map(&[("cleanup.policy", "")]), &broker).cleanup_delete);
    }

    #[test]
    fn an_unreadable_stored_value_counts_as_the_default() {
        let stored = map(&[("retention.ms", "7 days"), ("min.insync.replicas", "-4"), ("later.key", "x")]);
        let settings = effective(&stored, &Defaults::default());
        assert_eq!((settings.retention_ms, settings.min_insync_replicas), (604_800_000, 1));
    }
}
