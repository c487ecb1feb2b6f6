//! Starting: one thread per core, each with its own ring and its own loop.

use crate::core::{Core, CoreId};
use crate::driver::Driver;
use crate::driver::posix::Posix;
use crate::driver::recorded::Recorded;
use crate::driver::ring::{Flags, Ring};
use crate::offload::Helpers;
use crate::ready::Ready;
use crate::record::Recorder;
use crate::task::{Class, Panicked};
use crate::time::Clock;
use rustix::event::EventfdFlags;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreConfig {
    /// The CPU this core's thread stays on.
    pub pin: Option<usize>,
    /// How long it looks around before it sleeps, at most, where that pays; zero: never. Only for a core whose CPU
    /// nobody else needs.
    pub spin: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// `Ring` where the host allows it, else `Posix`; `Runtime::describe` says which, and why.
    Auto,
    /// io_uring.
    Ring,
    /// io_uring as kernels before 5.19 have it: without any flag. For tests.
    PlainRing,
    /// epoll and a few threads: where io_uring is forbidden.
    Posix,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub cores: Vec<CoreConfig>,
    pub driver: DriverKind,
    /// Budget of each core's arena.
    pub memory_bytes: usize,
    /// For `Core::random_u64`; `None` takes one from the operating system.
    pub seed: Option<u64>,
    /// Size of each core's submission queue.
    pub ring_entries: u32,
    /// Threads for millisecond work, shared by all cores.
    pub helper_threads: usize,
    /// Where every file operation is noted, for tests.
    pub record: Option<Recorder>,
}

impl Config {
    /// So many unpinned cores with 64 MiB each on the best driver the host allows.
    pub fn new(cores: usize) -> Config {
        Config { cores: vec![CoreConfig::default(); cores], ..Config::default() }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cores: vec![CoreConfig::default()],
            driver: DriverKind::Auto,
            memory_bytes: 64 << 20,
            seed: None,
            ring_entries: 1024,
            helper_threads: 2,
            record: None,
        }
    }
}

/// The running cores.
pub struct Runtime {
    threads: Vec<JoinHandle<Result<(), Panicked>>>,
    description: String,
}

impl Runtime {
    /// Which driver runs, and with what.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Waits until `main` has returned on every core. The first panic of a `main` is reported.
    pub fn join(self) -> Result<(), Panicked> {
        let mut outcome = Ok(());
        for thread in self.threads {
            let ended = match thread.join() {
                Ok(ended) => ended,
                Err(payload) => Err(Panicked::from_payload(&*payload)),
            };
            outcome = outcome.and(ended);
        }
        outcome
    }
}

/// What all cores of a runtime share.
#[derive(Clone)]
struct Common {
    config: Config,
    clock: Clock,
    helpers: Arc<Helpers>,
    seed: u64,
}

impl Common {
    fn new(config: Config) -> io::Result<Common> {
        assert!(!config.cores.is_empty(), "a runtime has at least one core");
        let helpers = Helpers::start(config.helper_threads.max(1))?;
        let seed = config.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        Ok(Common { config, clock: Clock::started_now(), helpers, seed })
    }

    fn core(&self, index: usize) -> io::Result<Core> {
        let spin = self.config.cores[index].spin;
        let id = CoreId(u16::try_from(index).expect("at most 65,536 cores"));
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        let ready = Ready::new(Some(bell));
        let mut driver = self.driver(self.config.driver, &ready)?;
        if let Some(recorder) = self.config.record.clone() {
            driver = Box::new(Recorded::new(driver, recorder, id));
        }
        Ok(Core::new(id, driver, ready, self.config.memory_bytes, self.seed, spin))
    }

    fn driver(&self, kind: DriverKind, ready: &Arc<Ready>) -> io::Result<Box<dyn Driver>> {
        let (clock, helpers) = (self.clock, self.helpers.clone());
        let posix = |why| Posix::new(clock, ready.clone(), self.helpers.clone(), why);
        let ring = |flags| Ring::new(self.config.ring_entries, flags, clock, ready.clone(), helpers);
        Ok(match kind {
            DriverKind::Posix => Box::new(posix(None)?),
            DriverKind::Ring => Box::new(ring(Flags::AsKnown)?),
            DriverKind::PlainRing => Box::new(ring(Flags::None)?),
            DriverKind::Auto => match ring(Flags::AsKnown) {
                Ok(ring) => Box::new(ring),
                Err(e) => Box::new(posix(Some(e.to_string()))?),
            },
        })
    }
}

/// Starts one thread per core and runs `main(core)` on each. An error of any core's set-up is returned here, and then
/// none runs.
pub fn start<F, Fut>(config: Config, main: F) -> io::Result<Runtime>
where
    F: Fn(Core) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let common = Common::new(config)?;
    let mut threads = Vec::new();
    let mut gates = Vec::new();
    let (report, reports) = mpsc::channel();
    for index in 0..common.config.cores.len() {
        let (common, main, report) = (common.clone(), main.clone(), report.clone());
        let (gate, opened) = mpsc::channel::<()>();
        gates.push(gate);
        let builder = std::thread::Builder::new().name(format!("core-{index}"));
        threads.push(builder.spawn(move || {
            let made = pin(common.config.cores[index].pin).and_then(|()| common.core(index));
            let core = match made {
                Ok(core) => core,
                Err(e) => {
                    // Whoever started us reads the report.
                    let _ = report.send(Err(e));
                    return Ok(());
                }
            };
            drop(common);
            if report.send(Ok(core.describe())).is_err() || opened.recv().is_err() {
                return Ok(());
            }
            run_or_abort(&core, main)
        })?);
    }
    drop(report);
    let mut description = String::new();
    for _ in 0..threads.len() {
        let made = reports.recv().unwrap_or_else(|_| Err(io::Error::other("a core's thread died at start")));
        description = made?;
    }
    for gate in gates {
        // A thread that reported waits for its gate.
        let _ = gate.send(());
    }
    Ok(Runtime { threads, description })
}

/// Runs `main` on one core on this thread, for tests and tools. A panic of `main` goes on here.
pub fn block_on_one<F, Fut, T>(config: Config, main: F) -> io::Result<T>
where
    F: FnOnce(Core) -> Fut,
    Fut: Future<Output = T> + 'static,
    T: 'static,
{
    let core = Common::new(config)?.core(0)?;
    match run(&core, main)? {
        Ok(value) => Ok(value),
        Err(panicked) => panic!("{panicked}"),
    }
}

/// A panic in the loop itself, outside every task, leaves the core's state half updated: the process ends.
fn run_or_abort<F, Fut>(core: &Core, main: F) -> Result<(), Panicked>
where
    F: FnOnce(Core) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(core, main)));
    match ran {
        Ok(Ok(ended)) => ended,
        Ok(Err(e)) => {
            crate::say!("core {}: its driver failed, so the process ends: {e}", core.id().0);
            std::process::abort();
        }
        Err(_) => {
            crate::say!("core {}: a panic outside every task, so the process ends", core.id().0);
            std::process::abort();
        }
    }
}

fn run<F, Fut, T>(core: &Core, main: F) -> io::Result<Result<T, Panicked>>
where
    F: FnOnce(Core) -> Fut,
    Fut: Future<Output = T> + 'static,
    T: 'static,
{
    let task = core.spawn(Class::Control, main(core.clone()));
    while !task.is_finished() {
        let more = core.run_ready();
        if task.is_finished() {
            break;
        }
        core.turn(!more)?;
    }
    let result = task.now_or_never();
    core.shut_down()?;
    Ok(result)
}

fn pin(cpu: Option<usize>) -> io::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no CPU {cpu}")));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .map_err(|e| io::Error::new(e.kind(), format!("the thread could not be pinned to CPU {cpu}: {e}")))
}
