//! From a frame to what is asked of each of its groups.

use coord::group::Request;
use net::api::ApiKey;
use net::header::RequestHeader;
use net::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use net::messages::delete_groups::DeleteGroupsRequest;
use net::messages::describe_groups::DescribeGroupsRequest;
use net::messages::list_groups::ListGroupsRequest;
use net::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use net::wire::{Decode, Reader};

use crate::handlers::Unanswerable;

/// The first version of OffsetFetch that asks for several groups.
pub const MANY_FROM: i16 = 8;

/// From this version on, OffsetCommit and OffsetFetch name topics by id.
pub const BY_ID_FROM: i16 = 10;

/// The header, and the bytes of the body.
///
/// # Errors
/// The frame does not begin with a header.
pub fn split(frame: &[u8]) -> Result<(RequestHeader<'_>, &[u8]), Unanswerable> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader)?;
    Ok((header, reader.rest()))
}

/// What is asked, group by group in the order of the request. A list of all groups is one.
///
/// # Errors
/// The body is not what its key and version demand, or the key has nothing to do with groups.
pub fn read<'a>(header: &RequestHeader<'_>, body: &'a [u8]) -> Result<Vec<Request<'a>>, Unanswerable> {
    let version = header.version;
    Ok(match header.key {
        ApiKey::JoinGroup => vec![Request::Join(decode(body, version)?)],
        ApiKey::SyncGroup => vec![Request::Sync(decode(body, version)?)],
        ApiKey::Heartbeat => vec![Request::Heartbeat(decode(body, version)?)],
        ApiKey::LeaveGroup => vec![Request::Leave(decode(body, version)?)],
        ApiKey::OffsetCommit => vec![Request::Commit(decode(body, version)?)],
        ApiKey::OffsetDelete => vec![Request::DeleteOffsets(decode(body, version)?)],
        ApiKey::ConsumerGroupHeartbeat => vec![Request::ConsumerHeartbeat(decode(body, version)?)],
        ApiKey::OffsetFetch => {
            let request: OffsetFetchRequest<'a> = decode(body, version)?;
            if version < MANY_FROM {
                vec![Request::FetchOffsets(only_group(request))]
            } else {
                request.groups.into_iter().map(Request::FetchOffsets).collect()
            }
        }
        ApiKey::DescribeGroups => {
            let request: DescribeGroupsRequest<'a> = decode(body, version)?;
            request.groups.into_iter().map(|group| Request::Describe { group }).collect()
        }
        ApiKey::DeleteGroups => {
            let request: DeleteGroupsRequest<'a> = decode(body, version)?;
            request.groups_names.into_iter().map(|group| Request::Delete { group }).collect()
        }
        ApiKey::ConsumerGroupDescribe => {
            let request: ConsumerGroupDescribeRequest<'a> = decode(body, version)?;
            request.group_ids.into_iter().map(|group| Request::ConsumerDescribe { group }).collect()
        }
        ApiKey::ListGroups => {
            let request: ListGroupsRequest<'a> = decode(body, version)?;
            vec![Request::List { states: request.states_filter, types: request.types_filter }]
        }
        _ => return Err(Unanswerable),
    })
}

fn decode<'a, T: Decode<'a>>(body: &'a [u8], version: i16) -> Result<T, Unanswerable> {
    Ok(T::decode(&mut Reader::new(body), version)?)
}

/// The one group of a request before there were many, and no member yet.
fn only_group(request: OffsetFetchRequest<'_>) -> OffsetFetchRequestGroup<'_> {
    let topics = request.topics.map(|topics| {
        let topic = topics.into_iter().map(|asked| OffsetFetchRequestTopics {
            name: asked.name,
            partition_indexes: asked.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        topic.collect()
    });
    OffsetFetchRequestGroup { group_id: request.group_id, topics, ..OffsetFetchRequestGroup::default() }
}
