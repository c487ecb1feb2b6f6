//! DescribeConfigs v1-v4, of topics, of brokers and of groups. v1: synonyms. v3: types and documentation. v4: flexible.
//!
//! Listed is what has an effect in this release, and whatever a topic sets besides. Of a broker, what can be changed while
//! it runs is not read-only. Nothing is sensitive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use coord::metadata::config::{self, Source, Type};
use coord::metadata::validate::{BROKER, GROUP, TOPIC};
use coord::metadata::{ConfigResource, broker_config, group_config};
use net::error_code::ErrorCode;
use net::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::{Reply, Request, Unanswerable};
use crate::shard::Shard;

mod fixed;

/// The first version with types.
const TYPES_FROM: i16 = 3;

type Row = DescribeConfigsResourceResult<'static>;

/// A value under the name it has where it is set.
type Synonym = (&'static str, String, Source);

pub fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: DescribeConfigsRequest = request.decode()?;
    let results = body.resources.iter().map(|resource| {
        let mut result = DescribeConfigsResult {
            error_message: None,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match rows(request.shard, resource) {
            Ok(rows) => result.configs = chosen(rows, resource, &body, request.version),
            Err((code, message)) => {
                (result.error_code, result.error_message) = (code as i16, Some(message.into()));
            }
        }
        result
    });
    request.answer(&DescribeConfigsResponse { results: results.collect(), ..Default::default() })
}

fn rows(shard: &Rc<Shard>, resource: &DescribeConfigsResource<'_>) -> Result<Vec<Row>, (ErrorCode, String)> {
    let name = resource.resource_name.as_ref();
    match resource.resource_type {
        TOPIC => {
            let metadata = shard.metadata.borrow();
            let Some(topic) = metadata.topic(name) else {
                return Err(match coord::metadata::is_legal_topic_name(name) {
                    true => (ErrorCode::UnknownTopicOrPartition, String::new()),
                    false => (ErrorCode::InvalidTopicException, format!("{name:?} is no legal topic name")),
                });
            };
            let all = config::describe(&topic.configs, &shard.defaults()).into_iter();
            let listed = all.filter(|one| one.key.in_force || one.source == Source::Topic);
            Ok(listed
                .map(|one| row(one.key.name, one.key.kind, (one.value, one.source), one.synonyms))
                .collect())
        }
        BROKER if name.is_empty() => Ok(of_all_brokers(shard)),
        BROKER => {
            let node = shard.settings.node_id.0;
            match name.parse::<i32>() {
                Ok(asked) if node == asked => Ok(of_broker(shard)),
                Ok(asked) => {
                    let why = format!(
                        "Unexpected broker id, expected {node} or empty string, but received {asked}"
                    );
                    Err((ErrorCode::InvalidRequest, why))
                }
                Err(_) => {
                    let why = format!("Broker id must be an integer, but it is: {name}");
                    Err((ErrorCode::InvalidRequest, why))
                }
            }
        }
        GROUP if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Group name must not be empty".to_owned()))
        }
        GROUP => Ok(of_group(shard, name)),
        other => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}"))),
    }
}

/// `synonyms` are strongest first.
fn row(name: &'static str, kind: Type, shown: (String, Source), synonyms: Vec<Synonym>) -> Row {
    let synonym = |(name, value, source): Synonym| DescribeConfigsSynonym {
        name: Cow::Borrowed(name),
        value: Some(value.into()),
        source: source as i8,
    };
    DescribeConfigsResourceResult {
        name: name.into(),
        value: Some(shown.0.into()),
        read_only: false,
        config_source: shown.1 as i8,
        synonyms: synonyms.into_iter().map(synonym).collect(),
        config_type: kind.code(),
        ..Default::default()
    }
}

/// What was set for all brokers while they run, and nothing else.
fn of_all_brokers(shard: &Rc<Shard>) -> Vec<Row> {
    let metadata = shard.metadata.borrow();
    let set = metadata.configs(&ConfigResource::Brokers);
    let set = set.into_iter().flat_map(|set| set.iter());
    set.filter_map(|(name, value)| {
        let key = broker_config::find(name)?;
        let (value, source) = (config::shown(key.kind, value), Source::DynamicBrokers);
        Some(row(key.broker_name, key.kind, (value.clone(), source), vec![(key.broker_name, value, source)]))
    })
    .collect()
}

/// What is in force on this broker, under Kafka's names.
fn of_broker(shard: &Rc<Shard>) -> Vec<Row> {
    let described = config::describe(&BTreeMap::new(), &shard.defaults()).into_iter();
    let defaults = described.filter(|one| broker_config::find(one.key.broker_name) == Some(one.key));
    let mut rows: Vec<Row> = defaults
        .map(|one| row(one.key.broker_name, one.key.kind, (one.value, one.source), one.synonyms))
        .collect();
    rows.extend(fixed::of(&shard.settings).into_iter().map(|one| {
        let fixed::Fixed { name, kind, value, default } = one;
        let source = if default.as_ref() == Some(&value) { Source::Default } else { Source::Broker };
        let own = (source == Source::Broker).then(|| (name, value.clone(), source));
        let default = default.map(|default| (name, default, Source::Default));
        let synonyms = own.into_iter().chain(default).collect();
        Row { read_only: true, ..row(name, kind, (value, source), synonyms) }
    }));
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

/// The group need not exist.
fn of_group(shard: &Rc<Shard>, name: &str) -> Vec<Row> {
    let (settings, metadata) = (&shard.settings.groups, shard.metadata.borrow());
    let set = metadata.configs(&ConfigResource::Group(name.to_owned())).cloned().unwrap_or_default();
    let described = group_config::describe(&set, settings).into_iter();
    described
        .map(|(key, own)| {
            let default = key.default(settings);
            let source = if default == key.default(&coord::group::Settings::default()) {
                Source::Default
            } else {
                Source::Broker
            };
            let own = own.map(|value| (key.name, value.to_string(), Source::Group));
            let default = (key.broker_name, default.to_string(), source);
            let (_, value, source) = own.clone().unwrap_or_else(|| default.clone());
            row(key.name, Type::Int, (value, source), own.into_iter().chain([default]).collect())
        })
        .collect()
}

/// The rows that were asked for, with what the request and its version allow.
fn chosen(
    rows: Vec<Row>,
    resource: &DescribeConfigsResource<'_>,
    body: &DescribeConfigsRequest<'_>,
    version: i16,
) -> Vec<Row> {
    // An empty list asks for all, as none does.
    let keys = resource.configuration_keys.as_deref().unwrap_or_default();
    let wanted = |row: &Row| keys.is_empty() || keys.contains(&row.name);
    let mut rows: Vec<Row> = rows.into_iter().filter(wanted).collect();
    for row in &mut rows {
        row.documentation = None;
        if !body.include_synonyms {
            row.synonyms.clear();
        }
        if version < TYPES_FROM {
            row.config_type = 0;
        }
    }
    rows
}
