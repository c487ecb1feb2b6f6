//! What a topic has where it sets nothing itself: the broker's own configs, changed while it runs or not, then Kafka's
//! defaults. And a topic's effective configs, each with where it comes from.

use std::collections::BTreeMap;

use super::broker_config;
use super::config::{TOPIC_CONFIGS, TopicConfig, shown, validate};
use super::image::{Image, NodeId};
use super::resource::ConfigResource;
use crate::error_code::Refusal;

/// Where a value comes from, as DescribeConfigs and CreateTopics number it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Topic = 1,
    /// Set for one broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicBrokers = 3,
    /// The broker's file or command line.
    Broker = 4,
    Default = 5,
    Group = 8,
}

/// The broker's values where a topic sets none, by the topics' keys; and what CreateTopics falls back to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Defaults {
    /// Strongest first: of this broker, of all brokers, of its file.
    levels: [(Source, BTreeMap<String, String>); 3],
    pub num_partitions: i32,
    pub replication_factor: i16,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults::of_file(BTreeMap::new(), 1, 1)
    }
}

impl Defaults {
    /// Defaults from the broker's own config, by the topics' keys, checked as a topic's would be.
    pub fn new(
        configs: BTreeMap<String, String>,
        num_partitions: i32,
        replication_factor: i16,
    ) -> Result<Defaults, Refusal> {
        validate(&configs)?;
        Ok(Defaults::of_file(configs, num_partitions, replication_factor))
    }

    fn of_file(configs: BTreeMap<String, String>, num_partitions: i32, replication_factor: i16) -> Defaults {
        let levels = [
            (Source::DynamicBroker, BTreeMap::new()),
            (Source::DynamicBrokers, BTreeMap::new()),
            (Source::Broker, configs),
        ];
        Defaults { levels, num_partitions, replication_factor }
    }

    /// The same with what the metadata says of this broker, and of all, instead of what it said before.
    pub fn with_dynamic(&self, image: &Image, node: NodeId) -> Defaults {
        let [_, _, file] = self.levels.clone();
        let level = |source, resource| {
            let configs = image.configs(&resource).map(|configs| broker_config::by_topic_key(configs));
            (source, configs.unwrap_or_default())
        };
        let levels = [
            level(Source::DynamicBroker, ConfigResource::Broker(node)),
            level(Source::DynamicBrokers, ConfigResource::Brokers),
            file,
        ];
        Defaults { levels, ..*self }
    }

    /// The default in force for a key: the broker's, else Kafka's.
    pub fn get(&self, key: &'static TopicConfig) -> &str {
        self.explicit(key.name).unwrap_or(key.default)
    }

    /// Only what was set for the broker.
    pub fn explicit(&self, name: &str) -> Option<&str> {
        self.levels.iter().find_map(|(_, configs)| configs.get(name)).map(String::as_str)
    }

    /// Every value that was set for the broker, strongest first.
    pub fn set(&self, key: &'static TopicConfig) -> impl Iterator<Item = (&str, Source)> {
        let levels = self.levels.iter();
        levels.filter_map(|(source, configs)| configs.get(key.name).map(|value| (value.as_str(), *source)))
    }
}

/// One row of a topic's effective configs.
#[derive(Clone, PartialEq, Debug)]
pub struct Described {
    pub key: &'static TopicConfig,
    pub value: String,
    pub source: Source,
    /// Strongest first: the value set at each level, under the name it has there.
    pub synonyms: Vec<(&'static str, String, Source)>,
}

/// Every key with its value and where that comes from, in name order.
pub fn describe(configs: &BTreeMap<String, String>, defaults: &Defaults) -> Vec<Described> {
    TOPIC_CONFIGS.iter().map(|key| describe_key(key, configs, defaults)).collect()
}

fn describe_key(
    key: &'static TopicConfig,
    configs: &BTreeMap<String, String>,
    defaults: &Defaults,
) -> Described {
    let mut synonyms = Vec::new();
    if let Some(value) = configs.get(key.name) {
        synonyms.push((key.name, shown(key.kind, value), Source::Topic));
    }
    if !key.broker_name.is_empty() {
        let set = defaults.set(key);
        synonyms.extend(set.map(|(value, source)| (key.broker_name, shown(key.kind, value), source)));
        synonyms.push((key.broker_name, key.default.to_owned(), Source::Default));
    }
    let strongest = synonyms.first().map(|(_, value, source)| (value.clone(), *source));
    let (value, source) = strongest.unwrap_or_else(|| (key.default.to_owned(), Source::Default));
    Described { key, value, source, synonyms }
}
