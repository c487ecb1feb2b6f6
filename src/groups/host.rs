//! One coordinator with a log, a clock and callers.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use coord::group::regex::Pattern;
use coord::group::{
    self, Answer, Append, Budget, Call, CallId, Effects, Input, Now, Request, Resolve, SharedImage,
};
use coord::metadata::Topic;
use engine::ids::Offset;
use engine::log::Log;
use net::error_code::ErrorCode;
use rt::sync::{Event, oneshot};
use rt::{Class, Core, Instant, Slice};

use super::{Counts, Tally, load, unload, write};
use crate::shard::Shard;
use crate::shard::hosted::Hosted;
use crate::shard::join::before;

const NANOS_PER_MS: u64 = 1_000_000;

/// Who asks.
pub struct Caller<'a> {
    pub version: i16,
    pub client_id: &'a str,
    pub client: IpAddr,
    /// Of the request.
    pub budget: &'a Budget,
}

pub struct Host {
    core: Core,
    /// Topic and partition, for the operator.
    pub(super) name: String,
    pub(super) log: Log,
    coordinator: RefCell<group::Shard>,
    image: SharedImage,
    tally: Rc<Tally>,
    calls: RefCell<HashMap<CallId, oneshot::Sender<Box<Answer>>, ahash::RandomState>>,
    call_next: Cell<u64>,
    /// Decided and not yet in the log: the append's number, and its batch.
    pub(super) to_append: RefCell<VecDeque<(u64, Slice)>>,
    /// In the log and not known to be durable: the append's number, and its last offset.
    pub(super) to_commit: RefCell<VecDeque<(u64, Offset)>>,
    pub(super) appends: Event,
    pub(super) commits: Event,
    /// The deadline that the clock waits for.
    armed: Cell<Option<u64>>,
    /// There is an earlier one.
    rearm: Event,
    over: Cell<bool>,
}

impl Host {
    pub fn new(shard: &Shard, hosted: &Hosted, log: &Log) -> Rc<Host> {
        let image = shard.metadata.clone();
        Rc::new(Host {
            core: shard.core.clone(),
            name: format!("{}-{}", hosted.topic_name, hosted.id.index),
            log: log.clone(),
            coordinator: RefCell::new(group::Shard::new(shard.settings.groups.clone(), image.clone())),
            image,
            tally: shard.groups.tally.clone(),
            calls: RefCell::default(),
            call_next: Cell::new(0),
            to_append: RefCell::default(),
            to_commit: RefCell::default(),
            appends: Event::new(),
            commits: Event::new(),
            armed: Cell::new(None),
            rearm: Event::new(),
            over: Cell::new(false),
        })
    }

    /// Loads what the log holds, then serves. Calls that come meanwhile are told so.
    pub fn start(self: &Rc<Self>, shard: &Rc<Shard>) {
        let (host, shard) = (self.clone(), shard.clone());
        let work = async move {
            if let Err(why) = load::load(&host).await {
                rt::say!("corelog: the groups of {} are not served: {why}", host.name);
                if host.end() {
                    unload::unload(host).await;
                }
                return;
            }
            host.core.spawn(Class::Produce, write::append(shard, host.clone())).detach();
            host.core.spawn(Class::Produce, write::commit(host.clone())).detach();
            host.keep_time().await;
        };
        self.core.spawn(Class::Control, work).detach();
    }

    /// Nothing is begun any more. Whoever ends it, which is told by `true`, has it unloaded (`unload::unload`).
    pub fn end(self: &Rc<Self>) -> bool {
        if self.over.replace(true) {
            return false;
        }
        self.to_append.borrow_mut().clear();
        self.to_commit.borrow_mut().clear();
        self.appends.notify_all();
        self.commits.notify_all();
        self.rearm.notify_all();
        let unloading =
            self.coordinator.borrow_mut().step(self.now(), Input::Unload, &mut Effects::default());
        unloading.expect("only loading finds damage");
        true
    }

    /// A step of unloading: some of those who wait are sent elsewhere, or some of what is held is dropped. Whether there
    /// is more.
    pub(super) fn unload(self: &Rc<Self>) -> bool {
        let mut effects = Effects::default();
        let more = {
            let _guard = PanicEnds(self);
            let mut coordinator = self.coordinator.borrow_mut();
            let unloading = coordinator.step(self.now(), Input::Tick, &mut effects);
            unloading.expect("only loading finds damage");
            coordinator.deadline().is_some()
        };
        self.answer(effects.answers);
        if !more {
            self.calls.borrow_mut().clear();
        }
        more
    }

    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Asks. The answer may be there at once, or take as long as a rebalance.
    pub fn call(self: &Rc<Self>, caller: &Caller<'_>, request: Request<'_>) -> Waiting {
        let id = CallId(self.call_next.replace(self.call_next.get() + 1));
        let (sender, receiver) = oneshot::channel();
        self.calls.borrow_mut().insert(id, sender);
        let waiting = Waiting { host: self.clone(), id, receiver };
        let mut random = [0; 16];
        random[..8].copy_from_slice(&self.core.random_u64().to_be_bytes());
        random[8..].copy_from_slice(&self.core.random_u64().to_be_bytes());
        let call = Call {
            id,
            version: caller.version,
            client_id: caller.client_id,
            client_host: &host_text(caller.client),
            random,
            budget: caller.budget,
        };
        self.stepping(|coordinator, now, effects| coordinator.call(now, &call, request, effects));
        waiting
    }

    /// One step of the coordinator, and what it wants done.
    pub fn step(self: &Rc<Self>, input: Input<'_>) {
        self.stepping(|coordinator, now, effects| {
            coordinator.step(now, input, effects).expect("only loading finds damage");
        });
    }

    fn stepping(self: &Rc<Self>, step: impl FnOnce(&mut group::Shard, Now, &mut Effects)) {
        if self.over.get() {
            return;
        }
        let mut effects = Effects::default();
        {
            let _guard = PanicEnds(self);
            step(&mut self.coordinator.borrow_mut(), self.now(), &mut effects);
        }
        self.carry_out(effects);
    }

    /// A step of loading.
    pub(super) fn load(&self, input: Input<'_>) -> Result<(), group::Damaged> {
        let mut effects = Effects::default();
        self.coordinator.borrow_mut().step(self.now(), input, &mut effects)
    }

    /// The append of that number was not made; those that were decided after it never will be.
    pub(super) fn failed(self: &Rc<Self>, seq: u64, why: ErrorCode) {
        self.to_append.borrow_mut().clear();
        self.step(Input::Failed { seq, why });
    }

    fn carry_out(self: &Rc<Self>, effects: Effects) {
        self.tally.take_up(self.core.now(), &effects.counted, &effects.removed);
        let oversized = self.queue(&effects.appends);
        self.answer(effects.answers);
        for resolve in effects.resolves {
            self.resolve(resolve);
        }
        let (deadline, armed) = (self.coordinator.borrow().deadline(), self.armed.get());
        if deadline.is_some_and(|deadline| armed.is_none_or(|armed| deadline < armed)) {
            self.rearm.notify_all();
        }
        if let Some(seq) = oversized {
            // Nothing has been decided since: what others wait for is not touched.
            self.step(Input::Failed { seq, why: ErrorCode::MessageTooLarge });
        }
    }

    fn answer(&self, answers: Vec<(CallId, Box<Answer>)>) {
        for (id, answer) in answers {
            let sender = self.calls.borrow_mut().remove(&id);
            if let Some(sender) = sender {
                // The caller may go away at this very moment.
                drop(sender.send(answer));
            }
        }
    }

    /// Gives batches to who appends them, in order, up to one that the log would refuse for its size.
    fn queue(&self, appends: &[Append]) -> Option<u64> {
        if appends.is_empty() {
            return None;
        }
        let bytes_max = usize::try_from(self.log.config().max_message_bytes).unwrap_or(usize::MAX);
        let mut oversized = None;
        for append in appends {
            let batch = write::batch_of(&append.records, self.core.wall_ms());
            if batch.len() > bytes_max {
                let bytes = batch.len();
                rt::say!(
                    "corelog: a record of {bytes} bytes is larger than the max.message.bytes of {}",
                    self.name
                );
                oversized = Some(append.seq);
                break;
            }
            self.to_append.borrow_mut().push_back((append.seq, batch));
        }
        self.appends.notify_all();
        oversized
    }

    async fn keep_time(self: &Rc<Self>) {
        while !self.over.get() {
            let rearmed = self.rearm.listen();
            let deadline = self.coordinator.borrow().deadline();
            self.armed.set(deadline);
            match deadline {
                None => rearmed.await,
                Some(at) if at <= self.now().ms => {
                    self.step(Input::Tick);
                    self.core.yield_now().await;
                }
                Some(at) => {
                    let at = Instant::from_nanos(at.saturating_mul(NANOS_PER_MS));
                    before(rearmed, self.core.sleep_until(at)).await;
                }
            }
        }
    }

    /// Looks for the topics that expressions match, on a helper thread: there may be many of both.
    fn resolve(self: &Rc<Self>, resolve: Resolve) {
        let topics: Vec<Arc<Topic>> = self.image.borrow().topics().cloned().collect();
        let Resolve { group, patterns } = resolve;
        let host = self.clone();
        let work = async move {
            let asked = patterns.clone();
            let found =
                host.core.offload(move || patterns.into_iter().map(|one| matched(one, &topics)).collect());
            // Work that panicked matches nothing, and is asked for again in its time.
            let found: Vec<(String, Vec<String>)> =
                found.await.unwrap_or_else(|_| asked.into_iter().map(|one| (one, Vec::new())).collect());
            host.step(Input::Resolved { group: &group, patterns: &found });
        };
        self.core.spawn(Class::Background, work).detach();
    }

    fn now(&self) -> Now {
        Now { ms: self.core.now().as_nanos() / NANOS_PER_MS, unix_ms: self.core.wall_ms() }
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub fn counts(&self) -> Counts {
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let coordinator = self.coordinator.borrow();
        Counts {
            groups: number(coordinator.group_count()),
            offsets: number(coordinator.offset_count()),
            waiting: number(self.calls.borrow().len()),
            counted: group::Counted::default(),
        }
    }
}

fn matched(pattern: String, topics: &[Arc<Topic>]) -> (String, Vec<String>) {
    // The coordinator has refused what is no pattern.
    let names = Pattern::new(&pattern).map(|compiled| {
        let names = topics.iter().filter(|topic| compiled.matches(&topic.name));
        names.map(|topic| topic.name.clone()).collect()
    });
    (pattern, names.unwrap_or_default())
}

/// An address as Java shows it: a slash, and eight groups without abbreviation for IPv6.
fn host_text(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|segment| format!("{segment:x}"));
            format!("/{}", groups.join(":"))
        }
    }
}

/// A call without an answer as yet. The host forgets it if the caller goes away.
pub struct Waiting {
    host: Rc<Host>,
    id: CallId,
    receiver: oneshot::Receiver<Box<Answer>>,
}

impl Future for Waiting {
    /// None where the host ended without one.
    type Output = Option<Box<Answer>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Box<Answer>>> {
        Pin::new(&mut self.receiver).poll(cx).map(Result::ok)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.host.calls.borrow_mut().remove(&self.id);
    }
}

/// After a panic half-way through a step the coordinator knows nothing for sure: it serves no more until it is loaded
/// anew, from disk, by a restart.
struct PanicEnds<'a>(&'a Host);

impl Drop for PanicEnds<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            rt::say!(
                "corelog: the groups of {} are not served until a restart: a step panicked",
                self.0.name
            );
            self.0.over.set(true);
            self.0.to_append.borrow_mut().clear();
            self.0.calls.borrow_mut().clear();
            self.0.appends.notify_all();
            self.0.commits.notify_all();
            self.0.rearm.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_java_shows_them() {
        let cases = [
            ("127.0.0.1", "/127.0.0.1"),
            ("::1", "/0:0:0:0:0:0:0:1"),
            ("fe80::a", "/fe80:0:0:0:0:0:0:a"),
            ("::ffff:10.0.0.1", "/10.0.0.1"),
        ];
        for (address, expect) in cases {
            assert_eq!(host_text(address.parse().expect("an address")), expect);
        }
    }
}
