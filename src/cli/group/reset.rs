//! `corelog group reset-offsets`: where a group is to go on, computed from the partitions as they are now.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use net::client::Client;
use net::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use net::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use rt::Core;
use serde_json::{Value, json};

use super::describe::{committed, member_count};
use super::{check, coordinator, hint};
use crate::cli::remote::Answer;
use crate::shown::shown;

pub(super) const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// Offsets are committed by topic name up to this version.
const COMMIT_BY_NAME_MAX: i16 = 9;

#[derive(Args, Clone, Debug)]
pub struct Reset {
    /// A topic whose offsets are set, or only some partitions of it, as in orders:1,2; may be repeated
    #[arg(long, value_name = "NAME[:PARTITION,...]", required_unless_present = "all_topics", value_parser = some_of)]
    topic: Vec<SomeOf>,
    /// Every topic that the group has committed for
    #[arg(long)]
    all_topics: bool,
    #[command(flatten)]
    to: To,
    /// Say what would be set, and set nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct To {
    /// The first record that is there
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long)]
    to_latest: bool,
    /// This offset, or the nearest one that is there
    #[arg(long, value_name = "OFFSET", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// The first record that is not older, in milliseconds since 1970
    #[arg(long, value_name = "MS", allow_negative_numbers = true, value_parser = milliseconds)]
    to_time: Option<i64>,
    /// So many records further, or back where it is negative, from what is committed
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    shift_by: Option<i64>,
}

type Offsets = BTreeMap<(String, i32), i64>;

/// A topic, and which of its partitions; None for all.
type SomeOf = (String, Option<BTreeSet<i32>>);

/// What comes behind a colon are partitions, as in Kafka's tools: no topic's name can have one.
fn some_of(text: &str) -> Result<SomeOf, String> {
    let Some((topic, list)) = text.split_once(':') else { return Ok((text.to_owned(), None)) };
    let partition = |text: &str| text.parse().ok().filter(|index: &i32| *index >= 0);
    let partitions: Option<BTreeSet<i32>> = list.split(',').map(partition).collect();
    match partitions {
        Some(partitions) if !topic.is_empty() => Ok((topic.to_owned(), Some(partitions))),
        Some(_) | None => {
            Err("a topic is expected, or a topic and partitions, such as orders:1,2".to_owned())
        }
    }
}

fn milliseconds(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(ms) if ms >= 0 => Ok(ms),
        Ok(_) | Err(_) => Err("milliseconds since 1970 are expected, such as 1767225600000".to_owned()),
    }
}

impl Reset {
    pub async fn run(&self, core: &Core, client: &Client, name: &str) -> Answer {
        let coordinator = coordinator(core, client, name).await?;
        let before = committed(&coordinator, name).await?;
        let asked = self.asked(&before);
        let there = partitions(client, asked.keys()).await?;
        let partitions = chosen(there, &asked)?;
        let partitions: Vec<(&str, i32)> =
            partitions.iter().map(|(topic, index)| (topic.as_str(), *index)).collect();
        let earliest = offsets_at(client, &partitions, EARLIEST).await?;
        let latest = offsets_at(client, &partitions, LATEST).await?;
        let timed = match self.to.to_time {
            Some(ms) => offsets_at(client, &partitions, ms).await?,
            None => Offsets::new(),
        };
        let mut after = BTreeMap::new();
        let mut without = Vec::new();
        for (topic, index) in partitions {
            let key = (topic.to_owned(), index);
            let (Some(start), Some(end)) = (earliest.get(&key), latest.get(&key)) else {
                return Err(format!(
                    "{topic}-{index} has no leader at this broker; name another with --bootstrap"
                ));
            };
            let wanted = self.to.wanted(before.get(&key).copied(), *start, *end, timed.get(&key).copied());
            match wanted {
                Some(wanted) => drop(after.insert(key, Target { wanted, at: wanted.clamp(*start, *end) })),
                None => without.push(format!("{topic}-{index}")),
            }
        }
        if after.is_empty() {
            return Err(match without.is_empty() {
                true => format!("{} has committed nothing; nothing was set", shown(name)),
                false => format!("nothing is committed for {}; nothing was set", without.join(", ")),
            });
        }
        let members = if self.dry_run { member_count(&coordinator, name).await } else { 0 };
        if !self.dry_run {
            let offsets = after.iter().map(|(key, target)| (key.clone(), target.at)).collect();
            commit(&coordinator, name, &offsets).await?;
        }
        let rows: Vec<Value> = after
            .iter()
            .map(|(key, target)| {
                let Target { wanted, at } = target;
                json!({ "topic": key.0, "partition": key.1, "before": before.get(key), "after": at, "wanted": wanted })
            })
            .collect();
        let mut text = table(&before, &after);
        for partition in &without {
            text.push_str(&format!("{partition}: nothing is committed to shift from\n"));
        }
        text.push_str(if self.dry_run { "nothing was set: --dry-run\n" } else { "set\n" });
        if members > 0 {
            text.push_str(&format!(
                "without --dry-run it would be refused: the group has {members} members\n"
            ));
        }
        Ok((json!({ "name": name, "dry_run": self.dry_run, "members": members, "offsets": rows }), text))
    }

    /// Each topic once, with all that was said of it.
    fn asked(&self, before: &Offsets) -> Asked {
        let all = before.keys().filter(|_| self.all_topics).map(|(topic, _)| (topic.clone(), None));
        let mut asked = Asked::new();
        for (topic, some) in self.topic.iter().cloned().chain(all) {
            match (asked.entry(topic), some) {
                (Entry::Vacant(place), some) => drop(place.insert(some)),
                (Entry::Occupied(mut place), None) => *place.get_mut() = None,
                (Entry::Occupied(mut place), Some(more)) => {
                    if let Some(some) = place.get_mut() {
                        some.extend(more);
                    }
                }
            }
        }
        asked
    }
}

/// Which partitions of each topic; None for all.
type Asked = BTreeMap<String, Option<BTreeSet<i32>>>;

/// Those that were asked for, of those that are there. Nothing is set where one is missing.
fn chosen(mut there: Vec<(String, i32)>, asked: &Asked) -> Result<Vec<(String, i32)>, String> {
    for (topic, some) in asked {
        let missing = some.iter().flatten().find(|index| !there.contains(&(topic.clone(), **index)));
        if let Some(index) = missing {
            let count = there.iter().filter(|(of, _)| of == topic).count();
            return Err(format!(
                "{topic} has no partition {index}, but {count} of them from 0 on; nothing was set"
            ));
        }
    }
    there.retain(|(topic, index)| {
        asked.get(topic).is_none_or(|some| some.as_ref().is_none_or(|some| some.contains(index)))
    });
    Ok(there)
}

/// Where a partition goes on, and where it should have if that were there.
struct Target {
    wanted: i64,
    at: i64,
}

fn table(before: &Offsets, after: &BTreeMap<(String, i32), Target>) -> String {
    let mut text = format!("{:<24} {:>9} {:>12} {:>12}\n", "TOPIC", "PARTITION", "BEFORE", "AFTER");
    for (key, Target { wanted, at }) in after {
        let was = before.get(key).map_or("-".to_owned(), i64::to_string);
        let nearest = match wanted == at {
            true => String::new(),
            false => format!("  the nearest to {wanted} that is there"),
        };
        text.push_str(&format!("{:<24} {:>9} {was:>12} {at:>12}{nearest}\n", key.0, key.1));
    }
    text
}

impl To {
    /// Where a partition with these records should go on; None where there is nothing to shift from.
    fn wanted(&self, committed: Option<i64>, start: i64, end: i64, timed: Option<i64>) -> Option<i64> {
        if self.to_earliest {
            Some(start)
        } else if let Some(offset) = self.to_offset {
            Some(offset)
        } else if let Some(count) = self.shift_by {
            Some(committed?.saturating_add(count))
        } else if self.to_time.is_some() {
            // Nothing is as young: behind the last record.
            Some(timed.unwrap_or(end))
        } else {
            Some(end)
        }
    }
}

/// All partitions of these topics.
async fn partitions(
    client: &Client,
    topics: impl Iterator<Item = &String>,
) -> Result<Vec<(String, i32)>, String> {
    let asked =
        topics.map(|name| MetadataRequestTopic { name: Some(name.as_str().into()), ..Default::default() });
    let request = MetadataRequest {
        topics: Some(asked.collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let reply = client.call(&request).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for topic in &response.topics {
        let name = topic.name.as_deref().unwrap_or_default();
        check(name, topic.error_code, None)?;
        found.extend(topic.partitions.iter().map(|one| (name.to_owned(), one.partition_index)));
    }
    found.sort_unstable();
    Ok(found)
}

/// The offset of a time, or of one of the two ends, for those partitions that this broker leads and that have one.
pub(super) async fn offsets_at(
    client: &Client,
    partitions: &[(&str, i32)],
    timestamp: i64,
) -> Result<Offsets, String> {
    let mut topics: Vec<ListOffsetsTopic<'_>> = Vec::new();
    for (topic, index) in partitions {
        let partition = ListOffsetsPartition { partition_index: *index, current_leader_epoch: -1, timestamp };
        match topics.last_mut().filter(|last| last.name == *topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(ListOffsetsTopic { name: (*topic).into(), partitions: vec![partition] }),
        }
    }
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let reply = client.call(&request).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let mut found = Offsets::new();
    for topic in &response.topics {
        for one in topic.partitions.iter().filter(|one| one.error_code == 0 && one.offset >= 0) {
            found.insert((topic.name.to_string(), one.partition_index), one.offset);
        }
    }
    Ok(found)
}

/// Commits as nobody: the broker refuses it while the group has members.
async fn commit(coordinator: &Client, name: &str, offsets: &Offsets) -> Result<(), String> {
    let mut topics: Vec<OffsetCommitRequestTopic<'_>> = Vec::new();
    for ((topic, index), offset) in offsets {
        let partition = OffsetCommitRequestPartition {
            partition_index: *index,
            committed_offset: *offset,
            committed_leader_epoch: -1,
            committed_metadata: Some("".into()),
        };
        match topics.last_mut().filter(|last| last.name == *topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(OffsetCommitRequestTopic {
                name: topic.as_str().into(),
                partitions: vec![partition],
                ..Default::default()
            }),
        }
    }
    let request = OffsetCommitRequest {
        group_id: name.into(),
        generation_id_or_member_epoch: -1,
        topics,
        ..Default::default()
    };
    let reply =
        coordinator.call_up_to(&request, COMMIT_BY_NAME_MAX).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    for topic in &response.topics {
        for one in &topic.partitions {
            let place = format!("{}-{}", topic.name, one.partition_index);
            check(&place, one.error_code, hint(one.error_code))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_stand_behind_a_colon() {
        let check = |text: &str, expect: Option<(&str, Option<&[i32]>)>| {
            let expect = expect.map(|(topic, some)| {
                (topic.to_owned(), some.map(|some| some.iter().copied().collect::<BTreeSet<i32>>()))
            });
            assert_eq!(some_of(text).ok(), expect, "{text}");
        };
        check("orders", Some(("orders", None)));
        check("orders:1", Some(("orders", Some(&[1]))));
        check("a.b-c_d:12,0,12", Some(("a.b-c_d", Some(&[0, 12]))));
        for wrong in ["orders:", ":1", ":", "orders:1,", "orders:x", "orders:-1", "orders:1:2", "orders: 1"] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_said_of_a_topic_adds_up_and_must_be_there() {
        let before: Offsets = [(("c".to_owned(), 1), 5)].into();
        let there = || {
            let all = ["a", "b", "c"].into_iter();
            all.flat_map(|topic| (0..3).map(|index| (topic.to_owned(), index))).collect::<Vec<_>>()
        };
        let check = |topics: &[&str], all_topics: bool, expect: Result<&str, &str>| {
            let to =
                To { to_earliest: true, to_latest: false, to_offset: None, to_time: None, shift_by: None };
            let topic = topics.iter().map(|text| some_of(text).expect("well written")).collect();
            let asked = Reset { topic, all_topics, to, dry_run: true }.asked(&before);
            let of_asked = there().into_iter().filter(|(topic, _)| asked.contains_key(topic)).collect();
            let told = chosen(of_asked, &asked).map(|chosen| {
                let each = chosen.iter().map(|(topic, index)| format!("{topic}{index}"));
                each.collect::<Vec<_>>().join(" ")
            });
            assert_eq!(told.as_deref().map_err(String::as_str), expect, "{topics:?}");
        };
        check(&["a"], false, Ok("a0 a1 a2"));
        check(&["a:2", "b:0,1", "a:0"], false, Ok("a0 a2 b0 b1"));
        check(&["a:2", "a"], false, Ok("a0 a1 a2"));
        check(&["a", "a:2"], false, Ok("a0 a1 a2"));
        check(&["a:1"], true, Ok("a1 c0 c1 c2"));
        check(&["c:1"], true, Ok("c0 c1 c2"));
        let why = "b has no partition 3, but 3 of them from 0 on; nothing was set";
        check(&["a:1", "b:2,3"], false, Err(why));
    }

    #[test]
    fn targets_stay_within_what_is_there() {
        let to = To { to_earliest: false, to_latest: false, to_offset: None, to_time: None, shift_by: None };
        let check = |to: To, committed: Option<i64>, timed: Option<i64>, expect: Option<i64>| {
            let at = to.wanted(committed, 10, 20, timed).map(|wanted| wanted.clamp(10, 20));
            assert_eq!(at, expect, "{to:?} from {committed:?}");
        };
        check(To { to_earliest: true, ..to.clone() }, None, None, Some(10));
        check(To { to_latest: true, ..to.clone() }, Some(12), None, Some(20));
        check(To { to_offset: Some(15), ..to.clone() }, None, None, Some(15));
        check(To { to_offset: Some(3), ..to.clone() }, None, None, Some(10));
        check(To { to_offset: Some(99), ..to.clone() }, None, None, Some(20));
        check(To { shift_by: Some(-4), ..to.clone() }, Some(18), None, Some(14));
        check(To { shift_by: Some(-40), ..to.clone() }, Some(18), None, Some(10));
        check(To { shift_by: Some(4), ..to.clone() }, None, None, None);
        check(To { to_time: Some(5), ..to.clone() }, None, Some(17), Some(17));
        check(To { to_time: Some(5), ..to }, None, None, Some(20));
    }
}
