//! `bench null-broker`: answers as a broker that stores nothing, at once. What the load generator reaches against it is its
//! own ceiling on this machine; nothing but this tool uses it.
//!
//! ApiVersions v0-3, Metadata v0-12, Produce v3-12, InitProducerId v0-4, FindCoordinator v3, OffsetCommit v2-9. Every topic
//! exists; every partition is led by it, and every group.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;

use net::api::{Api, ApiKey};
use net::header::{RequestHeader, ResponseHeader};
use net::messages::{api_versions, find_coordinator, init_producer_id, metadata, offset_commit, produce};
use net::wire::{Decode, Encode, Reader, Writer};
use rt::{Class, Core, Slice, Stream};

use crate::cli;
use crate::link::{Error, Frames, about, resolve};
use crate::run_on_core;

const NODE: i32 = 1;
const SERVED: [(ApiKey, i16, i16); 6] = [
    (ApiKey::Produce, 3, 12),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::FindCoordinator, 3, 3),
    (ApiKey::OffsetCommit, 2, 9),
];

pub fn run(options: &cli::NullBroker) -> Result<(), Error> {
    let (address, partitions) = (resolve(&options.listen)?, options.partitions);
    run_on_core(move |core| async move {
        let listener = core
            .listen(address)
            .await
            .map_err(|error| about(format!("cannot listen on {address}"), &error))?;
        let served_at = listener.local_addr();
        println!("ready: kafka {served_at}");
        io::stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            let serving = core.clone();
            core.spawn(Class::Produce, async move {
                match serve(&serving, stream, served_at, partitions).await {
                    Ok(()) | Err(Error::Closed(_) | Error::Io(_)) => {}
                    Err(Error::Protocol(what)) => eprintln!("bench null-broker: {what}"),
                }
            });
        }
    })
}

async fn serve(core: &Core, stream: Stream, at: SocketAddr, partitions: i32) -> Result<(), Error> {
    let mut frames = Frames::new(core, stream.clone());
    let mut next_offset = 0;
    loop {
        let mut answers: Vec<Slice> = Vec::new();
        loop {
            let frame = frames.next().await?;
            if let Some(answer) = answer(frame, at, partitions, &mut next_offset)? {
                answers.extend(answer);
            }
            if !frames.has_next() {
                break;
            }
        }
        if !answers.is_empty() {
            stream.send(answers).await?;
        }
    }
}

fn answer(
    frame: &[u8],
    at: SocketAddr,
    partitions: i32,
    next_offset: &mut i64,
) -> Result<Option<Vec<Slice>>, Error> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader).map_err(|error| Error::Protocol(error.to_string()))?;
    let version = header.version;
    Ok(Some(match header.key {
        ApiKey::Produce => {
            let request = produce::ProduceRequest::decode(&mut reader, version)?;
            if request.acks == 0 {
                return Ok(None);
            }
            encode::<produce::Api>(&header, &produced(&request, next_offset))?
        }
        ApiKey::Metadata => {
            let request = metadata::MetadataRequest::decode(&mut reader, version)?;
            encode::<metadata::Api>(&header, &described(&request, at, partitions))?
        }
        ApiKey::ApiVersions => {
            let api_keys = SERVED
                .iter()
                .map(|&(key, min_version, max_version)| api_versions::ApiVersion {
                    api_key: key.as_i16(),
                    min_version,
                    max_version,
                })
                .collect();
            encode::<api_versions::Api>(
                &header,
                &api_versions::ApiVersionsResponse { api_keys, ..Default::default() },
            )?
        }
        ApiKey::InitProducerId => {
            let response = init_producer_id::InitProducerIdResponse {
                producer_id: 1,
                producer_epoch: 0,
                ..Default::default()
            };
            encode::<init_producer_id::Api>(&header, &response)?
        }
        ApiKey::FindCoordinator => {
            let response = find_coordinator::FindCoordinatorResponse {
                node_id: NODE,
                host: Cow::Owned(at.ip().to_string()),
                port: i32::from(at.port()),
                ..Default::default()
            };
            encode::<find_coordinator::Api>(&header, &response)?
        }
        ApiKey::OffsetCommit => {
            let request = offset_commit::OffsetCommitRequest::decode(&mut reader, version)?;
            encode::<offset_commit::Api>(&header, &committed(&request))?
        }
        other => return Err(Error::Protocol(format!("{} is not served here", other.name()))),
    }))
}

fn produced<'a>(
    request: &produce::ProduceRequest<'a>,
    next_offset: &mut i64,
) -> produce::ProduceResponse<'a> {
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in &request.topic_data {
        let mut partition_responses = Vec::with_capacity(topic.partition_data.len());
        for partition in &topic.partition_data {
            let base_offset = *next_offset;
            *next_offset += 1;
            partition_responses.push(produce::PartitionProduceResponse {
                index: partition.index,
                base_offset,
                ..Default::default()
            });
        }
        responses.push(produce::TopicProduceResponse {
            name: topic.name.clone(),
            partition_responses,
            ..Default::default()
        });
    }
    produce::ProduceResponse { responses, ..Default::default() }
}

fn committed<'a>(
    request: &offset_commit::OffsetCommitRequest<'a>,
) -> offset_commit::OffsetCommitResponse<'a> {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let partition_index = partition.partition_index;
            offset_commit::OffsetCommitResponsePartition { partition_index, error_code: 0 }
        });
        let partitions = partitions.collect();
        offset_commit::OffsetCommitResponseTopic {
            name: topic.name.clone(),
            partitions,
            ..Default::default()
        }
    });
    offset_commit::OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}

fn described<'a>(
    request: &metadata::MetadataRequest<'a>,
    at: SocketAddr,
    partitions: i32,
) -> metadata::MetadataResponse<'a> {
    let broker = metadata::MetadataResponseBroker {
        node_id: NODE,
        host: Cow::Owned(at.ip().to_string()),
        port: i32::from(at.port()),
        ..Default::default()
    };
    let partition = |partition_index| metadata::MetadataResponsePartition {
        partition_index,
        leader_id: NODE,
        replica_nodes: vec![NODE],
        isr_nodes: vec![NODE],
        ..Default::default()
    };
    let topics = request.topics.iter().flatten().map(|topic| metadata::MetadataResponseTopic {
        name: topic.name.clone(),
        partitions: (0..partitions).map(partition).collect(),
        ..Default::default()
    });
    metadata::MetadataResponse {
        brokers: vec![broker],
        controller_id: NODE,
        topics: topics.collect(),
        ..Default::default()
    }
}

fn encode<A: Api>(header: &RequestHeader<'_>, response: &A::Response<'_>) -> Result<Vec<Slice>, Error> {
    let mut writer = Writer::new();
    ResponseHeader { correlation_id: header.correlation_id }.encode(&mut writer, A::KEY, header.version);
    Encode::encode(response, &mut writer, header.version)?;
    Ok(writer.finish()?)
}
