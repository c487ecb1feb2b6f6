//! The partitions that a core owns: opened when the metadata says so, closed and removed when it says so.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coord::metadata::{Change, ConfigResource, Topic};
use engine::ids::{LeaderEpoch, PartitionId};
use engine::log::{Failure, Log, LogConfig, OpenError};
use engine::store::OpenPartition;
use net::error_code::ErrorCode;
use rt::sync::Event;
use rt::{Class, Instant};

use crate::groups;
use crate::shard::Shard;
use crate::shard::losses::{self, Loss};
use crate::shard::space;

/// A log that panics again and again stays offline after so many recoveries, until the broker is restarted.
const RECOVERIES_MAX: u32 = 5;
/// How often at most it is said of one partition that it cannot be read.
const UNREADABLE_EVERY: Duration = Duration::from_secs(10);

/// One partition on its owner.
pub struct Hosted {
    pub id: PartitionId,
    pub topic_name: String,
    state: RefCell<State>,
    settled: Event,
    /// It is opened again once this broker leads it in an epoch above this one.
    reopens_above: Cell<Option<LeaderEpoch>>,
    /// The log that panicked, while it waits for that epoch.
    retired: RefCell<Option<Log>>,
    recoveries: Cell<u32>,
    unreadable_told: Cell<Option<Instant>>,
    watches: RefCell<BTreeMap<u64, Rc<Event>>>,
    watch_next: Cell<u64>,
}

enum State {
    Opening,
    Open(Log),
    /// What clients are told, and why for the operator.
    Failed(ErrorCode, String),
    Deleted,
}

impl Hosted {
    fn new(id: PartitionId, topic_name: String) -> Rc<Hosted> {
        Rc::new(Hosted {
            id,
            topic_name,
            state: RefCell::new(State::Opening),
            settled: Event::new(),
            reopens_above: Cell::new(None),
            retired: RefCell::new(None),
            recoveries: Cell::new(0),
            unreadable_told: Cell::new(None),
            watches: RefCell::default(),
            watch_next: Cell::new(0),
        })
    }

    /// The log, once it is open.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR where it could not be opened, UNKNOWN_TOPIC_OR_PARTITION where it was deleted.
    pub async fn log(&self) -> Result<Log, ErrorCode> {
        loop {
            match &*self.state.borrow() {
                State::Opening => {}
                State::Open(log) => return Ok(log.clone()),
                State::Failed(code, _) => return Err(*code),
                State::Deleted => return Err(ErrorCode::UnknownTopicOrPartition),
            }
            self.settled.wait().await;
        }
    }

    /// The log if it is open now.
    pub fn open_log(&self) -> Option<Log> {
        match &*self.state.borrow() {
            State::Open(log) => Some(log.clone()),
            State::Opening | State::Failed(..) | State::Deleted => None,
        }
    }

    pub fn is_opening(&self) -> bool {
        matches!(&*self.state.borrow(), State::Opening)
    }

    /// It was served before, failed, and is searched anew: that may take as long as its log is.
    pub fn is_recovering(&self) -> bool {
        self.recoveries.get() > 0
    }

    /// Why this partition is not served, if that is so.
    pub fn failure(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Failed(_, why) => Some(why.clone()),
            State::Opening | State::Open(_) | State::Deleted => None,
        }
    }

    /// Tells the operator that it cannot be read: not each time that a consumer tries again.
    pub fn tell_unreadable(&self, now: Instant, why: &str) {
        let told = self.unreadable_told.get();
        if told.is_none_or(|told| now - told >= UNREADABLE_EVERY) {
            self.unreadable_told.set(Some(now));
            rt::say!("corelog: {}-{} could not be read: {why}", self.topic_name, self.id.index);
        }
    }

    /// Rings `event` at the next change of this partition, until the guard is dropped.
    pub fn watch(self: &Rc<Self>, event: Rc<Event>) -> Watch {
        let id = self.watch_next.get();
        self.watch_next.set(id + 1);
        self.watches.borrow_mut().insert(id, event);
        Watch { hosted: self.clone(), id }
    }

    fn ring(&self) {
        self.watches.borrow().values().for_each(|event| event.notify_all());
    }

    fn settle(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.settled.notify_all();
        self.ring();
    }
}

/// A registered interest in one partition.
pub struct Watch {
    hosted: Rc<Hosted>,
    id: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hosted.watches.borrow_mut().remove(&self.id);
    }
}

/// Does what a change of the metadata asks of this core.
pub fn follow(shard: &Rc<Shard>, change: &Change) {
    match change {
        Change::TopicCreated(topic) => host_each(shard, topic, Telling::AtOnce),
        Change::Partitions { topic, indexes } => {
            host_each(shard, topic, Telling::AtOnce);
            indexes.iter().for_each(|&index| recover(shard, topic, index));
        }
        Change::TopicDeleted(topic) => topic.ids().for_each(|(partition, _)| remove(shard, partition)),
        Change::TopicConfigs(topic) => reconfigure(shard, topic),
        Change::Configs { resource: ConfigResource::Brokers | ConfigResource::Broker(_), .. } => {
            reconfigure_all(shard);
        }
        Change::Configs { resource: ConfigResource::Group(_), .. }
        | Change::Broker(_)
        | Change::BrokerGone(_)
        | Change::Feature { .. }
        | Change::ProducerIds { .. } => {}
    }
}

/// When the operator hears of a log that cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Telling {
    AtOnce,
    /// With all others, in the banner of the start.
    InBanner,
}

/// At start: hosts those partitions of a topic that this broker leads. What cannot be opened is the banner's to tell.
pub fn host_all(shard: &Rc<Shard>, topic: &Topic) {
    host_each(shard, topic, Telling::InBanner);
}

/// Hosts those partitions of a topic that this broker leads and this core does not know yet.
fn host_each(shard: &Rc<Shard>, topic: &Topic, telling: Telling) {
    for (id, partition) in topic.ids() {
        if partition.leader == Some(shard.settings.node_id) {
            host(shard, topic, id, partition.leader_epoch, telling);
        }
    }
}

/// Starts opening the log of a partition if it falls to this core.
fn host(
    shard: &Rc<Shard>,
    topic: &Topic,
    partition: PartitionId,
    leader_epoch: LeaderEpoch,
    telling: Telling,
) {
    let owner = shard.ownership.borrow_mut().place(partition);
    if owner != shard.core.id() || shard.hosted(partition).is_some() {
        return;
    }
    let hosted = Hosted::new(partition, topic.name.clone());
    let config = shard.log_config(topic);
    shard.host(partition, hosted.clone());
    let shard = shard.clone();
    shard
        .core
        .clone()
        .spawn(Class::Control, async move { open(shard, hosted, config, leader_epoch, telling).await });
}

async fn open(
    shard: Rc<Shard>,
    hosted: Rc<Hosted>,
    config: LogConfig,
    leader_epoch: LeaderEpoch,
    telling: Telling,
) {
    let how =
        OpenPartition { id: hosted.id, topic_name: hosted.topic_name.clone(), config, epoch: leader_epoch };
    let (store, retired) = (shard.store.clone(), hosted.retired.take());
    // A task of its own: a panic in the recovery ends there, and this partition is not served.
    let opened = shard.core.spawn(Class::Control, async move {
        match retired {
            Some(retired) => store.reopen_log(retired, how).await,
            None => store.open_log(how).await,
        }
    });
    let opened = match opened.await {
        Ok(opened) => opened.map_err(|error: OpenError| (error.is_no_space(), error.to_string())),
        Err(panicked) => Err((false, format!("opening it panicked: {panicked}"))),
    };
    if matches!(&*hosted.state.borrow(), State::Deleted) {
        // Deleted while it was opening.
        return delete(&shard, &hosted).await;
    }
    match opened {
        Ok(log) => {
            // The topic's configs may have changed while it was opening.
            let config =
                shard.metadata.borrow().topic_by_id(hosted.id.topic).map(|topic| shard.log_config(topic));
            config.into_iter().for_each(|config| log.set_config(config));
            hosted.settle(State::Open(log.clone()));
            groups::opened(&shard, &hosted, &log);
            pump(shard, hosted, log).await;
        }
        Err((no_space, why)) => {
            if telling == Telling::AtOnce {
                rt::say!("corelog: {}-{} is not served: {why}", hosted.topic_name, hosted.id.index);
            }
            hosted.settle(State::Failed(ErrorCode::KafkaStorageError, why));
            match no_space {
                true => {
                    space::returns(&shard).await;
                    if matches!(&*hosted.state.borrow(), State::Deleted) {
                        return;
                    }
                    hosted.reopens_above.set(Some(leader_epoch));
                    losses::report(&shard, hosted.id, Loss::Recovering);
                }
                false => losses::report(&shard, hosted.id, Loss::Offline),
            }
        }
    }
}

/// Wakes those who wait for news of a partition, for as long as its log is served.
async fn pump(shard: Rc<Shard>, hosted: Rc<Hosted>, log: Log) {
    let moved = log.subscribe();
    loop {
        let moving = moved.listen();
        if hosted.open_log().is_none() {
            return;
        }
        if let Some(failure) = log.failure() {
            return lose(&shard, &hosted, log, failure);
        }
        moving.await;
        hosted.ring();
    }
}

/// A log that failed is not served any more. After a panic it is opened again from disk, once the controller has given
/// this broker a new epoch for it (hazards A1, A14). After an error of the disk it stays offline until a restart: what a
/// failed write or fsync left there is known to nobody, and trying again would only hide it.
fn lose(shard: &Rc<Shard>, hosted: &Rc<Hosted>, log: Log, failure: Failure) {
    let name = format!("{}-{}", hosted.topic_name, hosted.id.index);
    hosted.settle(State::Failed(ErrorCode::KafkaStorageError, failure.why.clone()));
    groups::closed(shard, hosted.id);
    let recoveries = hosted.recoveries.get();
    if failure.panicked && recoveries < RECOVERIES_MAX {
        rt::say!("corelog: {name} is recovered from disk in a new epoch: {}", failure.why);
        hosted.recoveries.set(recoveries + 1);
        hosted.reopens_above.set(Some(log.leader_epoch()));
        *hosted.retired.borrow_mut() = Some(log);
        losses::report(shard, hosted.id, Loss::Recovering);
    } else {
        rt::say!("corelog: {name} is offline until the broker is restarted: {}", failure.why);
        losses::report(shard, hosted.id, Loss::Offline);
    }
}

/// Opens the log of a partition that waits for a new epoch, now that there is one.
fn recover(shard: &Rc<Shard>, topic: &Topic, index: i32) {
    let Some(hosted) = shard.hosted(PartitionId { topic: topic.id, index }) else { return };
    let Some(partition) = topic.partition(index) else { return };
    let waits = hosted.reopens_above.get().is_some_and(|epoch| epoch < partition.leader_epoch);
    if !waits || partition.leader != Some(shard.settings.node_id) {
        return;
    }
    hosted.reopens_above.set(None);
    hosted.settle(State::Opening);
    let (config, epoch, shard) = (shard.log_config(topic), partition.leader_epoch, shard.clone());
    shard
        .core
        .clone()
        .spawn(Class::Control, async move { open(shard, hosted, config, epoch, Telling::AtOnce).await });
}

fn remove(shard: &Rc<Shard>, partition: PartitionId) {
    shard.ownership.borrow_mut().remove(partition);
    let Some(hosted) = shard.unhost(partition) else { return };
    groups::closed(shard, partition);
    let opening = matches!(&*hosted.state.borrow(), State::Opening);
    hosted.settle(State::Deleted);
    if !opening {
        let shard = shard.clone();
        shard.core.clone().spawn(Class::Background, async move { delete(&shard, &hosted).await });
    }
}

async fn delete(shard: &Rc<Shard>, hosted: &Hosted) {
    if let Err(error) = shard.store.delete_log(hosted.id, &hosted.topic_name).await {
        rt::say!("corelog: files of a deleted partition could not be removed: {error}");
    }
}

fn reconfigure(shard: &Rc<Shard>, topic: &Topic) {
    let config = shard.log_config(topic);
    for hosted in shard.all_hosted() {
        if hosted.id.topic == topic.id
            && let Some(log) = hosted.open_log()
        {
            log.set_config(config.clone());
        }
    }
}

/// The defaults of all topics changed.
fn reconfigure_all(shard: &Rc<Shard>) {
    for hosted in shard.all_hosted() {
        let topic = shard.metadata.borrow().topic_by_id(hosted.id.topic).cloned();
        if let (Some(topic), Some(log)) = (topic, hosted.open_log()) {
            log.set_config(shard.log_config(&topic));
        }
    }
}
