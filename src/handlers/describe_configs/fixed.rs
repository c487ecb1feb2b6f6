//! What of a broker is read when it starts, under Kafka's names: each key of the config file that is also one of Kafka's,
//! but for those that have another meaning or unit here.

use std::ops::RangeInclusive;

use coord::metadata::config::Type;

use crate::config::keys;
use crate::settings::Settings;

pub struct Fixed {
    pub name: &'static str,
    pub kind: Type,
    pub value: String,
    /// What it is if the file does not say it; None where it always does.
    pub default: Option<String>,
}

pub fn of(settings: &Settings) -> Vec<Fixed> {
    let topics = [
        ("auto.create.topics.enable", Type::Boolean, settings.auto_create_topics.to_string()),
        ("log.cleaner.backoff.ms", Type::Long, settings.compaction_check.as_millis().to_string()),
        ("log.retention.check.interval.ms", Type::Long, settings.retention_check.as_millis().to_string()),
        ("num.partitions", Type::Int, settings.defaults.num_partitions.to_string()),
        ("producer.id.expiration.ms", Type::Int, settings.producer_expiration_ms.to_string()),
    ];
    let in_file = topics
        .into_iter()
        .map(|one| ("topics", one))
        .chain(of_groups(settings).into_iter().map(|one| ("groups", one)));
    let mut all: Vec<Fixed> = in_file
        .map(|(section, (name, kind, value))| {
            let key = keys::find(&format!("{section}.{name}"));
            let default = key.map(|key| key.default.trim_matches('"').to_owned());
            Fixed { name, kind, value, default }
        })
        .collect();
    let replicas = settings.defaults.replication_factor.to_string();
    let one = Some("1".to_owned());
    all.push(Fixed { name: "default.replication.factor", kind: Type::Int, value: replicas, default: one });
    all.push(Fixed { name: "node.id", kind: Type::Int, value: settings.node_id.to_string(), default: None });
    all
}

fn of_groups(settings: &Settings) -> Vec<(&'static str, Type, String)> {
    let (groups, topic) = (&settings.groups, settings.offsets_topic);
    let int = |name, value: &dyn ToString| (name, Type::Int, value.to_string());
    let bounds =
        |least, most, bounds: &RangeInclusive<i32>| [int(least, bounds.start()), int(most, bounds.end())];
    let mut rows = vec![
        int("group.consumer.assignment.interval.ms", &groups.consumer_assignment_interval_ms),
        ("group.consumer.assignors", Type::List, groups.consumer_assignors.join(",")),
        int("group.consumer.heartbeat.interval.ms", &groups.consumer_heartbeat_interval_ms),
        int("group.consumer.max.size", &groups.consumer_max_size),
        ("group.consumer.migration.policy", Type::String, groups.consumer_migration_policy.name().to_owned()),
        int("group.consumer.session.timeout.ms", &groups.consumer_session_timeout_ms),
        int("group.initial.rebalance.delay.ms", &groups.group_initial_rebalance_delay_ms),
        int("group.max.session.timeout.ms", &groups.group_max_session_timeout_ms),
        int("group.max.size", &groups.group_max_size),
        int("group.min.session.timeout.ms", &groups.group_min_session_timeout_ms),
        int("offset.metadata.max.bytes", &groups.offset_metadata_max_bytes),
        int("offsets.commit.timeout.ms", &groups.offsets_commit_timeout_ms),
        (
            "offsets.retention.check.interval.ms",
            Type::Long,
            groups.offsets_retention_check_interval_ms.to_string(),
        ),
        int("offsets.retention.minutes", &(groups.offsets_retention_ms / 60_000)),
        int("offsets.topic.num.partitions", &topic.num_partitions),
        int("offsets.topic.segment.bytes", &topic.segment_bytes),
    ];
    rows.extend(bounds(
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
        &groups.consumer_assignment_interval_bounds_ms,
    ));
    rows.extend(bounds(
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.max.heartbeat.interval.ms",
        &groups.consumer_heartbeat_interval_bounds_ms,
    ));
    rows.extend(bounds(
        "group.consumer.min.session.timeout.ms",
        "group.consumer.max.session.timeout.ms",
        &groups.consumer_session_timeout_bounds_ms,
    ));
    rows
}
