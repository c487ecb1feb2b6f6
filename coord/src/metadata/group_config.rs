//! The configs of the resource GROUP: what one consumer group has instead of the broker's settings.
//!
//! Keys of share and streams groups are unknown here, as those groups are not served.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::config::{self, Type, Valid};
use crate::error_code::{ErrorCode, Refusal};
use crate::group::{GroupConfig, Settings};

/// One key. All of them are INT.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    /// The broker's key for the default of all groups.
    pub broker_name: &'static str,
    least: i32,
    bounds: fn(&Settings) -> RangeInclusive<i32>,
    default: fn(&Settings) -> i32,
}

/// Every key, in name order.
pub const KEYS: [Key; 3] = [
    Key {
        name: "consumer.assignment.interval.ms",
        broker_name: "group.consumer.assignment.interval.ms",
        least: 0,
        bounds: |settings| settings.consumer_assignment_interval_bounds_ms.clone(),
        default: |settings| settings.consumer_assignment_interval_ms,
    },
    Key {
        name: HEARTBEAT,
        broker_name: "group.consumer.heartbeat.interval.ms",
        least: 1,
        bounds: |settings| settings.consumer_heartbeat_interval_bounds_ms.clone(),
        default: |settings| settings.consumer_heartbeat_interval_ms,
    },
    Key {
        name: SESSION,
        broker_name: "group.consumer.session.timeout.ms",
        least: 1,
        bounds: |settings| settings.consumer_session_timeout_bounds_ms.clone(),
        default: |settings| settings.consumer_session_timeout_ms,
    },
];

const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
const SESSION: &str = "consumer.session.timeout.ms";

impl Key {
    /// The value for groups that set none.
    pub fn default(&self, settings: &Settings) -> i32 {
        (self.default)(settings)
    }

    /// What is in force: the group's own value, within what the broker allows by now.
    fn value(&self, configs: &BTreeMap<String, String>, settings: &Settings) -> Option<i32> {
        let value: i32 = configs.get(self.name)?.trim().parse().ok()?;
        let bounds = (self.bounds)(settings);
        Some(value.clamp(*bounds.start(), (*bounds.end()).max(*bounds.start())))
    }
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Each key with the group's own value in force, if it has one.
pub fn describe(
    configs: &BTreeMap<String, String>,
    settings: &Settings,
) -> [(&'static Key, Option<i32>); KEYS.len()] {
    KEYS.each_ref().map(|key| (key, key.value(configs, settings)))
}

/// What the coordinator makes of them.
pub fn in_force(configs: &BTreeMap<String, String>, settings: &Settings) -> GroupConfig {
    let [assignment, heartbeat, session] = describe(configs, settings).map(|(_, value)| value);
    GroupConfig {
        consumer_session_timeout_ms: session,
        consumer_heartbeat_interval_ms: heartbeat,
        consumer_assignment_interval_ms: assignment,
    }
}

/// Checks the values that are new, and that all of them go together.
pub(super) fn validate(
    changed: &[(&str, &str)],
    after: &BTreeMap<String, String>,
    settings: &Settings,
) -> Result<(), Refusal> {
    for (name, value) in changed {
        let key = find(name).ok_or_else(|| refuse(format!("Unknown group config name: {name}")))?;
        config::check_typed(Type::Int, Valid::AtLeast(i64::from(key.least)), value.trim())
            .map_err(|why| refuse(format!("Invalid value {value} for configuration {name}: {why}")))?;
        let number: i32 = value.trim().parse().map_err(|_| refuse(format!("{name} is no number")))?;
        let (bounds, (prefix, rest)) =
            ((key.bounds)(settings), key.broker_name.split_at("group.consumer.".len()));
        if number < *bounds.start() {
            return Err(refuse(format!("{name} must be greater than or equal to {prefix}min.{rest}")));
        }
        if number > *bounds.end() {
            return Err(refuse(format!("{name} must be less than or equal to {prefix}max.{rest}")));
        }
    }
    let config = in_force(after, settings);
    let session = config.consumer_session_timeout_ms.unwrap_or(settings.consumer_session_timeout_ms);
    let heartbeat = config.consumer_heartbeat_interval_ms.unwrap_or(settings.consumer_heartbeat_interval_ms);
    if !changed.is_empty() && session <= heartbeat {
        return Err(refuse(format!("{SESSION} must be greater than {HEARTBEAT}")));
    }
    Ok(())
}

fn refuse(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, message)
}
