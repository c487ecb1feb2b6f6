//! The broker configs that can be changed while it runs: the defaults of topics, under the names that Kafka gives them.
//!
//! Everything else is fixed at start. Kafka stores keys that it does not know; here they are refused, since nobody would
//! ever read them.

use std::collections::BTreeMap;

use super::config::{self, TOPIC_CONFIGS, TopicConfig};
use crate::error_code::{ErrorCode, Refusal};

/// The topics' key that this broker config is the default of, if it can be changed at run time.
pub fn find(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.iter().find(|key| key.in_force && !name.is_empty() && key.broker_name == name)
}

/// What is stored under the brokers' names, under the topics'. What a later release stored is left out.
pub(super) fn by_topic_key(configs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let known = configs.iter().filter_map(|(name, value)| Some((find(name)?.name.to_owned(), value.clone())));
    known.filter(|(name, value)| config::validate_one(name, value).is_ok()).collect()
}

/// Checks the values that are new. Kafka refuses a broker's with INVALID_REQUEST (KAFKA-13609).
pub(super) fn validate(changed: &[(&str, &str)], after: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let fixed: Vec<&str> =
        changed.iter().map(|(name, _)| *name).filter(|name| find(name).is_none()).collect();
    if !fixed.is_empty() {
        let names = fixed.join(", ");
        return Err(invalid(format!("Cannot update these configs dynamically: [{names}]")));
    }
    for (name, value) in changed {
        let key = find(name).expect("the others are refused above");
        config::check_typed(key.kind, key.valid, value.trim())
            .map_err(|why| invalid(format!("Invalid value {value} for configuration {name}: {why}")))?;
        config::validate_one(key.name, value).map_err(|refusal| invalid(refusal.message))?;
    }
    config::validate_together(&by_topic_key(after)).map_err(|refusal| invalid(refusal.message))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}
