//! The lives of one broker on one disk: each starts the production broker on simulated cores, lets clients at it from a
//! core of their own, and ends as the plan says. The disk and what was promised outlive it, nothing else does.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use corelog::broker::{Broker, Ready, Start, Stop};
use corelog::settings::{Faults, Settings};
use corelog::shard::CONTROLLER_CORE;
use engine::journal;
use rt::Core;
use rt::sim::{CrashPlan, Sim, SimConfig, SimDisk, Stopped};

use crate::model::{Counts, Model};
use crate::plan::{End, Life, Plan};
use crate::random::Random;
use crate::workload::{self, Clients, Member, Producer};

const COMPACTION_CHECK: Duration = Duration::from_millis(5);
const CORE_MEMORY_BYTES: usize = 32 << 20;
const WALL_MS: i64 = 1_750_000_000_000;
/// Wall time from one life's start to the next one's.
const LIFE_WALL_MS: i64 = 600_000;
const PORT: u16 = 9092;
const MACHINE_MEMORY_BYTES: u64 = 8 << 30;
/// Of real time, on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(300);
/// How often the broker looks whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(1);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Over every completion of every life.
    pub trace: u64,
    pub counts: Counts,
    /// What contradicts a promise, and in which life.
    pub violation: Option<String>,
}

/// Runs what the seed stands for. A run that does not come to an end ends the process, and says which seed it was.
pub fn run(seed: u64, faults: Faults) -> Report {
    let (ended, watched) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if watched.recv_timeout(RUN_MAX) == Err(RecvTimeoutError::Timeout) {
            eprintln!("seed {seed} does not come to an end; rerun: cargo run -p sim -- --seed {seed}");
            std::process::abort();
        }
    });
    let report = run_lives(seed, faults);
    drop(ended);
    watchdog.join().expect("it only waits");
    report
}

fn run_lives(seed: u64, faults: Faults) -> Report {
    let mut random = Random::new(seed);
    let plan = Plan::draw(&mut random);
    let mut lives = Lives {
        plan: plan.clone(),
        faults,
        disk: SimDisk::new(),
        model: Rc::default(),
        producers: Producer::all(),
        members: Member::all(),
        trace: seed,
    };
    let mut violation = None;
    for (number, life) in plan.lives.iter().enumerate() {
        lives.live(number, *life, random.draw());
        violation = lives.model.borrow().violation().map(|why| format!("life {number} ({life:?}): {why}"));
        if violation.is_some() {
            break;
        }
    }
    let counts = lives.model.borrow().counts;
    Report { trace: lives.trace, counts, violation }
}

struct Lives {
    plan: Plan,
    faults: Faults,
    disk: SimDisk,
    model: Rc<RefCell<Model>>,
    producers: Vec<Rc<RefCell<Producer>>>,
    members: Vec<Rc<RefCell<Member>>>,
    trace: u64,
}

impl Lives {
    fn live(&mut self, number: usize, life: Life, seed: u64) {
        let sim = Sim::with_disk(seed, self.config(number, &life), self.disk.clone());
        if let End::Killed { after_ops } | End::PowerCut { after_ops, .. } = life.end {
            self.disk.crash_at_op(self.disk.op_count() + after_ops);
        }
        let data = Path::new("/data/broker");
        let running =
            match Running::new(self.plan.cores, data, address(), self.plan.journal, self.faults, |_ready| ())
            {
                Ok(running) => Rc::new(running),
                Err(why) => return self.model.borrow_mut().fail(why),
            };
        let clients_random = RefCell::new(Some(Random::new(!seed)));
        let ended = sim.run(|core| {
            let clients = (core.id().0 == self.plan.cores).then(|| {
                Rc::new(Clients {
                    core: core.clone(),
                    model: self.model.clone(),
                    address: address(),
                    life,
                    disk: self.disk.clone(),
                    started: Cell::new(false),
                    broker_is_over: running.over.clone(),
                    random: RefCell::new(clients_random.take().expect("one core is the clients'")),
                })
            });
            core_main(core, running.clone(), clients, self.producers.clone(), self.members.clone())
        });
        let cut = self.judge(&sim, &running, &life, ended);
        self.trace = (self.trace ^ sim.trace_hash()).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        let plan = match life.end {
            End::PowerCut { plan, .. } => plan,
            // A broker that could close cleanly has everything on stable media.
            End::Stopped if !cut && !life.disk_may_fail() => CrashPlan::STRICT,
            End::Stopped | End::Killed { .. } => CrashPlan::KILLED,
        };
        self.disk = sim.crash(plan);
        self.disk.set_free_bytes(workload::FREE_BYTES);
        let mut model = self.model.borrow_mut();
        model.counts.lives_cut += u64::from(cut);
        model.life_ended(matches!(life.end, End::PowerCut { .. }));
    }

    /// Notes what should not have ended so. True when the life was cut short.
    fn judge(&self, sim: &Sim, running: &Running, life: &Life, ended: Result<Vec<()>, Stopped>) -> bool {
        let mut model = self.model.borrow_mut();
        for id in 0..=self.plan.cores {
            let panics = sim.core(rt::CoreId(id)).stats().panics;
            if panics > 0 {
                model.fail(format!("{panics} tasks panicked on core {id}"));
            }
        }
        match ended {
            Ok(_) => {
                if let Err(why) = running.broker.outcome()
                    && !life.disk_may_fail()
                {
                    model.fail(format!("the broker does not start: {why}"));
                }
                false
            }
            Err(Stopped::Crashed) => true,
            Err(Stopped::Panicked(panicked)) => {
                model.fail(format!("a core's main task panicked: {panicked}"));
                true
            }
            Err(other @ (Stopped::TimeIsOver | Stopped::Deadlock)) => {
                model.fail(format!("it does not go on: {other:?}"));
                true
            }
        }
    }

    fn config(&self, number: usize, life: &Life) -> SimConfig {
        let lives_before = i64::try_from(number).expect("a few lives");
        SimConfig {
            // One core more: the clients'.
            cores: self.plan.cores + 1,
            memory_bytes: CORE_MEMORY_BYTES,
            wall_ms: WALL_MS + lives_before * LIFE_WALL_MS,
            disk_latency_nanos_max: life.disk_latency_nanos_max,
            slow_disk_per_million: life.slow_disk_per_million,
            disk_error_per_million: life.disk_error_per_million,
            short_disk_io_per_million: life.short_per_million,
            reset_per_million: life.reset_per_million,
            ..SimConfig::default()
        }
    }
}

/// A production broker, and how it is told to stop.
pub struct Running {
    pub broker: Broker,
    pub told_to_stop: Arc<AtomicBool>,
    /// Core 0 has returned.
    over: Rc<Cell<bool>>,
}

impl Running {
    /// A broker that has not begun: each of its cores is to run `broker.run_core`.
    ///
    /// # Errors
    /// Says what is wrong with the settings.
    pub fn new(
        cores: u16,
        data: &Path,
        listen: SocketAddr,
        journal: journal::Limits,
        faults: Faults,
        ready: impl Fn(&Ready) + Send + Sync + 'static,
    ) -> Result<Running, String> {
        let config = format!(
            "[cores]\ncount = {cores}\n[data]\ndir = {:?}\n[topics]\nauto.create.topics.enable = false\n\
             [limits]\nrequest_bytes_max = \"2MiB\"\nfetch_bytes_max = \"1MiB\"\n\
             [groups]\noffsets.topic.num.partitions = 3\ngroup.initial.rebalance.delay.ms = 2\n\
             group.consumer.assignment.interval.ms = 0\n",
            data.display().to_string()
        );
        let mut settings = Settings::simulated(&config, usize::from(cores), MACHINE_MEMORY_BYTES)?;
        (settings.journal, settings.faults) = (journal, faults);
        // Lives are short.
        settings.compaction_check = COMPACTION_CHECK;
        let start = Start {
            settings,
            listen,
            admin: None,
            advertised_host: "localhost".to_owned(),
            advertised_port: (listen.port() != 0).then_some(listen.port()),
        };
        let told_to_stop: Arc<AtomicBool> = Arc::default();
        let told = told_to_stop.clone();
        let stop = move |core: Core| -> Stop {
            let told = told.clone();
            Box::pin(async move {
                while !told.load(Ordering::Relaxed) {
                    core.sleep(STOP_CHECK).await;
                }
            })
        };
        Ok(Running { broker: Broker::new(start, ready, stop), told_to_stop, over: Rc::default() })
    }
}

/// One life in which nothing fails, on a disk that something else left: what was promised must be there, and new records
/// must find their way.
///
/// # Errors
/// What contradicts a promise.
pub fn look_at(disk: SimDisk, model: Rc<RefCell<Model>>, cores: u16, seed: u64) -> Result<(), String> {
    let plan = Plan { cores, lives: Vec::new(), journal: journal::Limits::default() };
    let mut lives = Lives {
        plan,
        faults: Faults::default(),
        disk,
        model: model.clone(),
        producers: Producer::all(),
        members: Member::all(),
        trace: seed,
    };
    lives.live(0, Life::calm(), seed);
    let violation = model.borrow().violation().map(str::to_owned);
    violation.map_or(Ok(()), Err)
}

/// A core of the broker, or the clients' core; that one stops the broker when it is done.
async fn core_main(
    core: Core,
    running: Rc<Running>,
    clients: Option<Rc<Clients>>,
    producers: Vec<Rc<RefCell<Producer>>>,
    members: Vec<Rc<RefCell<Member>>>,
) {
    match clients {
        Some(clients) => {
            workload::run(clients, producers, members).await;
            running.told_to_stop.store(true, Ordering::Relaxed);
        }
        None => {
            let is_first = core.id() == CONTROLLER_CORE;
            running.broker.clone().run_core(core).await;
            if is_first {
                running.over.set(true);
            }
        }
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], PORT))
}
