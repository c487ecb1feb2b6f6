//! `corelog group`: lists, describes, resets and deletes the consumer groups of any Kafka-compatible broker.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use net::client::{Client, Options};
use net::error_code::ErrorCode;
use net::messages::delete_groups::DeleteGroupsRequest;
use net::messages::find_coordinator::FindCoordinatorRequest;
use net::messages::list_groups::ListGroupsRequest;
use rt::Core;
use serde_json::{Value, json};

use super::alter::{Changes, alter};
use super::own_configs::Owner;
use super::remote::{Answer, Common, ask, check, resolve};
use crate::shown::shown;

mod describe;
mod reset;

use reset::Reset;

const ALTER_HELP: &str = "\
Keys:
  consumer.session.timeout.ms     silence after which a member is removed
  consumer.heartbeat.interval.ms  how often members are told to send heartbeats
  consumer.assignment.interval.ms least time between two assignments

Example:
  corelog group alter billing --config consumer.session.timeout.ms=50000

Members hear of it with their next heartbeat. Groups of the classic protocol bring their own timeouts.
What is set shows `corelog group describe`.";

/// FindCoordinator names one key up to this version.
const FIND_ONE_MAX: i16 = 3;

#[derive(Args, Debug)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List all groups with their state
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show members, assignments, committed offsets and lag, and the configs that were set
    Describe {
        /// The group's name, as `corelog group list` gives it
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Change configs of a group of the consumer protocol; it need not exist yet
    #[command(after_help = ALTER_HELP)]
    Alter {
        /// The group's name
        name: String,
        #[command(flatten)]
        changes: Changes,
        #[command(flatten)]
        common: Common,
    },
    /// Set the offsets where a group without members will go on
    ResetOffsets {
        /// The group's name; it need not exist yet
        name: String,
        #[command(flatten)]
        reset: Reset,
        #[command(flatten)]
        common: Common,
    },
    /// Delete groups without members, and their offsets
    Delete {
        /// The groups' names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    pub fn run(self) -> ExitCode {
        let (common, answer) = match self.action {
            Action::List { common } => (common.clone(), ask(&common, |_, client| list(client))),
            Action::Describe { name, common } => {
                let described = ask(&common, move |core, client| async move {
                    describe::describe(&core, &client, &name).await
                });
                (common, described)
            }
            Action::Alter { name, changes, common } => {
                let altered = ask(&common, move |_, client| async move {
                    alter(&client, Owner::Group, &name, &changes).await
                });
                (common, altered)
            }
            Action::ResetOffsets { name, reset, common } => {
                let done =
                    ask(&common, move |core, client| async move { reset.run(&core, &client, &name).await });
                (common, done)
            }
            Action::Delete { names, common } => {
                let deleted =
                    ask(&common, move |core, client| async move { delete(&core, &client, &names).await });
                (common, deleted)
            }
        };
        common.tell(answer)
    }
}

/// A connection to the broker that coordinates the group.
async fn coordinator(core: &Core, client: &Client, group: &str) -> Result<Client, String> {
    let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
    let reply = client.call_up_to(&request, FIND_ONE_MAX).await.map_err(|error| error.to_string())?;
    let found = reply.decode().map_err(|error| error.to_string())?;
    check(group, found.error_code, found.error_message.as_deref())?;
    let named = if found.host.contains(':') {
        format!("[{}]:{}", found.host, found.port)
    } else {
        format!("{}:{}", found.host, found.port)
    };
    let address = resolve(&named)?;
    Client::connect(core, address, Options::default())
        .await
        .map_err(|error| format!("the coordinator of {group} does not answer at {named}: {error}"))
}

async fn list(client: Client) -> Answer {
    let reply = client.call(&ListGroupsRequest::default()).await.map_err(|error| error.to_string())?;
    let listed = reply.decode().map_err(|error| error.to_string())?;
    check("the list of groups", listed.error_code, None)?;
    let mut groups = listed.groups;
    groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    let mut text = match groups.is_empty() {
        true => "there are no groups\n".to_owned(),
        false => listed_row("STATE", "PROTOCOL", "NAME"),
    };
    let mut rows: Vec<Value> = Vec::with_capacity(groups.len());
    for group in &groups {
        let kind = group.group_type.to_lowercase();
        text.push_str(&listed_row(&group.group_state, &kind, &shown(&group.group_id)));
        rows.push(json!({ "name": group.group_id, "state": group.group_state, "type": kind }));
    }
    Ok((json!(rows), text))
}

fn listed_row(state: &str, protocol: &str, name: &str) -> String {
    format!("{state:<20} {protocol:<10} {name}\n")
}

/// Each at its own coordinator. What was deleted is said also when one of them could not be.
async fn delete(core: &Core, client: &Client, names: &[String]) -> Answer {
    let (mut deleted, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        match delete_one(core, client, name).await {
            Ok(()) => deleted.push(name.as_str()),
            Err(why) => failed.push(why),
        }
    }
    if failed.is_empty() {
        let text = deleted.iter().map(|name| format!("deleted {name}\n")).collect();
        return Ok((json!({ "deleted": deleted }), text));
    }
    if !deleted.is_empty() {
        failed.push(format!("deleted: {}", deleted.join(", ")));
    }
    Err(failed.join("\n"))
}

async fn delete_one(core: &Core, client: &Client, name: &str) -> Result<(), String> {
    let coordinator = coordinator(core, client, name).await?;
    let request = DeleteGroupsRequest { groups_names: vec![name.into()] };
    let reply = coordinator.call(&request).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let result = response.results.first().ok_or("the broker answered without the group")?;
    check(name, result.error_code, hint(result.error_code))
}

/// What to do about an error that is the caller's to mend.
fn hint(code: i16) -> Option<&'static str> {
    match ErrorCode::from_i16(code) {
        Some(ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId) => Some(
            "the group has members; stop its consumers first. Killed ones, and static ones (group.instance.id) that were stopped, stay until their sessions time out",
        ),
        Some(ErrorCode::GroupIdNotFound) => Some("there is no such group; `corelog group list` names all"),
        Some(ErrorCode::CoordinatorLoadInProgress) => Some("the coordinator is loading; try again"),
        _ => None,
    }
}
