//! Members of consumer groups, of both protocols. They outlive the broker's lives, as applications do: each goes on with the
//! id, the generation or epoch and the partitions that it had, commits offsets of what it owns, leaves now and then, and
//! says to the model what it was given.

mod classic;
mod consumer;

use std::cell::RefCell;
use std::rc::Rc;

use net::client::{Client, Error};
use net::error_code::ErrorCode;
use net::messages::find_coordinator::FindCoordinatorRequest;
use net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use net::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics};

use super::admin::checked;
use super::{Clients, Connection, Failed, GiveUp, TOPICS};
use crate::model::TopicId;

/// What all groups subscribe to.
const TOPIC: &str = TOPICS[0].name;
const PARTITIONS: i32 = TOPICS[0].partitions;
/// Members of each group: one more than there are partitions.
const MEMBERS: usize = 3;
const TRIES_MAX: u32 = 200;
/// As members ask for; nobody is silent for so long in a life.
const SESSION_TIMEOUT_MS: i32 = 30_000;
/// How long a group waits for a member that has gone home.
const REBALANCE_TIMEOUT_MS: i32 = 200;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Classic,
    Consumer,
}

const GROUPS: [(&str, Protocol); 2] = [("eager", Protocol::Classic), ("next", Protocol::Consumer)];

/// A member; outlives the broker's lives.
pub struct Member {
    group: &'static str,
    protocol: Protocol,
    /// Empty until the broker has said it.
    id: String,
    /// The generation or the member's epoch; nothing where it must join.
    generation: Option<i32>,
    /// The id of the topic, as the consumer protocol says it.
    topic: TopicId,
    partitions: Vec<i32>,
}

impl Member {
    pub fn all() -> Vec<Rc<RefCell<Member>>> {
        let of_group = |(group, protocol)| {
            (0..MEMBERS).map(move |number| Member {
                group,
                protocol,
                // Clients of the consumer protocol choose theirs.
                id: if protocol == Protocol::Consumer { format!("member-{number}") } else { String::new() },
                generation: None,
                topic: [0; 16],
                partitions: Vec::new(),
            })
        };
        GROUPS.into_iter().flat_map(of_group).map(RefCell::new).map(Rc::new).collect()
    }

    fn must_join(&mut self) {
        self.generation = None;
        self.partitions.clear();
    }
}

/// What comes of an answer that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Again,
    /// The group does not know the member, or not in this generation.
    Rejoin,
}

/// A life of one member.
pub async fn run(clients: Rc<Clients>, member: Rc<RefCell<Member>>) {
    let mut connection = Connection::new(&clients);
    for _ in 0..clients.life.batches {
        let protocol = member.borrow().protocol;
        let gone_on = match protocol {
            Protocol::Classic => classic::go_on(&clients, &mut connection, &member).await,
            Protocol::Consumer => consumer::go_on(&clients, &mut connection, &member).await,
        };
        if gone_on.is_err() || commit(&clients, &mut connection, &member).await.is_err() {
            break;
        }
        clients.pause(3_000).await;
    }
    // It sends nothing from here on; the group may give to others what it had.
    let member = member.borrow();
    clients.model.borrow_mut().group(member.group).released(&member.id);
}

/// What an error of a group's API asks of a member.
fn judge(clients: &Clients, what: &str, code: ErrorCode) -> Next {
    match code {
        ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => Next::Again,
        ErrorCode::UnknownMemberId
        | ErrorCode::IllegalGeneration
        | ErrorCode::RebalanceInProgress
        | ErrorCode::FencedMemberEpoch
        | ErrorCode::StaleMemberEpoch => Next::Rejoin,
        _ if clients.life.disk_may_fail() => Next::Again,
        code => {
            clients.fail(format!("{what} is refused: {code}"));
            Next::Again
        }
    }
}

/// Commits an offset that nobody committed before for each partition that the member owns.
async fn commit(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    member: &Rc<RefCell<Member>>,
) -> Result<(), GiveUp> {
    let (group, id, generation, partitions) = {
        let member = member.borrow();
        let Some(generation) = member.generation else { return Ok(()) };
        (member.group, member.id.clone(), generation, member.partitions.clone())
    };
    for partition in partitions {
        let client = connection.client().await?;
        let offset = clients.model.borrow_mut().group(group).committing(partition);
        let asking = ask_commit(&client, group, &id, generation, partition, offset);
        match clients.answer("committing", asking).await {
            Ok(()) => {
                let mut model = clients.model.borrow_mut();
                model.counts.committed += 1;
                model.group(group).committed(partition, offset);
            }
            // It may come into force later.
            Err(Failed::NotAnswered) => {}
            Err(Failed::Refused(code)) => {
                // With a disk that fails nobody knows what is in the log.
                if !clients.life.disk_may_fail() {
                    clients.model.borrow_mut().group(group).refused(partition, offset);
                }
                judge(clients, "committing", code);
            }
        }
    }
    Ok(())
}

async fn ask_commit(
    client: &Client,
    group: &str,
    member: &str,
    generation: i32,
    partition: i32,
    offset: i64,
) -> Result<(), Error> {
    let partitions = vec![OffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: offset,
        committed_leader_epoch: -1,
        committed_metadata: None,
    }];
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic { name: TOPIC.into(), partitions, ..Default::default() }],
        ..Default::default()
    };
    let reply = client.call_up_to(&request, BY_NAME).await?;
    let response = reply.decode()?;
    let answer = response.topics.iter().flat_map(|topic| &topic.partitions).next();
    checked(answer.ok_or(Error::Unexpected("the answer names no partition"))?.error_code)
}

/// The newest version of OffsetCommit and OffsetFetch that says topics by their names.
const BY_NAME: i16 = 9;

/// Holds what is committed against what was promised; in a new life, for all that follows.
pub async fn verify(clients: &Rc<Clients>, is_first: bool) -> Result<(), GiveUp> {
    let mut connection = Connection::new(clients);
    for (group, _) in GROUPS {
        // Nobody has joined before somebody asked who coordinates; that makes the topic.
        repeated(clients, &mut connection, "finding the coordinator", |client| {
            ask_coordinator(client, group)
        })
        .await?;
        let asked =
            repeated(clients, &mut connection, "fetching offsets", |client| ask_committed(client, group));
        for (partition, offset) in asked.await? {
            clients.model.borrow_mut().check_group(group, |group| group.found(partition, offset, is_first));
        }
    }
    Ok(())
}

/// An answer, however often it must be asked for.
async fn repeated<T>(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    what: &str,
    ask: impl AsyncFn(Client) -> Result<T, Error>,
) -> Result<T, GiveUp> {
    for _ in 0..TRIES_MAX {
        let client = connection.client().await?;
        match clients.answer(what, ask(client)).await {
            Ok(answer) => return Ok(answer),
            Err(Failed::NotAnswered) => {}
            Err(Failed::Refused(code)) => {
                judge(clients, what, code);
            }
        }
        clients.pause(2_000).await;
    }
    if !clients.life.disk_may_fail() && !clients.broker_is_over.get() {
        clients.fail(format!("{what}: no answer in {TRIES_MAX} tries"));
    }
    Err(GiveUp)
}

async fn ask_coordinator(client: Client, group: &'static str) -> Result<(), Error> {
    let request =
        FindCoordinatorRequest { key_type: 0, coordinator_keys: vec![group.into()], ..Default::default() };
    let reply = client.call(&request).await?;
    let response = reply.decode()?;
    let found = response.coordinators.first().ok_or(Error::Unexpected("the answer names no group"))?;
    checked(found.error_code)
}

async fn ask_committed(client: Client, group: &'static str) -> Result<Vec<(i32, i64)>, Error> {
    let topics = vec![OffsetFetchRequestTopics {
        name: TOPIC.into(),
        partition_indexes: (0..PARTITIONS).collect(),
        ..Default::default()
    }];
    let asked = OffsetFetchRequestGroup {
        group_id: group.into(),
        member_id: None,
        member_epoch: -1,
        topics: Some(topics),
    };
    let request = OffsetFetchRequest { groups: vec![asked], ..Default::default() };
    let reply = client.call_up_to(&request, BY_NAME).await?;
    let response = reply.decode()?;
    let found = response.groups.first().ok_or(Error::Unexpected("the answer names no group"))?;
    checked(found.error_code)?;
    let partitions = found.topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| {
            checked(partition.error_code)?;
            Ok((partition.partition_index, partition.committed_offset))
        })
        .collect()
}
