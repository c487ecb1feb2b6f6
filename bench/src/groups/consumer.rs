//! A member of a group of the consumer protocol (KIP-848): all of it is ConsumerGroupHeartbeat. What is taken away is
//! given up at once and said so with the next heartbeat, which then does not wait.

use std::borrow::Cow;

use net::messages::consumer_group_heartbeat::{
    Api, Assignment, ConsumerGroupHeartbeatRequest, TopicPartitions,
};

use super::classic::millis;
use super::crew::{ANSWER_WAIT, Hands, Next, REBALANCE_TIMEOUT};
use crate::link::{Error, Link};

const JOINING: i32 = 0;
const LEAVING: i32 = -1;
/// "As it was": lists and times that did not change are not sent again.
const UNCHANGED: i32 = -1;
/// Since this version members name themselves.
const OWN_IDS_SINCE: i16 = 1;

pub struct Member {
    link: Link,
    id: String,
    epoch: i32,
    /// What it holds is not what the coordinator was last told.
    is_changed: bool,
}

impl Member {
    pub fn new(link: Link) -> Member {
        Member { link, id: String::new(), epoch: JOINING, is_changed: true }
    }

    pub async fn turn(&mut self, hands: &Hands) -> Result<Next, Error> {
        let is_joining = self.epoch == JOINING;
        if is_joining && self.link.version::<Api>()? >= OWN_IDS_SINCE {
            self.id = format!("{}-{}", hands.crew.group, hands.index);
        }
        let topic_partitions = self.is_changed.then(|| {
            let partitions = hands.held();
            let held = TopicPartitions { topic_id: hands.crew.topic_id, partitions };
            Some(held).filter(|held| !held.partitions.is_empty()).into_iter().collect()
        });
        let request = ConsumerGroupHeartbeatRequest {
            group_id: Cow::Borrowed(&hands.crew.group),
            member_id: Cow::Borrowed(&self.id),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if is_joining { millis(REBALANCE_TIMEOUT) } else { UNCHANGED },
            subscribed_topic_names: is_joining.then(|| vec![Cow::Borrowed(hands.crew.topic.as_str())]),
            topic_partitions,
            ..Default::default()
        };
        let answer = self.link.call_within(&request, ANSWER_WAIT).await?;
        let body = answer.body::<Api>()?;
        if body.error_code != 0 {
            return Err(hands.refused("the heartbeat", body.error_code));
        }
        if let Some(id) = &body.member_id {
            self.id = id.clone().into_owned();
        }
        self.epoch = body.member_epoch;
        hands.stands(&self.id, self.epoch);
        self.is_changed = body.assignment.is_some_and(|assignment| reconcile(hands, &assignment));
        Ok(if self.is_changed { Next::AtOnce } else { Next::AfterHeartbeat })
    }

    pub async fn leave(&mut self, hands: &Hands) -> Result<(), Error> {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: Cow::Borrowed(&hands.crew.group),
            member_id: Cow::Borrowed(&self.id),
            member_epoch: LEAVING,
            ..Default::default()
        };
        let answer = self.link.call_within(&request, ANSWER_WAIT).await?;
        match answer.body::<Api>()?.error_code {
            0 => Ok(()),
            code => Err(hands.refused("leaving", code)),
        }
    }
}

/// Gives up what is not assigned any more, takes what is new; whether anything was.
fn reconcile(hands: &Hands, assignment: &Assignment) -> bool {
    let ours = assignment.topic_partitions.iter().filter(|topic| topic.topic_id == hands.crew.topic_id);
    let assigned: Vec<i32> = ours.flat_map(|topic| &topic.partitions).copied().collect();
    let held = hands.held();
    let without = |of: &[i32], others: &[i32]| -> Vec<i32> {
        of.iter().filter(|one| !others.contains(one)).copied().collect()
    };
    let (lost, gained) = (without(&held, &assigned), without(&assigned, &held));
    hands.give_up(&lost);
    hands.take(&gained);
    !lost.is_empty() || !gained.is_empty()
}
