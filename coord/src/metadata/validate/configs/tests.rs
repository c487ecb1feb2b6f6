//! Cases as data: what is asked of one resource, the code, and the changes.

use engine::ids::TopicId;

use super::super::super::{Image, Metadata};
use super::super::tests::{cluster, code_and_text, run};
use super::*;

const NODE: NodeId = NodeId(1);

fn rules<'a>(metadata: &'a Metadata, defaults: &'a Defaults, groups: &'a Settings) -> Rules<'a> {
    Rules { image: metadata.image(), defaults, node: NODE, groups }
}

fn plan_ops(
    metadata: &Metadata,
    kind: i8,
    name: &str,
    ops: &[ConfigOp<'_>],
) -> Result<Option<Command>, Refusal> {
    let defaults = Defaults::default().with_dynamic(metadata.image(), NODE);
    plan_incremental_alter_configs(rules(metadata, &defaults, &Settings::default()), kind, name, ops)
}

fn replace(metadata: &Metadata, configs: &[(&str, Option<&str>)]) -> Result<Option<Command>, Refusal> {
    plan_alter_configs(rules(metadata, &Defaults::default(), &Settings::default()), TOPIC, "have", configs)
}

/// Changes as key=value or key.
fn changes(command: Option<&Command>) -> Vec<String> {
    let show = |(key, value): &(String, Option<String>)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    };
    match command {
        Some(Command::SetTopicConfigs { changes, .. } | Command::SetConfigs { changes, .. }) => {
            changes.iter().map(show).collect()
        }
        _ => Vec::new(),
    }
}

/// Operations as `key=value`, `key+=value`, `key-=value`, `-key`, `key=` followed by nothing for null, `key?` for an
/// operation that is none.
fn op(text: &str) -> ConfigOp<'_> {
    let (name, operation, value) = if let Some(name) = text.strip_prefix('-') {
        (name, Some(Operation::Delete), None)
    } else if let Some(name) = text.strip_suffix('?') {
        (name, None, Some("1"))
    } else {
        let (left, value) = text.split_once('=').expect("an operation");
        let value = (value != "null").then_some(value);
        match (left.strip_suffix('+'), left.strip_suffix('-')) {
            (Some(name), _) => (name, Some(Operation::Append), value),
            (_, Some(name)) => (name, Some(Operation::Subtract), value),
            (None, None) => (left, Some(Operation::Set), value),
        }
    };
    ConfigOp { name, operation, value }
}

fn check(metadata: &Metadata, kind: i8, name: &str, cases: &[(&str, i16, &str)]) {
    for (asked, code, expect) in cases {
        let ops: Vec<ConfigOp<'_>> = asked.split_terminator(' ').map(op).collect();
        let plan = plan_ops(metadata, kind, name, &ops);
        assert_eq!(code_and_text(plan.as_ref().err()).0, *code, "{asked}: {plan:?}");
        let planned = plan.ok().flatten();
        assert_eq!(changes(planned.as_ref()).join(" "), *expect, "{asked}");
    }
}

#[test]
fn a_topics_changes_are_atomic_and_lists_grow_from_the_default() {
    let cases = [
        ("segment.ms=5", 0, "segment.ms=5"),
        ("retention.ms=5", 0, ""),
        ("-retention.ms", 0, "retention.ms"),
        ("-no.such", 0, ""),
        ("no.such=1", 40, ""),
        ("segment.ms=5 -segment.ms", 42, ""),
        ("segment.ms=null", 42, ""),
        ("segment.ms?", 42, ""),
        ("segment.ms+=1", 40, ""),
        ("no.such+=1", 40, ""),
        ("cleanup.policy+=delete", 0, "cleanup.policy=delete"),
        ("cleanup.policy-=delete", 0, "cleanup.policy="),
        ("cleanup.policy+=compact", 0, "cleanup.policy=delete,compact"),
        ("cleanup.policy+=null", 42, ""),
        ("segment.ms=5 segment.bytes=5", 40, ""),
        ("min.compaction.lag.ms=50 max.compaction.lag.ms=10", 40, ""),
        ("corelog.durability=write flush.messages=1", 40, ""),
        ("", 0, ""),
    ];
    check(&cluster(), TOPIC, "have", &cases);
}

#[test]
fn an_internal_topic_takes_nothing_that_would_be_ignored() {
    let mut metadata = cluster();
    let configs = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    let (name, partitions) = ("__consumer_offsets".to_owned(), vec![vec![NODE]]);
    run(&mut metadata, Command::CreateTopic { id: TopicId([9; 16]), name, partitions, configs });
    let cases = [
        ("cleanup.policy=delete", 40, ""),
        ("cleanup.policy+=delete", 40, ""),
        ("cleanup.policy-=compact", 40, ""),
        ("cleanup.policy=compact", 0, ""),
        // Back to the broker's default, which is overruled.
        ("-cleanup.policy", 0, "cleanup.policy"),
        ("corelog.durability=write", 40, ""),
        ("corelog.durability=fsync", 0, "corelog.durability=fsync"),
        ("segment.ms=5", 0, "segment.ms=5"),
    ];
    check(&metadata, TOPIC, "__consumer_offsets", &cases);
}

#[test]
fn what_is_no_resource_is_refused() {
    let metadata = cluster();
    let cases = [
        (TOPIC, "", 42),
        (TOPIC, "none", 3),
        (TOPIC, "a b", 17),
        (BROKER, "", 0),
        (BROKER, "1", 0),
        (BROKER, "2", 42),
        (BROKER, "one", 42),
        (GROUP, "", 42),
        (GROUP, "any name\n", 0),
        (0, "have", 42),
        (8, "1", 42),
        (16, "x", 42),
        (99, "x", 42),
    ];
    for (kind, name, code) in cases {
        let plan = plan_ops(&metadata, kind, name, &[]);
        assert_eq!(code_and_text(plan.as_ref().err()).0, code, "{kind} {name}");
    }
}

#[test]
fn of_a_broker_only_the_defaults_of_topics_change_while_it_runs() {
    let cases = [
        ("log.retention.ms=1000000", 0, "log.retention.ms=1000000"),
        (
            "message.max.bytes=2000000 compression.type=zstd",
            0,
            "compression.type=zstd message.max.bytes=2000000",
        ),
        ("log.retention.ms=x", 42, ""),
        ("log.segment.bytes=1", 42, ""),
        ("log.retention.ms=null", 42, ""),
        ("log.retention.ms+=1", 40, ""),
        ("log.cleanup.policy-=delete", 0, "log.cleanup.policy="),
        ("log.dirs=/x", 42, ""),
        ("message.max.bytes=2000000 node.id=3", 42, ""),
        ("retention.ms=1", 42, ""),
        ("num.io.threads=4", 42, ""),
        ("-log.dirs -no.such", 0, ""),
    ];
    check(&cluster(), BROKER, "1", &cases);
    check(&cluster(), BROKER, "", &cases);
}

#[test]
fn a_groups_configs_lie_within_the_brokers_bounds() {
    let cases = [
        ("consumer.session.timeout.ms=50000", 0, "consumer.session.timeout.ms=50000"),
        ("consumer.session.timeout.ms=44999", 40, ""),
        ("consumer.session.timeout.ms=60001", 40, ""),
        ("consumer.session.timeout.ms=0", 40, ""),
        ("consumer.session.timeout.ms=x", 40, ""),
        ("consumer.heartbeat.interval.ms=4999", 40, ""),
        ("consumer.heartbeat.interval.ms=15001", 40, ""),
        ("consumer.heartbeat.interval.ms=null", 42, ""),
        ("consumer.heartbeat.interval.ms+=5000", 40, ""),
        ("consumer.assignment.interval.ms=0", 0, "consumer.assignment.interval.ms=0"),
        ("consumer.assignment.interval.ms=15001", 40, ""),
        ("share.auto.offset.reset=earliest", 40, ""),
        ("-no.such", 0, ""),
    ];
    check(&cluster(), GROUP, "g", &cases);
}

#[test]
fn alter_configs_replaces_the_whole_set() {
    let metadata = cluster();
    let after = vec![("segment.ms".to_owned(), Some("5".to_owned())), ("retention.ms".to_owned(), None)];
    let expect = Command::SetTopicConfigs { id: TopicId([7; 16]), changes: after };
    assert_eq!(replace(&metadata, &[("segment.ms", Some("5"))]), Ok(Some(expect)));
    assert_eq!(replace(&metadata, &[("retention.ms", Some("5"))]), Ok(None));
    assert_eq!(changes(replace(&metadata, &[]).expect("valid").as_ref()), ["retention.ms"]);
    let refused = [
        (vec![("retention.ms", None)], 42),
        (vec![("no.such", Some("1"))], 40),
        (vec![("retention.ms", Some("1")), ("retention.ms", Some("2"))], 42),
    ];
    for (configs, code) in refused {
        assert_eq!(code_and_text(replace(&metadata, &configs).as_ref().err()).0, code, "{configs:?}");
    }
}

/// `retention.ms` of a topic as `value source; name=value source; ...`.
fn told(image: &Image, configs: &[(&str, &str)]) -> String {
    let file = BTreeMap::from([("retention.ms".to_owned(), "3".to_owned())]);
    let defaults = Defaults::new(file, 1, 1).expect("valid").with_dynamic(image, NODE);
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let all = config::describe(&configs, &defaults);
    let one = all.iter().find(|one| one.key.name == "retention.ms").expect("a key");
    let synonym = |(name, value, source): &(&str, String, _)| format!("{name}={value} {source:?}");
    let synonyms: Vec<String> = one.synonyms.iter().map(synonym).collect();
    format!("{} {:?}; {}", one.value, one.source, synonyms.join("; "))
}

#[test]
fn what_is_set_while_the_broker_runs_beats_its_file_and_a_topic_beats_both() {
    let mut metadata = cluster();
    let file = "log.retention.ms=3 Broker; log.retention.ms=604800000 Default";
    assert_eq!(told(metadata.image(), &[]), format!("3 Broker; {file}"));
    for (name, value) in [("", "1000"), ("1", "2000")] {
        let asked = format!("log.retention.ms={value}");
        let command = plan_ops(&metadata, BROKER, name, &[op(&asked)]).expect("valid").expect("a change");
        run(&mut metadata, command);
    }
    let dynamic =
        format!("log.retention.ms=2000 DynamicBroker; log.retention.ms=1000 DynamicBrokers; {file}");
    assert_eq!(told(metadata.image(), &[]), format!("2000 DynamicBroker; {dynamic}"));
    let topic = format!("7 Topic; retention.ms=7 Topic; {dynamic}");
    assert_eq!(told(metadata.image(), &[("retention.ms", " +007 ")]), topic);
    let command =
        plan_ops(&metadata, BROKER, "1", &[op("-log.retention.ms")]).expect("valid").expect("a change");
    run(&mut metadata, command);
    assert!(told(metadata.image(), &[]).starts_with("1000 DynamicBrokers; "));
}
