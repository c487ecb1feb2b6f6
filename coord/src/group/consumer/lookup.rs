//! Who a heartbeat is from: what must be refused before anything is changed.

use net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;

use engine::ids::TopicId;

use super::super::Text;
use super::super::call::Call;
use super::super::per_topic::Partitions;
use super::super::regex::Pattern;
use super::super::settings::{SUBSCRIBED_TOPICS_MAX, Settings};
use super::{ConsumerGroup, LEAVE_EPOCH, LEAVE_STATIC_EPOCH};
use crate::error_code::{ErrorCode, Refusal};

/// Version 0 may leave the choice of the id to the coordinator.
const CLIENT_ID_VERSION: i16 = 1;

/// The member that a heartbeat is from.
pub(super) enum Found {
    Known(Text),
    New(Text),
    /// A static member's new process takes the place of the one that left.
    Replaces {
        old: Text,
        new: Text,
    },
}

/// What is wrong with the request by itself.
pub fn check(
    call: &Call<'_>,
    request: &ConsumerGroupHeartbeatRequest<'_>,
    settings: &Settings,
) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let epoch = request.member_epoch;
    if is_blank(&request.group_id) {
        return invalid("GroupId can't be empty.");
    }
    if is_blank(&request.member_id) && (call.version >= CLIENT_ID_VERSION || epoch != 0) {
        return invalid("MemberId can't be empty.");
    }
    if request.instance_id.as_deref().is_some_and(is_blank) {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_deref().is_some_and(is_blank) {
        return invalid("RackId can't be empty.");
    }
    if epoch < LEAVE_STATIC_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    if epoch == LEAVE_STATIC_EPOCH && request.instance_id.is_none() {
        return invalid("InstanceId can't be null.");
    }
    if epoch == 0 {
        if request.rebalance_timeout_ms == -1 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
    }
    if request.subscribed_topic_names.as_ref().is_some_and(|names| names.len() > SUBSCRIBED_TOPICS_MAX) {
        return invalid("SubscribedTopicNames has too many topics.");
    }
    if let Some(name) = &request.server_assignor
        && !settings.consumer_assignors.iter().any(|known| known == name)
    {
        let known = settings.consumer_assignors.join(", ");
        let message = format!("ServerAssignor {name} is not supported. Supported assignors: {known}.");
        return Err(Refusal::new(ErrorCode::UnsupportedAssignor, message));
    }
    Ok(())
}

/// Whether an expression that the group does not know is one. To find out takes up to two compilations of a megabyte each.
pub fn check_regex(regex: &str) -> Result<(), Refusal> {
    if regex.is_empty() {
        return Ok(());
    }
    let refused = |message| Refusal::new(ErrorCode::InvalidRegularExpression, message);
    Pattern::new(regex).map(drop).map_err(refused)
}

/// What Java's `trim` leaves nothing of.
fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c <= ' ')
}

/// What the client says it has.
pub fn owned(request: &ConsumerGroupHeartbeatRequest<'_>) -> Option<Partitions> {
    let topics = request.topic_partitions.as_ref()?;
    let each = topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| (TopicId(topic.topic_id), *p)));
    Some(each.collect())
}

/// Whether a group of that many members takes this one.
pub fn check_room(is_known: bool, member_count: usize, settings: &Settings) -> Result<(), Refusal> {
    if is_known || member_count < settings.consumer_max_size {
        return Ok(());
    }
    let message = format!(
        "The consumer group has reached its maximum capacity of {} members.",
        settings.consumer_max_size
    );
    Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message))
}

impl ConsumerGroup {
    pub(super) fn knows(&self, member: &str, instance: Option<&str>) -> bool {
        self.members.contains_key(member)
            || instance.is_some_and(|instance| self.instances.contains_key(instance))
    }

    pub(super) fn find(
        &self,
        id: Text,
        request: &ConsumerGroupHeartbeatRequest<'_>,
        owned: Option<&Partitions>,
    ) -> Result<Found, Refusal> {
        let epoch = request.member_epoch;
        let Some(instance) = request.instance_id.as_deref() else {
            return match self.members.contains_key(&id) {
                true if epoch == 0 => Ok(Found::Known(id)),
                true => self.check_epoch(&id, epoch, owned).map(|()| Found::Known(id)),
                false if epoch == 0 => Ok(Found::New(id)),
                false => Err(self.unknown_member(&id)),
            };
        };
        let holder = self.instances.get(instance).cloned();
        match holder {
            None if epoch == 0 => Ok(Found::New(id)),
            None => Err(self.unknown_member(&id)),
            Some(holder) if epoch == 0 => {
                let has_left = self.members[&holder].current.epoch == LEAVE_STATIC_EPOCH;
                let is_classic = self.members[&holder].value.classic.is_some();
                if !has_left && !is_classic {
                    let message = format!(
                        "Static member {id} with instance id {instance} cannot join the group because the instance id is owned by member {holder}."
                    );
                    return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
                }
                if holder == id { Ok(Found::Known(id)) } else { Ok(Found::Replaces { old: holder, new: id }) }
            }
            Some(holder) if holder != id => Err(fenced_instance(&id, instance)),
            Some(_) => self.check_epoch(&id, epoch, owned).map(|()| Found::Known(id)),
        }
    }

    /// The member that wants to leave.
    pub(super) fn find_leaving(&self, request: &ConsumerGroupHeartbeatRequest<'_>) -> Result<Text, Refusal> {
        assert!([LEAVE_EPOCH, LEAVE_STATIC_EPOCH].contains(&request.member_epoch));
        let id = &*request.member_id;
        match request.instance_id.as_deref() {
            Some(instance) => match self.instances.get(instance) {
                None => Err(self.unknown_member(id)),
                Some(holder) if **holder != *id => Err(fenced_instance(id, instance)),
                Some(holder) => Ok(holder.clone()),
            },
            None => match self.members.get_key_value(id) {
                Some((id, _)) => Ok(id.clone()),
                None => Err(self.unknown_member(id)),
            },
        }
    }

    /// A member may be behind by one epoch, if it did not hear the last answer and has nothing that is not its own.
    fn check_epoch(&self, id: &Text, epoch: i32, owned: Option<&Partitions>) -> Result<(), Refusal> {
        let current = &self.members[id].current;
        if epoch == current.epoch {
            return Ok(());
        }
        let is_subset = |owned: &Partitions| {
            owned.iter().all(|(topic, list)| list.iter().all(|p| current.assigned.epoch(topic, *p).is_some()))
        };
        if epoch < current.epoch && epoch == current.previous_epoch && owned.is_some_and(is_subset) {
            return Ok(());
        }
        let message = format!(
            "The consumer group member has a {} member epoch ({epoch}) than the one known by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
            if epoch > current.epoch { "greater" } else { "smaller" },
            current.epoch
        );
        Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
    }

    fn unknown_member(&self, id: &str) -> Refusal {
        let message = format!("Member {id} is not a member of group {}.", self.id);
        Refusal::new(ErrorCode::UnknownMemberId, message)
    }
}

fn fenced_instance(id: &str, instance: &str) -> Refusal {
    let message = format!("Static member {id} with instance id {instance} was fenced by another member.");
    Refusal::new(ErrorCode::FencedInstanceId, message)
}
