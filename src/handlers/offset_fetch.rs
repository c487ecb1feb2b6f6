//! OffsetFetch v1-v10. v2: all topics, top-level error. v5: leader epochs. v6: flexible. v7: require_stable. v8: many groups.
//! v9: member epochs. v10: topic ids.

use coord::group::Answer;
use net::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
};

use super::{Reply, Request, Unanswerable, groups};
use crate::groups::request::{BY_ID_FROM, MANY_FROM};

/// The first version that has an error of its own for the one group.
const TOP_ERROR_FROM: i16 = 2;

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: OffsetFetchRequest = request.decode()?;
    let mut fetched = Vec::new();
    for answer in groups::ask(request).await? {
        let Answer::FetchOffsets(group) = answer else { return Err(Unanswerable) };
        fetched.push(group);
    }
    if request.version < MANY_FROM {
        let group = fetched.pop().ok_or(Unanswerable)?;
        return request.answer(&of_one_group(&body, group, request.version));
    }
    if request.version >= BY_ID_FROM {
        let asked_for_all = body.groups.iter().map(|group| group.topics.is_none());
        fetched
            .iter_mut()
            .zip(asked_for_all)
            .filter(|(_, all)| *all)
            .for_each(|(group, _)| by_id(request, group));
    }
    request.answer(&OffsetFetchResponse { groups: fetched, ..Default::default() })
}

/// Of everything that was committed, the topics that have an id now.
fn by_id(request: &Request<'_>, group: &mut OffsetFetchResponseGroup<'_>) {
    let metadata = request.shard.metadata.borrow();
    group.topics.retain_mut(|topic| match metadata.topic(&topic.name) {
        Some(known) => {
            topic.topic_id = known.id.0;
            true
        }
        None => false,
    });
}

fn of_one_group<'a>(
    body: &'a OffsetFetchRequest<'a>,
    group: OffsetFetchResponseGroup<'a>,
    version: i16,
) -> OffsetFetchResponse<'a> {
    if group.error_code != 0 && version < TOP_ERROR_FROM {
        // There is no other place for it than each partition.
        let topics = body.topics.iter().flatten().map(|topic| OffsetFetchResponseTopic {
            name: topic.name.clone(),
            partitions: topic
                .partition_indexes
                .iter()
                .map(|index| OffsetFetchResponsePartition {
                    partition_index: *index,
                    committed_offset: -1,
                    committed_leader_epoch: -1,
                    metadata: Some("".into()),
                    error_code: group.error_code,
                })
                .collect(),
        });
        return OffsetFetchResponse { topics: topics.collect(), ..Default::default() };
    }
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    });
    OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code, ..Default::default() }
}

fn partition(one: OffsetFetchResponsePartitions<'_>) -> OffsetFetchResponsePartition<'_> {
    OffsetFetchResponsePartition {
        partition_index: one.partition_index,
        committed_offset: one.committed_offset,
        committed_leader_epoch: one.committed_leader_epoch,
        metadata: one.metadata,
        error_code: one.error_code,
    }
}
