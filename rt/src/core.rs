//! `Core`: one core's runtime as its tasks see it. It is given explicitly to whoever does I/O; nothing is
//! thread-local, so the simulator runs many cores on one thread.

use crate::buf::Arena;
use crate::driver::{Driver, Wait};
use crate::executor::Executor;
use crate::op::{Done, Handle, Op, OpKey, Operations, Value};
use crate::ready::{Ready, TaskKey};
use crate::spin::{self, Spin};
use crate::stats::Stats;
use crate::task::{Class, Panicked, Spawned, Task};
use crate::time::Instant;
use crate::timer::{TimerKey, Timers};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct CoreId(pub u16);

/// Handle to one core's runtime. Clone is a counter; it stays on its core.
#[derive(Clone)]
pub struct Core(Rc<Inner>);

struct Inner {
    id: CoreId,
    driver: RefCell<Box<dyn Driver>>,
    executor: Executor,
    spin: RefCell<Spin>,
    operations: RefCell<Operations>,
    timers: RefCell<Timers>,
    ready: Arc<Ready>,
    arena: Arena,
    random: Cell<u64>,
    stats: RefCell<Stats>,
    done: RefCell<Vec<(OpKey, Done)>>,
    expired: RefCell<Vec<Waker>>,
}

impl Core {
    pub(crate) fn new(
        id: CoreId,
        driver: Box<dyn Driver>,
        ready: Arc<Ready>,
        memory: usize,
        seed: u64,
        spin: Duration,
    ) -> Core {
        Core(Rc::new(Inner {
            id,
            driver: RefCell::new(driver),
            executor: Executor::new(ready.clone()),
            spin: RefCell::new(Spin::new(spin)),
            operations: RefCell::default(),
            timers: RefCell::default(),
            ready,
            arena: Arena::new(memory),
            random: Cell::new(seed ^ (u64::from(id.0) << 48)),
            stats: RefCell::default(),
            done: RefCell::default(),
            expired: RefCell::default(),
        }))
    }

    pub fn id(&self) -> CoreId {
        self.0.id
    }

    pub fn now(&self) -> Instant {
        self.0.driver.borrow().now()
    }

    /// Unix milliseconds.
    pub fn wall_ms(&self) -> i64 {
        self.0.driver.borrow().wall_ms()
    }

    /// Not for secrets: seeded, and repeatable in the simulator.
    pub fn random_u64(&self) -> u64 {
        let mut state = self.0.random.get();
        let out = splitmix(&mut state);
        self.0.random.set(state);
        out
    }

    pub fn buffers(&self) -> &Arena {
        &self.0.arena
    }

    pub fn stats(&self) -> Stats {
        let mut stats = self.0.stats.borrow().clone();
        self.0.driver.borrow().count(&mut stats);
        stats.doorbells = self.0.ready.rings();
        stats.tasks = self.0.executor.live();
        stats.operations_in_flight = self.0.operations.borrow().in_flight();
        stats
    }

    /// The driver and what it runs with, for the banner.
    pub fn describe(&self) -> String {
        self.0.driver.borrow().describe()
    }

    /// Tasks of a class get their first poll in the order they were spawned. A panic ends the task, not the core.
    pub fn spawn<F: Future + 'static>(&self, class: Class, future: F) -> Task<F::Output> {
        let spawned = Spawned::new(future);
        let key = self.0.executor.spawn(class, spawned.clone());
        Task::new(spawned, self.clone(), key)
    }

    pub fn sleep(&self, d: Duration) -> Sleep {
        self.sleep_until(self.now() + d)
    }

    pub fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep { core: self.clone(), at, key: None }
    }

    /// Lets the other ready tasks go first.
    pub async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Runs millisecond work on a helper thread. If the waiting future is dropped the work is done nevertheless.
    pub async fn offload<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let slot: Arc<Mutex<Option<Result<T, Panicked>>>> = Arc::default();
        let fill = slot.clone();
        let job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(f)).map_err(|p| Panicked::from_payload(&*p));
            if let Ok(mut slot) = fill.lock() {
                *slot = Some(result);
            }
        });
        let done = self.run(Op::Offload { job }).await;
        let result = slot.lock().ok().and_then(|mut slot| slot.take());
        let result = match (result, done.result) {
            (Some(result), _) => result,
            (None, Err(e)) => Err(Panicked { message: e.to_string() }),
            (None, Ok(_)) => Err(Panicked { message: "the work ended without a result".to_string() }),
        };
        self.0.stats.borrow_mut().panics += u64::from(result.is_err());
        result
    }

    pub(crate) fn abort(&self, key: TaskKey) {
        self.0.executor.abort(key);
    }

    pub(crate) fn shutdown(&self, socket: &Handle) {
        self.0.driver.borrow_mut().shutdown(socket);
    }

    // Operations.

    pub(crate) fn run(&self, op: Op) -> Running {
        let key = self.0.operations.borrow_mut().begin();
        self.0.driver.borrow_mut().submit(key, op);
        Running { core: self.clone(), key: Some(key) }
    }

    pub(crate) async fn value(&self, op: Op) -> io::Result<Value> {
        self.run(op).await.result
    }

    pub(crate) async fn unit(&self, op: Op) -> io::Result<()> {
        self.value(op).await.map(drop)
    }

    pub(crate) async fn length(&self, op: Op) -> io::Result<u64> {
        match self.value(op).await? {
            Value::Len(len) => Ok(len),
            _other => unreachable!("the operation brings a length"),
        }
    }

    pub(crate) async fn handle(&self, op: Op) -> io::Result<Handle> {
        match self.value(op).await? {
            Value::Handle(handle) => Ok(handle),
            _other => unreachable!("the operation brings a handle"),
        }
    }

    // The loop, driven by `start` and by the simulator.

    /// Runs what is ready. True when more is.
    pub(crate) fn run_ready(&self) -> bool {
        self.expire_timers();
        self.0.executor.run(&self.0.driver, &self.0.stats)
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.0.timers.borrow().next()
    }

    /// Whether a task could run now.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.executor.has_ready() || !self.0.ready.is_empty()
    }

    pub(crate) fn drop_tasks(&self) {
        self.0.executor.clear();
    }

    /// One look at the driver: sleeps there when nothing is ready and `may_sleep`.
    pub(crate) fn turn(&self, may_sleep: bool) -> io::Result<()> {
        if may_sleep && !self.is_ready() && self.spin()? {
            return Ok(());
        }
        let mut wait = Wait::No;
        if may_sleep && !self.0.executor.has_ready() && self.0.ready.prepare_sleep() {
            wait = Wait::Until(self.next_timer());
        }
        let result = self.0.driver.borrow_mut().turn(wait, &mut self.0.done.borrow_mut());
        self.0.ready.awake();
        self.deliver();
        result
    }

    /// Looks around for a bounded time where that pays. True when a task is ready now, or a timer due.
    fn spin(&self) -> io::Result<bool> {
        let begin = self.now();
        let bound = self.0.spin.borrow_mut().before_sleep(begin, spin::involuntary_switches);
        let Some(bound) = bound else { return Ok(false) };
        let timer = self.next_timer().unwrap_or(Instant::FAR_FUTURE);
        let found = loop {
            self.0.driver.borrow_mut().turn(Wait::No, &mut self.0.done.borrow_mut())?;
            self.deliver();
            let now = self.now();
            if self.is_ready() || now >= timer {
                break true;
            }
            if now >= begin + bound {
                break false;
            }
            std::hint::spin_loop();
        };
        self.0.spin.borrow_mut().ended(found);
        let mut stats = self.0.stats.borrow_mut();
        stats.spins += 1;
        stats.spins_hit += u64::from(found);
        Ok(found)
    }

    /// Drops all tasks and waits for what their operations own.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        self.0.executor.clear();
        while self.0.operations.borrow().in_flight() > 0 {
            self.0.ready.prepare_sleep();
            let soon = self.now() + Duration::from_millis(50);
            let result =
                self.0.driver.borrow_mut().turn(Wait::Until(Some(soon)), &mut self.0.done.borrow_mut());
            self.0.ready.awake();
            result?;
            self.deliver();
            self.0.executor.clear();
        }
        Ok(())
    }

    fn expire_timers(&self) {
        let now = self.now();
        let mut expired = self.0.expired.borrow_mut();
        self.0.timers.borrow_mut().expire(now, &mut expired);
        expired.drain(..).for_each(Waker::wake);
    }

    fn deliver(&self) {
        let mut done = self.0.done.borrow_mut();
        for (key, done) in done.drain(..) {
            let (waker, unwanted) = self.0.operations.borrow_mut().complete(key, done);
            drop(unwanted);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// A submitted operation. Dropping it cancels; what the operation owns stays with the driver until it is done.
pub(crate) struct Running {
    core: Core,
    key: Option<OpKey>,
}

impl Future for Running {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let key = self.key.expect("not polled after its end");
        let done = self.core.0.operations.borrow_mut().take(key, cx.waker());
        match done {
            Some(done) => {
                self.key = None;
                Poll::Ready(done)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let (cancel, unwanted) = self.core.0.operations.borrow_mut().abandon(key);
            drop(unwanted);
            if cancel {
                self.core.0.stats.borrow_mut().cancelled += 1;
                self.core.0.driver.borrow_mut().cancel(key);
            }
        }
    }
}

/// Waits for a time.
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    core: Core,
    at: Instant,
    key: Option<TimerKey>,
}

impl Sleep {
    pub fn deadline(&self) -> Instant {
        self.at
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.core.now() >= self.at {
            return Poll::Ready(());
        }
        let inner = self.core.0.clone();
        match self.key {
            Some(key) => inner.timers.borrow_mut().rearm(key, cx.waker()),
            None => self.key = Some(inner.timers.borrow_mut().set(self.at, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.core.0.timers.borrow_mut().cancel(key);
        }
    }
}

pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
