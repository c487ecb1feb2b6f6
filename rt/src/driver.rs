//! What a driver does for one core: it takes operations, time passes, it gives completions. Executor, timers, memory
//! and mail are the same above every driver; `ring`, `posix` and `sim` differ only behind this trait.
//!
//! Invariants: every submitted operation completes exactly once, a cancelled one too, and what it owned comes back
//! with that completion. A driver never calls into the executor.

pub(crate) mod helped;
pub(crate) mod posix;
pub(crate) mod recorded;
pub(crate) mod ring;
pub mod sim;
pub(crate) mod sockets;

use crate::op::{Done, Handle, Op, OpKey};
use crate::stats::Stats;
use crate::time::Instant;
use std::io;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Submit what is queued, take what is complete, come back at once.
    No,
    /// Sleep until a completion, the doorbell, or this time.
    Until(Option<Instant>),
}

pub(crate) trait Driver {
    fn now(&self) -> Instant;
    fn wall_ms(&self) -> i64;
    fn submit(&mut self, key: OpKey, op: Op);
    /// Asks for an early end. The operation still completes, perhaps with success.
    fn cancel(&mut self, key: OpKey);
    /// Ends both directions of a connection; operations waiting on it complete.
    fn shutdown(&mut self, socket: &Handle);
    fn turn(&mut self, wait: Wait, done: &mut Vec<(OpKey, Done)>) -> io::Result<()>;
    /// Adds what the driver counted.
    fn count(&self, stats: &mut Stats);
    /// One line for the start-up banner.
    fn describe(&self) -> String;
}
