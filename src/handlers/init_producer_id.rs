//! InitProducerId v0-v5, without a transactional id. v2: flexible. v3: current id and epoch. v4: fencing error code.
//!
//! Each core hands out ids of blocks that it got from the controller. What is left of a block when the broker stops is
//! never used: no id is handed out twice.

use net::error_code::ErrorCode;
use net::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use super::{Reply, Request, Unanswerable};
use crate::controller::{ControllerAnswer, ControllerRequest};

pub async fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: InitProducerIdRequest = request.decode()?;
    let response = match producer_id(request, &body).await {
        Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        Err(code) => InitProducerIdResponse {
            error_code: code as i16,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        },
    };
    request.answer(&response)
}

async fn producer_id(request: &Request<'_>, body: &InitProducerIdRequest<'_>) -> Result<i64, ErrorCode> {
    match body.transactional_id.as_deref() {
        None => {}
        Some("") => return Err(ErrorCode::InvalidRequest),
        // There is no transaction coordinator; clients end with this error instead of looking for one for ever.
        Some(_) => return Err(ErrorCode::TransactionalIdAuthorizationFailed),
    }
    if (body.producer_id == -1) != (body.producer_epoch == -1) {
        return Err(ErrorCode::InvalidRequest);
    }
    let shard = request.shard;
    loop {
        let id = shard.producer_ids.borrow_mut().take();
        if let Some(id) = id {
            return Ok(id.0);
        }
        match shard.ask_controller(ControllerRequest::AllocateProducerIds).await {
            ControllerAnswer::ProducerIds(block) => shard.producer_ids.borrow_mut().replace(block),
            _ => return Err(ErrorCode::CoordinatorLoadInProgress),
        }
    }
}
