//! One append at a time per log, in the order of the calls.
//!
//! A ticket is drawn when the append starts; its holder may check the batch meanwhile and then waits for its turn.
//! Offsets are therefore given in call order whatever each append had to wait for (a roll, space, memory).
//! A ticket that is dropped passes the turn on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

#[derive(Default, Clone)]
pub(super) struct Turns(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    next: u64,
    /// Tickets drawn and not given back, with the waker of the one that waits.
    drawn: BTreeMap<u64, Option<Waker>>,
}

impl Turns {
    pub(super) fn draw(&self) -> Ticket {
        let mut queue = self.0.borrow_mut();
        let number = queue.next;
        queue.next += 1;
        queue.drawn.insert(number, None);
        Ticket { turns: self.clone(), number }
    }
}

pub(super) struct Ticket {
    turns: Turns,
    number: u64,
}

impl Ticket {
    /// Waits until every earlier ticket was given back. The turn lasts until this one is dropped.
    pub(super) async fn turn(&self) {
        poll_fn(|context| {
            let mut queue = self.turns.0.borrow_mut();
            let first = queue.drawn.first_key_value().map(|(number, _)| *number);
            if first == Some(self.number) {
                return Poll::Ready(());
            }
            queue.drawn.insert(self.number, Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = self.turns.0.borrow_mut();
        queue.drawn.remove(&self.number);
        let waker = queue.drawn.first_entry().and_then(|mut first| first.get_mut().take());
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    fn ready(ticket: &Ticket) -> bool {
        pin!(ticket.turn()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn turns_go_by_call_order_and_a_dropped_ticket_passes_on() {
        let turns = Turns::default();
        let first = turns.draw();
        let second = turns.draw();
        let third = turns.draw();
        assert!(!ready(&third));
        assert!(ready(&first));
        assert!(!ready(&second));
        drop(second);
        assert!(!ready(&third));
        drop(first);
        assert!(ready(&third));
    }
}
