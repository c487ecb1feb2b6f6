//! From a client's topic-admin request to commands: every check that Kafka makes, in Kafka's order and words.
//!
//! A plan reads one image and changes nothing. `validate_only` is to plan and not to propose. Authorization happens
//! before: the caller leaves out what the client may not touch.

mod configs;
mod create;
mod delete;
mod grow;

pub use configs::{
    BROKER, ConfigOp, GROUP, Operation, Rules, TOPIC, plan_alter_configs, plan_incremental_alter_configs,
};
pub use create::{NewTopic, PlannedTopic, plan_create_topics};
pub use delete::{DeleteTopic, plan_delete_topics};
pub use grow::{MorePartitions, PlannedPartitions, plan_create_partitions};

use std::collections::BTreeSet;

use super::image::{Image, NodeId};
use crate::error_code::{ErrorCode, Refusal};

/// The most partitions that one request may create.
pub const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

/// Names that occur more than once.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

fn duplicate_name() -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name.")
}

/// One partition's replicas as a client chose them. `expected` is the replica count of the partitions before it.
fn check_assignment(
    image: &Image,
    partition: i32,
    replicas: &[NodeId],
    expected: Option<usize>,
) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    if replicas.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    let mut before = None;
    for node in sorted {
        if image.broker(node).is_none() {
            return refuse(format!(
                "The manual partition assignment includes broker {node}, but no such broker is registered."
            ));
        }
        if before == Some(node) {
            return refuse(format!(
                "The manual partition assignment includes the broker {node} more than once."
            ));
        }
        before = Some(node);
    }
    if let Some(expected) = expected
        && replicas.len() != expected
    {
        return refuse(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {expected} replica(s).",
            replicas.len()
        ));
    }
    if !replicas.iter().any(|node| image.is_active(*node)) {
        return refuse(format!(
            "All brokers specified in the manual partition assignment for partition {partition} are fenced or in \
             controlled shutdown."
        ));
    }
    Ok(())
}

/// A Kafka placement failure.
fn unplaceable(replication_factor: usize, why: &str) -> Refusal {
    let message = format!("Unable to replicate the partition {replication_factor} time(s): {why}");
    Refusal::new(ErrorCode::InvalidReplicationFactor, message)
}

#[cfg(test)]
mod tests;
