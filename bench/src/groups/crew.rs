//! Members of one group, each a task with its own connection that heartbeats until it is told to leave.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use net::wire::Uuid;
use rt::sync::Event;
use rt::{Class, Core};

use super::ownership::Ownership;
use super::{Scene, classic, consumer, coordinator, new_group};
use crate::cli::{self, Protocol};
use crate::histogram::Latencies;
use crate::link::{Error, Link, within};
use crate::progress::{Pace, Patience, Progress};
use crate::report::Report;
use crate::topic::describe_code;

/// How long a group may stand still before a run gives up: longer than any rebalance timeout here.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);
const SETTLE_POLL: Duration = Duration::from_millis(2);
/// How long those that have not joined yet are waited for, and an answer of theirs.
pub const REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);
pub const ANSWER_WAIT: Duration = Duration::from_secs(90);
const DELAY_CONFIG: &str = "group.initial.rebalance.delay.ms";

pub struct Crew {
    core: Core,
    pub group: String,
    pub topic: String,
    pub topic_id: Uuid,
    pub partitions: Vec<i32>,
    pub session_timeout: Duration,
    protocol: Protocol,
    heartbeat: Duration,
    coordinator: SocketAddr,
    ownership: RefCell<Ownership>,
    leaving: RefCell<BTreeSet<usize>>,
    /// Somebody is to leave: consumers do so when they are closed, not with their next heartbeat.
    dismissed: Event,
    living: Cell<usize>,
    /// A member's name and generation or epoch, for its commits.
    standing: RefCell<Vec<Option<(String, i32)>>>,
    failure: RefCell<Option<Error>>,
}

/// What a member does next.
pub enum Next {
    AtOnce,
    AfterHeartbeat,
}

enum Speech {
    Classic(classic::Member),
    Consumer(consumer::Member),
}

/// One member's hold on the crew.
pub struct Hands {
    pub crew: Rc<Crew>,
    pub index: usize,
}

impl Hands {
    pub fn take(&self, partitions: &[i32]) {
        self.crew.ownership.borrow_mut().take(self.index, partitions, self.crew.now());
    }

    pub fn give_up(&self, partitions: &[i32]) {
        self.crew.ownership.borrow_mut().give_up(self.index, partitions, self.crew.now());
    }

    pub fn give_up_all(&self) {
        self.crew.ownership.borrow_mut().give_up_all(self.index, self.crew.now());
    }

    pub fn held(&self) -> Vec<i32> {
        self.crew.ownership.borrow().held_by(self.index)
    }

    /// The member's id, and the generation or epoch it is in.
    pub fn stands(&self, member_id: &str, generation: i32) {
        let mut standing = self.crew.standing.borrow_mut();
        if standing.len() <= self.index {
            standing.resize(self.index + 1, None);
        }
        standing[self.index] = Some((member_id.to_owned(), generation));
    }

    pub fn refused(&self, what: &str, code: i16) -> Error {
        Error::Protocol(format!(
            "{what} of member {} of group {} was answered {}",
            self.index,
            self.crew.group,
            describe_code(code)
        ))
    }
}

impl Crew {
    /// Finds the coordinator. `at_most` is how many members there will be at once.
    pub async fn gather(scene: &mut Scene, options: &cli::Members, at_most: u32) -> Result<Rc<Crew>, Error> {
        let partitions = scene.topic.partitions();
        if partitions.len() < at_most as usize {
            return Err(Error::Protocol(format!(
                "topic {} has {} partitions: too few for {at_most} members; give --topic another name, or --partitions",
                scene.topic.name,
                partitions.len()
            )));
        }
        let group = options.group.clone().unwrap_or_else(new_group);
        let (coordinator, _) = coordinator::find(&mut scene.link, &group).await?;
        Ok(Rc::new(Crew {
            core: scene.core.clone(),
            group,
            topic: scene.topic.name.clone(),
            topic_id: scene.topic.id,
            ownership: RefCell::new(Ownership::new(partitions.len())),
            partitions,
            session_timeout: options.session_timeout,
            protocol: options.protocol,
            heartbeat: options.heartbeat,
            coordinator: coordinator.address,
            leaving: RefCell::default(),
            dismissed: Event::new(),
            living: Cell::new(0),
            standing: RefCell::default(),
            failure: RefCell::new(None),
        }))
    }

    pub async fn connect(&self) -> Result<Link, Error> {
        Link::connect(&self.core, self.coordinator).await
    }

    pub async fn connect_many(&self, count: u32) -> Result<Vec<Link>, Error> {
        let mut links = Vec::new();
        for _ in 0..count {
            links.push(self.connect().await?);
        }
        Ok(links)
    }

    /// A member begins to join on this connection. `stays`: its pauses count.
    pub fn enter(self: &Rc<Self>, index: usize, link: Link, stays: bool) {
        self.ownership.borrow_mut().expect(index, stays);
        self.living.set(self.living.get() + 1);
        let hands = Hands { crew: self.clone(), index };
        let mut speech = match self.protocol {
            Protocol::Classic => Speech::Classic(classic::Member::new(link)),
            Protocol::Consumer => Speech::Consumer(consumer::Member::new(link)),
        };
        self.core.spawn(Class::Produce, async move {
            if let Err(error) = speech.live(&hands).await {
                hands.crew.failure.borrow_mut().get_or_insert(error);
            }
            hands.crew.living.set(hands.crew.living.get() - 1);
        });
    }

    /// Tells a member to leave, and waits until it has; the time at which it stopped.
    pub async fn let_go(&self, index: usize) -> Result<u64, Error> {
        let living = self.living.get();
        self.leaving.borrow_mut().insert(index);
        self.dismissed.notify_all();
        while self.ownership.borrow().has_member(index) {
            self.fail_if_failed()?;
            self.core.sleep(SETTLE_POLL).await;
        }
        let left_at = self.now();
        while self.living.get() >= living {
            self.fail_if_failed()?;
            self.core.sleep(SETTLE_POLL).await;
        }
        Ok(left_at)
    }

    /// Waits until every partition is held and every member holds one; since when.
    pub async fn settle(&self, progress: &Progress) -> Result<u64, Error> {
        let mut patience = Patience::new(SETTLE_PATIENCE, self.now());
        loop {
            self.fail_if_failed()?;
            if let Some(at) = self.ownership.borrow().settled_at() {
                return Ok(at);
            }
            let (mark, state) = {
                let ownership = self.ownership.borrow();
                (ownership.mark(), ownership.describe())
            };
            match patience.look(self.now(), mark) {
                Pace::Moving => {}
                Pace::Silent => progress.say(&format!("waiting for the group: {state}")),
                Pace::Over => {
                    let waited = SETTLE_PATIENCE.as_secs();
                    return Err(Error::Protocol(format!("nothing changed for {waited} s: {state}")));
                }
            }
            self.core.sleep(SETTLE_POLL).await;
        }
    }

    /// All leave at once.
    pub async fn dissolve(&self, members: u32) -> Result<(), Error> {
        self.leaving.borrow_mut().extend(0..members as usize);
        self.dismissed.notify_all();
        let give_up_at = self.core.now() + ANSWER_WAIT;
        while self.living.get() > 0 {
            self.fail_if_failed()?;
            if self.core.now() >= give_up_at {
                return Err(Error::Protocol(format!("{} members could not leave", self.living.get())));
            }
            self.core.sleep(SETTLE_POLL).await;
        }
        Ok(())
    }

    pub fn fail_if_failed(&self) -> Result<(), Error> {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Those of members that stay, and of partitions, since they were last taken.
    pub fn take_pauses(&self) -> (Latencies, Latencies) {
        let mut ownership = self.ownership.borrow_mut();
        (std::mem::take(&mut ownership.member_pauses), std::mem::take(&mut ownership.partition_pauses))
    }

    /// What a member holds, its id, and its generation or epoch.
    pub fn stands(&self, index: usize) -> (Vec<i32>, String, i32) {
        let standing = self.standing.borrow().get(index).cloned().flatten();
        let (id, generation) = standing.unwrap_or_default();
        (self.ownership.borrow().held_by(index), id, generation)
    }

    pub fn now(&self) -> u64 {
        self.core.now().as_nanos()
    }

    /// What every report of a group says.
    pub async fn describe(
        &self,
        report: &mut Report,
        scene: &mut Scene,
        options: &cli::Members,
    ) -> Result<(), Error> {
        let (coordinator, mut link) = coordinator::find(&mut scene.link, &self.group).await?;
        let delay = coordinator::config(&mut link, coordinator.node, DELAY_CONFIG).await?;
        let conditions = [
            ("bootstrap", scene.bootstrap.clone()),
            ("topic", self.topic.clone()),
            ("partitions", self.partitions.len().to_string()),
            ("protocol", self.protocol.name().to_owned()),
            ("members", options.members.to_string()),
            ("heartbeat", format!("{} ms", self.heartbeat.as_millis())),
            ("session timeout", format!("{} ms", self.session_timeout.as_millis())),
            (DELAY_CONFIG, delay.unwrap_or_else(|| "not told".to_owned())),
        ];
        report.conditions.extend(conditions);
        report.errors = self.ownership.borrow().faults().clone();
        Ok(())
    }

    /// Waits for the next heartbeat's time, or until this member is to leave.
    async fn rest(&self, index: usize) {
        let until = self.core.now() + self.heartbeat;
        loop {
            let dismissed = self.dismissed.listen();
            let left = until.saturating_since(self.core.now());
            if left.is_zero() || self.is_leaving(index) {
                return;
            }
            within(&self.core, left, dismissed).await;
        }
    }

    fn is_leaving(&self, index: usize) -> bool {
        self.leaving.borrow().contains(&index)
    }
}

impl Speech {
    async fn live(&mut self, hands: &Hands) -> Result<(), Error> {
        let crew = &hands.crew;
        loop {
            if crew.is_leaving(hands.index) {
                crew.ownership.borrow_mut().dismiss(hands.index, crew.now());
                return self.leave(hands).await;
            }
            if let Next::AfterHeartbeat = self.turn(hands).await? {
                crew.rest(hands.index).await;
            }
        }
    }

    async fn turn(&mut self, hands: &Hands) -> Result<Next, Error> {
        match self {
            Speech::Classic(member) => member.turn(hands).await,
            Speech::Consumer(member) => member.turn(hands).await,
        }
    }

    async fn leave(&mut self, hands: &Hands) -> Result<(), Error> {
        match self {
            Speech::Classic(member) => member.leave(hands).await,
            Speech::Consumer(member) => member.leave(hands).await,
        }
    }
}
