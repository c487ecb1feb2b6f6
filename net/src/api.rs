//! API keys: what a request asks for, and which header comes with it.
//!
//! The table holds every key Kafka 4.3 knows, also those that nothing here serves: the header of a request
//! must be read before it can be refused. Which versions a broker serves is the broker's own list; which
//! versions this codec can read is [`Api::VERSIONS`].

use crate::wire::{Decode, Encode};
use std::ops::RangeInclusive;

/// An API with a schema: its two messages and the versions they exist in.
pub trait Api: 'static {
    const KEY: ApiKey;
    const VERSIONS: RangeInclusive<i16>;
    type Request<'a>: Decode<'a> + Encode + Request<Api = Self>;
    type Response<'a>: Decode<'a> + Encode;
}

/// A request message; leads from the message to its API.
pub trait Request: Encode {
    type Api: Api;
}

/// What [`crate::messages::visit`] calls with the API that a key names.
pub trait Visitor {
    type Output;

    fn visit<A: Api>(self) -> Self::Output;
}

/// A format with a schema that is no request or response: it travels inside of a record or of a field.
pub trait Data: 'static {
    const NAME: &str;
    const VERSIONS: RangeInclusive<i16>;
    type Content<'a>: Decode<'a> + Encode;
}

/// What [`crate::messages::visit_data`] calls with the format that a name stands for.
pub trait DataVisitor {
    type Output;

    fn visit<D: Data>(self) -> Self::Output;
}

macro_rules! api_keys {
    ($($name:ident $key:literal $flexible:expr;)*) => {
        /// The kind of a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($name = $key,)*
        }

        impl ApiKey {
            /// Every key, in order.
            pub const ALL: &[ApiKey] = &[$(ApiKey::$name),*];

            pub fn from_i16(key: i16) -> Option<ApiKey> {
                Some(match key {
                    $($key => ApiKey::$name,)*
                    _ => return None,
                })
            }

            /// Kafka's name.
            pub fn name(self) -> &'static str {
                match self {
                    $(ApiKey::$name => stringify!($name),)*
                }
            }

            /// The first version with compact lengths and tagged fields in the message and its header.
            fn flexible_from(self) -> Option<i16> {
                match self {
                    $(ApiKey::$name => $flexible,)*
                }
            }
        }
    };
}

// name, key, first flexible version
api_keys! {
    Produce 0 Some(9);
    Fetch 1 Some(12);
    ListOffsets 2 Some(6);
    Metadata 3 Some(9);
    LeaderAndIsr 4 None;
    StopReplica 5 None;
    UpdateMetadata 6 None;
    ControlledShutdown 7 None;
    OffsetCommit 8 Some(8);
    OffsetFetch 9 Some(6);
    FindCoordinator 10 Some(3);
    JoinGroup 11 Some(6);
    Heartbeat 12 Some(4);
    LeaveGroup 13 Some(4);
    SyncGroup 14 Some(4);
    DescribeGroups 15 Some(5);
    ListGroups 16 Some(3);
    SaslHandshake 17 None;
    ApiVersions 18 Some(3);
    CreateTopics 19 Some(5);
    DeleteTopics 20 Some(4);
    DeleteRecords 21 Some(2);
    InitProducerId 22 Some(2);
    OffsetForLeaderEpoch 23 Some(4);
    AddPartitionsToTxn 24 Some(3);
    AddOffsetsToTxn 25 Some(3);
    EndTxn 26 Some(3);
    WriteTxnMarkers 27 Some(1);
    TxnOffsetCommit 28 Some(3);
    DescribeAcls 29 Some(2);
    CreateAcls 30 Some(2);
    DeleteAcls 31 Some(2);
    DescribeConfigs 32 Some(4);
    AlterConfigs 33 Some(2);
    AlterReplicaLogDirs 34 Some(2);
    DescribeLogDirs 35 Some(2);
    SaslAuthenticate 36 Some(2);
    CreatePartitions 37 Some(2);
    CreateDelegationToken 38 Some(2);
    RenewDelegationToken 39 Some(2);
    ExpireDelegationToken 40 Some(2);
    DescribeDelegationToken 41 Some(2);
    DeleteGroups 42 Some(2);
    ElectLeaders 43 Some(2);
    IncrementalAlterConfigs 44 Some(1);
    AlterPartitionReassignments 45 Some(0);
    ListPartitionReassignments 46 Some(0);
    OffsetDelete 47 None;
    DescribeClientQuotas 48 Some(1);
    AlterClientQuotas 49 Some(1);
    DescribeUserScramCredentials 50 Some(0);
    AlterUserScramCredentials 51 Some(0);
    Vote 52 Some(0);
    BeginQuorumEpoch 53 Some(1);
    EndQuorumEpoch 54 Some(1);
    DescribeQuorum 55 Some(0);
    AlterPartition 56 Some(2);
    UpdateFeatures 57 Some(0);
    Envelope 58 Some(0);
    FetchSnapshot 59 Some(0);
    DescribeCluster 60 Some(0);
    DescribeProducers 61 Some(0);
    BrokerRegistration 62 Some(0);
    BrokerHeartbeat 63 Some(0);
    UnregisterBroker 64 Some(0);
    DescribeTransactions 65 Some(0);
    ListTransactions 66 Some(0);
    AllocateProducerIds 67 Some(0);
    ConsumerGroupHeartbeat 68 Some(0);
    ConsumerGroupDescribe 69 Some(0);
    ControllerRegistration 70 Some(0);
    GetTelemetrySubscriptions 71 Some(0);
    PushTelemetry 72 Some(0);
    AssignReplicasToDirs 73 Some(0);
    ListConfigResources 74 Some(0);
    DescribeTopicPartitions 75 Some(0);
    ShareGroupHeartbeat 76 Some(1);
    ShareGroupDescribe 77 Some(1);
    ShareFetch 78 Some(1);
    ShareAcknowledge 79 Some(1);
    AddRaftVoter 80 Some(0);
    RemoveRaftVoter 81 Some(0);
    UpdateRaftVoter 82 Some(0);
    InitializeShareGroupState 83 Some(0);
    ReadShareGroupState 84 Some(0);
    WriteShareGroupState 85 Some(0);
    DeleteShareGroupState 86 Some(0);
    ReadShareGroupStateSummary 87 Some(0);
    StreamsGroupHeartbeat 88 Some(0);
    StreamsGroupDescribe 89 Some(0);
    DescribeShareGroupOffsets 90 Some(0);
    AlterShareGroupOffsets 91 Some(0);
    DeleteShareGroupOffsets 92 Some(0);
}

impl ApiKey {
    pub fn as_i16(self) -> i16 {
        self as i16
    }

    fn is_flexible(self, version: i16) -> bool {
        self.flexible_from().is_some_and(|first| version >= first)
    }
}

/// 1 or 2: version 2 ends in tagged fields.
pub fn request_header_version(key: ApiKey, version: i16) -> i16 {
    if key.is_flexible(version) { 2 } else { 1 }
}

/// 0 or 1: version 1 ends in tagged fields. ApiVersions answers with 0 always: its client does not know yet
/// what the broker speaks.
pub fn response_header_version(key: ApiKey, version: i16) -> i16 {
    if key.is_flexible(version) && key != ApiKey::ApiVersions { 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_names_and_headers_are_those_of_kafka() {
        let table = include_str!("../../tests/golden/api-versions.tsv");
        let mut count = 0;
        for line in table.lines().skip(1) {
            let cells: Vec<&str> = line.split('\t').collect();
            let key = ApiKey::from_i16(cells[0].parse().unwrap()).unwrap();
            assert_eq!(key.as_i16().to_string(), cells[0]);
            assert_eq!(key.name(), cells[1]);
            let flexible: i16 = cells[6].parse().unwrap();
            for version in 0..20 {
                let expect = if flexible >= 0 && version >= flexible { 2 } else { 1 };
                assert_eq!(request_header_version(key, version), expect, "{line} {version}");
                let expect = if key == ApiKey::ApiVersions { 0 } else { expect - 1 };
                assert_eq!(response_header_version(key, version), expect, "{line} {version}");
            }
            count += 1;
        }
        assert_eq!(count, ApiKey::ALL.len());
    }
}
