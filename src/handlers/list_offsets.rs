//! ListOffsets v1-v11. v2: isolation. v4: leader epoch. v6: flexible. v7: max timestamp. v8: earliest local.
//! v9: latest tiered. v10: timeout. v11: earliest pending upload.

use std::collections::{BTreeMap, HashMap, HashSet};

use engine::ids::PartitionId;
use net::error_code::ErrorCode;
use net::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use rt::CoreId;

use super::{Reply, Request, Unanswerable, topics};
use crate::shard::join::join_boxed;
use crate::shard::mail::{Answer, Ask, OffsetAsk, OffsetFound, WantedOffset};

/// The first version that tells the leader epoch.
const EPOCH_FROM: i16 = 4;

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: ListOffsetsRequest = request.decode()?;
    let mut times: HashMap<(&str, i32), u32> = HashMap::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            *times.entry((topic.name.as_ref(), partition.partition_index)).or_default() += 1;
        }
    }
    let mut by_owner: BTreeMap<CoreId, Vec<OffsetAsk>> = BTreeMap::new();
    let mut found: Vec<Result<OffsetFound, ErrorCode>> = Vec::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            let place = found.len();
            let checked = (|| {
                if times[&(topic.name.as_ref(), partition.partition_index)] > 1 {
                    return Err(ErrorCode::InvalidRequest);
                }
                let wanted = wanted(partition.timestamp, request.version)?;
                let id = topics::by_name(request.shard, &topic.name)?;
                let id = PartitionId { topic: id, index: partition.partition_index };
                let owner = topics::owner(request.shard, id)?;
                let current_leader_epoch = partition.current_leader_epoch;
                Ok((owner, OffsetAsk { place, partition: id, current_leader_epoch, wanted }))
            })();
            found.push(Err(match checked {
                Ok((owner, ask)) => {
                    by_owner.entry(owner).or_default().push(ask);
                    ErrorCode::UnknownServerError
                }
                Err(code) => code,
            }));
        }
    }
    let asks = by_owner.into_iter().map(|(owner, asks)| request.shard.ask(owner, Ask::Offsets(asks)));
    for answer in join_boxed(asks).await {
        if let Answer::Offsets(parts) = answer {
            for part in parts {
                let place = part.place;
                found[place] = Ok(part);
            }
        }
    }
    request.answer(&response(&body, found, request.version))
}

/// What a timestamp of the request stands for.
fn wanted(timestamp: i64, version: i16) -> Result<WantedOffset, ErrorCode> {
    match timestamp {
        -1 => Ok(WantedOffset::Latest),
        -2 => Ok(WantedOffset::Earliest),
        -3 if version >= 7 => Ok(WantedOffset::MaxTimestamp),
        -4 if version >= 8 => Ok(WantedOffset::Earliest),
        -5 if version >= 9 => Ok(WantedOffset::Tiered),
        -6 if version >= 11 => Ok(WantedOffset::Tiered),
        timestamp if timestamp >= 0 => Ok(WantedOffset::AtTimestamp(timestamp)),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

fn response<'a>(
    body: &'a ListOffsetsRequest<'a>,
    found: Vec<Result<OffsetFound, ErrorCode>>,
    version: i16,
) -> ListOffsetsResponse<'a> {
    let mut found = found.into_iter();
    let mut topics = Vec::with_capacity(body.topics.len());
    let mut told = HashSet::new();
    for topic in &body.topics {
        let parts = topic.partitions.iter().zip(&mut found);
        // A partition that is listed twice was refused, and is told so once.
        let parts = parts.filter(|(asked, _)| told.insert((&*topic.name, asked.partition_index)));
        let partitions: Vec<_> =
            parts.map(|(asked, one)| partition_response(asked.partition_index, one, version)).collect();
        if !partitions.is_empty() {
            topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
        }
    }
    ListOffsetsResponse { topics, ..Default::default() }
}

fn partition_response(
    partition_index: i32,
    found: Result<OffsetFound, ErrorCode>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    match found {
        Ok(one) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: one.error as i16,
            timestamp: one.timestamp,
            offset: one.offset,
            // Older clients have no field for it.
            leader_epoch: if version >= EPOCH_FROM { one.leader_epoch } else { -1 },
        },
        Err(code) => {
            ListOffsetsPartitionResponse { partition_index, error_code: code as i16, ..Default::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::wire::{Decode, Encode, Reader, Writer};

    #[test]
    fn special_timestamps_need_their_version() {
        let cases = [
            (-1, 1, Ok(WantedOffset::Latest)),
            (-2, 1, Ok(WantedOffset::Earliest)),
            (-3, 6, Err(ErrorCode::UnsupportedVersion)),
            (-3, 7, Ok(WantedOffset::MaxTimestamp)),
            (-4, 7, Err(ErrorCode::UnsupportedVersion)),
            (-4, 8, Ok(WantedOffset::Earliest)),
            (-5, 9, Ok(WantedOffset::Tiered)),
            (-6, 10, Err(ErrorCode::UnsupportedVersion)),
            (-6, 11, Ok(WantedOffset::Tiered)),
            (-7, 11, Err(ErrorCode::UnsupportedVersion)),
            (0, 1, Ok(WantedOffset::AtTimestamp(0))),
        ];
        for (timestamp, version, expect) in cases {
            assert_eq!(wanted(timestamp, version), expect, "{timestamp} in v{version}");
        }
    }

    #[test]
    fn a_leader_epoch_is_told_only_where_there_is_a_field_for_it() {
        for version in 1..=11 {
            let found =
                OffsetFound { place: 0, error: ErrorCode::None, timestamp: -1, offset: 5, leader_epoch: 3 };
            let response = ListOffsetsResponse {
                topics: vec![ListOffsetsTopicResponse {
                    name: "t".into(),
                    partitions: vec![partition_response(0, Ok(found), version)],
                }],
                ..Default::default()
            };
            let mut writer = Writer::new();
            response.encode(&mut writer, version).expect("every version can be written");
            let frame: Vec<u8> =
                writer.finish().expect("it is small").iter().flat_map(|s| s.to_vec()).collect();
            let decoded = ListOffsetsResponse::decode(&mut Reader::new(&frame[4..]), version).expect("whole");
            let one = &decoded.topics[0].partitions[0];
            assert_eq!((one.offset, one.leader_epoch), (5, if version < 4 { -1 } else { 3 }), "v{version}");
        }
    }
}
