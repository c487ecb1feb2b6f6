//! Committing offsets and reading them back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use net::messages::{offset_commit, offset_fetch};

use crate::link::{Error, Link};
use crate::topic::describe_code;

/// Before this version a request is about one group.
const MANY_GROUPS_SINCE: i16 = 8;

/// What a consumer commits: the same offset for each of its partitions, or one for each.
pub struct Commit<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    /// Partition and offset.
    pub offsets: &'a [(i32, i64)],
    /// A member's id and its generation or epoch; none for those who only commit.
    pub member: Option<(&'a str, i32)>,
}

/// Commits all of it; an error in any partition is one of the whole.
pub async fn commit(link: &mut Link, commit: &Commit<'_>) -> Result<(), Error> {
    let (member_id, generation) = commit.member.unwrap_or(("", -1));
    let partitions = commit.offsets.iter().map(|(partition_index, committed_offset)| {
        offset_commit::OffsetCommitRequestPartition {
            partition_index: *partition_index,
            committed_offset: *committed_offset,
            ..Default::default()
        }
    });
    let topic = offset_commit::OffsetCommitRequestTopic {
        name: Cow::Borrowed(commit.topic),
        partitions: partitions.collect(),
        ..Default::default()
    };
    let request = offset_commit::OffsetCommitRequest {
        group_id: Cow::Borrowed(commit.group),
        generation_id_or_member_epoch: generation,
        member_id: Cow::Borrowed(member_id),
        topics: vec![topic],
        ..Default::default()
    };
    let answer = link.call(&request).await?;
    let body = answer.body::<offset_commit::Api>()?;
    let answered: Vec<_> = body.topics.iter().flat_map(|topic| &topic.partitions).collect();
    if let Some(refused) = answered.iter().find(|partition| partition.error_code != 0) {
        return Err(Error::Protocol(format!(
            "the commit of {}-{} by group {} was refused: {}",
            commit.topic,
            refused.partition_index,
            commit.group,
            describe_code(refused.error_code)
        )));
    }
    if answered.len() != commit.offsets.len() {
        return Err(Error::Protocol(format!(
            "{} partitions were committed by group {} and {} answered",
            commit.offsets.len(),
            commit.group,
            answered.len()
        )));
    }
    Ok(())
}

/// Committed offsets by group and partition.
pub type Committed = BTreeMap<String, BTreeMap<i32, i64>>;

/// All that the groups committed, of whatever topics; or the first error code of a group.
pub async fn fetch(link: &mut Link, groups: &[&str]) -> Result<Result<Committed, i16>, Error> {
    if link.version::<offset_fetch::Api>()? < MANY_GROUPS_SINCE {
        return Err(Error::Protocol(format!("the broker serves no OffsetFetch {MANY_GROUPS_SINCE}")));
    }
    let groups = groups.iter().map(|group| offset_fetch::OffsetFetchRequestGroup {
        group_id: Cow::Borrowed(group),
        topics: None,
        ..Default::default()
    });
    let request = offset_fetch::OffsetFetchRequest { groups: groups.collect(), ..Default::default() };
    let answer = link.call(&request).await?;
    let body = answer.body::<offset_fetch::Api>()?;
    let mut committed = Committed::new();
    for group in &body.groups {
        if group.error_code != 0 {
            return Ok(Err(group.error_code));
        }
        let offsets = committed.entry(group.group_id.clone().into_owned()).or_default();
        for partition in group.topics.iter().flat_map(|topic| &topic.partitions) {
            if partition.error_code != 0 {
                return Ok(Err(partition.error_code));
            }
            offsets.insert(partition.partition_index, partition.committed_offset);
        }
    }
    Ok(Ok(committed))
}
