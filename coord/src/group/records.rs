//! The records of `__consumer_offsets`, in Kafka's own formats: tools that read that topic read ours.
//!
//! ```text
//! key     i16 type, then the fields of that type      value   i16 version, then its fields; none = tombstone
//! 0, 1    an offset: group, topic, partition          v1 if it has an expiry, else v4 (topic id in tag 0)
//! 2       a classic group                             v3
//! 3       a consumer group's epoch                    v0
//! 4       dropped: its subscriptions' metadata        tombstones only
//! 5       a consumer group's member                   v0
//! 6, 7    the target's epoch, a member's target       v0
//! 8       what a member has                           v0
//! 16      a resolved regular expression               v0
//! ```
//!
//! A type of a later release is skipped, as KIP-915 wants; a version that is not known, and bytes that are not what they
//! should be, are damage: the shard does not come up.

use std::rc::Rc;

use engine::ids::TopicId;
use net::messages::group_records as wire;
use net::wire::{Decode, Encode, EncodeError, Error as WireError, Reader, Writer};

use super::per_topic::{Owned, Partitions};
use super::shared::Shared;
use super::{Bytes, Text};

/// One committed offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetValue {
    pub offset: i64,
    /// -1 where the client told none.
    pub leader_epoch: i32,
    pub metadata: Box<str>,
    pub commit_unix_ms: i64,
    /// -1 for a commit without an expiry of its own.
    pub expire_unix_ms: i64,
    /// Zeros where it is not known.
    pub topic_id: TopicId,
}

/// A consumer group member's own words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberValue {
    pub instance: Option<Text>,
    pub rack: Option<Text>,
    pub client_id: Text,
    pub client_host: Text,
    /// Sorted, each once.
    pub topics: Rc<[Text]>,
    pub regex: Option<Text>,
    pub rebalance_timeout_ms: i32,
    pub assignor: Option<Text>,
    /// Set for a member that speaks the classic protocol.
    pub classic: Option<ClassicValue>,
}

impl MemberValue {
    /// The same; what other members say alike is theirs too.
    pub fn shared(self, shared: &mut Shared) -> MemberValue {
        let classic = self.classic.map(|classic| ClassicValue {
            protocols: classic
                .protocols
                .iter()
                .map(|(name, metadata)| (shared.text(name), shared.bytes(metadata)))
                .collect(),
            ..classic
        });
        MemberValue {
            rack: self.rack.map(|rack| shared.text(&rack)),
            client_id: shared.text(&self.client_id),
            client_host: shared.text(&self.client_host),
            topics: shared.list(&self.topics),
            regex: self.regex.map(|regex| shared.text(&regex)),
            assignor: self.assignor.map(|assignor| shared.text(&assignor)),
            classic,
            ..self
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassicValue {
    pub session_timeout_ms: i32,
    pub protocols: Box<[(Text, Bytes)]>,
}

/// Where a member is on its way to its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    Stable = 0,
    /// It has been told to give up partitions, and has not confirmed.
    Unrevoked = 1,
    /// It waits for partitions that others still have.
    Unreleased = 2,
    /// Of a later release.
    Unknown = 127,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CurrentValue {
    pub epoch: i32,
    pub previous_epoch: i32,
    pub state: MemberState,
    pub assigned: Owned,
    pub revoking: Owned,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegexValue {
    /// Sorted.
    pub topics: Box<[Text]>,
    pub version: i64,
    pub unix_ms: i64,
}

/// A record. `None` is its tombstone.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    Offset {
        group: Text,
        topic: Text,
        partition: i32,
        value: Option<OffsetValue>,
    },
    /// The value's bytes, version included: they are made from the group and read into one.
    Classic {
        group: Text,
        value: Option<Vec<u8>>,
    },
    Epoch {
        group: Text,
        value: Option<(i32, i64)>,
    },
    DroppedSubscriptions {
        group: Text,
    },
    Member {
        group: Text,
        member: Text,
        value: Option<Rc<MemberValue>>,
    },
    /// The target's epoch, and when it was computed.
    TargetEpoch {
        group: Text,
        value: Option<(i32, i64)>,
    },
    Target {
        group: Text,
        member: Text,
        value: Option<Rc<Partitions>>,
    },
    Current {
        group: Text,
        member: Text,
        value: Option<Rc<CurrentValue>>,
    },
    Regex {
        group: Text,
        regex: Text,
        value: Option<Rc<RegexValue>>,
    },
}

/// Why a record cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    Wire(WireError),
    /// A value of a version that this release does not know.
    Version {
        kind: i16,
        version: i16,
    },
    /// A value where only tombstones are written.
    Unexpected,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Wire(why) => why.fmt(f),
            Error::Version { kind, version } => write!(f, "a value of type {kind} has version {version}"),
            Error::Unexpected => f.write_str("a value stands where only tombstones are written"),
        }
    }
}

impl std::error::Error for Error {}

impl From<WireError> for Error {
    fn from(why: WireError) -> Error {
        Error::Wire(why)
    }
}

/// A record's bytes: its key, and its value unless it is a tombstone.
pub type RecordBytes = (Vec<u8>, Option<Vec<u8>>);

const LEGACY_OFFSET: i16 = 0;
const OFFSET: i16 = 1;
const CLASSIC: i16 = 2;
const EPOCH: i16 = 3;
const DROPPED: i16 = 4;
const MEMBER: i16 = 5;
const TARGET_EPOCH: i16 = 6;
const TARGET: i16 = 7;
const CURRENT: i16 = 8;
const REGEX: i16 = 16;

impl Record {
    /// The group it is about.
    pub fn group(&self) -> &Text {
        match self {
            Record::Offset { group, .. }
            | Record::Classic { group, .. }
            | Record::Epoch { group, .. }
            | Record::DroppedSubscriptions { group }
            | Record::Member { group, .. }
            | Record::TargetEpoch { group, .. }
            | Record::Target { group, .. }
            | Record::Current { group, .. }
            | Record::Regex { group, .. } => group,
        }
    }

    pub fn is_tombstone(&self) -> bool {
        match self {
            Record::Offset { value, .. } => value.is_none(),
            Record::Classic { value, .. } => value.is_none(),
            Record::Epoch { value, .. } | Record::TargetEpoch { value, .. } => value.is_none(),
            Record::DroppedSubscriptions { .. } => true,
            Record::Member { value, .. } => value.is_none(),
            Record::Target { value, .. } => value.is_none(),
            Record::Current { value, .. } => value.is_none(),
            Record::Regex { value, .. } => value.is_none(),
        }
    }

    /// An error only for a name that is longer than a string may be.
    pub fn encode(self) -> Result<RecordBytes, EncodeError> {
        let of = self.group().clone();
        let group = of.as_ref().into();
        match self {
            Record::Offset { topic, partition, value, .. } => {
                let key = wire::OffsetCommitKey { group, topic: topic.as_ref().into(), partition };
                Ok((prefixed(OFFSET, &key, 0)?, value.as_ref().map(offset_value).transpose()?))
            }
            Record::Classic { value, .. } => {
                Ok((prefixed(CLASSIC, &wire::GroupMetadataKey { group }, 0)?, value))
            }
            Record::Epoch { value, .. } => {
                let key = wire::ConsumerGroupMetadataKey { group_id: group };
                let value = value
                    .map(|(epoch, metadata_hash)| wire::ConsumerGroupMetadataValue { epoch, metadata_hash });
                pair(EPOCH, &key, value.as_ref())
            }
            Record::DroppedSubscriptions { .. } => {
                let key = wire::ConsumerGroupPartitionMetadataKey { group_id: group };
                Ok((prefixed(DROPPED, &key, 0)?, None))
            }
            Record::Member { member, value, .. } => {
                let key = wire::ConsumerGroupMemberMetadataKey {
                    group_id: group,
                    member_id: member.as_ref().into(),
                };
                pair(MEMBER, &key, value.as_deref().map(member_value).as_ref())
            }
            Record::TargetEpoch { value, .. } => {
                let key = wire::ConsumerGroupTargetAssignmentMetadataKey { group_id: group };
                let value = value.map(|(assignment_epoch, assignment_timestamp)| {
                    wire::ConsumerGroupTargetAssignmentMetadataValue {
                        assignment_epoch,
                        assignment_timestamp,
                    }
                });
                pair(TARGET_EPOCH, &key, value.as_ref())
            }
            Record::Target { member, value, .. } => {
                let key = wire::ConsumerGroupTargetAssignmentMemberKey {
                    group_id: group,
                    member_id: member.as_ref().into(),
                };
                pair(TARGET, &key, value.as_deref().map(target_value).as_ref())
            }
            Record::Current { member, value, .. } => {
                let key = wire::ConsumerGroupCurrentMemberAssignmentKey {
                    group_id: group,
                    member_id: member.as_ref().into(),
                };
                pair(CURRENT, &key, value.as_deref().map(current_value).as_ref())
            }
            Record::Regex { regex, value, .. } => {
                let key = wire::ConsumerGroupRegularExpressionKey {
                    group_id: group,
                    regular_expression: regex.as_ref().into(),
                };
                let value = value.as_deref().map(|value| wire::ConsumerGroupRegularExpressionValue {
                    topics: value.topics.iter().map(|topic| topic.as_ref().into()).collect(),
                    version: value.version,
                    timestamp: value.unix_ms,
                });
                pair(REGEX, &key, value.as_ref())
            }
        }
    }

    /// None for a type that this release does not know, or no longer has use for.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, Error> {
        let mut r = Reader::new(key);
        let kind = r.i16()?;
        let key = r.rest();
        match kind {
            LEGACY_OFFSET | OFFSET => decode_offset(key, value).map(Some),
            CLASSIC => decode_classic(key, value).map(Some),
            // Written by Kafka before 4.0; the metadata is computed anew.
            DROPPED => Ok(None),
            _ => decode_of_consumer_group(kind, key, value),
        }
    }
}

/// The legacy key has the same fields as the other; its value has the version 0 or 1 of that.
fn decode_offset(key: &[u8], value: Option<&[u8]>) -> Result<Record, Error> {
    let key: wire::OffsetCommitKey<'_> = whole(key, 0)?;
    let value = value.map(|value| versioned(OFFSET, value, 0..=4)).transpose()?;
    Ok(Record::Offset {
        group: key.group.as_ref().into(),
        topic: key.topic.as_ref().into(),
        partition: key.partition,
        value: value.map(read_offset),
    })
}

fn decode_classic(key: &[u8], value: Option<&[u8]>) -> Result<Record, Error> {
    let key: wire::GroupMetadataKey<'_> = whole(key, 0)?;
    if let Some(value) = value {
        versioned::<wire::GroupMetadataValue<'_>>(CLASSIC, value, 0..=4)?;
    }
    Ok(Record::Classic { group: key.group.as_ref().into(), value: value.map(<[u8]>::to_vec) })
}

fn decode_of_consumer_group(kind: i16, key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, Error> {
    Ok(Some(match kind {
        EPOCH => {
            let key: wire::ConsumerGroupMetadataKey<'_> = whole(key, 0)?;
            let value: Option<wire::ConsumerGroupMetadataValue> = optional(EPOCH, value)?;
            Record::Epoch {
                group: key.group_id.as_ref().into(),
                value: value.map(|value| (value.epoch, value.metadata_hash)),
            }
        }
        MEMBER => {
            let key: wire::ConsumerGroupMemberMetadataKey<'_> = whole(key, 0)?;
            let value: Option<wire::ConsumerGroupMemberMetadataValue<'_>> = optional(MEMBER, value)?;
            Record::Member {
                group: key.group_id.as_ref().into(),
                member: key.member_id.as_ref().into(),
                value: value.map(|value| Rc::new(read_member(value))),
            }
        }
        TARGET_EPOCH => {
            let key: wire::ConsumerGroupTargetAssignmentMetadataKey<'_> = whole(key, 0)?;
            let value: Option<wire::ConsumerGroupTargetAssignmentMetadataValue> =
                optional(TARGET_EPOCH, value)?;
            Record::TargetEpoch {
                group: key.group_id.as_ref().into(),
                value: value.map(|value| (value.assignment_epoch, value.assignment_timestamp)),
            }
        }
        TARGET => {
            let key: wire::ConsumerGroupTargetAssignmentMemberKey<'_> = whole(key, 0)?;
            let value: Option<wire::ConsumerGroupTargetAssignmentMemberValue> = optional(TARGET, value)?;
            Record::Target {
                group: key.group_id.as_ref().into(),
                member: key.member_id.as_ref().into(),
                value: value.map(|value| Rc::new(read_target(&value))),
            }
        }
        CURRENT => {
            let key: wire::ConsumerGroupCurrentMemberAssignmentKey<'_> = whole(key, 0)?;
            let value: Option<wire::ConsumerGroupCurrentMemberAssignmentValue> = optional(CURRENT, value)?;
            Record::Current {
                group: key.group_id.as_ref().into(),
                member: key.member_id.as_ref().into(),
                value: value.map(|value| Rc::new(read_current(&value))),
            }
        }
        REGEX => {
            let key: wire::ConsumerGroupRegularExpressionKey<'_> = whole(key, 0)?;
            let value: Option<wire::ConsumerGroupRegularExpressionValue<'_>> = optional(REGEX, value)?;
            Record::Regex {
                group: key.group_id.as_ref().into(),
                regex: key.regular_expression.as_ref().into(),
                value: value.map(|value| {
                    Rc::new(RegexValue {
                        topics: texts(&value.topics),
                        version: value.version,
                        unix_ms: value.timestamp,
                    })
                }),
            }
        }
        // Share groups, streams groups, and what later releases invent.
        _ => return Ok(None),
    }))
}

fn prefixed(prefix: i16, content: &impl Encode, version: i16) -> Result<Vec<u8>, EncodeError> {
    let mut w = Writer::new();
    w.i16(prefix);
    content.encode(&mut w, version)?;
    let mut bytes = w.into_body()?;
    // A rebalance makes thousands at once, and most are a few dozen bytes.
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// The bytes of a key, and of a value of version 0.
fn pair(kind: i16, key: &impl Encode, value: Option<&impl Encode>) -> Result<RecordBytes, EncodeError> {
    Ok((prefixed(kind, key, 0)?, value.map(|value| prefixed(0, value, 0)).transpose()?))
}

/// The bytes of a classic group's value.
pub fn classic_value(value: &wire::GroupMetadataValue<'_>) -> Result<Vec<u8>, EncodeError> {
    const VERSION: i16 = 3;
    prefixed(VERSION, value, VERSION)
}

/// Reads what [`classic_value`] wrote, or Kafka of any release.
pub fn read_classic_value(bytes: &[u8]) -> Result<wire::GroupMetadataValue<'_>, Error> {
    versioned(CLASSIC, bytes, 0..=4)
}

fn whole<'a, T: Decode<'a>>(bytes: &'a [u8], version: i16) -> Result<T, Error> {
    let mut r = Reader::new(bytes);
    Ok(T::decode(&mut r, version)?)
}

fn versioned<'a, T: Decode<'a>>(
    kind: i16,
    bytes: &'a [u8],
    known: std::ops::RangeInclusive<i16>,
) -> Result<T, Error> {
    let mut r = Reader::new(bytes);
    let version = r.i16()?;
    if !known.contains(&version) {
        return Err(Error::Version { kind, version });
    }
    Ok(T::decode(&mut r, version)?)
}

fn optional<'a, T: Decode<'a>>(kind: i16, value: Option<&'a [u8]>) -> Result<Option<T>, Error> {
    value.map(|value| versioned(kind, value, 0..=0)).transpose()
}

fn offset_value(value: &OffsetValue) -> Result<Vec<u8>, EncodeError> {
    let version = if value.expire_unix_ms >= 0 { 1 } else { 4 };
    let value = wire::OffsetCommitValue {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata.as_ref().into(),
        commit_timestamp: value.commit_unix_ms,
        expire_timestamp: value.expire_unix_ms,
        topic_id: value.topic_id.0,
    };
    prefixed(version, &value, version)
}

fn read_offset(value: wire::OffsetCommitValue<'_>) -> OffsetValue {
    OffsetValue {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata.as_ref().into(),
        commit_unix_ms: value.commit_timestamp,
        expire_unix_ms: value.expire_timestamp,
        topic_id: TopicId(value.topic_id),
    }
}

fn texts(names: &[std::borrow::Cow<'_, str>]) -> Box<[Text]> {
    let mut names: Vec<Text> = names.iter().map(|name| name.as_ref().into()).collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}

fn member_value(value: &MemberValue) -> wire::ConsumerGroupMemberMetadataValue<'_> {
    let text = |text: &Option<Text>| text.as_ref().map(|text| text.to_string().into());
    wire::ConsumerGroupMemberMetadataValue {
        instance_id: text(&value.instance),
        rack_id: text(&value.rack),
        client_id: value.client_id.as_ref().into(),
        client_host: value.client_host.as_ref().into(),
        subscribed_topic_names: value.topics.iter().map(|topic| topic.as_ref().into()).collect(),
        subscribed_topic_regex: text(&value.regex),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        server_assignor: text(&value.assignor),
        classic_member_metadata: value.classic.as_ref().map(|classic| wire::ClassicMemberMetadata {
            session_timeout_ms: classic.session_timeout_ms,
            supported_protocols: classic
                .protocols
                .iter()
                .map(|(name, metadata)| wire::ClassicProtocol {
                    name: name.as_ref().into(),
                    metadata: metadata.as_ref().into(),
                })
                .collect(),
        }),
    }
}

fn read_member(value: wire::ConsumerGroupMemberMetadataValue<'_>) -> MemberValue {
    let text = |text: Option<std::borrow::Cow<'_, str>>| text.map(|text| Text::from(text.as_ref()));
    MemberValue {
        instance: text(value.instance_id),
        rack: text(value.rack_id),
        client_id: value.client_id.as_ref().into(),
        client_host: value.client_host.as_ref().into(),
        topics: texts(&value.subscribed_topic_names).into(),
        regex: text(value.subscribed_topic_regex),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        assignor: text(value.server_assignor),
        classic: value.classic_member_metadata.map(|classic| ClassicValue {
            session_timeout_ms: classic.session_timeout_ms,
            protocols: classic
                .supported_protocols
                .iter()
                .map(|protocol| (protocol.name.as_ref().into(), protocol.metadata.as_ref().into()))
                .collect(),
        }),
    }
}

fn target_value(value: &Partitions) -> wire::ConsumerGroupTargetAssignmentMemberValue {
    let topic =
        |(id, list): (TopicId, &Vec<i32>)| wire::TopicPartition { topic_id: id.0, partitions: list.clone() };
    wire::ConsumerGroupTargetAssignmentMemberValue { topic_partitions: value.iter().map(topic).collect() }
}

fn read_target(value: &wire::ConsumerGroupTargetAssignmentMemberValue) -> Partitions {
    let of = |topic: &wire::TopicPartition| {
        topic.partitions.iter().map(|p| (TopicId(topic.topic_id), *p)).collect::<Vec<_>>()
    };
    value.topic_partitions.iter().flat_map(of).collect()
}

fn current_value(value: &CurrentValue) -> wire::ConsumerGroupCurrentMemberAssignmentValue {
    let topics = |owned: &Owned| -> Vec<wire::TopicPartitions> {
        let topic = |(id, list): (TopicId, &Vec<(i32, i32)>)| wire::TopicPartitions {
            topic_id: id.0,
            partitions: list.iter().map(|(index, _)| *index).collect(),
            assignment_epochs: Some(list.iter().map(|(_, epoch)| *epoch).collect()),
        };
        owned.iter().map(topic).collect()
    };
    wire::ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: value.epoch,
        previous_member_epoch: value.previous_epoch,
        state: value.state as i8,
        assigned_partitions: topics(&value.assigned),
        partitions_pending_revocation: topics(&value.revoking),
    }
}

fn read_current(value: &wire::ConsumerGroupCurrentMemberAssignmentValue) -> CurrentValue {
    // Where a release before KIP-1251 told no epochs, the member's own is as good.
    let owned = |topics: &[wire::TopicPartitions]| -> Owned {
        let of = |topic: &wire::TopicPartitions| {
            let epochs = topic.assignment_epochs.as_deref().unwrap_or_default();
            let epoch = |at: usize| epochs.get(at).copied().unwrap_or(value.member_epoch);
            let each = topic.partitions.iter().enumerate();
            each.map(|(at, index)| (TopicId(topic.topic_id), *index, epoch(at))).collect::<Vec<_>>()
        };
        topics.iter().flat_map(of).collect()
    };
    CurrentValue {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        state: match value.state {
            0 => MemberState::Stable,
            1 => MemberState::Unrevoked,
            2 => MemberState::Unreleased,
            _ => MemberState::Unknown,
        },
        assigned: owned(&value.assigned_partitions),
        revoking: owned(&value.partitions_pending_revocation),
    }
}
