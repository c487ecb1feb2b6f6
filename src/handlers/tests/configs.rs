//! Configs that change while the broker runs: taken up at once by the logs and the groups they are of, and there again
//! after kill -9. What is refused, and in which words, is `coord::metadata::validate`'s and tested there.

use engine::ids::PartitionId;
use engine::log::{Durability, Faults};
use net::error_code::ErrorCode;
use net::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource as Replaced, AlterConfigsResponse,
    AlterableConfig as ReplacedConfig,
};
use net::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use net::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use rt::sim::SimDisk;

use super::*;
use crate::shard::tests::{live, produce, settings, start_with, topic_id, try_create};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;

/// Sets `key=value`, and resets `-key`, of one resource; gives the error code.
async fn alter(shard: &Rc<Shard>, resource_type: i8, name: &str, ops: &[&str]) -> i16 {
    let validate_only = false;
    alter_all(shard, &[(resource_type, name, ops)], validate_only).await.remove(0)
}

async fn alter_all(shard: &Rc<Shard>, asked: &[(i8, &str, &[&str])], validate_only: bool) -> Vec<i16> {
    let resource = |(resource_type, name, ops): &(i8, &str, &[&str])| AlterConfigsResource {
        resource_type: *resource_type,
        resource_name: (*name).to_owned().into(),
        configs: ops
            .iter()
            .map(|text| match (text.strip_prefix('-'), text.split_once('=')) {
                (Some(name), _) => {
                    AlterableConfig { name: name.to_owned().into(), config_operation: 1, value: None }
                }
                (None, Some((name, value))) => AlterableConfig {
                    name: name.to_owned().into(),
                    config_operation: 0,
                    value: Some(value.to_owned().into()),
                },
                (None, None) => panic!("{text} is no operation"),
            })
            .collect(),
    };
    let body =
        IncrementalAlterConfigsRequest { resources: asked.iter().map(resource).collect(), validate_only };
    let told = ask(shard, ApiKey::IncrementalAlterConfigs, 1, &body).await;
    let response: IncrementalAlterConfigsResponse = told.read();
    response.responses.iter().map(|one| one.error_code).collect()
}

/// What is not a default, as key=value.
async fn set(shard: &Rc<Shard>, resource_type: i8, name: &str) -> Vec<String> {
    let resource = DescribeConfigsResource {
        resource_type,
        resource_name: name.into(),
        configuration_keys: Some(Vec::new()),
    };
    let body = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let told = ask(shard, ApiKey::DescribeConfigs, 4, &body).await;
    let response: DescribeConfigsResponse = told.read();
    let rows = response.results.iter().flat_map(|result| &result.configs);
    let own = rows.filter(|row| matches!(row.config_source, 1 | 2 | 3 | 8));
    own.map(|row| format!("{}={}", row.name, row.value.as_deref().unwrap_or("null"))).collect()
}

#[test]
fn a_running_log_takes_up_what_is_set_and_has_it_after_kill_9() {
    let disk = SimDisk::new();
    let expect = ["corelog.durability=write", "flush.ms=50", "max.message.bytes=100", "retention.ms=1000"];
    live(&disk, move |core, _| async move {
        let shard = start_with(&core, Faults::default(), settings(&[])).await;
        assert_eq!(try_create(&shard, "orders", 1).await, 0);
        let partition = PartitionId { topic: topic_id(&shard), index: 0 };
        let config = || shard.hosted(partition).and_then(|hosted| hosted.open_log()).expect("open").config();
        let large = "x".repeat(200);
        assert_eq!(produce(&shard, partition, &large).await, (ErrorCode::None, 0));

        let ops = ["corelog.durability=write", "flush.ms=50", "max.message.bytes= +100", "retention.ms=1000"];
        assert_eq!(alter_all(&shard, &[(TOPIC, "orders", &ops)], true).await, [0]);
        assert_eq!(config().max_message_bytes, 1_048_588, "only validated");
        assert_eq!(alter(&shard, TOPIC, "orders", &ops).await, 0);
        assert_eq!(config().durability, Durability::Write { flush_messages: 0, flush_ms: 50 });
        assert_eq!((config().max_message_bytes, config().retention_ms), (100, 1000));
        assert_eq!(produce(&shard, partition, &large).await.0, ErrorCode::MessageTooLarge);
        assert_eq!(set(&shard, TOPIC, "orders").await, expect);
        assert_eq!(alter(&shard, TOPIC, "orders", &["retention.ms=5", "segment.ms=x"]).await, 40);
        assert_eq!(set(&shard, TOPIC, "orders").await, expect, "all or nothing");
    });
    live(&disk, move |core, _| async move {
        let shard = start_with(&core, Faults::default(), settings(&[])).await;
        let partition = PartitionId { topic: topic_id(&shard), index: 0 };
        let log = shard.hosted(partition).and_then(|hosted| hosted.open_log()).expect("it is open");
        assert_eq!(set(&shard, TOPIC, "orders").await, expect);
        assert_eq!(log.config().max_message_bytes, 100);
        assert_eq!(alter(&shard, TOPIC, "orders", &["-max.message.bytes", "-corelog.durability"]).await, 0);
        assert_eq!(log.config().max_message_bytes, 1_048_588);
        // `flush.ms` alone is Kafka's way to ask for a bound.
        assert_eq!(log.config().durability, Durability::Write { flush_messages: 0, flush_ms: 50 });

        // The older request replaces the whole set.
        let config = ReplacedConfig { name: "segment.ms".into(), value: Some("7".into()) };
        let resource =
            Replaced { resource_type: TOPIC, resource_name: "orders".into(), configs: vec![config] };
        let body = AlterConfigsRequest { resources: vec![resource], validate_only: false };
        let told = ask(&shard, ApiKey::AlterConfigs, 2, &body).await;
        let response: AlterConfigsResponse = told.read();
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(set(&shard, TOPIC, "orders").await, ["segment.ms=7"]);
        assert_eq!((log.config().durability, log.config().segment_ms), (Durability::Fsync, 7));
    });
}

#[test]
fn the_brokers_defaults_change_for_all_topics_that_set_nothing() {
    let disk = SimDisk::new();
    live(&disk, |core, _| async move {
        let shard = start_with(&core, Faults::default(), settings(&["topics.log.roll.ms=9000"])).await;
        assert_eq!(try_create(&shard, "orders", 1).await, 0);
        let partition = PartitionId { topic: topic_id(&shard), index: 0 };
        let segment_ms = || {
            shard.hosted(partition).and_then(|hosted| hosted.open_log()).expect("open").config().segment_ms
        };
        assert_eq!(segment_ms(), 9000);
        for (name, value, expect) in [("", "log.roll.ms=1000", 1000), ("1", "log.roll.ms=2000", 2000)] {
            assert_eq!(alter(&shard, BROKER, name, &[value]).await, 0);
            assert_eq!(segment_ms(), expect);
        }
        assert_eq!(alter(&shard, TOPIC, "orders", &["segment.ms=3000"]).await, 0);
        assert_eq!(alter(&shard, BROKER, "1", &["-log.roll.ms"]).await, 0);
        assert_eq!(segment_ms(), 3000);
        let asked: [(i8, &str, &[&str]); 4] = [
            (BROKER, "", &["log.retention.ms=5"]),
            (BROKER, "1", &["log.dirs=/x"]),
            (GROUP, "g", &[]),
            (GROUP, "g", &[]),
        ];
        assert_eq!(alter_all(&shard, &asked, false).await, [0, 42, 42, 42], "each by itself, none twice");
    });
    live(&disk, |core, _| async move {
        let shard = start_with(&core, Faults::default(), settings(&["topics.log.roll.ms=9000"])).await;
        assert_eq!(set(&shard, BROKER, "").await, ["log.retention.ms=5", "log.roll.ms=1000"]);
        assert_eq!(set(&shard, BROKER, "1").await, ["log.retention.ms=5", "log.roll.ms=1000"]);
        assert_eq!(try_create(&shard, "later", 1).await, 0);
        let topic = shard.metadata.borrow().topic("later").cloned().expect("it is there");
        assert_eq!(shard.log_config(&topic).segment_ms, 1000);
    });
}
