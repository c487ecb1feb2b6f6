//! AlterConfigs and IncrementalAlterConfigs of topics, brokers and groups: all that is asked of one resource, or nothing.

use std::collections::BTreeMap;

use super::super::command::Command;
use super::super::config::{self, Defaults, Type};
use super::super::image::{Image, NodeId, Topic};
use super::super::resource::ConfigResource;
use super::super::{broker_config, group_config, topic_name};
use super::repeated;
use crate::error_code::{ErrorCode, Refusal};
use crate::group::Settings;

/// Kafka's bound on a value that APPEND made.
const VALUE_CHARS_MAX: usize = i16::MAX as usize;

/// Resource types, as on the wire.
pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
pub const GROUP: i8 = 32;

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

    fn name(self) -> &'static str {
        match self {
            Operation::Set => "SET",
            Operation::Delete => "DELETE",
            Operation::Append => "APPEND",
            Operation::Subtract => "SUBTRACT",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigOp<'a> {
    pub name: &'a str,
    /// `None` for a number that is no operation.
    pub operation: Option<Operation>,
    pub value: Option<&'a str>,
}

/// What a plan is made against.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub image: &'a Image,
    /// Of this broker, with what was changed while it ran.
    pub defaults: &'a Defaults,
    /// The broker that was asked.
    pub node: NodeId,
    pub groups: &'a Settings,
}

/// Plans IncrementalAlterConfigs of one resource: all of its operations or none. `Ok(None)` changes nothing.
pub fn plan_incremental_alter_configs(
    rules: Rules<'_>,
    resource_type: i8,
    resource_name: &str,
    ops: &[ConfigOp<'_>],
) -> Result<Option<Command>, Refusal> {
    check_unique(ops.iter().map(|op| op.name))?;
    let target = Target::find(rules, resource_type, resource_name)?;
    let before = target.configs(rules.image);
    let mut after = before.clone();
    for op in ops {
        match target.changed(&before, rules.defaults, op)? {
            Some(value) => after.insert(op.name.to_owned(), value),
            None => after.remove(op.name),
        };
    }
    target.plan(rules, &before, &after)
}

/// Plans AlterConfigs of one resource: what is not listed goes back to its default.
pub fn plan_alter_configs(
    rules: Rules<'_>,
    resource_type: i8,
    resource_name: &str,
    configs: &[(&str, Option<&str>)],
) -> Result<Option<Command>, Refusal> {
    check_unique(configs.iter().map(|(name, _)| *name))?;
    let target = Target::find(rules, resource_type, resource_name)?;
    let mut after = BTreeMap::new();
    for (name, value) in configs {
        let value = value.ok_or_else(|| null_value(name))?;
        after.insert((*name).to_owned(), value.to_owned());
    }
    target.plan(rules, &target.configs(rules.image), &after)
}

/// What is to be altered.
enum Target<'a> {
    Topic(&'a Topic),
    Other(ConfigResource),
}

impl<'a> Target<'a> {
    fn find(rules: Rules<'a>, resource_type: i8, name: &str) -> Result<Target<'a>, Refusal> {
        match resource_type {
            TOPIC if name.is_empty() => Err(invalid("Default topic resources are not allowed.")),
            TOPIC => {
                topic_name::validate(name)
                    .map_err(|message| Refusal::new(ErrorCode::InvalidTopicException, message))?;
                let missing = || {
                    let message = format!("The topic '{name}' does not exist.");
                    Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
                };
                rules.image.topic(name).map(|topic| Target::Topic(topic)).ok_or_else(missing)
            }
            BROKER if name.is_empty() => Ok(Target::Other(ConfigResource::Brokers)),
            BROKER => match name.parse() {
                Ok(node) if NodeId(node) == rules.node => {
                    Ok(Target::Other(ConfigResource::Broker(rules.node)))
                }
                Ok(node) => Err(invalid(format!(
                    "Unexpected broker id, expected {}, but received {node}",
                    rules.node
                ))),
                Err(_) => Err(invalid(format!("Node id must be an integer, but it is: {name}"))),
            },
            GROUP if name.is_empty() => Err(invalid("Default group resources are not allowed.")),
            GROUP => Ok(Target::Other(ConfigResource::Group(name.to_owned()))),
            other => Err(invalid(format!("Unknown resource type {other}"))),
        }
    }

    /// What is set.
    fn configs(&self, image: &Image) -> BTreeMap<String, String> {
        match self {
            Target::Topic(topic) => topic.configs.clone(),
            Target::Other(resource) => {
                image.configs(resource).map_or_else(BTreeMap::new, |set| (**set).clone())
            }
        }
    }

    /// The value after the operation; `None` is the default.
    fn changed(
        &self,
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
        let key = match self {
            Target::Topic(_) => config::find(op.name),
            Target::Other(ConfigResource::Brokers | ConfigResource::Broker(_)) => {
                broker_config::find(op.name)
            }
            // None of a group's is a list.
            Target::Other(ConfigResource::Group(_)) => None,
        };
        let key = key.filter(|key| key.kind == Type::List).ok_or_else(|| {
            let how = operation.name();
            refuse(format!("Can't {how} to key {} because its type is not LIST.", op.name))
        })?;
        let base = before.get(op.name).map_or_else(|| defaults.get(key), String::as_str);
        let joined = spliced(base, operation, value);
        if joined.len() > VALUE_CHARS_MAX {
            return Err(refuse(format!("The value of {} cannot be longer than {VALUE_CHARS_MAX}.", op.name)));
        }
        Ok(Some(joined))
    }

    /// The difference between what is set and what shall be. Only new values are checked, so that a value which an
    /// earlier release accepted does not stand in the way.
    fn plan(
        &self,
        rules: Rules<'_>,
        before: &BTreeMap<String, String>,
        after: &BTreeMap<String, String>,
    ) -> Result<Option<Command>, Refusal> {
        let new = after.iter().filter(|(name, value)| before.get(*name) != Some(*value));
        let changed: Vec<(&str, &str)> = new.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match self {
            Target::Topic(topic) => {
                if topic.is_internal() {
                    changed.iter().try_for_each(|(name, value)| config::validate_internal(name, value))?;
                }
                changed.iter().try_for_each(|(name, value)| config::validate_one(name, value))?;
                config::validate_together(after)?;
            }
            Target::Other(ConfigResource::Group(_)) => group_config::validate(&changed, after, rules.groups)?,
            Target::Other(ConfigResource::Brokers | ConfigResource::Broker(_)) => {
                broker_config::validate(&changed, after)?;
            }
        }
        let mut changes: Vec<(String, Option<String>)> =
            changed.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect();
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        changes.extend(gone.map(|name| (name.clone(), None)));
        Ok((!changes.is_empty()).then(|| match self {
            Target::Topic(topic) => Command::SetTopicConfigs { id: topic.id, changes },
            Target::Other(resource) => Command::SetConfigs { resource: resource.clone(), changes },
        }))
    }
}

/// A list with elements added or taken away.
fn spliced(base: &str, operation: Operation, value: &str) -> String {
    let mut list: Vec<&str> = config::elements(base).collect();
    for element in config::elements(value) {
        if operation == Operation::Subtract {
            list.retain(|present| *present != element);
        } else if !list.contains(&element) {
            list.push(element);
        }
    }
    list.join(",")
}

fn check_unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    match repeated(names).first() {
        Some(name) => Err(invalid(format!("Error due to duplicate config keys: {name}"))),
        None => Ok(()),
    }
}

fn null_value(name: &str) -> Refusal {
    invalid(format!("Null value not supported for : {name}"))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

fn refuse(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, message)
}

#[cfg(test)]
mod tests;
