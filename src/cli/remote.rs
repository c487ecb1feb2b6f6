//! What every command that asks a broker has in common: where to ask, how long to wait, and how the answer is told.

use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use net::client::{Client, Error, Options};
use net::error_code::ErrorCode;
use rt::Core;
use serde_json::{Value, json};

use super::{fail, print};
use crate::config::Address;
use crate::shard::join::before;
use crate::shown::shown;

/// How long an answer is waited for in all; more than a change may take, so that the broker's own word on it arrives.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
const TOOL_MEMORY_BYTES: usize = 64 << 20;

#[derive(Args, Clone, Debug)]
pub struct Common {
    /// A broker to ask
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// Print JSON; what went wrong too, as {"error": "..."}
    #[arg(long)]
    pub json: bool,
}

/// As JSON, and as text.
pub type Answer = Result<(Value, String), String>;

impl Common {
    /// Prints what came of a command.
    pub fn tell(&self, answer: Answer) -> ExitCode {
        match answer {
            Ok((json, _)) if self.json => print(&format!("{json}\n")),
            Ok((_, text)) => print(&text),
            Err(why) if self.json => {
                print(&format!("{}\n", json!({ "error": why })));
                ExitCode::FAILURE
            }
            Err(why) => fail(why),
        }
    }
}

/// Connects to the broker and does what is to be done there.
pub fn ask<F, Fut>(common: &Common, action: F) -> Answer
where
    F: FnOnce(Core, Client) -> Fut + 'static,
    Fut: Future<Output = Answer> + 'static,
{
    let address = resolve(&common.bootstrap)?;
    let bootstrap = common.bootstrap.clone();
    let config = rt::Config { memory_bytes: TOOL_MEMORY_BYTES, ..rt::Config::default() };
    let ran = rt::block_on_one(config, move |core| async move {
        let asked = async {
            let client = Client::connect(&core, address, Options::default()).await;
            let client = client.map_err(|error| {
                let advice = match error {
                    Error::Frame(_) | Error::Wire(_) => "Something else listens there: is it the port of the metrics?",
                    _ => "Is it running?",
                };
                format!("no Kafka broker answers at {bootstrap}: {error}. {advice} Name another with --bootstrap HOST:PORT")
            })?;
            action(core.clone(), client).await
        };
        before(asked, core.sleep(ANSWER_WAIT)).await.unwrap_or_else(|| {
            Err(format!(
                "the broker at {bootstrap} did not answer within {} s; what was asked for may still be done",
                ANSWER_WAIT.as_secs()
            ))
        })
    });
    ran.map_err(|error| error.to_string())?
}

pub fn resolve(bootstrap: &str) -> Result<SocketAddr, String> {
    if Address::parse(bootstrap).is_none() {
        return Err(format!(
            "--bootstrap {bootstrap}: HOST:PORT is expected, such as 127.0.0.1:9092, with a port from 1 to 65535"
        ));
    }
    let mut addresses =
        bootstrap.to_socket_addrs().map_err(|error| format!("--bootstrap {bootstrap}: {error}"))?;
    addresses.next().ok_or_else(|| format!("--bootstrap {bootstrap}: the name has no address"))
}

/// What the broker's code says of the thing of that name.
pub fn check(name: &str, code: i16, message: Option<&str>) -> Result<(), String> {
    let name = if name.is_empty() { "\"\"".to_owned() } else { shown(name) };
    match ErrorCode::from_i16(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(known) => {
            Err(format!("{name}: {}{}", known.name(), message.map(|m| format!(": {m}")).unwrap_or_default()))
        }
        None => Err(format!("{name}: error {code}, which this corelog does not know")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_told_by_its_name() {
        assert_eq!(check("", 15, None), Err("\"\": COORDINATOR_NOT_AVAILABLE".to_owned()));
    }
}
