//! AlterConfigs and IncrementalAlterConfigs: each resource by itself, all that may be in one write.

use std::collections::BTreeSet;

use coord::metadata::validate::{
    ConfigOp, Operation, Rules, plan_alter_configs, plan_incremental_alter_configs,
};
use net::error_code::ErrorCode;

use super::{Controller, Refused, Unavailable, refused};

/// One resource of the request.
#[derive(Clone, Debug)]
pub struct AlterResource {
    pub resource_type: i8,
    pub name: String,
    pub alteration: Alteration,
}

#[derive(Clone, Debug)]
pub enum Alteration {
    /// What is not named goes back to its default.
    Replace(Vec<(String, Option<String>)>),
    /// Key, operation (none for a number that is no operation), value.
    Incremental(Vec<(String, Option<Operation>, Option<String>)>),
}

impl Controller {
    pub(super) async fn alter_configs(
        &self,
        resources: &[AlterResource],
        validate_only: bool,
    ) -> Result<Vec<Result<(), Refused>>, Unavailable> {
        let shard = self.shard()?;
        let mut seen = BTreeSet::new();
        let repeated: BTreeSet<(i8, &str)> = resources
            .iter()
            .map(|one| (one.resource_type, one.name.as_str()))
            .filter(|one| !seen.insert(*one))
            .collect();
        let mut commands = Vec::new();
        let mut answers = Vec::with_capacity(resources.len());
        {
            let (metadata, defaults) = (self.metadata.borrow(), shard.defaults());
            let rules = Rules {
                image: metadata.image(),
                defaults: &defaults,
                node: shard.settings.node_id,
                groups: &shard.settings.groups,
            };
            for resource in resources {
                if repeated.contains(&(resource.resource_type, resource.name.as_str())) {
                    answers.push(Err(Refused {
                        code: ErrorCode::InvalidRequest as i16,
                        message: "Each resource must appear at most once.".to_owned(),
                    }));
                    continue;
                }
                let plan = plan(rules, resource).map_err(refused);
                answers.push(plan.map(|command| commands.extend(command)));
            }
        }
        if !validate_only {
            self.commit(commands).await?;
        }
        Ok(answers)
    }
}

fn plan(
    rules: Rules<'_>,
    resource: &AlterResource,
) -> Result<Option<coord::metadata::Command>, coord::Refusal> {
    let (kind, name) = (resource.resource_type, resource.name.as_str());
    match &resource.alteration {
        Alteration::Replace(configs) => {
            let configs: Vec<_> =
                configs.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            plan_alter_configs(rules, kind, name, &configs)
        }
        Alteration::Incremental(ops) => {
            let ops: Vec<ConfigOp<'_>> = ops
                .iter()
                .map(|(name, operation, value)| ConfigOp {
                    name,
                    operation: *operation,
                    value: value.as_deref(),
                })
                .collect();
            plan_incremental_alter_configs(rules, kind, name, &ops)
        }
    }
}
