//! Server-side assignors: who reads what, decided here instead of by a member.
//!
//! Pure: the same members, subscriptions, topics and former targets give the same targets. Every partition of a
//! subscribed topic goes to exactly one of its subscribers. Racks are not looked at, as in Kafka 4.3.

mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::ids::TopicId;

use super::Text;
use super::per_topic::Partitions;

/// The assignors there are, by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assignor {
    Uniform,
    Range,
}

impl Assignor {
    pub fn find(name: &str) -> Option<Assignor> {
        match name {
            "uniform" => Some(Assignor::Uniform),
            "range" => Some(Assignor::Range),
            _ => None,
        }
    }
}

/// What an assignor is told of a member.
#[derive(Clone, Debug)]
pub struct Subscriber {
    pub id: Text,
    pub instance: Option<Text>,
    pub topics: Rc<BTreeSet<TopicId>>,
    /// The target it has now.
    pub target: Rc<Partitions>,
}

/// The targets of all members, in the order of the members. `counts` tells how many partitions each subscribed topic has.
pub fn assign(
    assignor: Assignor,
    members: &[Subscriber],
    counts: &BTreeMap<TopicId, i32>,
) -> Vec<Partitions> {
    match assignor {
        Assignor::Uniform => uniform::assign(members, counts),
        Assignor::Range => range::assign(members, counts),
    }
}

#[cfg(test)]
mod tests;
