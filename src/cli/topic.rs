//! `corelog topic`: creates, lists, describes and deletes topics of any Kafka-compatible broker.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use net::client::Client;
use net::error_code::ErrorCode;
use net::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use net::messages::delete_topics::DeleteTopicsRequest;
use net::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponseTopic};
use serde_json::{Value, json};

use super::alter::{Changes, alter, key_and_value};
use super::own_configs::{Owner, lines, own_configs};
use super::remote::{Answer, Common, ask, check};
use crate::groups::OFFSETS_TOPIC;

/// How long the broker may take for a change, as it is told.
const CHANGE_TIMEOUT_MS: i32 = 25_000;
/// DeleteTopics names topics in one list up to this version.
const DELETE_BY_NAME_MAX: i16 = 5;

const ALTER_HELP: &str = "\
Examples:
  corelog topic alter orders --config retention.ms=3600000 --config max.message.bytes=2000000
  corelog topic alter orders --config corelog.durability=write --config flush.ms=1000
  corelog topic alter orders --delete-config retention.ms

Nothing is changed if one of the changes is refused. What is set shows `corelog topic describe`.";

#[derive(Args, Debug)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Create a topic
    Create {
        /// The new topic's name: letters, digits, dot, underscore and hyphen, at most 249 of them
        name: String,
        #[command(flatten)]
        common: Common,
        /// -1: the broker's default
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        partitions: i32,
        /// A topic config; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        config: Vec<String>,
    },
    /// List the names of all topics
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Change configs of a topic, at once and for all its partitions
    #[command(after_help = ALTER_HELP)]
    Alter {
        /// The topic's name
        name: String,
        #[command(flatten)]
        changes: Changes,
        #[command(flatten)]
        common: Common,
    },
    /// Show partitions, leaders and replicas, and the configs that were set
    Describe {
        /// The topic's name, as `corelog topic list` gives it
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Delete topics and their records
    Delete {
        /// The topics' names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Delete also the broker's own topics; with __consumer_offsets all groups and their offsets go
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    pub fn run(self) -> ExitCode {
        let (common, answer) = match self.action {
            Action::Create { name, common, partitions, config } => {
                (common.clone(), ask(&common, move |_, client| create(client, name, partitions, config)))
            }
            Action::Alter { name, changes, common } => (
                common.clone(),
                ask(
                    &common,
                    move |_, client| async move { alter(&client, Owner::Topic, &name, &changes).await },
                ),
            ),
            Action::List { common } => (common.clone(), ask(&common, |_, client| list(client))),
            Action::Describe { name, common } => {
                (common.clone(), ask(&common, move |_, client| describe(client, name)))
            }
            Action::Delete { names, internal, common } => {
                let deleted = match names.iter().find(|name| *name == OFFSETS_TOPIC && !internal) {
                    Some(name) => Err(format!(
                        "{name} holds all groups and their offsets, which would be gone; nothing was deleted. Say --internal to delete it all the same"
                    )),
                    None => ask(&common, move |_, client| delete(client, names)),
                };
                (common, deleted)
            }
        };
        common.tell(answer)
    }
}

async fn create(client: Client, name: String, partitions: i32, config: Vec<String>) -> Answer {
    let mut configs = Vec::new();
    for pair in &config {
        let (key, value) = key_and_value(pair)?;
        configs.push(CreatableTopicConfig { name: key.into(), value: Some(value.into()) });
    }
    let topic = CreatableTopic {
        name: name.as_str().into(),
        num_partitions: partitions,
        replication_factor: -1,
        configs,
        ..Default::default()
    };
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: CHANGE_TIMEOUT_MS, validate_only: false };
    let reply = client.call(&request).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let created = response.topics.first().ok_or("the broker answered without the topic")?;
    check(&name, created.error_code, created.error_message.as_deref())?;
    let count = created.num_partitions;
    let text = format!("created {name} with {count} partition{}\n", if count == 1 { "" } else { "s" });
    Ok((json!({ "name": name, "partitions": count }), text))
}

async fn list(client: Client) -> Answer {
    let request = MetadataRequest { topics: None, ..Default::default() };
    let reply = client.call(&request).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let mut names: Vec<&str> = response.topics.iter().filter_map(|topic| topic.name.as_deref()).collect();
    names.sort_unstable();
    let text = names.iter().map(|name| format!("{name}\n")).collect();
    Ok((json!(names), text))
}

async fn describe(client: Client, name: String) -> Answer {
    let asked = MetadataRequestTopic { name: Some(name.as_str().into()), ..Default::default() };
    let request =
        MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation: false, ..Default::default() };
    let reply = client.call(&request).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let topic = response.topics.first().ok_or("the broker answered without the topic")?;
    check(&name, topic.error_code, None)?;
    let configs = own_configs(&client, Owner::Topic, &name).await?;
    let mut json = described(topic);
    let mut text = table(topic);
    if let Some(configs) = configs {
        text.push_str(&lines("CONFIGS SET ON THE TOPIC", &configs, "the broker's defaults hold"));
        json["configs"] = json!(configs);
    }
    Ok((json, text))
}

fn described(topic: &MetadataResponseTopic<'_>) -> Value {
    let partitions: Vec<Value> = topic
        .partitions
        .iter()
        .map(|partition| {
            json!({
                "partition": partition.partition_index,
                "leader": partition.leader_id,
                "leader_epoch": partition.leader_epoch,
                "replicas": partition.replica_nodes,
                "in_sync": partition.isr_nodes,
                "error": ErrorCode::from_i16(partition.error_code).map(ErrorCode::name),
            })
        })
        .collect();
    json!({ "name": topic.name, "partitions": partitions })
}

fn table(topic: &MetadataResponseTopic<'_>) -> String {
    let mut out =
        format!("{:>9}  {:>6}  {:>5}  {:<12}  {}\n", "PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC");
    let mut partitions: Vec<_> = topic.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    for partition in partitions {
        out.push_str(&format!(
            "{:>9}  {:>6}  {:>5}  {:<12}  {}\n",
            partition.partition_index,
            partition.leader_id,
            partition.leader_epoch,
            nodes(&partition.replica_nodes),
            nodes(&partition.isr_nodes)
        ));
    }
    out
}

fn nodes(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// All of them in one request. What was deleted is said also when one of them could not be.
async fn delete(client: Client, names: Vec<String>) -> Answer {
    let request = DeleteTopicsRequest {
        topic_names: names.iter().map(|name| name.as_str().into()).collect(),
        timeout_ms: CHANGE_TIMEOUT_MS,
        ..Default::default()
    };
    let reply = client.call_up_to(&request, DELETE_BY_NAME_MAX).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let (mut deleted, mut failed) = (Vec::new(), Vec::new());
    for name in &names {
        let result = response.responses.iter().find(|result| result.name.as_deref() == Some(name.as_str()));
        let result = result.ok_or_else(|| format!("the broker answered without the topic {name}"))?;
        match check(name, result.error_code, result.error_message.as_deref()) {
            Ok(()) => deleted.push(name.as_str()),
            Err(why) => failed.push(why),
        }
    }
    if failed.is_empty() {
        let text = deleted.iter().map(|name| format!("deleted {name}\n")).collect();
        return Ok((json!({ "deleted": deleted }), text));
    }
    if !deleted.is_empty() {
        failed.push(format!("deleted: {}", deleted.join(", ")));
    }
    Err(failed.join("\n"))
}
