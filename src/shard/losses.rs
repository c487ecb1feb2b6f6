//! Tells the controller of logs that failed: many at a time, because a disk that dies takes all of its logs with it.

use std::rc::Rc;

use engine::ids::PartitionId;
use rt::Class;

use crate::controller::{ControllerAnswer, ControllerRequest};
use crate::shard::Shard;

/// What is asked of the controller for a log that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// This broker leads it no more.
    Offline,
    /// It is to lead in a new epoch.
    Recovering,
}

/// What the controller was not told yet.
#[derive(Debug, Default)]
pub struct Losses {
    offline: Vec<PartitionId>,
    recovering: Vec<PartitionId>,
    telling: bool,
}

/// Has the controller told, together with everything else that fails until it listens.
pub fn report(shard: &Rc<Shard>, partition: PartitionId, loss: Loss) {
    {
        let mut losses = shard.losses.borrow_mut();
        match loss {
            Loss::Offline => losses.offline.push(partition),
            Loss::Recovering => losses.recovering.push(partition),
        }
        if std::mem::replace(&mut losses.telling, true) {
            return;
        }
    }
    let shard = shard.clone();
    shard.core.clone().spawn(Class::Control, tell(shard)).detach();
}

async fn tell(shard: Rc<Shard>) {
    loop {
        let request = {
            let mut losses = shard.losses.borrow_mut();
            let (offline, recovering) =
                (std::mem::take(&mut losses.offline), std::mem::take(&mut losses.recovering));
            if offline.is_empty() && recovering.is_empty() {
                losses.telling = false;
                return;
            }
            ControllerRequest::LogsFailed { offline, recovering }
        };
        match shard.ask_controller(request).await {
            ControllerAnswer::Noted => {}
            _ => rt::say!(
                "corelog: the controller could not note which partitions are offline; they stay so until a restart"
            ),
        }
    }
}
