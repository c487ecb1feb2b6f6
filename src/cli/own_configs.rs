//! The configs that a topic or a group sets itself, for `describe`.

use std::collections::BTreeMap;

use net::client::{Client, Error};
use net::error_code::ErrorCode;
use net::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};

use super::remote::check;

pub type OwnConfigs = BTreeMap<String, String>;

/// What has configs of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Topic,
    Group,
}

impl Owner {
    /// Kafka's numbers: of the resource, and of the source that a value of its own has.
    pub fn resource_type(self) -> i8 {
        match self {
            Owner::Topic => 2,
            Owner::Group => 32,
        }
    }

    fn source(self) -> i8 {
        match self {
            Owner::Topic => 1,
            Owner::Group => 8,
        }
    }
}

/// Asks for them; None where the broker does not tell. One from before groups had configs refuses the question.
pub async fn own_configs(client: &Client, owner: Owner, name: &str) -> Result<Option<OwnConfigs>, String> {
    let resource = DescribeConfigsResource {
        resource_type: owner.resource_type(),
        resource_name: name.into(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let reply = match client.call(&request).await {
        Err(Error::NoVersion(_)) => return Ok(None),
        reply => reply.map_err(|error| error.to_string())?,
    };
    let response = reply.decode().map_err(|error| error.to_string())?;
    let result = response.results.first().ok_or_else(|| format!("the broker answered without {name}"))?;
    if owner == Owner::Group && result.error_code == ErrorCode::InvalidRequest as i16 {
        return Ok(None);
    }
    check(name, result.error_code, result.error_message.as_deref())?;
    let own = result.configs.iter().filter(|config| config.config_source == owner.source());
    let value = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Ok(Some(own.map(|config| (config.name.to_string(), value(config.value.as_deref()))).collect()))
}

/// As lines below their headline; `none` says what holds where there are none.
pub fn lines(headline: &str, configs: &OwnConfigs, none: &str) -> String {
    let mut text = format!("\n{headline}\n");
    configs.iter().for_each(|(key, value)| text.push_str(&format!("  {key}={value}\n")));
    if configs.is_empty() {
        text.push_str(&format!("  none: {none}\n"));
    }
    text
}
