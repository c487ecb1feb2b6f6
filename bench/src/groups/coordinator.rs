//! Who coordinates a group, and whether it does so already.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use net::error_code::ErrorCode;
use net::messages::{describe_configs, find_coordinator};

use super::offsets;
use crate::link::{self, Error, Link};
use crate::progress::{Pace, Patience};
use crate::topic::describe_code;

/// How long a coordinator may take to be there: a fresh broker first makes its internal topic.
const COORDINATOR_WAIT: Duration = Duration::from_secs(60);
const COORDINATOR_POLL: Duration = Duration::from_millis(20);
const KEY_TYPE_GROUP: i8 = 0;
const RESOURCE_BROKER: i8 = 4;

pub struct Coordinator {
    pub node: i32,
    pub address: SocketAddr,
}

/// Whether a coordinator that answers so may serve the group a little later.
pub fn may_pass(code: i16) -> bool {
    use ErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    [CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator]
        .map(ErrorCode::as_i16)
        .contains(&code)
}

/// The group's coordinator, when there is one at this moment; else the code that says why not.
pub async fn ask(link: &mut Link, group: &str) -> Result<Result<Coordinator, i16>, Error> {
    let request = find_coordinator::FindCoordinatorRequest {
        key: Cow::Borrowed(group),
        key_type: KEY_TYPE_GROUP,
        ..Default::default()
    };
    let answer = link.call(&request).await?;
    let body = answer.body::<find_coordinator::Api>()?;
    if body.error_code != 0 {
        return Ok(Err(body.error_code));
    }
    let address = link::resolve(&format!("{}:{}", body.host, body.port))?;
    Ok(Ok(Coordinator { node: body.node_id, address }))
}

/// Waits until there is a coordinator and it serves the group; a connection to it comes along.
pub async fn find(link: &mut Link, group: &str) -> Result<(Coordinator, Link), Error> {
    let core = link.core().clone();
    let mut patience = Patience::new(COORDINATOR_WAIT, core.now().as_nanos());
    loop {
        let missing = match ask(link, group).await? {
            Ok(coordinator) => {
                let mut there = Link::connect(&core, coordinator.address).await?;
                match offsets::fetch(&mut there, &[group]).await? {
                    Ok(_) => return Ok((coordinator, there)),
                    Err(code) => code,
                }
            }
            Err(code) => code,
        };
        let why = describe_code(missing);
        let pace = patience.look(core.now().as_nanos(), 0);
        if !may_pass(missing) || pace == Pace::Over {
            return Err(Error::Protocol(format!("no coordinator serves group {group}: {why}")));
        }
        if pace == Pace::Silent {
            eprintln!("bench: waiting for the coordinator of group {group}: {why}");
        }
        core.sleep(COORDINATOR_POLL).await;
    }
}

/// A config of the broker, where it tells it.
pub async fn config(link: &mut Link, node: i32, name: &str) -> Result<Option<String>, Error> {
    let resource = describe_configs::DescribeConfigsResource {
        resource_type: RESOURCE_BROKER,
        resource_name: Cow::Owned(node.to_string()),
        configuration_keys: Some(vec![Cow::Borrowed(name)]),
    };
    let request =
        describe_configs::DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = link.call(&request).await?;
    let body = answer.body::<describe_configs::Api>()?;
    let mut told = body.results.iter().flat_map(|result| &result.configs);
    Ok(told.find(|config| config.name == name).and_then(|config| config.value.as_deref().map(str::to_owned)))
}

/// Where the group is led. The first time that may take a while: see `find`.
pub async fn address(link: &mut Link, group: &str) -> Result<SocketAddr, Error> {
    match ask(link, group).await? {
        Ok(coordinator) => Ok(coordinator.address),
        Err(_) => Ok(find(link, group).await?.0.address),
    }
}
