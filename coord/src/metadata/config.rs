//! Topic configs: every key of Kafka 4.3 and our own, their types, defaults and valid values.
//!
//! A key that Kafka knows is never "unknown" here, so that tools and applications which set it go on working. `in_force`
//! says whether it has an effect yet. A value that asks for something a reader would rely on and that does not exist yet
//! (`remote.storage.enable=true`) is refused, not stored: a topic that silently does not do what it was made for is worse
//! than an error.

use std::collections::BTreeMap;

pub use super::defaults::{Defaults, Described, Source, describe};
use crate::error_code::{ErrorCode, Refusal};

/// Our own key: what an acknowledgement promises.
pub const DURABILITY: &str = "corelog.durability";

/// Kafka's types, by which clients show and check values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    Boolean,
    Int,
    Long,
    Double,
    String,
    List,
}

impl Type {
    /// The number in DescribeConfigs.
    pub fn code(self) -> i8 {
        match self {
            Type::Boolean => 1,
            Type::String => 2,
            Type::Int => 3,
            Type::Long => 5,
            Type::Double => 6,
            Type::List => 7,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Type::Boolean => "BOOLEAN",
            Type::Int => "INT",
            Type::Long => "LONG",
            Type::Double => "DOUBLE",
            Type::String => "STRING",
            Type::List => "LIST",
        }
    }
}

/// What a value of the right type must fulfil.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// -1, or within.
    UnsetOrBetween(i64, i64),
    Ratio,
    OneOf(&'static [&'static str]),
    /// A list of these.
    ListOf(&'static [&'static str]),
    /// `*`, or a list of partition:broker.
    ReplicaList,
}

/// One key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TopicConfig {
    pub name: &'static str,
    pub kind: Type,
    pub default: &'static str,
    pub valid: Valid,
    /// Whether setting it has an effect in this release.
    pub in_force: bool,
    /// The broker's key for the default of all topics.
    pub broker_name: &'static str,
}

/// Our own key: whether compressed batches are opened to see that they hold what their headers say.
pub const VALIDATION: &str = "corelog.validation";

/// Below this likeness a suggestion confuses more than it helps.
const NEAR_ENOUGH: f64 = 0.6;

const YES: bool = true;
const NOT_YET: bool = false;
const LONG_MAX: &str = "9223372036854775807";

const fn key(
    name: &'static str,
    kind: Type,
    default: &'static str,
    valid: Valid,
    in_force: bool,
    broker_name: &'static str,
) -> TopicConfig {
    TopicConfig { name, kind, default, valid, in_force, broker_name }
}

const POLICIES: &[&str] = &["compact", "delete"];
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const TIMESTAMPS: &[&str] = &["CreateTime", "LogAppendTime"];
const DURABILITIES: &[&str] = &["fsync", "write"];
const VALIDATIONS: &[&str] = &["standard", "strict"];

/// Every key, in name order.
#[rustfmt::skip]
pub const TOPIC_CONFIGS: [TopicConfig; 35] = [
    key("cleanup.policy", Type::List, "delete", Valid::ListOf(POLICIES), YES, "log.cleanup.policy"),
    key("compression.gzip.level", Type::Int, "-1", Valid::UnsetOrBetween(1, 9), NOT_YET, "compression.gzip.level"),
    key("compression.lz4.level", Type::Int, "9", Valid::Between(1, 17), NOT_YET, "compression.lz4.level"),
    key("compression.type", Type::String, "producer", Valid::OneOf(CODECS), YES, "compression.type"),
    key("compression.zstd.level", Type::Int, "3", Valid::Between(-131_072, 22), NOT_YET, "compression.zstd.level"),
    key(DURABILITY, Type::String, "fsync", Valid::OneOf(DURABILITIES), YES, DURABILITY),
    key(VALIDATION, Type::String, "standard", Valid::OneOf(VALIDATIONS), YES, VALIDATION),
    key("delete.retention.ms", Type::Long, "86400000", Valid::AtLeast(0), YES, "log.cleaner.delete.retention.ms"),
    key("file.delete.delay.ms", Type::Long, "60000", Valid::AtLeast(0), NOT_YET, "log.segment.delete.delay.ms"),
    key("flush.messages", Type::Long, LONG_MAX, Valid::AtLeast(1), YES, "log.flush.interval.messages"),
    key("flush.ms", Type::Long, LONG_MAX, Valid::AtLeast(0), YES, "log.flush.interval.ms"),
    key("follower.replication.throttled.replicas", Type::List, "", Valid::ReplicaList, NOT_YET, ""),
    key("index.interval.bytes", Type::Int, "4096", Valid::AtLeast(0), NOT_YET, "log.index.interval.bytes"),
    key("leader.replication.throttled.replicas", Type::List, "", Valid::ReplicaList, NOT_YET, ""),
    key("local.retention.bytes", Type::Long, "-2", Valid::AtLeast(-2), NOT_YET, "log.local.retention.bytes"),
    key("local.retention.ms", Type::Long, "-2", Valid::AtLeast(-2), NOT_YET, "log.local.retention.ms"),
    key("max.compaction.lag.ms", Type::Long, LONG_MAX, Valid::AtLeast(1), YES, "log.cleaner.max.compaction.lag.ms"),
    key("max.message.bytes", Type::Int, "1048588", Valid::AtLeast(0), YES, "message.max.bytes"),
    key("message.timestamp.after.max.ms", Type::Long, "3600000", Valid::AtLeast(0), YES, "log.message.timestamp.after.max.ms"),
    key("message.timestamp.before.max.ms", Type::Long, LONG_MAX, Valid::AtLeast(0), YES, "log.message.timestamp.before.max.ms"),
    key("message.timestamp.type", Type::String, "CreateTime", Valid::OneOf(TIMESTAMPS), YES, "log.message.timestamp.type"),
    key("min.cleanable.dirty.ratio", Type::Double, "0.5", Valid::Ratio, YES, "log.cleaner.min.cleanable.ratio"),
    key("min.compaction.lag.ms", Type::Long, "0", Valid::AtLeast(0), YES, "log.cleaner.min.compaction.lag.ms"),
    key("min.insync.replicas", Type::Int, "1", Valid::AtLeast(1), YES, "min.insync.replicas"),
    key("preallocate", Type::Boolean, "false", Valid::Any, NOT_YET, "log.preallocate"),
    key("remote.log.copy.disable", Type::Boolean, "false", Valid::Any, NOT_YET, ""),
    key("remote.log.delete.on.disable", Type::Boolean, "false", Valid::Any, NOT_YET, ""),
    key("remote.storage.enable", Type::Boolean, "false", Valid::Any, NOT_YET, ""),
    key("retention.bytes", Type::Long, "-1", Valid::Any, YES, "log.retention.bytes"),
    key("retention.ms", Type::Long, "604800000", Valid::AtLeast(-1), YES, "log.retention.ms"),
    key("segment.bytes", Type::Int, "1073741824", Valid::AtLeast(1_048_576), YES, "log.segment.bytes"),
    key("segment.index.bytes", Type::Int, "10485760", Valid::AtLeast(4), NOT_YET, "log.index.size.max.bytes"),
    key("segment.jitter.ms", Type::Long, "0", Valid::AtLeast(0), NOT_YET, "log.roll.jitter.ms"),
    key("segment.ms", Type::Long, "604800000", Valid::AtLeast(1), YES, "log.roll.ms"),
    key("unclean.leader.election.enable", Type::Boolean, "false", Valid::Any, NOT_YET, "unclean.leader.election.enable"),
];

/// The key of that name.
pub fn find(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.binary_search_by(|config| config.name.cmp(name)).ok().and_then(|at| TOPIC_CONFIGS.get(at))
}

/// The elements of a LIST value.
pub fn elements(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|element| !element.is_empty())
}

/// A valid value as Kafka shows it: without what parsing drops.
pub fn shown(kind: Type, value: &str) -> String {
    let value = value.trim();
    let number = |text: Option<String>| text.unwrap_or_else(|| value.to_owned());
    match kind {
        Type::Boolean => value.to_ascii_lowercase(),
        Type::Int | Type::Long => number(value.parse::<i64>().ok().map(|number| number.to_string())),
        Type::Double => number(value.parse::<f64>().ok().map(|number| format!("{number:?}"))),
        Type::String => value.to_owned(),
        Type::List => {
            let mut seen = Vec::new();
            elements(value).for_each(|element| {
                if !seen.contains(&element) {
                    seen.push(element);
                }
            });
            seen.join(",")
        }
    }
}

/// Checks a whole set of topic configs: names, types, values, and what they must not be together.
pub fn validate(configs: &BTreeMap<String, String>) -> Result<(), Refusal> {
    configs.iter().try_for_each(|(name, value)| validate_one(name, value))?;
    validate_together(configs)
}

/// Checks what values must not be together.
pub fn validate_together(configs: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let number = |name: &str| configs.get(name).and_then(|value| value.trim().parse::<i64>().ok());
    let (least, most) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
    if let (Some(least), most) = (least, most.unwrap_or(i64::MAX))
        && least > most
    {
        return Err(refuse(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
        )));
    }
    let writes = configs.get(DURABILITY).is_some_and(|value| value.trim() == "write");
    // What asks for every record to be flushed, and what it must be at least for a bound under `write`.
    for (name, every) in [("flush.messages", 1), ("flush.ms", 0)] {
        if writes && number(name) == Some(every) {
            return Err(refuse(format!(
                "conflict topic config setting {DURABILITY}=write and {name}={every}: the first acknowledges records \
                 before they are flushed, the second asks for every one to be flushed first; drop {name} or set \
                 {DURABILITY}=fsync"
            )));
        }
    }
    Ok(())
}

/// Checks one value of an internal topic: what the broker keeps there is lost to no setting, so one that asks for it is
/// refused instead of being shown and ignored.
pub fn validate_internal(name: &str, value: &str) -> Result<(), Refusal> {
    let only = match name {
        "cleanup.policy" => "compact",
        DURABILITY => "fsync",
        _ => return Ok(()),
    };
    if value.trim() == only {
        return Ok(());
    }
    Err(refuse(format!("Invalid value {value} for configuration {name}: an internal topic has {only}")))
}

/// Checks one value.
pub fn validate_one(name: &str, value: &str) -> Result<(), Refusal> {
    let key = find(name).ok_or_else(|| refuse(unknown(name)))?;
    let wrong = |why: String| refuse(format!("Invalid value {value} for configuration {name}: {why}"));
    check_value(key, value.trim()).map_err(wrong)?;
    match unsupported(key, value.trim()) {
        Some(why) => Err(refuse(why)),
        None => Ok(()),
    }
}

/// Kafka's words, and the key that was probably meant.
fn unknown(name: &str) -> String {
    let likeness =
        |key: &TopicConfig| strsim::normalized_damerau_levenshtein(key.name, &name.to_ascii_lowercase());
    let broker_name = TOPIC_CONFIGS.iter().find(|key| !key.broker_name.is_empty() && key.broker_name == name);
    let scored = TOPIC_CONFIGS.iter().map(|key| (likeness(key), key));
    let nearest = scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(score, _)| *score >= NEAR_ENOUGH);
    match broker_name.or(nearest.map(|(_, key)| key)) {
        Some(key) => format!("Unknown topic config name: {name}; did you mean {}?", key.name),
        None => format!("Unknown topic config name: {name}"),
    }
}

/// A valid value whose promise this release cannot keep.
fn unsupported(key: &TopicConfig, value: &str) -> Option<String> {
    match key.name {
        "remote.storage.enable" if value.eq_ignore_ascii_case("true") => Some(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log \
             storage."
                .to_owned(),
        ),
        _ => None,
    }
}

fn check_value(key: &TopicConfig, value: &str) -> Result<(), String> {
    check_typed(key.kind, key.valid, value)
}

/// Checks a value of any table of configs.
pub(super) fn check_typed(kind: Type, valid: Valid, value: &str) -> Result<(), String> {
    match kind {
        Type::Boolean if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => Ok(()),
        Type::Boolean => Err("Expected value to be either true or false".to_owned()),
        Type::Int => {
            let number = value.parse::<i32>().map_err(|_| not_a_number(kind))?;
            check_number(valid, i64::from(number))
        }
        Type::Long => check_number(valid, value.parse().map_err(|_| not_a_number(kind))?),
        Type::Double => match value.parse::<f64>() {
            Ok(number) if number < 0.0 => Err("Value must be at least 0".to_owned()),
            Ok(number) if number > 1.0 => Err("Value must be no more than 1".to_owned()),
            Ok(number) if number.is_finite() => Ok(()),
            Ok(_) | Err(_) => Err(not_a_number(kind)),
        },
        Type::String => check_word(valid, value),
        Type::List => elements(value).try_for_each(|element| check_word(valid, element)),
    }
}

fn not_a_number(kind: Type) -> String {
    format!("Not a number of type {}", kind.name())
}

fn check_number(valid: Valid, number: i64) -> Result<(), String> {
    match valid {
        Valid::AtLeast(least) | Valid::Between(least, _) if number < least => {
            Err(format!("Value must be at least {least}"))
        }
        Valid::Between(_, most) if number > most => Err(format!("Value must be no more than {most}")),
        Valid::UnsetOrBetween(least, most) if number != -1 && !(least..=most).contains(&number) => {
            Err(format!("Value must be between {least} and {most} or equal to -1"))
        }
        Valid::Any
        | Valid::AtLeast(_)
        | Valid::Between(..)
        | Valid::UnsetOrBetween(..)
        | Valid::Ratio
        | Valid::OneOf(_)
        | Valid::ListOf(_)
        | Valid::ReplicaList => Ok(()),
    }
}

fn check_word(valid: Valid, word: &str) -> Result<(), String> {
    match valid {
        Valid::OneOf(words) | Valid::ListOf(words) if !words.contains(&word) => {
            Err(format!("String must be one of: {}", words.join(", ")))
        }
        Valid::ReplicaList if word != "*" && !is_replica(word) => {
            Err("Must be the literal '*' or a list of replicas in \
             the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                .to_owned())
        }
        Valid::Any
        | Valid::AtLeast(_)
        | Valid::Between(..)
        | Valid::UnsetOrBetween(..)
        | Valid::Ratio
        | Valid::OneOf(_)
        | Valid::ListOf(_)
        | Valid::ReplicaList => Ok(()),
    }
}

fn is_replica(word: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().is_ok();
    word.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
}

fn refuse(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, message)
}
