//! The simulator's driver: many cores on one thread, virtual time, disk and network under a seed. One seed gives one
//! trace; `trace_hash` proves it. What runs above is exactly what runs in production.
//!
//! A poll takes no virtual time; every round of all cores takes a microsecond. The disk survives a crash
//! (`Sim::crash`) and is handed to the next `Sim`.

mod disk;
mod inode;
mod names;
mod net;
mod replay;
mod world;

pub use disk::{CrashPlan, Fault, Keep, OpKind, SimDisk, Snapshot};
pub use replay::replay;

use crate::core::{Core, CoreId};
use crate::driver::{Driver, Wait};
use crate::op::{Done, Handle, Op, OpKey};
use crate::ready::Ready;
use crate::stats::Stats;
use crate::task::{Class, Panicked, Task};
use crate::time::Instant;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use world::World;

/// Virtual time of one round in which all cores ran what was ready.
const ROUND_NANOS: u64 = 1_000;
/// A run that takes more rounds than this does not end by itself.
const ROUNDS_MAX: u64 = 200_000_000;

#[derive(Clone, Debug)]
pub struct SimConfig {
    pub cores: u16,
    pub memory_bytes: usize,
    /// Wall clock at the start.
    pub wall_ms: i64,
    /// Operations take up to this long, drawn evenly.
    pub disk_latency_nanos_max: u64,
    pub net_latency_nanos_max: u64,
    /// Some disk operations take this much longer.
    pub slow_disk_per_million: u32,
    pub slow_disk_nanos: u64,
    /// Chance that a disk operation fails with EIO; of a write, any number of its sectors are there then.
    pub disk_error_per_million: u32,
    /// Chance that a read or a write of a file comes short, by whole sectors.
    pub short_disk_io_per_million: u32,
    /// Receives and sends come short at random.
    pub short_socket_io: bool,
    /// Chance of a reset at each receive and send.
    pub reset_per_million: u32,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            cores: 1,
            memory_bytes: 64 << 20,
            wall_ms: 1_750_000_000_000,
            disk_latency_nanos_max: 300_000,
            net_latency_nanos_max: 50_000,
            slow_disk_per_million: 0,
            slow_disk_nanos: 50_000_000,
            disk_error_per_million: 0,
            short_disk_io_per_million: 0,
            short_socket_io: true,
            reset_per_million: 0,
        }
    }
}

/// Why a run ended without results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The disk reached `crash_at_op`, or the run was told to stop at a time.
    Crashed,
    TimeIsOver,
    /// Nothing is left that could ever happen.
    Deadlock,
    Panicked(Panicked),
}

/// One simulated process: its cores, its sockets, and a disk.
pub struct Sim {
    world: Rc<RefCell<World>>,
    cores: Vec<Core>,
    seed: u64,
    stop_at: Cell<Option<Instant>>,
}

impl Sim {
    pub fn new(seed: u64, config: SimConfig) -> Sim {
        Sim::with_disk(seed, config, SimDisk::new())
    }

    /// The process starts on a disk that another one left.
    pub fn with_disk(seed: u64, config: SimConfig, disk: SimDisk) -> Sim {
        let world = Rc::new(RefCell::new(World::new(seed, config.clone(), disk)));
        let core = |id| {
            let driver = Box::new(SimDriver { world: world.clone(), core: id });
            Core::new(CoreId(id), driver, Ready::new(None), config.memory_bytes, seed, Duration::ZERO)
        };
        let cores = (0..config.cores).map(core).collect();
        Sim { world, cores, seed, stop_at: Cell::new(None) }
    }

    /// Runs `main` on every core until all have returned. What they spawned stays and runs on in the next `run`.
    pub fn run<F, Fut, T>(&self, main: F) -> Result<Vec<T>, Stopped>
    where
        F: Fn(Core) -> Fut,
        Fut: Future<Output = T> + 'static,
        T: 'static,
    {
        let spawn = |core: &Core| core.spawn(Class::Control, main(core.clone()));
        let tasks: Vec<Task<T>> = self.cores.iter().map(spawn).collect();
        let mut rounds = 0;
        loop {
            let busy = self.run_cores()?;
            if tasks.iter().all(Task::is_finished) {
                break;
            }
            self.pass_time(busy)?;
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "the simulation does not come to an end");
        }
        tasks.into_iter().map(|task| task.now_or_never().map_err(Stopped::Panicked)).collect()
    }

    /// The next runs end with `TimeIsOver` at this time.
    pub fn stop_at(&self, at: Option<Instant>) {
        self.stop_at.set(at);
    }

    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.world.borrow().now)
    }

    pub fn core(&self, id: CoreId) -> &Core {
        &self.cores[usize::from(id.0)]
    }

    pub fn disk(&self) -> SimDisk {
        self.world.borrow().disk.clone()
    }

    /// Cuts off every connection.
    pub fn reset_connections(&self) {
        self.world.borrow_mut().reset_connections();
    }

    /// Over every completion so far: when, where, what.
    pub fn trace_hash(&self) -> u64 {
        self.world.borrow().hash
    }

    /// The power goes: tasks end where they are, and the disk keeps what the plan leaves.
    pub fn crash(self, plan: CrashPlan) -> SimDisk {
        let disk = self.disk();
        let seed = self.seed ^ self.trace_hash();
        drop(self);
        disk.crash(seed, plan);
        disk
    }

    /// One round. True when some core has more to run.
    fn run_cores(&self) -> Result<bool, Stopped> {
        let mut busy = false;
        for core in &self.cores {
            busy |= core.run_ready();
            core.turn(false).expect("the simulated driver does not fail");
            busy |= core.is_ready();
            if self.world.borrow().disk.has_crashed() {
                return Err(Stopped::Crashed);
            }
        }
        // A core that ran early may have been woken by a later one.
        Ok(busy || self.cores.iter().any(Core::is_ready))
    }

    fn pass_time(&self, busy: bool) -> Result<(), Stopped> {
        let now = self.world.borrow().now;
        let next = if busy { Some(now + ROUND_NANOS) } else { self.next_time() };
        let Some(next) = next else { return Err(Stopped::Deadlock) };
        if let Some(stop) = self.stop_at.get()
            && next >= stop.as_nanos()
        {
            self.world.borrow_mut().advance(stop.as_nanos());
            return Err(Stopped::TimeIsOver);
        }
        self.world.borrow_mut().advance(next.max(now + ROUND_NANOS));
        if self.world.borrow().disk.has_crashed() { Err(Stopped::Crashed) } else { Ok(()) }
    }

    fn next_time(&self) -> Option<u64> {
        // Handles dropped in this round may still make something happen.
        let now = self.world.borrow().now;
        self.world.borrow_mut().advance(now);
        if self.world.borrow().has_done() || self.cores.iter().any(Core::is_ready) {
            return Some(now + ROUND_NANOS);
        }
        let event = self.world.borrow().next_event();
        let timers = self.cores.iter().filter_map(Core::next_timer);
        timers.chain(event).min().map(Instant::as_nanos)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // Tasks hold their core, and operations their tasks' buffers: both circles are cut here.
        self.cores.iter().for_each(Core::drop_tasks);
        self.world.borrow_mut().drop_everything();
    }
}

/// A simulated file or socket; the world learns when the last handle is gone.
pub(crate) struct Token {
    id: u64,
    closed: Rc<RefCell<Vec<u64>>>,
}

impl Token {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.closed.borrow_mut().push(self.id);
    }
}

struct SimDriver {
    world: Rc<RefCell<World>>,
    core: u16,
}

impl Driver for SimDriver {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.world.borrow().now)
    }

    fn wall_ms(&self) -> i64 {
        let world = self.world.borrow();
        let passed = Duration::from_nanos(world.now).as_millis();
        world.config.wall_ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    fn submit(&mut self, key: OpKey, op: Op) {
        self.world.borrow_mut().submit((self.core, key), op);
    }

    fn cancel(&mut self, key: OpKey) {
        self.world.borrow_mut().cancel((self.core, key));
    }

    fn shutdown(&mut self, socket: &Handle) {
        self.world.borrow_mut().shutdown(socket.token());
    }

    fn turn(&mut self, _wait: Wait, done: &mut Vec<(OpKey, Done)>) -> io::Result<()> {
        self.world.borrow_mut().take_done(self.core, done);
        Ok(())
    }

    fn count(&self, _stats: &mut Stats) {}

    fn describe(&self) -> String {
        "sim (virtual time, disk and network under a seed)".to_string()
    }
}

#[cfg(test)]
mod tests;
