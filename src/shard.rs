//! One core's part of the broker: the partitions it owns, its view of the metadata, and the mail of the other cores.
//!
//! Invariants:
//! - A partition's log is touched by its owner only; every other core asks by mail, and asking oneself is a call.
//! - Metadata changes by applying committed commands in their order, on every core, and in no other way.
//! - No reference into this state lives across an await.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use coord::metadata::config::Defaults;
use coord::metadata::{Change, Image, Topic};
use coord::producer_ids;
use engine::folder::Folder;
use engine::ids::PartitionId;
use engine::log::LogConfig;
use engine::store::Store;
use rt::sync::{Event, Permit, Semaphore, oneshot};
use rt::{Class, Core, CoreId, Instant, Port, Task};

use crate::connection::{self, Connections};
use crate::controller::{Controller, ControllerAnswer, ControllerRequest};
use crate::fetch_session::Sessions;
use crate::groups::{self, Groups};
use crate::metrics::Metrics;
use crate::settings::{Limits, Settings};

pub mod hosted;
pub mod join;
pub mod losses;
pub mod mail;
mod owner;
pub mod ownership;
pub(crate) mod space;

use hosted::Hosted;
use losses::Losses;
use mail::{Answer, Ask, Mail};
use ownership::Ownership;

/// A question that was asked: the way to its answer.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Answer> + 'a>>;

/// The core that runs the controller and keeps the metadata log.
pub const CONTROLLER_CORE: CoreId = CoreId(0);

/// What a core needs to begin.
pub struct Beginning {
    pub folder: Arc<Folder>,
    pub image: Image,
    pub address: std::net::SocketAddr,
}

/// What came of opening the logs of a core.
#[derive(Debug, Default)]
pub struct Opened {
    pub partitions: usize,
    /// Read behind the checkpoints to find the logs' ends.
    pub searched_bytes: u64,
    /// What was found damaged, and mended.
    pub notes: Vec<String>,
    /// What went wrong with which.
    pub failed: Vec<String>,
}

/// Admission of large requests by their bytes, first come first served.
pub struct RequestMemory {
    pages: Semaphore,
    pages_max: usize,
}

impl RequestMemory {
    /// The part of the memory for produce that requests may hold. The rest is for what they append: a request that holds
    /// memory while it waits for more of the same must be sure that some comes back without it.
    const SHARE: usize = 3;

    fn new(produce_bytes: usize) -> RequestMemory {
        let pages_max = (produce_bytes / RequestMemory::SHARE / rt::PAGE).max(1);
        RequestMemory { pages: Semaphore::new(pages_max), pages_max }
    }

    /// Requests that wait to be admitted.
    pub fn waiting(&self) -> usize {
        self.pages.waiting()
    }

    /// Waits until a request of `bytes` may be received. One that is larger than the whole share is admitted alone.
    pub async fn admit(&self, bytes: usize) -> Permit {
        self.pages.acquire(bytes.div_ceil(rt::PAGE).min(self.pages_max)).await
    }
}

pub struct Shard {
    pub core: Core,
    pub settings: Arc<Settings>,
    /// Shared with the coordinators of groups.
    pub metadata: Rc<RefCell<Image>>,
    defaults: RefCell<Rc<Defaults>>,
    pub ownership: RefCell<Ownership>,
    pub sessions: RefCell<Sessions>,
    pub producer_ids: RefCell<producer_ids::Block>,
    pub metrics: Metrics,
    pub(crate) losses: RefCell<Losses>,
    /// Topics that are being created because clients asked for them.
    pub(crate) creating: RefCell<std::collections::BTreeSet<String>>,
    pub(crate) groups: Groups,
    /// Fetches that wait for data.
    pub(crate) fetches_waiting: Semaphore,
    pub(crate) store: Store,
    hosted: RefCell<BTreeMap<PartitionId, Rc<Hosted>>>,
    controller: RefCell<Option<Rc<Controller>>>,
    pub(crate) connections: Connections,
    pub(crate) port: Port<Mail>,
    pending: RefCell<HashMap<u64, oneshot::Sender<Answer>, ahash::RandomState>>,
    question_next: Cell<u64>,
    /// Work for other cores that they may call off.
    working: RefCell<HashMap<(CoreId, u64), Task<()>, ahash::RandomState>>,
    /// Memory that large requests may hold at one time, so that their own appends always find some.
    pub(crate) request_memory: RequestMemory,
    pub(crate) ended: Event,
}

impl Shard {
    pub fn new(
        core: Core,
        settings: Arc<Settings>,
        store: Store,
        metadata: Image,
        port: Port<Mail>,
    ) -> Rc<Shard> {
        let request_memory = RequestMemory::new(core.buffers().largest(rt::Reservation::Produce));
        let fetches_waiting = Semaphore::new(settings.limits.fetch_waiters_max);
        let defaults = settings.defaults.with_dynamic(&metadata, settings.node_id);
        Rc::new(Shard {
            defaults: RefCell::new(Rc::new(defaults)),
            ownership: RefCell::new(Ownership::new(settings.core_count)),
            sessions: RefCell::new(Sessions::new(settings.limits.fetch_sessions_max)),
            core,
            settings,
            metadata: Rc::new(RefCell::new(metadata)),
            producer_ids: RefCell::default(),
            metrics: Metrics::default(),
            losses: RefCell::default(),
            creating: RefCell::default(),
            groups: Groups::default(),
            fetches_waiting,
            store,
            hosted: RefCell::default(),
            controller: RefCell::new(None),
            connections: Connections::default(),
            port,
            pending: RefCell::default(),
            question_next: Cell::new(0),
            working: RefCell::default(),
            request_memory,
            ended: Event::new(),
        })
    }

    /// Makes this core the controller's.
    pub fn set_controller(&self, controller: Rc<Controller>) {
        assert_eq!(self.core.id(), CONTROLLER_CORE);
        *self.controller.borrow_mut() = Some(controller);
    }

    /// Asks the owner of something, which may be this very core.
    pub fn ask(self: &Rc<Self>, to: CoreId, ask: Ask) -> Asking<'_> {
        if to == self.core.id() {
            return owner::answer(self.clone(), ask);
        }
        Box::pin(async move {
            let id = self.question_next.get();
            self.question_next.set(id + 1);
            let (sender, receiver) = oneshot::channel();
            self.pending.borrow_mut().insert(id, sender);
            let forget = Forget { shard: self, to, id };
            if let Err(mail) = self.port.try_send(to, Mail::Ask { id, ask, sent: self.core.now() }) {
                // The mail is large, and a queue is seldom full.
                Box::pin(self.port.send(to, mail)).await;
            }
            let answer = receiver.await.unwrap_or(Answer::Failed);
            drop(forget);
            answer
        })
    }

    /// Asks the controller.
    pub async fn ask_controller(self: &Rc<Self>, request: ControllerRequest) -> ControllerAnswer {
        match self.ask(CONTROLLER_CORE, Ask::Control(request)).await {
            Answer::Control(answer) => answer,
            _ => ControllerAnswer::Unavailable,
        }
    }

    /// Reads this core's mail for as long as the broker runs.
    pub async fn read_mail(self: Rc<Self>) {
        loop {
            let (from, mail) = self.port.recv().await;
            match mail {
                Mail::Answer { id, answer, sent } => {
                    if let Some(hop) = answer.hop() {
                        self.metrics.stage(hop, sent, self.core.now());
                    }
                    // The asker may have gone away meanwhile.
                    let sender = self.pending.borrow_mut().remove(&id);
                    if let Some(sender) = sender {
                        drop(sender.send(answer));
                    }
                }
                Mail::Ask { id, ask, sent } => self.clone().work_for(from, id, ask, sent),
                Mail::Squeeze => connection::squeeze(&self),
                Mail::End => self.ended.notify_all(),
                Mail::Forget { id } => {
                    let task = self.working.borrow_mut().remove(&(from, id));
                    if let Some(task) = task {
                        task.abort();
                    }
                }
            }
        }
    }

    fn work_for(self: Rc<Self>, from: CoreId, id: u64, ask: Ask, sent: Instant) {
        let class = match ask {
            Ask::Control(_) | Ask::Apply(_) | Ask::Begin(_) | Ask::Stop | Ask::Metrics => Class::Control,
            Ask::Produce(_) | Ask::Group(_) | Ask::DeleteRecords(_) => Class::Produce,
            Ask::Fetch(_) | Ask::Watch(_) | Ask::Offsets(_) | Ask::EpochEnds(_) => Class::Fetch,
        };
        // Metadata changes take effect in the order of the mail, before anything that comes after them.
        let ask = match ask {
            Ask::Apply(changes) => {
                self.apply(&changes);
                Ask::Apply(changes)
            }
            other => other,
        };
        let may_be_forgotten = matches!(ask, Ask::Watch(_) | Ask::Group(_));
        let task = self.core.spawn(class, work(self.clone(), from, id, ask, sent));
        if may_be_forgotten {
            self.working.borrow_mut().insert((from, id), task);
        }
    }

    /// Takes up committed changes of the metadata and starts opening and closing logs as they demand.
    pub fn apply(self: &Rc<Self>, changes: &[Change]) {
        for change in changes {
            self.metadata.borrow_mut().absorb(change);
            if matches!(change, Change::Configs { .. }) {
                let defaults =
                    self.settings.defaults.with_dynamic(&self.metadata.borrow(), self.settings.node_id);
                *self.defaults.borrow_mut() = Rc::new(defaults);
            }
            self.store.set_partitions(self.metadata.borrow().partition_count());
            hosted::follow(self, change);
        }
        groups::follow(self, changes);
    }

    pub(crate) fn controller(&self) -> Option<Rc<Controller>> {
        self.controller.borrow().clone()
    }

    /// A partition that this core owns.
    pub(crate) fn hosted(&self, partition: PartitionId) -> Option<Rc<Hosted>> {
        self.hosted.borrow().get(&partition).cloned()
    }

    pub(crate) fn host(&self, partition: PartitionId, hosted: Rc<Hosted>) {
        self.hosted.borrow_mut().insert(partition, hosted);
    }

    pub(crate) fn unhost(&self, partition: PartitionId) -> Option<Rc<Hosted>> {
        self.hosted.borrow_mut().remove(&partition)
    }

    /// Hosts everything that the metadata gives to this core: at start-up.
    pub fn host_all(self: &Rc<Self>) {
        let topics: Vec<_> = self.metadata.borrow().topics().cloned().collect();
        topics.iter().for_each(|topic| hosted::host_all(self, topic));
    }

    /// Waits until every log of this core is open, or has failed to open.
    pub async fn all_open(&self) {
        for hosted in self.all_hosted() {
            // A log that fails to open says so to those who ask for it.
            drop(hosted.log().await);
        }
    }

    /// The same for those that these changes brought: a log that takes long holds up no other command.
    pub async fn brought_open(&self, changes: &[Change]) {
        for change in changes {
            let (topic, indexes) = match change {
                Change::TopicCreated(topic) => (topic, None),
                Change::Partitions { topic, indexes } => (topic, Some(indexes)),
                _ => continue,
            };
            for (id, _) in topic.ids().filter(|(id, _)| indexes.is_none_or(|some| some.contains(&id.index))) {
                let hosted = self.hosted(id).filter(|hosted| !hosted.is_recovering());
                if let Some(hosted) = hosted {
                    drop(hosted.log().await);
                }
            }
        }
    }

    /// Closes what this core owns. False if something could not be closed cleanly.
    pub async fn stop(&self) -> bool {
        groups::close_all(self).await;
        match self.store.close().await {
            Ok(()) => true,
            Err(error) => {
                rt::say!("corelog: core {} could not close its logs cleanly: {error}", self.core.id().0);
                false
            }
        }
    }

    /// Ends another core's main task.
    pub(crate) async fn end(&self, core: CoreId) {
        self.port.send(core, Mail::End).await;
    }

    /// Answers a question that came before this shard existed.
    pub(crate) async fn answer(&self, to: CoreId, id: u64, answer: Answer) {
        self.port.send(to, Mail::Answer { id, answer, sent: self.core.now() }).await;
    }

    /// The defaults of topics, with what was changed while the broker ran.
    pub fn defaults(&self) -> Rc<Defaults> {
        self.defaults.borrow().clone()
    }

    /// What a log of this topic has to know now.
    pub(crate) fn log_config(&self, topic: &Topic) -> LogConfig {
        self.settings.log_config(topic, &self.defaults.borrow())
    }

    pub fn limits(&self) -> &Limits {
        &self.settings.limits
    }

    /// All partitions that this core owns, in order.
    pub fn all_hosted(&self) -> Vec<Rc<Hosted>> {
        self.hosted.borrow().values().cloned().collect()
    }
}

/// Works on a question of another core, and answers it.
fn work(
    shard: Rc<Shard>,
    from: CoreId,
    id: u64,
    ask: Ask,
    sent: Instant,
) -> impl Future<Output = ()> + 'static {
    let hop = ask.hop();
    let answering = owner::answer(shard.clone(), ask);
    async move {
        if let Some(hop) = hop {
            shard.metrics.stage(hop, sent, shard.core.now());
        }
        let mut reply = Reply { shard, to: from, id, answer: Answer::Failed };
        reply.answer = answering.await;
    }
}

/// Forgets a question whose asker went away.
struct Forget<'a> {
    shard: &'a Rc<Shard>,
    to: CoreId,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let unanswered = self.shard.pending.borrow_mut().remove(&self.id).is_some();
        if unanswered {
            // Best effort: what is not called off ends at its own timeout.
            drop(self.shard.port.try_send(self.to, Mail::Forget { id: self.id }));
        }
    }
}

/// Sends an answer, also when the work on it panicked.
struct Reply {
    shard: Rc<Shard>,
    to: CoreId,
    id: u64,
    answer: Answer,
}

impl Drop for Reply {
    fn drop(&mut self) {
        let answer = std::mem::replace(&mut self.answer, Answer::Failed);
        self.shard.working.borrow_mut().remove(&(self.to, self.id));
        let mail = Mail::Answer { id: self.id, answer, sent: self.shard.core.now() };
        let Err(mail) = self.shard.port.try_send(self.to, mail) else { return };
        let (shard, to) = (self.shard.clone(), self.to);
        self.shard.core.spawn(Class::Control, async move { shard.port.send(to, mail).await });
    }
}

#[cfg(test)]
pub(crate) mod tests;
