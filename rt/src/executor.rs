//! The tasks of one core: first in, first out within a class, and classes share the core by weight.
//!
//! A class that has used less of the core, in proportion to its weight, goes first (stride scheduling over the time
//! its polls took); a class that was idle does not save up what it did not use. A panic ends its task only: it is
//! counted and handed to whoever awaits the `Task`. How long each poll kept the core is counted in a histogram.

use crate::driver::Driver;
use crate::ready::{Ready, TaskKey, TaskWaker};
use crate::stats::Stats;
use crate::task::{Class, Polled, Run};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Tasks polled between two looks at the driver.
const POLLS_PER_TURN_MAX: u32 = 128;
/// And the time after which the driver is looked at anyway.
const TURN_NANOS_MAX: u64 = 500_000;
/// What a poll is charged at least, so that the order is defined where time stands still (the simulator).
const POLL_NANOS_MIN: u64 = 1_000;

struct Slot {
    generation: u32,
    class: Class,
    live: bool,
    /// Out while it is polled.
    work: Option<Work>,
}

/// A task, and what wakes it.
struct Work {
    body: Rc<dyn Run>,
    task: Arc<TaskWaker>,
    waker: Waker,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<TaskKey>,
    /// Weighted time used; the lowest goes next.
    pass: u64,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    queues: [Queue; Class::COUNT],
    pass_floor: u64,
    live: usize,
}

pub(crate) struct Executor {
    state: RefCell<State>,
    ready: Arc<Ready>,
    scratch: RefCell<Vec<TaskKey>>,
    polling: Cell<Option<TaskKey>>,
}

impl Executor {
    pub(crate) fn new(ready: Arc<Ready>) -> Executor {
        Executor { state: RefCell::default(), ready, scratch: RefCell::default(), polling: Cell::new(None) }
    }

    pub(crate) fn spawn(&self, class: Class, body: Rc<dyn Run>) -> TaskKey {
        let mut state = self.state.borrow_mut();
        let index = match state.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(state.slots.len()).expect("fewer than 2^32 tasks fit in memory");
                state.slots.push(Slot { generation: 0, class, live: false, work: None });
                index
            }
        };
        let slot = &mut state.slots[index as usize];
        let key = TaskKey { index, generation: slot.generation };
        let task = TaskWaker::new(key, self.ready.clone(), true);
        slot.class = class;
        slot.live = true;
        slot.work = Some(Work { body, waker: Waker::from(task.clone()), task });
        state.live += 1;
        state.enqueue(key, class);
        key
    }

    /// Drops the task's future at once, or, when it aborts itself, after this poll.
    pub(crate) fn abort(&self, key: TaskKey) {
        let work = {
            let mut state = self.state.borrow_mut();
            match state.slot(key) {
                Some(slot) => slot.work.take(),
                None => return,
            }
        };
        if self.polling.get() != Some(key) {
            self.retire(key);
        } else {
            self.polling.set(None);
        }
        if let Some(work) = work {
            work.body.clear();
        }
    }

    /// Runs ready tasks for one turn. True when some are still ready.
    pub(crate) fn run(&self, driver: &RefCell<Box<dyn Driver>>, stats: &RefCell<Stats>) -> bool {
        let begin = driver.borrow().now();
        let mut last = begin;
        for _ in 0..POLLS_PER_TURN_MAX {
            self.collect_woken();
            let Some((key, class)) = self.state.borrow_mut().pick() else { return false };
            let Some(polled) = self.poll(key) else { continue };
            let now = driver.borrow().now();
            let nanos = (now - last).as_nanos();
            last = now;
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.state.borrow_mut().charge(class, nanos);
            let mut stats = stats.borrow_mut();
            stats.polled(nanos);
            stats.panics += u64::from(polled == Polled::Panicked);
            drop(stats);
            if (now - begin).as_nanos() >= u128::from(TURN_NANOS_MAX) {
                break;
            }
        }
        self.collect_woken();
        self.has_ready()
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.state.borrow().queues.iter().any(|q| !q.tasks.is_empty())
    }

    pub(crate) fn live(&self) -> usize {
        self.state.borrow().live
    }

    /// Drops every task. Their operations are cancelled by that; their buffers stay until the driver is done.
    pub(crate) fn clear(&self) {
        loop {
            let works: Vec<Work> = {
                let mut state = self.state.borrow_mut();
                state.queues.iter_mut().for_each(|q| q.tasks.clear());
                let taken = state.slots.iter_mut().filter_map(|slot| {
                    slot.live = false;
                    slot.generation = slot.generation.wrapping_add(1);
                    slot.work.take()
                });
                taken.collect()
            };
            if works.is_empty() {
                break;
            }
            works.iter().for_each(|work| work.body.clear());
        }
        let mut state = self.state.borrow_mut();
        state.slots.clear();
        state.free.clear();
        state.live = 0;
    }

    fn collect_woken(&self) {
        let mut woken = self.scratch.borrow_mut();
        self.ready.take_tasks(&mut woken);
        let mut state = self.state.borrow_mut();
        for key in woken.drain(..) {
            if let Some(class) = state.slot(key).map(|slot| slot.class) {
                state.enqueue(key, class);
            }
        }
    }

    /// None when the task was gone already.
    fn poll(&self, key: TaskKey) -> Option<Polled> {
        let work = self.state.borrow_mut().slot(key)?.work.take()?;
        work.task.begin_poll();
        self.polling.set(Some(key));
        let polled = work.body.poll(&mut Context::from_waker(&work.waker));
        let aborted = self.polling.replace(None).is_none();
        if polled == Polled::Pending && !aborted {
            if let Some(slot) = self.state.borrow_mut().slot(key) {
                slot.work = Some(work);
            }
        } else {
            self.retire(key);
            work.body.clear();
        }
        Some(polled)
    }

    fn retire(&self, key: TaskKey) {
        let mut state = self.state.borrow_mut();
        if let Some(slot) = state.slot(key) {
            slot.live = false;
            slot.generation = slot.generation.wrapping_add(1);
            state.free.push(key.index);
            state.live -= 1;
        }
    }
}

impl State {
    fn slot(&mut self, key: TaskKey) -> Option<&mut Slot> {
        self.slots.get_mut(key.index as usize).filter(|s| s.live && s.generation == key.generation)
    }

    fn enqueue(&mut self, key: TaskKey, class: Class) {
        let floor = self.pass_floor;
        let queue = &mut self.queues[class as usize];
        if queue.tasks.is_empty() {
            queue.pass = queue.pass.max(floor);
        }
        queue.tasks.push_back(key);
    }

    fn pick(&mut self) -> Option<(TaskKey, Class)> {
        let (class, queue) = Class::ALL
            .into_iter()
            .zip(self.queues.iter_mut())
            .filter(|(_, q)| !q.tasks.is_empty())
            .min_by_key(|(_, q)| q.pass)?;
        self.pass_floor = queue.pass;
        queue.tasks.pop_front().map(|key| (key, class))
    }

    fn charge(&mut self, class: Class, nanos: u64) {
        let queue = &mut self.queues[class as usize];
        queue.pass = queue.pass.saturating_add(nanos.max(POLL_NANOS_MIN) / class.share());
    }
}
