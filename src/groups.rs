//! Consumer groups: a host for the coordinator of each partition of `__consumer_offsets` that this core owns.
//!
//! All decisions are `coord::group`'s. Here is what it leaves out: the partition's log (`load`, `write`), clocks and calls (`host`),
//! which topics and partitions there are (`topics`), and the topic itself ([`create_topic`]).
//! Handlers find the owner of a group's partition and ask it by mail; the request's frame travels, is decoded where the
//! group lives, and what comes back is owned data.
//!
//! Invariants:
//! - A host lives exactly as long as its log is open and well. What waits when it ends is sent elsewhere.
//! - A call that nobody waits for any more leaves nothing here; what it changed stands.
//! - Records are appended in the order of the decisions, each decision as one batch.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use coord::group::{self, Budget, partition_for};
use coord::metadata::{Change, ConfigResource, Image, group_config};
use engine::ids::PartitionId;
use engine::log::Log;
use net::error_code::ErrorCode;
use rt::{Class, CoreId, Slice};

use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::handlers::Unanswerable;
use crate::shard::Shard;
use crate::shard::hosted::Hosted;

mod host;
mod load;
pub mod request;
mod tally;
mod topics;
mod unload;
mod write;

use host::{Caller, Host, Waiting};
use tally::Tally;

/// The topic of all groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The hosts of one core.
#[derive(Default)]
pub struct Groups {
    hosts: RefCell<BTreeMap<PartitionId, Rc<Host>>>,
    tally: Rc<Tally>,
}

/// Groups of one request that live on one core.
#[derive(Debug)]
pub struct GroupAsk {
    /// The request as it came.
    pub frame: Slice,
    pub client: IpAddr,
    pub parts: Vec<GroupPart>,
}

#[derive(Clone, Copy, Debug)]
pub struct GroupPart {
    /// Which of the request's groups it is, and where the answer goes; for a list of all groups, only the latter.
    pub place: usize,
    pub partition: PartitionId,
}

#[derive(Debug)]
pub struct GroupFound {
    pub place: usize,
    /// None where the host ended before it answered.
    pub answer: Option<Box<group::Answer>>,
}

/// Begins to load the groups of a partition whose log was opened.
pub fn opened(shard: &Rc<Shard>, hosted: &Hosted, log: &Log) {
    if hosted.topic_name != OFFSETS_TOPIC {
        return;
    }
    let host = Host::new(shard, hosted, log);
    shard.groups.hosts.borrow_mut().insert(hosted.id, host.clone());
    for (resource, configs) in shard.metadata.borrow().all_configs() {
        configure(shard, &host, resource, configs);
    }
    host.start(shard);
}

/// Ends the host of a partition that is not served any more. It may have none.
pub fn closed(shard: &Shard, partition: PartitionId) {
    let host = shard.groups.hosts.borrow_mut().remove(&partition);
    if let Some(host) = host.filter(Host::end) {
        shard.core.spawn(Class::Background, unload::unload(host)).detach();
    }
}

/// Ends all hosts: the broker stops. Who waits is sent away, before the logs are closed under it.
pub async fn close_all(shard: &Shard) {
    let hosts = std::mem::take(&mut *shard.groups.hosts.borrow_mut());
    let ended: Vec<Rc<Host>> = hosts.into_values().filter(Host::end).collect();
    for host in ended {
        unload::unload(host).await;
    }
}

/// Tells the hosts of changed metadata.
pub fn follow(shard: &Rc<Shard>, changes: &[Change]) {
    let hosts: Vec<Rc<Host>> = shard.groups.hosts.borrow().values().cloned().collect();
    for host in hosts {
        host.step(group::Input::Metadata);
        for change in changes {
            match change {
                Change::TopicDeleted(topic) => host.step(group::Input::TopicDeleted(topic)),
                Change::Configs { resource, configs } => configure(shard, &host, resource, configs),
                Change::Broker(_)
                | Change::BrokerGone(_)
                | Change::TopicCreated(_)
                | Change::TopicConfigs(_)
                | Change::Partitions { .. }
                | Change::ProducerIds { .. }
                | Change::Feature { .. } => {}
            }
        }
    }
}

/// Tells a host what is set for a group that lives there.
fn configure(shard: &Shard, host: &Rc<Host>, resource: &ConfigResource, configs: &BTreeMap<String, String>) {
    if let ConfigResource::Group(group) = resource
        && home(&shard.metadata.borrow(), group) == Some(host.log.id())
    {
        let config = group_config::in_force(configs, &shard.settings.groups);
        host.step(group::Input::Config { group, config });
    }
}

/// The owner's side: answers for the groups that live here. Of the request nothing is kept while its answers are waited
/// for: members wait by the thousand.
pub async fn answer(shard: &Rc<Shard>, ask: Box<GroupAsk>) -> Vec<GroupFound> {
    for part in &ask.parts {
        if let Some(hosted) = shard.hosted(part.partition) {
            // The log may be opening still. One that cannot be opened has no host.
            drop(hosted.log().await);
        }
    }
    let Ok((mut found, mut missing)) = ask_hosts(shard, *ask) else { return Vec::new() };
    // Where they lie: taken out, each would be held twice.
    for Missing { place, call, rest } in &mut missing {
        let answer = call.await.map(|answer| std::mem::take(rest).fill(answer));
        found.push(GroupFound { place: *place, answer });
    }
    found
}

/// What became of a request to a group.
enum Asked {
    Answered(Box<group::Answer>),
    Waits(Waiting, topics::Rest),
}

/// What is still to come, and its place.
struct Missing {
    place: usize,
    call: Waiting,
    rest: topics::Rest,
}

/// Asks the coordinators of all parts, in their order.
fn ask_hosts(shard: &Rc<Shard>, ask: GroupAsk) -> Result<(Vec<GroupFound>, Vec<Missing>), Unanswerable> {
    let (header, body) = request::split(&ask.frame)?;
    let requests = request::read(&header, body)?;
    let budget = Budget::default();
    let (version, client_id, client) = (header.version, &*header.client_id, ask.client);
    let caller = Caller { version, client_id, client, budget: &budget };
    let (mut found, mut missing) = (Vec::new(), Vec::with_capacity(ask.parts.len()));
    for GroupPart { place, partition } in ask.parts {
        // A list has one request for all partitions.
        let Some(request) = requests.get(place).or(requests.last()) else { continue };
        match ask_host(shard, &caller, partition, request.clone()) {
            Asked::Answered(answer) => found.push(GroupFound { place, answer: Some(answer) }),
            Asked::Waits(call, rest) => missing.push(Missing { place, call, rest }),
        }
    }
    Ok((found, missing))
}

fn ask_host(
    shard: &Rc<Shard>,
    caller: &Caller<'_>,
    partition: PartitionId,
    request: group::Request<'_>,
) -> Asked {
    let host = shard.groups.hosts.borrow().get(&partition).cloned();
    let Some(host) = host.filter(|host| !host.is_over()) else {
        return Asked::Answered(Box::new(request.refused(ErrorCode::NotCoordinator)));
    };
    match topics::check(&shard.metadata.borrow(), caller.version, request, caller.budget) {
        topics::Checked::Answered(answer) => Asked::Answered(Box::new(answer)),
        topics::Checked::Ask(request, rest) => Asked::Waits(host.call(caller, request), rest),
    }
}

/// Where a group lives, if its partition is led here.
///
/// # Errors
/// NOT_COORDINATOR, also where the topic does not exist yet: only FindCoordinator creates it.
pub fn locate(shard: &Shard, group: &str) -> Result<(PartitionId, CoreId), ErrorCode> {
    let partition = home(&shard.metadata.borrow(), group).ok_or(ErrorCode::NotCoordinator)?;
    let owner = shard.ownership.borrow().owner(partition).ok_or(ErrorCode::NotCoordinator)?;
    Ok((partition, owner))
}

/// The partition that a group belongs to, once there is the topic.
pub fn home(image: &Image, group: &str) -> Option<PartitionId> {
    let topic = image.topic(OFFSETS_TOPIC)?;
    let count = i32::try_from(topic.partitions.len()).ok()?;
    Some(PartitionId { topic: topic.id, index: partition_for(group, count) })
}

/// Every partition of the topic that this broker leads, with its owner.
pub fn homes(shard: &Shard) -> Vec<(PartitionId, CoreId)> {
    let metadata = shard.metadata.borrow();
    let Some(topic) = metadata.topic(OFFSETS_TOPIC) else { return Vec::new() };
    let ownership = shard.ownership.borrow();
    let led = topic.ids().filter(|(_, partition)| partition.leader == Some(shard.settings.node_id));
    led.filter_map(|(id, _)| Some((id, ownership.owner(id)?))).collect()
}

/// Creates the topic unless it is there. Returns when every core has taken it up, so the first group of a cluster need
/// not be sent away to ask again, as Kafka does.
pub async fn create_topic(shard: &Rc<Shard>) {
    if shard.metadata.borrow().topic(OFFSETS_TOPIC).is_some() {
        return;
    }
    let answer = shard.ask_controller(ControllerRequest::CreateOffsetsTopic).await;
    if !matches!(answer, ControllerAnswer::Noted) {
        // The client is told to try again.
        rt::say!("corelog: {OFFSETS_TOPIC} could not be created; no group can be served without it");
    }
}

/// What a core's hosts hold, and what has happened there since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub groups: u64,
    pub offsets: u64,
    /// Calls without an answer.
    pub waiting: u64,
    pub counted: group::Counted,
}

pub fn counts(shard: &Shard) -> Counts {
    let mut counts = Counts { counted: shard.groups.tally.counted(), ..Counts::default() };
    for host in shard.groups.hosts.borrow().values() {
        let of = host.counts();
        counts.groups += of.groups;
        counts.offsets += of.offsets;
        counts.waiting += of.waiting;
    }
    counts
}

#[cfg(test)]
mod tests;
