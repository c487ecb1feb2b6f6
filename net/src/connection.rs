//! A server connection without I/O: which answer leaves next, and whether more may be read.
//!
//! Requests of one connection work at the same time and finish in any order; their answers leave in the order
//! the requests came in, for clients close a connection whose correlation ids are out of step. Time comes as
//! an argument. `A` is an answer that is ready to be sent.
//!
//! Invariants: at most `requests_max` requests are open; their bytes count from `begin` until their answer was
//! taken to be sent. A request that alone is above `bytes_max` is let in when nothing else is open, or it
//! would never be.

use rt::Instant;
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests whose answer has not left.
    pub requests_max: usize,
    /// Bytes of those requests together.
    pub bytes_max: usize,
    /// How long the socket may be silent; an open request does not exempt, as in Kafka.
    pub idle: Duration,
}

/// Names a request of one connection, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestNumber(u64);

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<A> {
    Send(A),
    /// Produce with acks=0 gets no byte back.
    Silent,
    /// Nothing after this request is answered; the connection ends once earlier answers were sent.
    Close,
}

/// Whether the next frame may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Open,
    /// Until an answer leaves.
    Full,
    /// Throttled (KIP-219): the answer has told the client to wait, and we do not read before.
    MutedUntil(Instant),
    /// Never again.
    Closing,
}

#[derive(Debug)]
struct Pending<A> {
    bytes: usize,
    outcome: Option<Outcome<A>>,
}

#[derive(Debug)]
pub struct Connection<A> {
    limits: Limits,
    pending: VecDeque<Pending<A>>,
    /// The number of the request at the front of `pending`.
    front: u64,
    bytes: usize,
    active_at: Instant,
    muted_until: Option<Instant>,
    closing: bool,
}

impl<A> Connection<A> {
    pub fn new(limits: Limits, now: Instant) -> Connection<A> {
        assert!(limits.requests_max > 0);
        Connection {
            limits,
            pending: VecDeque::new(),
            front: 0,
            bytes: 0,
            active_at: now,
            muted_until: None,
            closing: false,
        }
    }

    /// Bytes came or went.
    pub fn active(&mut self, now: Instant) {
        self.active_at = self.active_at.max(now);
    }

    /// When the connection is to be closed if nothing comes or goes before.
    pub fn idle_deadline(&self) -> Instant {
        self.active_at + self.limits.idle
    }

    /// Leaves the connection unread until then. A later throttle never shortens an earlier one.
    pub fn mute(&mut self, until: Instant) {
        self.muted_until = self.muted_until.max(Some(until));
    }

    /// Whether a frame of this many bytes may be read now.
    pub fn reading(&self, bytes: usize, now: Instant) -> Reading {
        if self.closing {
            return Reading::Closing;
        }
        if let Some(until) = self.muted_until.filter(|until| *until > now) {
            return Reading::MutedUntil(until);
        }
        let full = self.pending.len() >= self.limits.requests_max
            || (!self.pending.is_empty() && self.bytes.saturating_add(bytes) > self.limits.bytes_max);
        if full { Reading::Full } else { Reading::Open }
    }

    /// A request was read. Ask [`Connection::reading`] before.
    pub fn begin(&mut self, bytes: usize) -> RequestNumber {
        assert!(!self.closing);
        assert!(self.pending.len() < self.limits.requests_max);
        let number = self.front + self.pending.len() as u64;
        self.bytes += bytes;
        self.pending.push_back(Pending { bytes, outcome: None });
        RequestNumber(number)
    }

    /// A request is done. One outcome each.
    pub fn finish(&mut self, request: RequestNumber, outcome: Outcome<A>) {
        let place = request.0.checked_sub(self.front).expect("an open request is not before the front");
        let pending = usize::try_from(place).ok().and_then(|place| self.pending.get_mut(place));
        let pending = pending.expect("a request is finished once");
        assert!(pending.outcome.is_none());
        pending.outcome = Some(outcome);
    }

    /// The next answer in order, if it is ready. Call until None, then send what came together.
    pub fn next_answer(&mut self) -> Option<A> {
        while !self.closing {
            self.pending.front()?.outcome.as_ref()?;
            let done = self.pending.pop_front()?;
            assert!(self.bytes >= done.bytes);
            self.bytes -= done.bytes;
            self.front += 1;
            match done.outcome? {
                Outcome::Send(answer) => return Some(answer),
                Outcome::Silent => {}
                Outcome::Close => self.closing = true,
            }
        }
        None
    }

    /// Whether the connection ends once what was taken has been sent.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Requests whose answers have not left.
    pub fn open_requests(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of those requests.
    pub fn open_bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { requests_max: 3, bytes_max: 100, idle: Duration::from_secs(10) };

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn answers_leave_in_the_order_of_the_requests() {
        let mut c = Connection::new(LIMITS, at(0));
        let (one, two, three) = (c.begin(1), c.begin(1), c.begin(1));
        c.finish(three, Outcome::Send("three"));
        assert_eq!(c.next_answer(), None);
        c.finish(one, Outcome::Send("one"));
        assert_eq!(c.next_answer(), Some("one"));
        assert_eq!(c.next_answer(), None);
        c.finish(two, Outcome::Silent);
        assert_eq!(c.next_answer(), Some("three"));
        assert_eq!((c.open_requests(), c.open_bytes()), (0, 0));
    }

    #[test]
    fn reading_stops_at_either_limit_and_goes_on_when_an_answer_leaves() {
        let mut c = Connection::new(LIMITS, at(0));
        assert_eq!(c.reading(1000, at(0)), Reading::Open, "a large request is let in alone");
        let one = c.begin(60);
        assert_eq!(c.reading(40, at(0)), Reading::Open);
        assert_eq!(c.reading(41, at(0)), Reading::Full);
        c.begin(1);
        c.begin(1);
        assert_eq!(c.reading(1, at(0)), Reading::Full);
        c.finish(one, Outcome::Send(()));
        assert_eq!(c.reading(1, at(0)), Reading::Full, "finished is not sent");
        c.next_answer().unwrap();
        assert_eq!(c.reading(1, at(0)), Reading::Open);
    }

    #[test]
    fn nothing_is_answered_after_a_request_that_closes() {
        let mut c = Connection::new(LIMITS, at(0));
        let (one, two, three) = (c.begin(1), c.begin(1), c.begin(1));
        c.finish(two, Outcome::Close);
        c.finish(three, Outcome::Send("three"));
        assert!(!c.is_closing());
        c.finish(one, Outcome::Send("one"));
        assert_eq!(c.next_answer(), Some("one"));
        assert_eq!(c.next_answer(), None);
        assert!(c.is_closing());
        assert_eq!(c.reading(1, at(0)), Reading::Closing);
    }

    #[test]
    fn a_throttle_mutes_and_activity_moves_the_idle_deadline() {
        let mut c = Connection::<()>::new(LIMITS, at(0));
        c.mute(at(50));
        c.mute(at(20));
        assert_eq!(c.reading(1, at(49)), Reading::MutedUntil(at(50)));
        assert_eq!(c.reading(1, at(50)), Reading::Open);
        c.active(at(7));
        c.active(at(3));
        assert_eq!(c.idle_deadline(), at(7) + LIMITS.idle);
    }
}
