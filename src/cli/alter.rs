//! `corelog topic alter` and `corelog group alter`: sets and resets configs of what is there already.

use clap::Args;
use net::client::Client;
use net::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use serde_json::json;

use super::own_configs::Owner;
use super::remote::{Answer, check};

/// Kafka's numbers of the operations.
const SET: i8 = 0;
const DELETE: i8 = 1;

#[derive(Args, Clone, Debug)]
pub struct Changes {
    /// Set a config; may be repeated. A value with commas is a list
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<String>,
    /// Give a config its default again; may be repeated
    #[arg(long, value_name = "KEY")]
    delete_config: Vec<String>,
    /// Only ask the broker whether it would do it
    #[arg(long)]
    dry_run: bool,
}

/// A config as it was given on the command line.
pub fn key_and_value(pair: &str) -> Result<(&str, &str), String> {
    pair.split_once('=').ok_or_else(|| format!("--config {pair}: write it as KEY=VALUE"))
}

/// All changes or none.
pub async fn alter(client: &Client, owner: Owner, name: &str, changes: &Changes) -> Answer {
    if changes.config.is_empty() && changes.delete_config.is_empty() {
        return Err("say what to change: --config KEY=VALUE or --delete-config KEY".to_owned());
    }
    let mut configs = Vec::new();
    let (mut set, mut text) = (serde_json::Map::new(), String::new());
    let done = if changes.dry_run { "would change" } else { "changed" };
    for pair in &changes.config {
        let (key, value) = key_and_value(pair)?;
        configs.push(AlterableConfig { name: key.into(), config_operation: SET, value: Some(value.into()) });
        set.insert(key.to_owned(), json!(value));
        text.push_str(&format!("{done} {name}: {key}={value}\n"));
    }
    for key in &changes.delete_config {
        configs.push(AlterableConfig { name: key.as_str().into(), config_operation: DELETE, value: None });
        text.push_str(&format!("{done} {name}: {key} has its default\n"));
    }
    let resource_type = owner.resource_type();
    let resource = AlterConfigsResource { resource_type, resource_name: name.into(), configs };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: changes.dry_run };
    let reply = client.call(&request).await.map_err(|error| error.to_string())?;
    let response = reply.decode().map_err(|error| error.to_string())?;
    let altered = response.responses.first().ok_or_else(|| format!("the broker answered without {name}"))?;
    check(name, altered.error_code, altered.error_message.as_deref())?;
    let json = json!({
        "name": name, "set": set, "reset": changes.delete_config, "dry_run": changes.dry_run
    });
    Ok((json, text))
}
