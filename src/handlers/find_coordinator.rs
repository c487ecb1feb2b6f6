//! FindCoordinator v0-v6. v1: key types. v3: flexible. v4: several keys. v6: share groups.
//!
//! Answered from metadata alone: whether the coordinator has loaded its groups, it says itself. The first request
//! creates the topic that groups live in, and waits for it.

use coord::metadata::Listener;
use net::error_code::ErrorCode;
use net::messages::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};

use super::{Reply, Request, Unanswerable};
use crate::groups;

/// From this version on there are several keys, and an answer for each.
const MANY_FROM: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

type Refused = (ErrorCode, &'static str);

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: FindCoordinatorRequest = request.decode()?;
    if body.key_type == GROUP {
        groups::create_topic(request.shard).await;
    }
    if request.version >= MANY_FROM {
        let rows = body.coordinator_keys.iter().map(|key| row(key, find(request, body.key_type, key)));
        return request
            .answer(&FindCoordinatorResponse { coordinators: rows.collect(), ..Default::default() });
    }
    let row = row(&body.key, find(request, body.key_type, &body.key));
    request.answer(&FindCoordinatorResponse {
        error_code: row.error_code,
        error_message: row.error_message,
        node_id: row.node_id,
        host: row.host,
        port: row.port,
        ..Default::default()
    })
}

fn find(request: &Request<'_>, key_type: i8, key: &str) -> Result<(i32, Listener), Refused> {
    match key_type {
        GROUP => {}
        // There is no transaction coordinator; clients end with this error instead of looking for one for ever.
        TRANSACTION => {
            return Err((ErrorCode::TransactionalIdAuthorizationFailed, "Transactions are not supported."));
        }
        _ => return Err((ErrorCode::InvalidRequest, "The key type is not known.")),
    }
    let not_available = (ErrorCode::CoordinatorNotAvailable, "The coordinator is not available.");
    let metadata = request.shard.metadata.borrow();
    let home = groups::home(&metadata, key).ok_or(not_available)?;
    let leader = metadata.partition(home).and_then(|partition| partition.leader).ok_or(not_available)?;
    let broker = metadata.broker(leader).filter(|broker| !broker.fenced).ok_or(not_available)?;
    let listener = broker.listeners.first().ok_or(not_available)?;
    Ok((leader.0, listener.clone()))
}

fn row<'a>(key: &'a str, found: Result<(i32, Listener), Refused>) -> Coordinator<'a> {
    match found {
        Ok((node_id, listener)) => Coordinator {
            key: key.into(),
            node_id,
            host: listener.host.into(),
            port: i32::from(listener.port),
            ..Default::default()
        },
        Err((code, message)) => Coordinator {
            key: key.into(),
            node_id: -1,
            port: -1,
            error_code: code as i16,
            error_message: Some(message.into()),
            ..Default::default()
        },
    }
}
