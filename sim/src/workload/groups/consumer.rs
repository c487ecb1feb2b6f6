//! A member of the consumer protocol (KIP-848): it says with each heartbeat what it holds, and gives up at once what it is
//! asked to.

use std::cell::RefCell;
use std::rc::Rc;

use net::client::{Client, Error};
use net::messages::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, TopicPartitions};

use super::{Clients, Connection, Failed, GiveUp, Member, Next, SESSION_TIMEOUT_MS, TOPIC, checked, judge};
use crate::model::TopicId;

const JOINING: i32 = 0;
const LEAVING: i32 = -1;

struct Beat {
    epoch: i32,
    /// The topic and its partitions, where they are told.
    assignment: Option<(TopicId, Vec<i32>)>,
}

/// One step of its life.
pub async fn go_on(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    member: &Rc<RefCell<Member>>,
) -> Result<(), GiveUp> {
    let client = connection.client().await?;
    let group = member.borrow().group;
    let leaves = member.borrow().generation.is_some() && clients.one_in(12);
    if leaves {
        stop(clients, &mut member.borrow_mut());
    }
    let asking = {
        let member = member.borrow();
        let epoch = if leaves { LEAVING } else { member.generation.unwrap_or(JOINING) };
        ask(client, group, member.id.clone(), epoch, (member.topic, member.partitions.clone()))
    };
    let beat = match clients.answer("a heartbeat of the consumer protocol", asking).await {
        Ok(beat) => beat,
        Err(Failed::NotAnswered) => return Ok(()),
        Err(Failed::Refused(code)) => {
            if judge(clients, "a heartbeat of the consumer protocol", code) == Next::Rejoin {
                stop(clients, &mut member.borrow_mut());
            }
            return Ok(());
        }
    };
    if leaves {
        return Ok(());
    }
    let mut member = member.borrow_mut();
    member.generation = Some(beat.epoch);
    let mut model = clients.model.borrow_mut();
    if let Some((topic, partitions)) = beat.assignment {
        (member.topic, member.partitions) = (topic, partitions);
        model.counts.assigned += 1;
    }
    model.check_group(group, |group| group.holds(&member.id, &member.partitions));
    Ok(())
}

/// It works on nothing from here on.
fn stop(clients: &Clients, member: &mut Member) {
    member.must_join();
    clients.model.borrow_mut().group(member.group).released(&member.id);
}

async fn ask(
    client: Client,
    group: &str,
    id: String,
    epoch: i32,
    (topic_id, partitions): (TopicId, Vec<i32>),
) -> Result<Beat, Error> {
    let held = match partitions.is_empty() {
        true => Vec::new(),
        false => vec![TopicPartitions { topic_id, partitions }],
    };
    let request = ConsumerGroupHeartbeatRequest {
        group_id: group.into(),
        member_id: id.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: SESSION_TIMEOUT_MS,
        subscribed_topic_names: Some(vec![TOPIC.into()]),
        topic_partitions: Some(held),
        ..Default::default()
    };
    let reply = client.call(&request).await?;
    let response = reply.decode()?;
    checked(response.error_code)?;
    let told = response.assignment.map(|assignment| {
        let topics = assignment.topic_partitions;
        let id = topics.first().map_or([0; 16], |topic| topic.topic_id);
        (id, topics.into_iter().flat_map(|topic| topic.partitions).collect())
    });
    Ok(Beat { epoch: response.member_epoch, assignment: told })
}
