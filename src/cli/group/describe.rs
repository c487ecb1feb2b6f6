//! `corelog group describe`: who is in a group, and how far each partition is read.

use std::collections::BTreeMap;

use net::client::Client;
use net::messages::assignment::ConsumerProtocolAssignment;
use net::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use net::messages::describe_groups::DescribeGroupsRequest;
use net::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use net::wire::{Decode, Reader};
use rt::Core;
use serde_json::{Value, json};

use super::reset::{LATEST, offsets_at};
use super::{check, coordinator, hint};
use crate::cli::own_configs::{Owner, lines, own_configs};
use crate::cli::remote::Answer;
use crate::shown::shown;

/// Offsets are asked for by topic name up to this version.
pub(super) const FETCH_BY_NAME_MAX: i16 = 9;
const NONE: i16 = 0;

/// The protocol that group configs are for.
const CONSUMER: &str = "consumer";

struct Described {
    state: String,
    kind: &'static str,
    assignor: String,
    members: Vec<Member>,
}

struct Member {
    id: String,
    instance_id: Option<String>,
    client_id: String,
    host: String,
    partitions: Vec<(String, i32)>,
}

pub async fn describe(core: &Core, client: &Client, name: &str) -> Answer {
    let coordinator = coordinator(core, client, name).await?;
    let group = group(&coordinator, name).await?;
    let committed = committed(&coordinator, name).await?;
    let mut owners: BTreeMap<(&str, i32), &Member> = BTreeMap::new();
    for member in &group.members {
        owners.extend(member.partitions.iter().map(|(topic, index)| ((topic.as_str(), *index), member)));
    }
    let mut partitions: Vec<(&str, i32)> = owners.keys().copied().collect();
    partitions.extend(committed.keys().map(|(topic, index)| (topic.as_str(), *index)));
    partitions.sort_unstable();
    partitions.dedup();
    let ends = offsets_at(client, &partitions, LATEST).await?;
    let mut rows = Vec::with_capacity(partitions.len());
    let mut text = headline(name, &group);
    if !partitions.is_empty() || !group.members.is_empty() {
        text.push_str(&row(
            ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"],
            ["MEMBER", "INSTANCE", "CLIENT", "HOST"],
        ));
    }
    for (topic, index) in partitions {
        let key = (topic.to_owned(), index);
        let (at, end) = (committed.get(&key).copied(), ends.get(&key).copied());
        // Negative where the topic was made anew, or lost its end: what is committed lies behind all that is there.
        let lag = at.zip(end).map(|(at, end)| end.saturating_sub(at));
        let owner = owners.get(&(topic, index)).copied();
        let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
        let place = [&shown(topic), &index.to_string(), &number(at), &number(end), &number(lag)];
        text.push_str(&row(place.map(String::as_str), member_cells(owner).each_ref().map(String::as_str)));
        rows.push(json!({
            "topic": topic, "partition": index, "committed": at, "end": end, "lag": lag,
            "member": owner.map(|member| &member.id),
        }));
    }
    for idle in group.members.iter().filter(|member| member.partitions.is_empty()) {
        text.push_str(&row(["-"; 5], member_cells(Some(idle)).each_ref().map(String::as_str)));
    }
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|one| {
            json!({
                "id": one.id, "instance_id": one.instance_id, "client_id": one.client_id, "host": one.host,
                "partitions": one.partitions.len(),
            })
        })
        .collect();
    let mut json = json!({
        "name": name, "state": group.state, "type": group.kind, "assignor": group.assignor,
        "members": members, "partitions": rows,
    });
    if let Some(configs) = own_configs(client, Owner::Group, name).await? {
        if group.kind == CONSUMER || !configs.is_empty() {
            let headline = match group.kind {
                CONSUMER => "CONFIGS SET ON THE GROUP",
                _ => "CONFIGS SET ON THE GROUP (without effect under the classic protocol)",
            };
            text.push_str(&lines(headline, &configs, "the broker's settings hold"));
        }
        json["configs"] = json!(configs);
    }
    Ok((json, text))
}

fn headline(name: &str, group: &Described) -> String {
    let members = match group.members.len() {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    let assignor = match group.assignor.is_empty() {
        true => String::new(),
        false => format!(", assigned by {}", shown(&group.assignor)),
    };
    format!("{}: {}, {} protocol, {members}{assignor}\n", shown(name), group.state, group.kind)
}

fn member_cells(member: Option<&Member>) -> [String; 4] {
    let Some(member) = member else { return ["-"; 4].map(str::to_owned) };
    let instance = member.instance_id.as_deref().unwrap_or("-");
    [member.id.as_str(), instance, &member.client_id, &member.host].map(shown)
}

fn row(place: [&str; 5], member: [&str; 4]) -> String {
    let [topic, partition, at, end, lag] = place;
    let [member, instance, client, host] = member;
    format!(
        "{topic:<24} {partition:>9} {at:>12} {end:>12} {lag:>10}  {member}  {instance}  {client}  {host}\n"
    )
}

/// How many members a group has now; none where there is no such group.
pub(super) async fn member_count(coordinator: &Client, name: &str) -> usize {
    group(coordinator, name).await.map_or(0, |group| group.members.len())
}

async fn group(coordinator: &Client, name: &str) -> Result<Described, String> {
    match modern(coordinator, name).await? {
        Some(group) => Ok(group),
        None => classic(coordinator, name).await,
    }
}

/// The group if it speaks the consumer protocol, or the broker does not know that protocol.
async fn modern(coordinator: &Client, name: &str) -> Result<Option<Described>, String> {
    let request = ConsumerGroupDescribeRequest { group_ids: vec![name.into()], ..Default::default() };
    let Ok(reply) = coordinator.call(&request).await else { return Ok(None) };
    let response = reply.decode().map_err(|error| error.to_string())?;
    let group = response.groups.first().ok_or("the broker answered without the group")?;
    if group.error_code != NONE {
        return Ok(None);
    }
    let members = group.members.iter().map(|member| {
        let topics = member.assignment.topic_partitions.iter();
        let partitions = topics.flat_map(|topic| {
            topic.partitions.iter().map(|index| (topic.topic_name.to_string(), *index)).collect::<Vec<_>>()
        });
        Member {
            id: member.member_id.to_string(),
            instance_id: member.instance_id.as_ref().map(ToString::to_string),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            partitions: partitions.collect(),
        }
    });
    Ok(Some(Described {
        state: group.group_state.to_string(),
        kind: CONSUMER,
        assignor: group.assignor_name.to_string(),
        members: members.collect(),
    }))
}

async fn classic(coordinator: &Client, name: &str) -> Result<Described, String> {
    let request = DescribeGroupsRequest { groups: vec![name.into()], ..Default::default() };
    let reply = coordinator.call(&request).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let group = response.groups.first().ok_or("the broker answered without the group")?;
    check(name, group.error_code, hint(group.error_code))?;
    let members = group.members.iter().map(|member| Member {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        partitions: assigned(&member.member_assignment),
    });
    Ok(Described {
        state: group.group_state.to_string(),
        kind: "classic",
        assignor: group.protocol_data.to_string(),
        members: members.collect(),
    })
}

/// What a classic member was assigned; nothing where the bytes are not a consumer's.
fn assigned(bytes: &[u8]) -> Vec<(String, i32)> {
    let mut reader = Reader::new(bytes);
    let Ok(version) = reader.i16() else { return Vec::new() };
    let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut reader, version.clamp(0, 3)) else {
        return Vec::new();
    };
    let topics = assignment.assigned_partitions.iter();
    topics
        .flat_map(|topic| {
            topic.partitions.iter().map(|index| (topic.topic.to_string(), *index)).collect::<Vec<_>>()
        })
        .collect()
}

/// Everything that the group has committed.
pub(super) async fn committed(
    coordinator: &Client,
    name: &str,
) -> Result<BTreeMap<(String, i32), i64>, String> {
    let group = OffsetFetchRequestGroup { group_id: name.into(), topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let reply =
        coordinator.call_up_to(&request, FETCH_BY_NAME_MAX).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let group = response.groups.first().ok_or("the broker answered without the group")?;
    check(name, group.error_code, hint(group.error_code))?;
    let topics = group.topics.iter();
    Ok(topics
        .flat_map(|topic| {
            let whole = topic.partitions.iter().filter(|one| one.committed_offset >= 0);
            whole
                .map(|one| ((topic.name.to_string(), one.partition_index), one.committed_offset))
                .collect::<Vec<_>>()
        })
        .collect())
}
