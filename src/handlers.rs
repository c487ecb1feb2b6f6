//! The one list of what is served, and the way from a frame to a handler.
//!
//! As in Kafka, what is not served, and what cannot be decoded, ends the connection without an answer. ApiVersions is
//! the exception: asked in an unknown version, it answers in version 0.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;

use net::api::ApiKey;
use net::header::{RequestHeader, ResponseHeader};
use net::wire::{Decode, Encode, Reader, Writer};
use rt::{Instant, Slice};

use crate::metrics::Stage;
use crate::shard::Shard;

mod alter_configs;
mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_topic_partitions;
mod fetch;
mod find_coordinator;
mod groups;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod operations;
mod produce;
mod sync_group;
mod topics;

/// What a handler leaves for the connection to do.
#[derive(Debug)]
pub enum Reply {
    /// Send these bytes, a whole frame.
    Bytes(Vec<Slice>),
    /// A request without an answer: produce with acks=0.
    Nothing,
    /// End the connection.
    Close,
}

/// A request that was worked on, and when its answer was ready. Without a key it was none of ours.
#[derive(Debug)]
pub struct Answered {
    pub reply: Reply,
    pub key: Option<ApiKey>,
    pub ready: Instant,
}

/// One API and its versions.
pub struct Served {
    pub key: ApiKey,
    pub versions: RangeInclusive<i16>,
    /// What ApiVersions says where it differs: Produce is advertised from 0, because clients derive compression
    /// support from it (KAFKA-18659).
    pub advertised_from: i16,
}

const fn served(key: ApiKey, from: i16, to: i16) -> Served {
    Served { key, versions: from..=to, advertised_from: from }
}

/// Everything this broker answers. Nothing else is advertised, and nothing here is a stub.
pub const SERVED: &[Served] = &[
    Served { key: ApiKey::Produce, versions: 3..=13, advertised_from: 0 },
    served(ApiKey::Fetch, 4, 18),
    served(ApiKey::ListOffsets, 1, 11),
    served(ApiKey::Metadata, 0, 13),
    served(ApiKey::OffsetCommit, 2, 10),
    served(ApiKey::OffsetFetch, 1, 10),
    served(ApiKey::FindCoordinator, 0, 6),
    served(ApiKey::JoinGroup, 0, 9),
    served(ApiKey::Heartbeat, 0, 4),
    served(ApiKey::LeaveGroup, 0, 5),
    served(ApiKey::SyncGroup, 0, 5),
    served(ApiKey::DescribeGroups, 0, 6),
    served(ApiKey::ListGroups, 0, 5),
    served(ApiKey::ApiVersions, 0, 4),
    served(ApiKey::CreateTopics, 2, 7),
    served(ApiKey::DeleteTopics, 1, 6),
    served(ApiKey::DeleteRecords, 0, 2),
    served(ApiKey::InitProducerId, 0, 5),
    served(ApiKey::OffsetForLeaderEpoch, 2, 4),
    served(ApiKey::CreatePartitions, 0, 3),
    served(ApiKey::DeleteGroups, 0, 2),
    served(ApiKey::OffsetDelete, 0, 0),
    served(ApiKey::DescribeCluster, 0, 2),
    served(ApiKey::DescribeConfigs, 1, 4),
    served(ApiKey::AlterConfigs, 0, 2),
    served(ApiKey::IncrementalAlterConfigs, 0, 1),
    served(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    served(ApiKey::ConsumerGroupDescribe, 0, 1),
    served(ApiKey::ListConfigResources, 0, 1),
    served(ApiKey::DescribeTopicPartitions, 0, 0),
];

/// Why a request gets no answer but the end of its connection.
#[derive(Debug)]
pub struct Unanswerable;

impl From<net::wire::Error> for Unanswerable {
    fn from(_: net::wire::Error) -> Unanswerable {
        Unanswerable
    }
}

impl From<net::header::HeaderError> for Unanswerable {
    fn from(_: net::header::HeaderError) -> Unanswerable {
        Unanswerable
    }
}

impl From<net::wire::EncodeError> for Unanswerable {
    fn from(_: net::wire::EncodeError) -> Unanswerable {
        Unanswerable
    }
}

/// One request on its way through a handler.
pub struct Request<'a> {
    pub shard: &'a Rc<Shard>,
    /// Where it comes from.
    pub client: IpAddr,
    pub version: i16,
    /// When all of it had arrived.
    pub received: Instant,
    header: RequestHeader<'a>,
    body: &'a [u8],
    /// The memory that the body lies in, from which slices are taken that outlive the request.
    pub frame: &'a Slice,
}

impl<'a> Request<'a> {
    /// The body. What follows it is ignored, as in Kafka.
    ///
    /// # Errors
    /// The body is not what its key and version demand.
    pub fn decode<T: Decode<'a>>(&self) -> Result<T, Unanswerable> {
        Ok(T::decode(&mut Reader::new(self.body), self.version)?)
    }

    /// The frame that answers this request.
    ///
    /// # Errors
    /// A handler set a field that the version does not have: our bug, of which the client sees a closed connection.
    pub fn answer<T: Encode>(&self, body: &T) -> Result<Reply, Unanswerable> {
        self.answer_in(body, self.version)
    }

    /// Notes the end of a stage that began when the request was received.
    fn parsed(&self, stage: Stage) {
        self.shard.metrics.stage(stage, self.received, self.shard.core.now());
    }

    fn answer_in<T: Encode>(&self, body: &T, version: i16) -> Result<Reply, Unanswerable> {
        let mut writer = Writer::new();
        let header = ResponseHeader { correlation_id: self.header.correlation_id };
        header.encode(&mut writer, self.header.key, self.version);
        body.encode(&mut writer, version)?;
        self.shard.metrics.errors(self.header.key, writer.errors());
        Ok(Reply::Bytes(writer.finish()?))
    }
}

/// Whether a frame holds a Fetch, whose answer may be large.
pub fn is_fetch(frame: &[u8]) -> bool {
    frame.first_chunk().is_some_and(|key| i16::from_be_bytes(*key) == ApiKey::Fetch as i16)
}

/// Whether a frame holds a Produce, whose records stay in the memory that they arrived in.
pub fn is_produce(frame: &[u8]) -> bool {
    frame.first_chunk().is_some_and(|key| i16::from_be_bytes(*key) == ApiKey::Produce as i16)
}

/// Whether a frame holds a request whose answer may wait: for records, or for the other members of a group. Nothing is
/// lost if such a one is dropped half-way.
pub fn may_wait(frame: &[u8]) -> bool {
    const WAITING: [i16; 3] = [ApiKey::Fetch as i16, ApiKey::JoinGroup as i16, ApiKey::SyncGroup as i16];
    frame.first_chunk().is_some_and(|key| WAITING.contains(&i16::from_be_bytes(*key)))
}

/// Answers one request frame, which was whole at `received`. Members of groups wait in here by the thousand.
#[expect(clippy::manual_async_fn, reason = "the arguments of an `async fn` are held twice")]
pub fn handle(
    shard: Rc<Shard>,
    client: IpAddr,
    frame: Slice,
    received: Instant,
) -> impl Future<Output = Answered> {
    async move {
        let opened = open(&shard, client, &frame, received);
        let (key, reply) = match &opened {
            Ok(request) => (Some(request.header.key), route(request).await.unwrap_or(Reply::Close)),
            Err(Unanswerable) => (None, Reply::Close),
        };
        if matches!(reply, Reply::Close) {
            shard.metrics.unanswerable();
        }
        Answered { reply, key, ready: shard.core.now() }
    }
}

/// A request that is served. One for ApiVersions is, whatever its version.
fn open<'a>(
    shard: &'a Rc<Shard>,
    client: IpAddr,
    frame: &'a Slice,
    received: Instant,
) -> Result<Request<'a>, Unanswerable> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader)?;
    let (key, version) = (header.key, header.version);
    if !is_served(key, version) && key != ApiKey::ApiVersions {
        return Err(Unanswerable);
    }
    shard.metrics.request(key);
    Ok(Request { shard, client, version, received, header, body: reader.rest(), frame })
}

fn is_served(key: ApiKey, version: i16) -> bool {
    SERVED.iter().any(|served| served.key == key && served.versions.contains(&version))
}

/// Every request is held in a future as large as the largest handler that is not boxed: those of a produce and of what a
/// member of a group asks again and again are not, everything else is.
async fn route(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    match request.header.key {
        ApiKey::ApiVersions if !is_served(ApiKey::ApiVersions, request.version) => {
            api_versions::refuse_version(request)
        }
        ApiKey::ApiVersions => api_versions::handle(request),
        ApiKey::Produce => produce::handle(request).await,
        ApiKey::Fetch => Box::pin(fetch::handle(request)).await,
        ApiKey::ListOffsets => Box::pin(list_offsets::handle(request)).await,
        ApiKey::Metadata => Box::pin(metadata::handle(request)).await,
        ApiKey::OffsetCommit => offset_commit::handle(request).await,
        ApiKey::OffsetFetch => Box::pin(offset_fetch::handle(request)).await,
        ApiKey::FindCoordinator => Box::pin(find_coordinator::handle(request)).await,
        ApiKey::JoinGroup => join_group::handle(request).await,
        ApiKey::Heartbeat => heartbeat::handle(request).await,
        ApiKey::LeaveGroup => leave_group::handle(request).await,
        ApiKey::SyncGroup => sync_group::handle(request).await,
        ApiKey::DescribeGroups => Box::pin(describe_groups::handle(request)).await,
        ApiKey::ListGroups => Box::pin(list_groups::handle(request)).await,
        ApiKey::DeleteGroups => Box::pin(delete_groups::handle(request)).await,
        ApiKey::OffsetDelete => offset_delete::handle(request).await,
        ApiKey::ConsumerGroupHeartbeat => consumer_group_heartbeat::handle(request).await,
        ApiKey::ConsumerGroupDescribe => Box::pin(consumer_group_describe::handle(request)).await,
        ApiKey::CreateTopics => Box::pin(create_topics::handle(request)).await,
        ApiKey::DeleteTopics => Box::pin(delete_topics::handle(request)).await,
        ApiKey::DeleteRecords => Box::pin(delete_records::handle(request)).await,
        ApiKey::InitProducerId => Box::pin(init_producer_id::handle(request)).await,
        ApiKey::OffsetForLeaderEpoch => Box::pin(offset_for_leader_epoch::handle(request)).await,
        ApiKey::CreatePartitions => Box::pin(create_partitions::handle(request)).await,
        ApiKey::DescribeCluster => describe_cluster::handle(request),
        ApiKey::AlterConfigs => Box::pin(alter_configs::handle(request)).await,
        ApiKey::IncrementalAlterConfigs => Box::pin(incremental_alter_configs::handle(request)).await,
        ApiKey::DescribeConfigs => describe_configs::handle(request),
        ApiKey::ListConfigResources => list_config_resources::handle(request),
        ApiKey::DescribeTopicPartitions => describe_topic_partitions::handle(request),
        _ => Err(Unanswerable),
    }
}

#[cfg(test)]
pub(crate) mod tests;
