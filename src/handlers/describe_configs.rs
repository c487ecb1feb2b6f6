//! DescribeConfigs v1-v4, of topics and of this broker. v1: synonyms. v3: types and documentation. v4: flexible.
//!
//! Listed is what has an effect in this release, and whatever a topic sets besides. Nothing can be altered while the
//! broker runs yet, so everything of the broker is read-only; and nothing is sensitive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use coord::metadata::config::{self, Described, Source, Type};
use net::error_code::ErrorCode;
use net::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::{Reply, Request, Unanswerable};
use crate::shard::Shard;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// The first version with types.
const TYPES_FROM: i16 = 3;

type Row = DescribeConfigsResourceResult<'static>;

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
            let all = config::describe(&topic.configs, &shard.settings.defaults);
            Ok(all
                .iter()
                .filter(|one| one.key.in_force || one.source == Source::Topic)
                .map(of_topic)
                .collect())
        }
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER => {
            let node = shard.settings.node_id.0;
            if name.parse() != Ok(node) {
                let why =
                    format!("Unexpected broker id, expected {node} or empty string, but received {name}");
                return Err((ErrorCode::InvalidRequest, why));
            }
            Ok(of_broker(shard))
        }
        other => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}"))),
    }
}

fn of_topic(described: &Described) -> Row {
    let synonym = |(name, value, source): &(&'static str, String, Source)| DescribeConfigsSynonym {
        name: Cow::Borrowed(*name),
        value: Some(value.clone().into()),
        source: *source as i8,
    };
    DescribeConfigsResourceResult {
        name: described.key.name.into(),
        value: Some(described.value.clone().into()),
        read_only: false,
        config_source: described.source as i8,
        synonyms: described.synonyms.iter().map(synonym).collect(),
        config_type: described.key.kind.code(),
        ..Default::default()
    }
}

/// What the broker was started with, under Kafka's names.
fn of_broker(shard: &Rc<Shard>) -> Vec<Row> {
    let settings = &shard.settings;
    let described = config::describe(&BTreeMap::new(), &settings.defaults);
    let defaults = described.iter().filter(|one| one.key.in_force && !one.key.broker_name.is_empty());
    let mut rows: Vec<Row> = defaults
        .map(|one| broker_row(one.key.broker_name, one.value.clone(), one.source, one.key.kind))
        .collect();
    let mut own = |name, value, kind| rows.push(broker_row(name, value, Source::Broker, kind));
    own("node.id", settings.node_id.0.to_string(), Type::Int);
    own("num.partitions", settings.defaults.num_partitions.to_string(), Type::Int);
    own("default.replication.factor", settings.defaults.replication_factor.to_string(), Type::Int);
    own("auto.create.topics.enable", settings.auto_create_topics.to_string(), Type::Boolean);
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

fn broker_row(name: &'static str, value: String, source: Source, kind: Type) -> Row {
    DescribeConfigsResourceResult {
        name: name.into(),
        value: Some(value.clone().into()),
        read_only: true,
        config_source: source as i8,
        synonyms: vec![DescribeConfigsSynonym {
            name: name.into(),
            value: Some(value.into()),
            source: source as i8,
        }],
        config_type: kind.code(),
        ..Default::default()
    }
}

/// The rows that were asked for, with what the request and its version allow.
fn chosen(
    rows: Vec<Row>,
    resource: &DescribeConfigsResource<'_>,
    body: &DescribeConfigsRequest<'_>,
    version: i16,
) -> Vec<Row> {
    let wanted = |row: &Row| resource.configuration_keys.as_ref().is_none_or(|keys| keys.contains(&row.name));
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
