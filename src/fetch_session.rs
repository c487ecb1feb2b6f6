//! Fetch sessions (KIP-227): what a consumer is interested in, kept between its fetches. Pure.
//!
//! A session belongs to the core that made it. A client that comes back on another core gets
//! FETCH_SESSION_ID_NOT_FOUND and starts a full fetch, as the protocol foresees. Offsets are never advanced here: an
//! unchanged partition is fetched again from the offset that the client named last.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use engine::ids::TopicId;
use net::error_code::ErrorCode;
use rt::Instant;

/// A session idle for longer gives way to a new one when the cache is full.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// How a request names a topic: by name up to version 12, by id from version 13.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    Name(Rc<str>),
    Id(TopicId),
}

/// One partition as a client asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    pub topic: TopicKey,
    pub partition: i32,
    pub fetch_offset: i64,
    pub partition_max_bytes: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

/// The session fields of one Fetch request.
#[derive(Debug)]
pub struct Begin {
    pub session_id: i32,
    pub session_epoch: i32,
    pub by_id: bool,
    pub interests: Vec<Interest>,
    pub forgotten: Vec<(TopicKey, i32)>,
}

/// What this fetch is about, in the order in which partitions get their share of the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Context {
    /// 0 without a session.
    pub session_id: i32,
    /// The answer leaves out partitions with nothing new.
    pub incremental: bool,
    pub interests: Vec<Interest>,
}

/// What decides whether a partition is part of an incremental answer.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub error: bool,
    pub has_records: bool,
    pub diverging: bool,
    pub high_watermark: i64,
    pub log_start_offset: i64,
}

type Key = (TopicKey, i32);

#[derive(Debug)]
struct Entry {
    interest: Interest,
    order: u64,
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct Session {
    epoch_next: i32,
    by_id: bool,
    used_last: Instant,
    entries: HashMap<Key, Entry, ahash::RandomState>,
    order: BTreeMap<u64, Key>,
    order_next: u64,
}

/// All sessions of one core.
#[derive(Debug)]
pub struct Sessions {
    sessions: HashMap<i32, Session, ahash::RandomState>,
    sessions_max: usize,
}

impl Sessions {
    pub fn new(sessions_max: usize) -> Sessions {
        Sessions { sessions: HashMap::default(), sessions_max }
    }

    /// Takes the session part of a request. `id_new` is a random id for a session that may be made.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR: the answer has that code
    /// at its top, no topics, and session id 0.
    pub fn begin(&mut self, now: Instant, id_new: i32, begin: Begin) -> Result<Context, ErrorCode> {
        match begin.session_epoch {
            -1 => {
                self.sessions.remove(&begin.session_id);
                Ok(Context { session_id: 0, incremental: false, interests: last_of_each(begin.interests) })
            }
            0 => {
                self.sessions.remove(&begin.session_id);
                let interests = last_of_each(begin.interests);
                let session_id = self.create(now, id_new, begin.by_id, &interests);
                Ok(Context { session_id, incremental: false, interests })
            }
            _ => self.go_on(now, begin),
        }
    }

    /// Takes what was found for the context's interests, in their order, and says which are part of the answer.
    pub fn finish(&mut self, context: &Context, outcomes: &[Outcome]) -> Vec<bool> {
        assert_eq!(context.interests.len(), outcomes.len());
        let Some(session) = self.sessions.get_mut(&context.session_id) else {
            return vec![true; outcomes.len()];
        };
        let included = context.interests.iter().zip(outcomes);
        included.map(|(interest, outcome)| session.note(interest, *outcome) || !context.incremental).collect()
    }

    fn create(&mut self, now: Instant, id_new: i32, by_id: bool, interests: &[Interest]) -> i32 {
        if id_new < 1 || self.sessions.contains_key(&id_new) || !self.make_room(now) {
            return 0;
        }
        let mut session = Session {
            epoch_next: 1,
            by_id,
            used_last: now,
            entries: HashMap::default(),
            order: BTreeMap::new(),
            order_next: 0,
        };
        interests.iter().for_each(|interest| session.put(interest.clone()));
        self.sessions.insert(id_new, session);
        id_new
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.sessions.len() < self.sessions_max {
            return true;
        }
        let oldest = self.sessions.iter().min_by_key(|(id, session)| (session.used_last, **id));
        let Some((&id, session)) = oldest else { return false };
        if now - session.used_last <= IDLE_MAX {
            return false;
        }
        self.sessions.remove(&id);
        true
    }

    fn go_on(&mut self, now: Instant, begin: Begin) -> Result<Context, ErrorCode> {
        let id = begin.session_id;
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch_next != begin.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != begin.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.epoch_next = if begin.session_epoch == i32::MAX { 1 } else { begin.session_epoch + 1 };
        session.used_last = now;
        begin.interests.into_iter().for_each(|interest| session.put(interest));
        begin.forgotten.into_iter().for_each(|key| session.forget(&key));
        if session.entries.is_empty() {
            self.sessions.remove(&id);
            return Ok(Context { session_id: 0, incremental: true, interests: Vec::new() });
        }
        let interests = session.order.values().map(|key| session.entries[key].interest.clone()).collect();
        Ok(Context { session_id: id, incremental: true, interests })
    }
}

impl Session {
    fn put(&mut self, interest: Interest) {
        let key = (interest.topic.clone(), interest.partition);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.interest = interest;
            return;
        }
        let order = self.order_next;
        self.order_next += 1;
        self.order.insert(order, key.clone());
        self.entries.insert(key, Entry { interest, order, high_watermark: -1, log_start_offset: -1 });
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.order);
        }
    }

    /// Remembers what the client is about to be told, and says whether it is news.
    fn note(&mut self, interest: &Interest, outcome: Outcome) -> bool {
        let key = (interest.topic.clone(), interest.partition);
        let Some(entry) = self.entries.get_mut(&key) else { return true };
        let moved = entry.high_watermark != outcome.high_watermark
            || entry.log_start_offset != outcome.log_start_offset;
        entry.high_watermark = if outcome.error { -1 } else { outcome.high_watermark };
        entry.log_start_offset = outcome.log_start_offset;
        if outcome.has_records {
            // Fairness: who got data waits for the others the next time.
            self.order.remove(&entry.order);
            entry.order = self.order_next;
            self.order_next += 1;
            self.order.insert(entry.order, key);
        }
        outcome.error || outcome.has_records || outcome.diverging || moved
    }
}

/// A partition listed twice counts once: its last entry wins and keeps the first one's place.
fn last_of_each(interests: Vec<Interest>) -> Vec<Interest> {
    let mut places: HashMap<Key, usize, ahash::RandomState> = HashMap::default();
    let mut unique: Vec<Interest> = Vec::with_capacity(interests.len());
    for interest in interests {
        let place = *places.entry((interest.topic.clone(), interest.partition)).or_insert(unique.len());
        match unique.get_mut(place) {
            Some(earlier) => *earlier = interest,
            None => unique.push(interest),
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(partition: i32, fetch_offset: i64) -> Interest {
        Interest {
            topic: TopicKey::Id(TopicId([7; 16])),
            partition,
            fetch_offset,
            partition_max_bytes: 1 << 20,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }

    fn begin(session_id: i32, session_epoch: i32, partitions: &[(i32, i64)], forgotten: &[i32]) -> Begin {
        Begin {
            session_id,
            session_epoch,
            by_id: true,
            interests: partitions.iter().map(|&(partition, offset)| interest(partition, offset)).collect(),
            forgotten: forgotten
                .iter()
                .map(|&partition| (TopicKey::Id(TopicId([7; 16])), partition))
                .collect(),
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    const IDLE: Outcome = Outcome {
        error: false,
        has_records: false,
        diverging: false,
        high_watermark: 5,
        log_start_offset: 0,
    };

    fn partitions(context: &Context) -> Vec<(i32, i64)> {
        context.interests.iter().map(|interest| (interest.partition, interest.fetch_offset)).collect()
    }

    #[test]
    fn without_a_session_everything_is_answered() {
        let mut sessions = Sessions::new(10);
        let context = sessions.begin(at(0), 9, begin(0, -1, &[(0, 1), (1, 2), (0, 3)], &[])).unwrap();
        assert_eq!((context.session_id, context.incremental), (0, false));
        assert_eq!(partitions(&context), [(0, 3), (1, 2)]);
        assert_eq!(sessions.finish(&context, &[IDLE, IDLE]), [true, true]);
    }

    #[test]
    fn an_incremental_answer_has_only_news() {
        let mut sessions = Sessions::new(10);
        let full = sessions.begin(at(0), 9, begin(0, 0, &[(0, 1), (1, 2)], &[])).unwrap();
        assert_eq!(full.session_id, 9);
        assert_eq!(sessions.finish(&full, &[IDLE, IDLE]), [true, true]);

        let next = sessions.begin(at(1), 0, begin(9, 1, &[(1, 7)], &[])).unwrap();
        assert_eq!(partitions(&next), [(0, 1), (1, 7)]);
        let news = Outcome { has_records: true, ..IDLE };
        assert_eq!(sessions.finish(&next, &[news, IDLE]), [true, false]);

        let fair = sessions.begin(at(2), 0, begin(9, 2, &[], &[])).unwrap();
        assert_eq!(partitions(&fair), [(1, 7), (0, 1)], "who got data goes to the tail");
        let moved = Outcome { high_watermark: 6, ..IDLE };
        assert_eq!(sessions.finish(&fair, &[moved, IDLE]), [true, false]);
    }

    #[test]
    fn an_error_is_told_each_time_and_forgets_the_high_watermark() {
        let mut sessions = Sessions::new(10);
        let full = sessions.begin(at(0), 9, begin(0, 0, &[(0, 1)], &[])).unwrap();
        let failed = Outcome { error: true, high_watermark: -1, log_start_offset: -1, ..IDLE };
        sessions.finish(&full, &[failed]);
        let next = sessions.begin(at(1), 0, begin(9, 1, &[], &[])).unwrap();
        assert_eq!(sessions.finish(&next, &[failed]), [true]);
        let next = sessions.begin(at(1), 0, begin(9, 2, &[], &[])).unwrap();
        assert_eq!(sessions.finish(&next, &[IDLE]), [true]);
    }

    #[test]
    fn wrong_sessions_and_epochs_are_refused() {
        let mut sessions = Sessions::new(10);
        assert_eq!(sessions.begin(at(0), 1, begin(5, 1, &[], &[])), Err(ErrorCode::FetchSessionIdNotFound));
        sessions.begin(at(0), 9, begin(0, 0, &[(0, 1)], &[])).unwrap();
        assert_eq!(sessions.begin(at(0), 1, begin(9, 2, &[], &[])), Err(ErrorCode::InvalidFetchSessionEpoch));
        let by_name = Begin { by_id: false, ..begin(9, 1, &[], &[]) };
        assert_eq!(sessions.begin(at(0), 1, by_name), Err(ErrorCode::FetchSessionTopicIdError));
        assert!(sessions.begin(at(0), 1, begin(9, 1, &[], &[])).is_ok(), "the session was kept");
    }

    #[test]
    fn a_session_without_partitions_closes() {
        let mut sessions = Sessions::new(10);
        sessions.begin(at(0), 9, begin(0, 0, &[(0, 1)], &[])).unwrap();
        let context = sessions.begin(at(0), 0, begin(9, 1, &[], &[0])).unwrap();
        assert_eq!(context, Context { session_id: 0, incremental: true, interests: vec![] });
        assert_eq!(sessions.begin(at(0), 0, begin(9, 2, &[], &[])), Err(ErrorCode::FetchSessionIdNotFound));
    }

    #[test]
    fn a_full_cache_gives_no_session_until_one_is_idle() {
        let mut sessions = Sessions::new(1);
        assert_eq!(sessions.begin(at(0), 9, begin(0, 0, &[(0, 1)], &[])).unwrap().session_id, 9);
        assert_eq!(sessions.begin(at(100), 8, begin(0, 0, &[(0, 1)], &[])).unwrap().session_id, 0);
        assert_eq!(sessions.begin(at(121), 8, begin(0, 0, &[(0, 1)], &[])).unwrap().session_id, 8);
    }
}
