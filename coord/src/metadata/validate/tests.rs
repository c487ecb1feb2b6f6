//! Cases as data: a request in one line, the answer in another.

use std::collections::BTreeMap;

use engine::ids::TopicId;

use super::super::{Command, Listener, Metadata};
use super::*;
use crate::metadata::config::{DURABILITY, Defaults, TOPIC_CONFIGS};

/// Brokers 0 to 2 are active, 3 is fenced; topics "have" (3 partitions, 2 replicas) and "a.b".
pub(super) fn cluster() -> Metadata {
    let mut metadata = Metadata::new("cluster".to_owned());
    for node in 0..4 {
        let command = register(node);
        run(&mut metadata, command);
        if node != 3 {
            let started =
                Command::BrokerStarted { node: NodeId(node), incarnation: [1; 16], lost: Vec::new() };
            run(&mut metadata, started);
        }
    }
    let partitions = vec![vec![NodeId(0), NodeId(1)]; 3];
    let have = Command::CreateTopic {
        id: TopicId([7; 16]),
        name: "have".to_owned(),
        partitions: partitions.clone(),
        configs: BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]),
    };
    run(&mut metadata, have);
    let dotted = Command::CreateTopic {
        id: TopicId([8; 16]),
        name: "a.b".to_owned(),
        partitions,
        configs: BTreeMap::new(),
    };
    run(&mut metadata, dotted);
    metadata
}

fn register(node: i32) -> Command {
    let listener =
        Listener { name: "PLAINTEXT".to_owned(), host: "host".to_owned(), port: 9092, security_protocol: 0 };
    Command::RegisterBroker {
        node: NodeId(node),
        storage: [1; 16],
        incarnation: [1; 16],
        listeners: vec![listener],
        rack: None,
    }
}

pub(super) fn run(metadata: &mut Metadata, command: Command) {
    let index = metadata.applied_index() + 1;
    let applied = metadata.apply(index, &command);
    assert_eq!(applied.refused, None, "{command:?}");
}

fn counter() -> impl FnMut() -> u64 {
    let mut next = 0;
    move || {
        next += 1;
        next
    }
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> NewTopic<'_> {
    NewTopic { name, num_partitions, replication_factor, assignments: Vec::new(), configs: Vec::new() }
}

fn with_config<'a>(name: &'a str, key: &'a str, value: Option<&'a str>) -> NewTopic<'a> {
    NewTopic { configs: vec![(key, value)], ..topic(name, 1, 1) }
}

fn assigned<'a>(name: &'a str, assignments: &[(i32, &[i32])]) -> NewTopic<'a> {
    let nodes = |nodes: &[i32]| nodes.iter().copied().map(NodeId).collect();
    let assignments = assignments.iter().map(|(index, replicas)| (*index, nodes(replicas))).collect();
    NewTopic { assignments, ..topic(name, -1, -1) }
}

pub(super) fn code_and_text(refusal: Option<&Refusal>) -> (i16, &str) {
    refusal.map_or((0, ""), |refusal| (refusal.code.as_i16(), refusal.message.as_str()))
}

#[test]
fn create_topics_answers_as_kafka_does() {
    let metadata = cluster();
    let long = "x".repeat(250);
    let long_text =
        format!("Topic name is invalid: the length of '{long}' is longer than the max allowed length 249");
    let cases: Vec<(NewTopic<'_>, i16, &str)> = vec![
        (topic("new", 1, 1), 0, ""),
        (topic("new", -1, -1), 0, ""),
        (topic("new", 3, 4), 0, ""),
        (topic("new", 10_000, 1), 0, ""),
        (topic("new", 10_001, 1), 44, "Excessively large number of partitions per request."),
        (
            topic("new", 1, 5),
            38,
            "Unable to replicate the partition 5 time(s): The target replication factor of 5 cannot be reached because only 4 broker(s) are registered.",
        ),
        (topic("new", 1, 0), 38, "Replication factor must be larger than 0, or -1 to use the default value."),
        (
            topic("new", 0, -2),
            38,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (topic("new", 0, 1), 37, "Number of partitions was set to an invalid non-positive value."),
        (topic("new", -2, 1), 37, "Number of partitions was set to an invalid non-positive value."),
        (topic("", 1, 1), 17, "Topic name is invalid: the empty string is not allowed"),
        (topic(&long, 1, 1), 17, &long_text),
        (
            topic("a b", 1, 1),
            17,
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (topic("a_b", 1, 1), 17, "Topic 'a_b' collides with existing topic: a.b"),
        (topic("a.b", 1, 1), 36, "Topic 'a.b' already exists."),
        (topic("have", 0, 0), 36, "Topic 'have' already exists."),
        (
            topic("__cluster_metadata", 1, 1),
            42,
            "Creation of internal topic __cluster_metadata is prohibited.",
        ),
        (with_config("new", "retention.ms", Some("-1")), 0, ""),
        (
            with_config("new", "retention.ms", None),
            40,
            "Null value not supported for topic configs: retention.ms",
        ),
        (with_config("new", "no.such", Some("1")), 40, "Unknown topic config name: no.such"),
        (
            NewTopic { configs: vec![("no.such", Some("1"))], ..topic("new", 0, 1) },
            40,
            "Unknown topic config name: no.such",
        ),
        (assigned("new", &[(0, &[0, 1]), (1, &[1, 2])]), 0, ""),
        (assigned("new", &[(1, &[0]), (0, &[1])]), 0, ""),
        (assigned("new", &[(0, &[3, 0])]), 0, ""),
        (
            NewTopic { num_partitions: 1, ..assigned("new", &[(0, &[0])]) },
            42,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            NewTopic { replication_factor: 1, ..assigned("new", &[(0, &[0])]) },
            42,
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        ),
        (assigned("new", &[(0, &[])]), 39, "The manual partition assignment includes an empty replica list."),
        (
            assigned("new", &[(0, &[0, 0])]),
            39,
            "The manual partition assignment includes the broker 0 more than once.",
        ),
        (
            assigned("new", &[(0, &[9])]),
            39,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            assigned("new", &[(0, &[0]), (1, &[0, 1])]),
            39,
            "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, which have 1 replica(s).",
        ),
        (
            assigned("new", &[(0, &[0]), (0, &[1])]),
            39,
            "Found multiple manual partition assignments for partition 0",
        ),
        (
            assigned("new", &[(0, &[0]), (2, &[1])]),
            39,
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (assigned("new", &[(-1, &[0])]), 39, "partitions should be a consecutive 0-based integer sequence"),
        (
            assigned("new", &[(0, &[3])]),
            39,
            "All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown.",
        ),
    ];
    for (asked, code, text) in cases {
        let plans = plan_create_topics(
            metadata.image(),
            &Defaults::default(),
            std::slice::from_ref(&asked),
            counter(),
        );
        let [(name, plan)] = plans.as_slice() else { panic!("one answer") };
        assert_eq!(*name, asked.name);
        assert_eq!(code_and_text(plan.as_ref().err()), (code, text), "{asked:?}");
        if let Ok(plan) = plan {
            run(&mut metadata.clone(), plan.command.clone());
        }
    }
}

#[test]
fn topics_of_one_request_fail_by_themselves_but_for_its_size() {
    let metadata = cluster();
    let answers = |topics: &[NewTopic<'_>]| -> Vec<(String, i16)> {
        let plans = plan_create_topics(metadata.image(), &Defaults::default(), topics, counter());
        plans.into_iter().map(|(n, plan)| (n.to_owned(), code_and_text(plan.as_ref().err()).0)).collect()
    };
    let expect = |pairs: &[(&str, i16)]| -> Vec<(String, i16)> {
        pairs.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect()
    };
    let mixed = [topic("twice", 1, 1), topic("good", 1, 1), topic("twice", 1, 1), topic("have", 1, 1)];
    assert_eq!(answers(&mixed), expect(&[("twice", 42), ("good", 0), ("have", 36)]));
    let colliders = [topic("n.n", 1, 1), topic("n_n", 1, 1)];
    assert_eq!(answers(&colliders), expect(&[("n.n", 0), ("n_n", 0)]));
    let many = [topic("p", 9_999, 1), topic("q", -1, 1), topic("r", 1, 1)];
    assert_eq!(answers(&many), expect(&[("p", 44), ("q", 44), ("r", 44)]));
}

#[test]
fn a_planned_topic_says_what_it_will_be() {
    let metadata = cluster();
    let defaults =
        Defaults::new(BTreeMap::from([("segment.ms".to_owned(), "9".to_owned())]), 6, 2).expect("valid");
    let asked = NewTopic { configs: vec![("retention.ms", Some("1"))], ..topic("new", -1, -1) };
    let plans = plan_create_topics(metadata.image(), &defaults, &[asked], counter());
    let plan = plans[0].1.as_ref().expect("it is valid");
    assert_eq!((plan.num_partitions, plan.replication_factor), (6, 2));
    assert_eq!(plan.configs.len(), TOPIC_CONFIGS.len());
    let row = |name: &str| plan.configs.iter().find(|row| row.key.name == name).expect("it is listed");
    assert_eq!((row("retention.ms").value.as_str(), row("retention.ms").source as i8), ("1", 1));
    assert_eq!((row("segment.ms").value.as_str(), row("segment.ms").source as i8), ("9", 4));
    assert_eq!((row(DURABILITY).value.as_str(), row(DURABILITY).source as i8), ("fsync", 5));
}

#[test]
fn config_values_are_checked_as_kafka_checks_them() {
    let cases: &[(&str, &str, &str)] = &[
        ("retention.ms", "x", "Invalid value x for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
        ("retention.ms", " 7 ", ""),
        (
            "segment.bytes",
            "1048575",
            "Invalid value 1048575 for configuration segment.bytes: Value must be at least 1048576",
        ),
        (
            "segment.bytes",
            "2147483648",
            "Invalid value 2147483648 for configuration segment.bytes: Not a number of type INT",
        ),
        (
            "compression.zstd.level",
            "23",
            "Invalid value 23 for configuration compression.zstd.level: Value must be no more than 22",
        ),
        ("compression.gzip.level", "-1", ""),
        (
            "compression.gzip.level",
            "0",
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
        ),
        (
            "compression.type",
            "lzma",
            "Invalid value lzma for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "min.cleanable.dirty.ratio",
            "1.5",
            "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        ),
        (
            "min.cleanable.dirty.ratio",
            "NaN",
            "Invalid value NaN for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE",
        ),
        (
            "preallocate",
            "maybe",
            "Invalid value maybe for configuration preallocate: Expected value to be either true or false",
        ),
        ("preallocate", "TRUE", ""),
        ("cleanup.policy", "delete,delete", ""),
        ("cleanup.policy", "", ""),
        (
            "cleanup.policy",
            "shred",
            "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        ("cleanup.policy", "compact,delete", ""),
        (
            "remote.storage.enable",
            "true",
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
        ),
        ("leader.replication.throttled.replicas", "0:1,2:0", ""),
        ("leader.replication.throttled.replicas", "*", ""),
        (
            "leader.replication.throttled.replicas",
            "0-1",
            "Invalid value 0-1 for configuration leader.replication.throttled.replicas: Must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
        ("corelog.durability", "write", ""),
        (
            "corelog.durability",
            "memory",
            "Invalid value memory for configuration corelog.durability: String must be one of: fsync, write",
        ),
        (
            "min.insync.replicas",
            "0",
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
        ),
        ("Retention.ms", "1", "Unknown topic config name: Retention.ms; did you mean retention.ms?"),
        ("retenton.ms", "1", "Unknown topic config name: retenton.ms; did you mean retention.ms?"),
        ("log.retention.ms", "1", "Unknown topic config name: log.retention.ms; did you mean retention.ms?"),
    ];
    for (name, value, text) in cases {
        let result = crate::metadata::config::validate_one(name, value);
        let code = if text.is_empty() { 0 } else { 40 };
        assert_eq!(code_and_text(result.as_ref().err()), (code, *text), "{name}={value}");
    }
    let lags = [("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")];
    let lags = lags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let refused = crate::metadata::config::validate(&lags);
    let text = "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (8)";
    assert_eq!(code_and_text(refused.as_ref().err()), (40, text));
}

#[test]
fn a_topic_cannot_ask_for_every_record_to_be_flushed_and_for_none() {
    let together = |pairs: &[(&str, &str)]| {
        let configs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        crate::metadata::config::validate(&configs).err().map(|refusal| refusal.message)
    };
    for flush in [("flush.messages", "1"), ("flush.ms", "0")] {
        let refused = together(&[("corelog.durability", "write"), flush]).expect("a contradiction");
        assert!(refused.contains("corelog.durability=write and flush."), "{refused}");
        assert_eq!(together(&[("corelog.durability", "fsync"), flush]), None);
        assert_eq!(together(&[flush]), None);
    }
    assert_eq!(together(&[("corelog.durability", "write"), ("flush.messages", "2")]), None);
}

#[test]
fn the_table_is_in_name_order_and_every_default_is_valid() {
    assert!(TOPIC_CONFIGS.windows(2).all(|pair| pair[0].name < pair[1].name));
    assert_eq!(TOPIC_CONFIGS.iter().filter(|key| !key.name.starts_with("corelog.")).count(), 33);
    for key in &TOPIC_CONFIGS {
        let valid = crate::metadata::config::validate_one(key.name, key.default);
        assert_eq!(valid, Ok(()), "{}", key.name);
    }
}

#[test]
fn create_partitions_answers_as_kafka_does() {
    let metadata = cluster();
    let more = |name, count| MorePartitions { name, count, assignments: None };
    let by_hand = |count, assignments: &[&[i32]]| MorePartitions {
        name: "have",
        count,
        assignments: Some(
            assignments.iter().map(|nodes| nodes.iter().copied().map(NodeId).collect()).collect(),
        ),
    };
    let cases: Vec<(MorePartitions<'_>, i16, &str)> = vec![
        (more("have", 5), 0, ""),
        (more("have", 3), 37, "Topic already has 3 partition(s)."),
        (more("have", 2), 37, "The topic have currently has 3 partition(s); 2 would not be an increase."),
        (more("have", -1), 37, "The topic have currently has 3 partition(s); -1 would not be an increase."),
        (more("have", 10_004), 44, "Excessively large number of partitions per request."),
        (more("none", 5), 3, "This server does not host this topic-partition."),
        (by_hand(4, &[&[1, 2]]), 0, ""),
        (
            by_hand(5, &[&[1, 2]]),
            39,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            by_hand(4, &[&[1]]),
            39,
            "The manual partition assignment includes a partition with 1 replica(s), but this is not consistent with previous partitions, which have 2 replica(s).",
        ),
        (
            by_hand(4, &[&[3, 9]]),
            39,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
    ];
    for (asked, code, text) in cases {
        let plans = plan_create_partitions(metadata.image(), std::slice::from_ref(&asked), counter());
        let [(_, plan)] = plans.as_slice() else { panic!("one answer") };
        assert_eq!(code_and_text(plan.as_ref().err()), (code, text), "{asked:?}");
        if let Ok(command) = plan {
            run(&mut metadata.clone(), command.clone());
        }
    }
    let twice = plan_create_partitions(metadata.image(), &[more("have", 4), more("have", 5)], counter());
    let [(_, plan)] = twice.as_slice() else { panic!("one answer") };
    assert_eq!(code_and_text(plan.as_ref().err()), (42, "Duplicate topic name."));
}

#[test]
fn delete_topics_answers_as_kafka_does() {
    let metadata = cluster();
    let name = |name| DeleteTopic { name: Some(name), id: TopicId::default() };
    let id = |byte| DeleteTopic { name: None, id: TopicId([byte; 16]) };
    let cases: Vec<(Vec<DeleteTopic<'_>>, Vec<i16>)> = vec![
        (vec![name("have")], vec![0]),
        (vec![id(7)], vec![0]),
        (vec![name("none"), id(9)], vec![3, 100]),
        (vec![DeleteTopic { name: Some("have"), id: TopicId([7; 16]) }], vec![42]),
        (vec![id(0)], vec![42]),
        (vec![name("have"), name("have")], vec![42, 42]),
        (vec![id(7), id(7), id(8)], vec![42, 42, 0]),
        (vec![name("have"), id(7)], vec![42, 42]),
    ];
    for (asked, expect) in cases {
        let plans = plan_delete_topics(metadata.image(), &asked);
        let codes: Vec<i16> = plans.iter().map(|plan| code_and_text(plan.as_ref().err()).0).collect();
        assert_eq!(codes, expect, "{asked:?}");
    }
}
