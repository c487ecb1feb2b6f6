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
use crate::cli::remote::Answer;

/// Offsets are asked for by topic name up to this version.
pub(super) const FETCH_BY_NAME_MAX: i16 = 9;
const NONE: i16 = 0;

struct Described {
    state: String,
    kind: &'static str,
    assignor: String,
    members: Vec<Member>,
}

struct Member {
    id: String,
    client_id: String,
    host: String,
    partitions: Vec<(String, i32)>,
}

pub async fn describe(core: &Core, client: &Client, name: &str) -> Answer {
    let coordinator = coordinator(core, client, name).await?;
    let group = match modern(&coordinator, name).await? {
        Some(group) => group,
        None => classic(&coordinator, name).await?,
    };
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
    let mut text = format!(
        "{name}: {}, {} protocol, {} member{}{}\n",
        group.state,
        group.kind,
        group.members.len(),
        if group.members.len() == 1 { "" } else { "s" },
        if group.assignor.is_empty() { String::new() } else { format!(", assigned by {}", group.assignor) },
    );
    if !partitions.is_empty() {
        text.push_str(&row(["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "CLIENT", "HOST"]));
    }
    for (topic, index) in partitions {
        let key = (topic.to_owned(), index);
        let (at, end) = (committed.get(&key).copied(), ends.get(&key).copied());
        let lag = at.zip(end).map(|(at, end)| end.saturating_sub(at).max(0));
        let owner = owners.get(&(topic, index));
        let shown = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
        let of = |part: fn(&Member) -> &str| owner.map_or("-", |member| part(member));
        let (member, client, host) = (of(|m| &m.id), of(|m| &m.client_id), of(|m| &m.host));
        text.push_str(&row([
            topic,
            &index.to_string(),
            &shown(at),
            &shown(end),
            &shown(lag),
            member,
            client,
            host,
        ]));
        rows.push(json!({
            "topic": topic, "partition": index, "committed": at, "end": end, "lag": lag,
            "member": owner.map(|member| &member.id),
        }));
    }
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|one| json!({ "id": one.id, "client_id": one.client_id, "host": one.host, "partitions": one.partitions.len() }))
        .collect();
    let json = json!({
        "name": name, "state": group.state, "type": group.kind, "assignor": group.assignor,
        "members": members, "partitions": rows,
    });
    Ok((json, text))
}

fn row(cells: [&str; 8]) -> String {
    let [topic, partition, at, end, lag, member, client, host] = cells;
    format!("{topic:<24} {partition:>9} {at:>12} {end:>12} {lag:>10}  {member}  {client}  {host}\n")
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
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            partitions: partitions.collect(),
        }
    });
    Ok(Some(Described {
        state: group.group_state.to_string(),
        kind: "consumer",
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
