//! What clients do during one life of the broker: they look at everything that was promised, then produce, read, create
//! and delete until they are done or the life is over. Every answer goes to the model.

pub(crate) mod admin;
mod consume;
mod disk_full;
mod groups;
mod produce;
mod verify;

pub use disk_full::FREE_BYTES;
pub use groups::Member;
pub use produce::Producer;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog::shard::join::{before, join_all};
use net::client::{Client, Error, Options};
use net::error_code::ErrorCode;
use rt::sim::SimDisk;
use rt::{Class, Core};

use crate::model::{Durability, Model};
use crate::plan::Life;
use crate::random::Random;

/// An answer that takes longer than this in virtual time will not come.
const HANG: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(2);
const CONNECT_TRIES_MAX: u32 = 2_000;

/// A topic that lives through the whole run.
#[derive(Clone, Copy)]
pub struct Fixed {
    pub name: &'static str,
    pub durability: Durability,
    pub partitions: i32,
    pub configs: &'static [(&'static str, &'static str)],
}

impl Fixed {
    pub fn is_compacted(&self) -> bool {
        self.configs.contains(&("cleanup.policy", "compact"))
    }
}

pub const TOPICS: [Fixed; 4] = [
    Fixed { name: "kept", durability: Durability::Fsync, partitions: 2, configs: &[] },
    Fixed { name: "rolled", durability: Durability::Fsync, partitions: 1, configs: &[("segment.ms", "5")] },
    Fixed {
        name: "quick",
        durability: Durability::Write,
        partitions: 2,
        configs: &[("corelog.durability", "write")],
    },
    Fixed {
        name: "compacted",
        durability: Durability::Fsync,
        partitions: 1,
        configs: &[("cleanup.policy", "compact"), ("segment.ms", "5"), ("min.cleanable.dirty.ratio", "0")],
    },
];

/// What all clients of one life share.
pub struct Clients {
    pub core: Core,
    pub model: Rc<RefCell<Model>>,
    pub address: SocketAddr,
    pub life: Life,
    pub disk: SimDisk,
    /// This life's first look has been taken.
    pub started: Cell<bool>,
    /// The broker's main task has returned.
    pub broker_is_over: Rc<Cell<bool>>,
    pub random: RefCell<Random>,
}

/// Why a client ends early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GiveUp;

/// All clients of a life, until they are done.
pub async fn run(
    clients: Rc<Clients>,
    producers: Vec<Rc<RefCell<Producer>>>,
    members: Vec<Rc<RefCell<Member>>>,
) {
    if verify::everything(&clients).await.is_err() || admin::fixed_topics(&clients).await.is_err() {
        return;
    }
    if groups::verify(&clients, true).await.is_err() {
        return;
    }
    let mut tasks = Vec::new();
    let spawn =
        |future: std::pin::Pin<Box<dyn Future<Output = ()>>>| clients.core.spawn(Class::Produce, future);
    for producer in producers {
        tasks.push(spawn(Box::pin(produce::run(clients.clone(), producer))));
    }
    for member in members {
        tasks.push(spawn(Box::pin(groups::run(clients.clone(), member))));
    }
    for acks in [0, 1] {
        tasks.push(spawn(Box::pin(produce::plain(clients.clone(), acks))));
    }
    for _ in 0..2 {
        tasks.push(spawn(Box::pin(consume::run(clients.clone()))));
    }
    tasks.push(spawn(Box::pin(admin::churn(clients.clone()))));
    if clients.life.disk_full {
        tasks.push(spawn(Box::pin(disk_full::run(clients.clone()))));
    }
    for ended in join_all(tasks).await {
        if let Err(panicked) = ended {
            clients.fail(format!("a client panicked: {panicked}"));
        }
    }
    // If they give up, the model has been told why, or the broker is over.
    let _ = verify::everything(&clients).await;
    let _ = groups::verify(&clients, false).await;
}

impl Clients {
    pub fn fail(&self, what: String) {
        self.model.borrow_mut().fail(what);
    }

    pub fn between(&self, low: u64, high: u64) -> u64 {
        self.random.borrow_mut().between(low, high)
    }

    pub fn one_in(&self, count: u64) -> bool {
        self.random.borrow_mut().one_in(count)
    }

    pub async fn pause(&self, micros_max: u64) {
        let micros = self.between(1, micros_max.max(2));
        self.core.sleep(Duration::from_micros(micros)).await;
    }

    /// The outcome of a call, or what to do about its failure.
    pub async fn answer<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failed> {
        match before(call, self.core.sleep(HANG)).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(self.judge(what, error)),
            None => {
                self.fail(format!("{what}: no answer within {HANG:?}"));
                Err(Failed::NotAnswered)
            }
        }
    }

    /// Notes a failure that nothing in this life explains.
    fn judge(&self, what: &str, error: Error) -> Failed {
        let life = &self.life;
        match error {
            Error::Io(_) | Error::Closed => {
                let explained =
                    life.reset_per_million > 0 || life.disk_may_fail() || self.broker_is_over.get();
                if !explained {
                    self.fail(format!("{what}: the broker closed the connection"));
                }
                Failed::NotAnswered
            }
            Error::Broker(code) => {
                if code == ErrorCode::KafkaStorageError && !life.disk_may_fail() {
                    self.fail(format!("{what}: {code} though no disk failed"));
                }
                Failed::Refused(code)
            }
            Error::Frame(_)
            | Error::Wire(_)
            | Error::Encode(_)
            | Error::NoVersion(_)
            | Error::Unexpected(_) => {
                self.fail(format!("{what}: {error}"));
                Failed::NotAnswered
            }
        }
    }

    /// A connection, however often it takes.
    pub async fn connect(&self) -> Result<Client, GiveUp> {
        for _ in 0..CONNECT_TRIES_MAX {
            if self.broker_is_over.get() {
                return Err(GiveUp);
            }
            let connecting = Client::connect(&self.core, self.address, Options::default());
            match before(connecting, self.core.sleep(HANG)).await {
                Some(Ok(client)) => return Ok(client),
                Some(Err(_)) => self.core.sleep(RETRY_PAUSE).await,
                None => break,
            }
        }
        self.fail("the broker accepts no connections".to_owned());
        Err(GiveUp)
    }
}

/// How a call ended that did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// What was asked may have happened.
    NotAnswered,
    Refused(ErrorCode),
}

/// One client's connection, made anew when it ends.
pub struct Connection {
    clients: Rc<Clients>,
    client: Option<Client>,
}

impl Connection {
    pub fn new(clients: &Rc<Clients>) -> Connection {
        Connection { clients: clients.clone(), client: None }
    }

    pub async fn client(&mut self) -> Result<Client, GiveUp> {
        match &self.client {
            Some(client) if !client.is_closed() => Ok(client.clone()),
            _ => {
                let client = self.clients.connect().await?;
                self.client = Some(client.clone());
                Ok(client)
            }
        }
    }

    /// The next call goes over a new connection.
    pub fn leave(&mut self) {
        self.client = None;
    }
}
