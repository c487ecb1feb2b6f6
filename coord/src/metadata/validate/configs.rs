//! AlterConfigs and IncrementalAlterConfigs of topics. Brokers' own configs are not dynamic: their file holds them.

use std::collections::BTreeMap;

use super::super::command::Command;
use super::super::config::{self, Defaults, Type};
use super::super::image::{Image, Topic};
use super::super::topic_name;
use super::repeated;
use crate::error_code::{ErrorCode, Refusal};

/// Kafka's bound on a value that APPEND made.
const VALUE_CHARS_MAX: usize = i16::MAX as usize;

/// What IncrementalAlterConfigs does to one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl Operation {
    /// The operation of that number on the wire.
    pub fn from_code(code: i8) -> Option<Operation> {
        Some(match code {
            0 => Operation::Set,
            1 => Operation::Delete,
            2 => Operation::Append,
            3 => Operation::Subtract,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigOp<'a> {
    pub name: &'a str,
    /// `None` for a number that is no operation.
    pub operation: Option<Operation>,
    pub value: Option<&'a str>,
}

/// Plans IncrementalAlterConfigs for one topic: all of its operations or none. `Ok(None)` changes nothing.
pub fn plan_incremental_alter_configs(
    image: &Image,
    defaults: &Defaults,
    topic: &str,
    ops: &[ConfigOp<'_>],
) -> Result<Option<Command>, Refusal> {
    let topic = find(image, topic)?;
    if let Some(name) = repeated(ops.iter().map(|op| op.name)).first() {
        return Err(invalid(format!("Error due to duplicate config keys: {name}")));
    }
    let mut after = topic.configs.clone();
    for op in ops {
        match changed(&after, defaults, op)? {
            Some(value) => after.insert(op.name.to_owned(), value),
            None => after.remove(op.name),
        };
    }
    plan(topic, after)
}

/// Plans AlterConfigs for one topic: what is not listed goes back to its default.
pub fn plan_alter_configs(
    image: &Image,
    topic: &str,
    configs: &[(&str, Option<&str>)],
) -> Result<Option<Command>, Refusal> {
    let topic = find(image, topic)?;
    if let Some(name) = repeated(configs.iter().map(|(name, _)| *name)).first() {
        return Err(invalid(format!("Error due to duplicate config keys: {name}")));
    }
    let mut after = BTreeMap::new();
    for (name, value) in configs {
        let value = value.ok_or_else(|| null_value(name))?;
        after.insert((*name).to_owned(), value.to_owned());
    }
    plan(topic, after)
}

fn find<'a>(image: &'a Image, name: &str) -> Result<&'a Topic, Refusal> {
    if name.is_empty() {
        return Err(invalid("Default topic resources are not allowed.".to_owned()));
    }
    if let Err(message) = topic_name::validate(name) {
        return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
    }
    let missing =
        || Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."));
    image.topic(name).map(AsRef::as_ref).ok_or_else(missing)
}

/// The value after the operation; `None` is the default.
fn changed(
    before: &BTreeMap<String, String>,
    defaults: &Defaults,
    op: &ConfigOp<'_>,
) -> Result<Option<String>, Refusal> {
    let operation = op.operation.ok_or_else(|| invalid(format!("Unknown operation on {}", op.name)))?;
    if operation == Operation::Delete {
        return Ok(None);
    }
    let value = op.value.ok_or_else(|| null_value(op.name))?;
    if operation == Operation::Set {
        return Ok(Some(value.to_owned()));
    }
    let key = config::find(op.name).filter(|key| key.kind == Type::List).ok_or_else(|| {
        let message = format!("Can't {operation:?} to key {} because its type is not LIST.", op.name);
        Refusal::new(ErrorCode::InvalidConfig, message)
    })?;
    let base = before.get(op.name).map_or_else(|| defaults.get(key), String::as_str);
    let mut list: Vec<&str> = config::elements(base).collect();
    for element in config::elements(value) {
        match operation {
            Operation::Append if !list.contains(&element) => list.push(element),
            Operation::Subtract => list.retain(|present| *present != element),
            Operation::Append | Operation::Set | Operation::Delete => {}
        }
    }
    let joined = list.join(",");
    if joined.len() > VALUE_CHARS_MAX {
        let message = format!("The value of {} cannot be longer than {VALUE_CHARS_MAX}.", op.name);
        return Err(Refusal::new(ErrorCode::InvalidConfig, message));
    }
    Ok(Some(joined))
}

/// The difference between the topic's configs and those after; only new values are checked, so that a value which an
/// earlier release accepted does not stand in the way.
fn plan(topic: &Topic, after: BTreeMap<String, String>) -> Result<Option<Command>, Refusal> {
    let mut changes = Vec::new();
    for (name, value) in &after {
        if topic.configs.get(name) != Some(value) {
            config::validate_one(name, value)?;
            changes.push((name.clone(), Some(value.clone())));
        }
    }
    changes.extend(
        topic.configs.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None)),
    );
    config::validate_together(&after)?;
    Ok((!changes.is_empty()).then_some(Command::SetTopicConfigs { id: topic.id, changes }))
}

fn null_value(name: &str) -> Refusal {
    invalid(format!("Null value not supported for : {name}"))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}
