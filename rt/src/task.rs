//! Tasks as their owner sees them: the class they run in, the handle to await or abort, what a panic leaves.

use crate::core::Core;
use crate::ready::TaskKey;
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Which share of the core a task gets when the core is busy. The order is the order of importance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Class {
    /// Raft, leases, metadata: starving these costs elections.
    Control,
    /// Connections that produce, appends, replication.
    Produce,
    /// Fetches served from memory.
    Fetch,
    /// Reads of old data.
    CatchUp,
    /// Compaction, retention, checkpoints.
    Background,
}

impl Class {
    pub(crate) const COUNT: usize = 5;
    pub(crate) const ALL: [Class; Class::COUNT] =
        [Class::Control, Class::Produce, Class::Fetch, Class::CatchUp, Class::Background];

    /// Weight against the other classes.
    pub(crate) fn share(self) -> u64 {
        match self {
            Class::Control => 32,
            Class::Produce => 16,
            Class::Fetch => 8,
            Class::CatchUp => 4,
            Class::Background => 1,
        }
    }
}

/// A task ended without a result: it panicked, or it was aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    pub message: String,
}

impl Panicked {
    pub(crate) fn from_payload(payload: &(dyn Any + Send)) -> Panicked {
        let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_string(),
            (None, Some(text)) => text.clone(),
            (None, None) => "a panic without a message".to_string(),
        };
        Panicked { message }
    }

    pub(crate) fn aborted() -> Panicked {
        Panicked { message: "the task was aborted".to_string() }
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Panicked {}

enum Outcome<T> {
    Running(Option<Waker>),
    Ended(Result<T, Panicked>),
    Taken,
}

pub(crate) struct JoinCell<T>(RefCell<Outcome<T>>);

impl<T> JoinCell<T> {
    pub(crate) fn new() -> Rc<JoinCell<T>> {
        Rc::new(JoinCell(RefCell::new(Outcome::Running(None))))
    }

    /// The first end counts.
    pub(crate) fn finish(&self, result: Result<T, Panicked>) {
        let before = {
            let mut outcome = self.0.borrow_mut();
            if !matches!(*outcome, Outcome::Running(_)) {
                return;
            }
            std::mem::replace(&mut *outcome, Outcome::Ended(result))
        };
        if let Outcome::Running(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// A spawned task. Await it for its result; dropped, the task runs on by itself.
pub struct Task<T> {
    cell: Rc<JoinCell<T>>,
    core: Core,
    key: TaskKey,
}

impl<T> Task<T> {
    pub(crate) fn new(cell: Rc<JoinCell<T>>, core: Core, key: TaskKey) -> Task<T> {
        Task { cell, core, key }
    }

    /// Drops the task's future. Whoever awaits the task gets `Err(Panicked)` saying it was aborted.
    pub fn abort(&self) {
        self.core.abort(self.key);
        self.cell.finish(Err(Panicked::aborted()));
    }

    pub fn is_finished(&self) -> bool {
        !matches!(*self.cell.0.borrow(), Outcome::Running(_))
    }

    /// The result of a finished task.
    pub(crate) fn now_or_never(self) -> Result<T, Panicked> {
        match self.cell.0.replace(Outcome::Taken) {
            Outcome::Ended(result) => result,
            Outcome::Running(_) | Outcome::Taken => panic!("the task has not finished"),
        }
    }

    /// Says that nobody will wait for this task.
    pub fn detach(self) {}
}

impl<T> Future for Task<T> {
    type Output = Result<T, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut outcome = self.cell.0.borrow_mut();
        match &mut *outcome {
            Outcome::Running(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Outcome::Ended(_) => match std::mem::replace(&mut *outcome, Outcome::Taken) {
                Outcome::Ended(result) => Poll::Ready(result),
                Outcome::Running(_) | Outcome::Taken => unreachable!("matched as ended"),
            },
            Outcome::Taken => panic!("a task was awaited again after its result was taken"),
        }
    }
}
