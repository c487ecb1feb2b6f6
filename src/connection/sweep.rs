//! A look over all connections of a core, once a second: the idle ones are closed, and where somebody waits for memory,
//! the one that has held some for longest while its client neither sends nor takes.
//!
//! A client may well pause for minutes with an answer under way, so pausing alone ends nothing: only that others wait.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rt::{CoreId, Instant, Reservation};

use super::Shared;
use crate::shard::Shard;
use crate::shard::mail::Mail;

const EVERY: Duration = Duration::from_secs(1);
/// Nobody is ended for the sake of memory who was slow for less.
const SLOW_MIN: Duration = Duration::from_secs(5);

/// The open connections of a core.
#[derive(Default)]
pub struct Connections {
    open: RefCell<BTreeMap<u64, Rc<Shared>>>,
    next: Cell<u64>,
}

impl Connections {
    pub fn count(&self) -> usize {
        self.open.borrow().len()
    }

    /// Lists a connection until the guard is dropped.
    pub(super) fn list(&self, shared: &Rc<Shared>) -> Listed<'_> {
        let number = self.next.replace(self.next.get() + 1);
        self.open.borrow_mut().insert(number, shared.clone());
        Listed { connections: self, number }
    }
}

pub(super) struct Listed<'a> {
    connections: &'a Connections,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.number);
    }
}

/// Runs for as long as the broker does.
pub async fn sweep(shard: Rc<Shard>) {
    loop {
        shard.core.sleep(EVERY).await;
        close_idle(&shard);
        if is_short_of_memory(&shard) {
            squeeze(&shard);
            // What this core waits for may be held by connections of another.
            for core in (0..shard.settings.core_count).map(CoreId).filter(|core| *core != shard.core.id()) {
                // A core whose mail is full has other worries; the next second asks again.
                drop(shard.port.try_send(core, Mail::Squeeze));
            }
        }
    }
}

fn close_idle(shard: &Shard) {
    let (now, idle) = (shard.core.now(), shard.limits().idle);
    let open = shard.connections.open.borrow();
    open.values().filter(|one| one.active_at.get() + idle <= now).for_each(|one| one.close());
}

fn is_short_of_memory(shard: &Shard) -> bool {
    let buffers = shard.core.buffers();
    let waiting = [Reservation::Produce, Reservation::Fetch].map(|of| buffers.waiting(of));
    waiting.iter().sum::<usize>() + shard.request_memory.waiting() > 0
}

/// Ends the connection that has held memory for longest without moving, if there is one that is slow.
pub fn squeeze(shard: &Shard) {
    let now = shard.core.now();
    let open = shard.connections.open.borrow();
    let slowest =
        open.values().filter_map(|one| Some((held_since(one)?, one))).min_by_key(|(since, _)| *since);
    if let Some((since, one)) = slowest
        && now - since >= SLOW_MIN
    {
        one.close();
    }
}

/// Since when the client has held memory, if it does.
fn held_since(one: &Shared) -> Option<Instant> {
    match (one.sending_since.get(), one.receiving_since.get()) {
        (Some(sending), Some(receiving)) => Some(sending.min(receiving)),
        (sending, receiving) => sending.or(receiving),
    }
}
