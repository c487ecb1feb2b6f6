//! Tasks as their owner sees them: the class they run in, the handle to await or abort, what a panic leaves.

use crate::core::Core;
use crate::ready::TaskKey;
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// What one poll of a task came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Polled {
    Pending,
    Ended,
    Panicked,
}

/// What the executor and the owner of a task share: the future until it ended, and the result until it is taken.
///
/// The future has a box of its own, which it is moved into once and which goes with its end, however long the result
/// waits. Futures are large; wrapped into one another by `async` blocks they were held three times over.
pub(crate) struct Spawned<F: Future> {
    /// Out while it is polled.
    future: RefCell<Option<Pin<Box<F>>>>,
    outcome: RefCell<Outcome<F::Output>>,
}

impl<F: Future> Spawned<F> {
    pub(crate) fn new(future: F) -> Rc<Spawned<F>> {
        let future = RefCell::new(Some(Box::pin(future)));
        Rc::new(Spawned { future, outcome: RefCell::new(Outcome::Running(None)) })
    }

    /// The first end counts.
    fn finish(&self, result: Result<F::Output, Panicked>) {
        let before = {
            let mut outcome = self.outcome.borrow_mut();
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

/// A task as the executor sees it.
pub(crate) trait Run {
    /// Polls the future; a panic ends it.
    fn poll(&self, cx: &mut Context<'_>) -> Polled;

    /// Drops the future.
    fn clear(&self);
}

impl<F: Future> Run for Spawned<F> {
    fn poll(&self, cx: &mut Context<'_>) -> Polled {
        let Some(mut future) = self.future.borrow_mut().take() else { return Polled::Ended };
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                *self.future.borrow_mut() = Some(future);
                Polled::Pending
            }
            Ok(Poll::Ready(value)) => {
                drop(future);
                self.finish(Ok(value));
                Polled::Ended
            }
            Err(payload) => {
                drop(future);
                self.finish(Err(Panicked::from_payload(&*payload)));
                Polled::Panicked
            }
        }
    }

    fn clear(&self) {
        let future = self.future.borrow_mut().take();
        drop(future);
    }
}

/// A task as its owner sees it.
trait Join<T> {
    fn abort(&self);
    fn is_finished(&self) -> bool;
    fn poll_result(&self, cx: &mut Context<'_>) -> Poll<Result<T, Panicked>>;
}

impl<F: Future> Join<F::Output> for Spawned<F> {
    fn abort(&self) {
        self.finish(Err(Panicked::aborted()));
    }

    fn is_finished(&self) -> bool {
        !matches!(*self.outcome.borrow(), Outcome::Running(_))
    }

    fn poll_result(&self, cx: &mut Context<'_>) -> Poll<Result<F::Output, Panicked>> {
        let mut outcome = self.outcome.borrow_mut();
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

/// A spawned task. Await it for its result; dropped, the task runs on by itself.
pub struct Task<T> {
    spawned: Rc<dyn Join<T>>,
    core: Core,
    key: TaskKey,
}

impl<T> Task<T> {
    pub(crate) fn new<F: Future<Output = T> + 'static>(
        spawned: Rc<Spawned<F>>,
        core: Core,
        key: TaskKey,
    ) -> Task<T> {
        Task { spawned, core, key }
    }

    /// Drops the task's future. Whoever awaits the task gets `Err(Panicked)` saying it was aborted.
    pub fn abort(&self) {
        self.core.abort(self.key);
        self.spawned.abort();
    }

    pub fn is_finished(&self) -> bool {
        self.spawned.is_finished()
    }

    /// The result of a finished task.
    pub(crate) fn now_or_never(self) -> Result<T, Panicked> {
        match self.spawned.poll_result(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("the task has not finished"),
        }
    }

    /// Says that nobody will wait for this task.
    pub fn detach(self) {}
}

impl<T> Future for Task<T> {
    type Output = Result<T, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.spawned.poll_result(cx)
    }
}
