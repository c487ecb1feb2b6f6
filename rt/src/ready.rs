//! What wakes a core: tasks that became ready and results that helper threads bring back, and the doorbell that is
//! rung only when the core sleeps. This is the one piece of a core that other threads touch.
//!
//! Invariant: whoever puts something in looks at `asleep` afterwards; the core sets `asleep` first and looks for
//! content afterwards. The mutex orders the two, so a wake-up is never lost.

use crate::op::{HelperResult, OpKey};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Wake;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Default)]
struct Content {
    tasks: Vec<TaskKey>,
    returns: Vec<(OpKey, HelperResult)>,
}

pub(crate) struct Ready {
    content: Mutex<Content>,
    asleep: AtomicBool,
    rings: AtomicU64,
    bell: Option<OwnedFd>,
}

impl Ready {
    /// `bell` is an eventfd; the simulator has none, for there every core is on one thread.
    pub(crate) fn new(bell: Option<OwnedFd>) -> Arc<Ready> {
        Arc::new(Ready {
            content: Mutex::default(),
            asleep: AtomicBool::new(false),
            rings: AtomicU64::new(0),
            bell,
        })
    }

    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(|fd| fd.as_fd())
    }

    pub(crate) fn push_task(&self, key: TaskKey) {
        self.lock().tasks.push(key);
        self.ring_if_asleep();
    }

    pub(crate) fn push_return(&self, key: OpKey, result: HelperResult) {
        self.lock().returns.push((key, result));
        self.ring_if_asleep();
    }

    /// Swaps the woken tasks out into `into`, which must be empty.
    pub(crate) fn take_tasks(&self, into: &mut Vec<TaskKey>) {
        assert!(into.is_empty());
        std::mem::swap(&mut self.lock().tasks, into);
    }

    pub(crate) fn take_returns(&self, into: &mut Vec<(OpKey, HelperResult)>) {
        assert!(into.is_empty());
        std::mem::swap(&mut self.lock().returns, into);
    }

    /// True when the core may sleep: nothing is here, and whoever brings something now rings.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let empty = self.is_empty();
        if !empty {
            self.awake();
        }
        empty
    }

    pub(crate) fn is_empty(&self) -> bool {
        let content = self.lock();
        content.tasks.is_empty() && content.returns.is_empty()
    }

    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    pub(crate) fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }

    fn ring_if_asleep(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.rings.fetch_add(1, Ordering::Relaxed);
            if let Some(bell) = &self.bell {
                // An eventfd write fails only when its counter is full, and then the core is being woken anyway.
                let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().expect("no code that can panic runs under this lock")
    }
}

/// The waker of one task. Waking twice before the task runs queues it once.
pub(crate) struct TaskWaker {
    key: TaskKey,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl TaskWaker {
    /// `queued`: the executor has put the new task in its queue already.
    pub(crate) fn new(key: TaskKey, ready: Arc<Ready>, queued: bool) -> Arc<TaskWaker> {
        Arc::new(TaskWaker { key, queued: AtomicBool::new(queued), ready })
    }

    /// Before each poll: what happens from here on queues the task again.
    pub(crate) fn begin_poll(&self) {
        self.queued.store(false, Ordering::SeqCst);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.ready.push_task(self.key);
        }
    }
}
