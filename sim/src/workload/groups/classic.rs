//! A member of the classic protocol. Whoever leads gives each partition to a member drawn anew, so that two plans of one
//! generation would show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use corelog::shard::join::before;
use net::client::{Client, Error};
use net::error_code::ErrorCode;
use net::messages::heartbeat::HeartbeatRequest;
use net::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use net::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use net::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use super::{Clients, Connection, Failed, GiveUp, Member, Next, PARTITIONS, checked, judge};
use super::{REBALANCE_TIMEOUT_MS, SESSION_TIMEOUT_MS};

const PROTOCOL: &str = "drawn";
const PROTOCOL_TYPE: &str = "consumer";

enum Joined {
    /// The broker has chosen an id, to join with.
    Id(String),
    /// The members, if this one leads.
    Generation { id: String, generation: i32, members: Vec<String> },
}

/// One step of its life.
pub async fn go_on(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    member: &Rc<RefCell<Member>>,
) -> Result<(), GiveUp> {
    let Some(generation) = member.borrow().generation else { return join(clients, connection, member).await };
    let client = connection.client().await?;
    let (group, id) = (member.borrow().group, member.borrow().id.clone());
    if clients.one_in(12) {
        member.borrow_mut().must_join();
        member.borrow_mut().id.clear();
        // One that is not answered is as lawful as one that is.
        let _ = clients.answer("leaving", ask_leave(&client, group, &id)).await;
        return Ok(());
    }
    if let Err(Failed::Refused(code)) =
        clients.answer("a heartbeat", ask_heartbeat(&client, group, &id, generation)).await
    {
        not_known(clients, member, "a heartbeat", code);
    }
    Ok(())
}

/// Takes the member back to where the error asks it to begin.
fn not_known(clients: &Clients, member: &RefCell<Member>, what: &str, code: ErrorCode) {
    if judge(clients, what, code) == Next::Rejoin {
        let mut member = member.borrow_mut();
        member.must_join();
        if code == ErrorCode::UnknownMemberId {
            member.id.clear();
        }
    }
}

/// One try to become a member of a generation.
async fn join(
    clients: &Rc<Clients>,
    connection: &mut Connection,
    member: &Rc<RefCell<Member>>,
) -> Result<(), GiveUp> {
    let client = connection.client().await?;
    let (group, id) = (member.borrow().group, member.borrow().id.clone());
    let joined = match clients.answer("joining", ask_join(&client, group, &id)).await {
        Ok(joined) => joined,
        Err(Failed::NotAnswered) => return Ok(()),
        Err(Failed::Refused(code)) => {
            not_known(clients, member, "joining", code);
            return Ok(());
        }
    };
    let (id, generation, members) = match joined {
        Joined::Id(id) => {
            member.borrow_mut().id = id;
            return Ok(());
        }
        Joined::Generation { id, generation, members } => (id, generation, members),
    };
    member.borrow_mut().id.clone_from(&id);
    let plan = drawn(clients, &members);
    let asking = clients.answer("syncing", ask_sync(&client, group, &id, generation, &plan));
    // A leader that gives up and joins anew makes another plan.
    let patience = if clients.one_in(5) { clients.between(1, 1_500) } else { u64::from(u32::MAX) };
    match before(asking, clients.core.sleep(Duration::from_micros(patience))).await {
        Some(Ok(partitions)) => {
            let mut model = clients.model.borrow_mut();
            model.counts.assigned += 1;
            model.check_group(group, |group| group.given(generation, &id, &partitions));
            let mut member = member.borrow_mut();
            (member.generation, member.partitions) = (Some(generation), partitions);
        }
        Some(Err(Failed::Refused(code))) => not_known(clients, member, "syncing", code),
        Some(Err(Failed::NotAnswered)) => {}
        None => connection.leave(),
    }
    Ok(())
}

/// Each partition to somebody.
fn drawn(clients: &Clients, members: &[String]) -> BTreeMap<String, Vec<u8>> {
    let mut plan: BTreeMap<String, Vec<u8>> = members.iter().map(|id| (id.clone(), Vec::new())).collect();
    let owners: Vec<String> = plan.keys().cloned().collect();
    if owners.is_empty() {
        return plan;
    }
    for partition in 0..PARTITIONS {
        let last = u64::try_from(owners.len()).expect("a few members");
        let owner = usize::try_from(clients.between(0, last)).expect("an index fits");
        let of_owner = plan.entry(owners[owner].clone()).or_default();
        of_owner.push(u8::try_from(partition).expect("a few partitions"));
    }
    plan
}

async fn ask_join(client: &Client, group: &str, id: &str) -> Result<Joined, Error> {
    let request = JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: SESSION_TIMEOUT_MS,
        rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
        member_id: id.into(),
        protocol_type: PROTOCOL_TYPE.into(),
        protocols: vec![JoinGroupRequestProtocol { name: PROTOCOL.into(), metadata: b"m"[..].into() }],
        ..Default::default()
    };
    let reply = client.call(&request).await?;
    let response = reply.decode()?;
    let id = response.member_id.to_string();
    if ErrorCode::from_i16(response.error_code) == Some(ErrorCode::MemberIdRequired) {
        return Ok(Joined::Id(id));
    }
    checked(response.error_code)?;
    let members = response.members.iter().map(|member| member.member_id.to_string()).collect();
    Ok(Joined::Generation { id, generation: response.generation_id, members })
}

async fn ask_sync(
    client: &Client,
    group: &str,
    id: &str,
    generation: i32,
    plan: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<i32>, Error> {
    let assignment = |(member, partitions): (&String, &Vec<u8>)| SyncGroupRequestAssignment {
        member_id: member.clone().into(),
        assignment: partitions.clone().into(),
    };
    let request = SyncGroupRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: id.into(),
        group_instance_id: None,
        protocol_type: Some(PROTOCOL_TYPE.into()),
        protocol_name: Some(PROTOCOL.into()),
        assignments: plan.iter().map(assignment).collect(),
    };
    let reply = client.call(&request).await?;
    let response = reply.decode()?;
    checked(response.error_code)?;
    Ok(response.assignment.iter().map(|partition| i32::from(*partition)).collect())
}

async fn ask_heartbeat(client: &Client, group: &str, id: &str, generation: i32) -> Result<(), Error> {
    let request = HeartbeatRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: id.into(),
        group_instance_id: None,
    };
    let reply = client.call(&request).await?;
    checked(reply.decode()?.error_code)
}

async fn ask_leave(client: &Client, group: &str, id: &str) -> Result<(), Error> {
    let member = MemberIdentity { member_id: id.into(), group_instance_id: None, reason: None };
    let request = LeaveGroupRequest { group_id: group.into(), members: vec![member], ..Default::default() };
    let reply = client.call(&request).await?;
    checked(reply.decode()?.error_code)
}
