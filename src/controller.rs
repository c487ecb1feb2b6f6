//! The controller: plans changes of the metadata, commits them to the metadata log, and tells every core.
//!
//! It works on core 0, on one request at a time, so each plan sees everything that was committed before it. Its answer
//! is sent when every core has taken up the change and opened what it owns of it.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use coord::metadata::validate::{
    self, DeleteTopic, PlannedTopic, plan_create_partitions, plan_create_topics, plan_delete_topics,
};
use coord::metadata::{Change, Command, Metadata};
use coord::producer_ids;
use engine::ids::PartitionId;
use net::error_code::ErrorCode;
use rt::CoreId;
use rt::sync::Semaphore;

use crate::groups::OFFSETS_TOPIC;
use crate::metadata_log::MetadataLog;
use crate::shard::join::join_boxed;
use crate::shard::mail::Ask;
use crate::shard::{CONTROLLER_CORE, Shard};

mod configs;
mod request;

pub use configs::{AlterResource, Alteration};
pub use request::{
    ControllerAnswer, ControllerRequest, CreatedConfig, CreatedTopic, MorePartitions, NewTopic, OldTopic,
    Refused,
};

/// The metadata log failed; what was asked may or may not come to be after a restart.
#[derive(Debug)]
pub struct Unavailable;

pub struct Controller {
    shard: Weak<Shard>,
    /// One request at a time.
    turn: Semaphore,
    metadata: RefCell<Metadata>,
    log: MetadataLog,
}

impl Controller {
    /// A controller that goes on where the log ends.
    pub fn new(shard: &Rc<Shard>, metadata: Metadata, log: MetadataLog) -> Rc<Controller> {
        Rc::new(Controller {
            shard: Rc::downgrade(shard),
            turn: Semaphore::new(1),
            metadata: RefCell::new(metadata),
            log,
        })
    }

    /// Works on one request, after those that came before it.
    pub async fn handle(&self, request: ControllerRequest) -> ControllerAnswer {
        let _turn = self.turn.acquire(1).await;
        let answer = match request {
            ControllerRequest::CreateTopics { topics, validate_only } => {
                self.create_topics(&topics, validate_only).await.map(ControllerAnswer::CreatedTopics)
            }
            ControllerRequest::DeleteTopics { topics } => {
                self.delete_topics(&topics).await.map(ControllerAnswer::DeletedTopics)
            }
            ControllerRequest::CreatePartitions { topics, validate_only } => {
                self.create_partitions(&topics, validate_only).await.map(ControllerAnswer::CreatedPartitions)
            }
            ControllerRequest::AlterConfigs { resources, validate_only } => {
                self.alter_configs(&resources, validate_only).await.map(ControllerAnswer::AlteredConfigs)
            }
            ControllerRequest::CreateOffsetsTopic => {
                self.create_offsets_topic().await.map(|()| ControllerAnswer::Noted)
            }
            ControllerRequest::AllocateProducerIds => self.allocate_producer_ids().await,
            ControllerRequest::LogsFailed { offline, recovering } => {
                self.logs_failed(offline, recovering).await.map(|()| ControllerAnswer::Noted)
            }
        };
        answer.unwrap_or(ControllerAnswer::Unavailable)
    }

    async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<CreatedTopic, Refused>)>, Unavailable> {
        let shard = self.shard()?;
        let asked: Vec<validate::NewTopic<'_>> = topics.iter().map(borrowed).collect();
        let plans = {
            let metadata = self.metadata.borrow();
            plan_create_topics(metadata.image(), &shard.defaults(), &asked, || shard.core.random_u64())
        };
        let mut commands = Vec::new();
        let mut answers = Vec::with_capacity(plans.len());
        let mut room = self.room(&shard);
        for (name, plan) in plans {
            let planned = plan.map_err(refused).and_then(|planned| {
                room.take(usize::try_from(planned.num_partitions).unwrap_or(usize::MAX))?;
                Ok(planned)
            });
            answers.push((
                name.to_owned(),
                planned.map(|planned| {
                    commands.push(planned.command.clone());
                    created(planned)
                }),
            ));
        }
        if !validate_only {
            self.commit(commands).await?;
        }
        Ok(answers)
    }

    async fn delete_topics(
        &self,
        topics: &[OldTopic],
    ) -> Result<Vec<Result<(String, engine::ids::TopicId), Refused>>, Unavailable> {
        let asked: Vec<DeleteTopic<'_>> =
            topics.iter().map(|topic| DeleteTopic { name: topic.name.as_deref(), id: topic.id }).collect();
        let mut commands = Vec::new();
        let mut answers = Vec::with_capacity(topics.len());
        {
            let metadata = self.metadata.borrow();
            for plan in plan_delete_topics(metadata.image(), &asked) {
                answers.push(plan.map_err(refused).map(|command| {
                    let Command::DeleteTopic { id } = command else {
                        unreachable!("a deletion is planned as a deletion")
                    };
                    let topic = metadata.image().topic_by_id(id).expect("the plan found it in this image");
                    commands.push(Command::DeleteTopic { id });
                    (topic.name.clone(), id)
                }));
            }
        }
        self.commit(commands).await?;
        Ok(answers)
    }

    async fn create_partitions(
        &self,
        topics: &[MorePartitions],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<(), Refused>)>, Unavailable> {
        let shard = self.shard()?;
        let asked: Vec<validate::MorePartitions<'_>> = topics
            .iter()
            .map(|topic| validate::MorePartitions {
                name: &topic.name,
                count: topic.count,
                assignments: topic.assignments.clone(),
            })
            .collect();
        let plans = {
            let metadata = self.metadata.borrow();
            plan_create_partitions(metadata.image(), &asked, || shard.core.random_u64())
        };
        let mut commands = Vec::new();
        let mut answers = Vec::with_capacity(plans.len());
        let mut room = self.room(&shard);
        for (name, plan) in plans {
            let taken = plan.map_err(refused).and_then(|command| {
                if name == OFFSETS_TOPIC {
                    return Err(Refused {
                        code: ErrorCode::InvalidRequest as i16,
                        message: format!(
                            "{OFFSETS_TOPIC} cannot grow: its partition count says where each group lives."
                        ),
                    });
                }
                let Command::CreatePartitions { partitions, .. } = &command else {
                    unreachable!("a growth is planned as a growth")
                };
                room.take(partitions.len())?;
                Ok(command)
            });
            answers.push((name.to_owned(), taken.map(|command| commands.push(command))));
        }
        if !validate_only {
            self.commit(commands).await?;
        }
        Ok(answers)
    }

    async fn create_offsets_topic(&self) -> Result<(), Unavailable> {
        let shard = self.shard()?;
        let settings = &shard.settings.offsets_topic;
        let configs = [
            ("segment.bytes", settings.segment_bytes.to_string()),
            ("compression.type", "producer".to_owned()),
            ("cleanup.policy", "compact".to_owned()),
        ];
        let topic = NewTopic {
            num_partitions: settings.num_partitions,
            configs: configs.map(|(name, value)| (name.to_owned(), Some(value))).into(),
            ..NewTopic::with_defaults(OFFSETS_TOPIC.to_owned())
        };
        let plan = {
            let metadata = self.metadata.borrow();
            let mut plans =
                plan_create_topics(metadata.image(), &shard.defaults(), &[borrowed(&topic)], || {
                    shard.core.random_u64()
                });
            plans.pop().map(|(_, plan)| plan)
        };
        let planned = match plan.ok_or(Unavailable)? {
            Ok(planned) => planned,
            Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => return Ok(()),
            Err(refusal) => {
                rt::say!("corelog: {OFFSETS_TOPIC} cannot be created: {}", refusal.message);
                return Err(Unavailable);
            }
        };
        let count = usize::try_from(planned.num_partitions).unwrap_or(usize::MAX);
        if let Err(refused) = self.room(&shard).take(count) {
            rt::say!("corelog: {OFFSETS_TOPIC} cannot be created: {}", refused.message);
            return Err(Unavailable);
        }
        self.commit(vec![planned.command]).await.map(drop)
    }

    async fn allocate_producer_ids(&self) -> Result<ControllerAnswer, Unavailable> {
        let shard = self.shard()?;
        let command =
            Command::AllocateProducerIds { node: shard.settings.node_id, count: producer_ids::BLOCK_IDS };
        let changes = self.commit(vec![command]).await?;
        let block = changes.iter().find_map(|change| match change {
            Change::ProducerIds { ids, .. } => Some(ids.clone()),
            _ => None,
        });
        block.map(ControllerAnswer::ProducerIds).ok_or(Unavailable)
    }

    /// The leader epochs of logs that failed end here: with nobody to lead after them, or with this broker again.
    async fn logs_failed(
        &self,
        offline: Vec<PartitionId>,
        recovering: Vec<PartitionId>,
    ) -> Result<(), Unavailable> {
        let node = self.shard()?.settings.node_id;
        let mut commands = Vec::new();
        {
            let metadata = self.metadata.borrow();
            let image = metadata.image();
            let broker_epoch = image.broker(node).ok_or(Unavailable)?.epoch;
            // A topic may have been deleted meanwhile.
            let led = |partitions: Vec<PartitionId>| -> Vec<PartitionId> {
                let led = |id: &PartitionId| image.partition(*id).is_some_and(|one| one.leader == Some(node));
                partitions.into_iter().filter(led).collect()
            };
            let (offline, recovering) = (led(offline), led(recovering));
            if !offline.is_empty() {
                commands.push(Command::ResignLeadership { node, broker_epoch, partitions: offline });
            }
            if !recovering.is_empty() {
                commands.push(Command::ReclaimLeadership { node, broker_epoch, partitions: recovering });
            }
        }
        self.commit(commands).await.map(drop)
    }

    /// Commits commands in their order with one write, applies them, and waits until every core has followed.
    pub async fn commit(&self, commands: Vec<Command>) -> Result<Vec<Change>, Unavailable> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let entries = self.log.commit(&commands).await.map_err(|why| {
            rt::say!("corelog: the metadata log failed: {why}");
            Unavailable
        })?;
        let mut changes = Vec::new();
        {
            let mut metadata = self.metadata.borrow_mut();
            for (index, command) in entries {
                match command {
                    Some(command) => changes.extend(metadata.apply(index, &command).changes),
                    None => metadata.skip(index),
                }
            }
        }
        self.tell_all(&changes).await?;
        let snapshot = || self.metadata.borrow().encode();
        if let Err(why) = self.log.compact_if_due(snapshot).await {
            rt::say!("corelog: the metadata log could not be compacted: {why}");
        }
        Ok(changes)
    }

    async fn tell_all(&self, changes: &[Change]) -> Result<(), Unavailable> {
        let shard = self.shard()?;
        let changes: Arc<[Change]> = changes.into();
        shard.apply(&changes);
        let cores = (0..shard.settings.core_count).map(CoreId);
        let others = cores.filter(|core| *core != CONTROLLER_CORE);
        let told = others.map(|core| shard.ask(core, Ask::Apply(changes.clone())));
        join_boxed(told).await;
        shard.brought_open(&changes).await;
        Ok(())
    }

    fn room(&self, shard: &Shard) -> Room {
        let (partitions_max, bound) = (shard.limits().partitions_max, shard.limits().partitions_bound);
        let partitions = self.metadata.borrow().image().partition_count();
        Room { partitions_max, bound, left: partitions_max.saturating_sub(partitions) }
    }

    fn shard(&self) -> Result<Rc<Shard>, Unavailable> {
        self.shard.upgrade().ok_or(Unavailable)
    }
}

/// How many partitions may still be created.
struct Room {
    partitions_max: usize,
    bound: &'static str,
    left: usize,
}

impl Room {
    fn take(&mut self, partitions: usize) -> Result<(), Refused> {
        if partitions > self.left {
            let (max, bound) = (self.partitions_max, self.bound);
            return Err(Refused {
                code: ErrorCode::PolicyViolation as i16,
                message: format!("This broker may have {max} partitions ({bound})."),
            });
        }
        self.left -= partitions;
        Ok(())
    }
}

fn borrowed(topic: &NewTopic) -> validate::NewTopic<'_> {
    validate::NewTopic {
        name: &topic.name,
        num_partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic.assignments.clone(),
        configs: topic.configs.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect(),
    }
}

fn refused(refusal: coord::Refusal) -> Refused {
    Refused { code: refusal.code.as_i16(), message: refusal.message }
}

fn created(planned: PlannedTopic) -> CreatedTopic {
    let configs = planned.configs.into_iter().map(|described| CreatedConfig {
        name: described.key.name.to_owned(),
        value: described.value,
        source: described.source as i8,
    });
    CreatedTopic {
        id: planned.id,
        num_partitions: planned.num_partitions,
        replication_factor: planned.replication_factor,
        configs: configs.collect(),
    }
}
