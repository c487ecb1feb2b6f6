//! Files and arguments as data, with what is said about them in `tests/golden/config.txt`. `BLESS=1` accepts changes.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use tuning::machine::{Cpu, Kernel, Limits as Cgroup, Machine};

use super::keys::{KEYS, Kind, example};
use super::*;

fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn machine(cpus: usize, memory_bytes: u64) -> Machine {
    let cpu = |id| Cpu { id, package: 0, core: id, node: 0, siblings: vec![id], allowed: true };
    let kernel = Kernel { major: 6, minor: 12, release: "6.12.1".into() };
    Machine { cpus: (0..cpus).map(cpu).collect(), kernel, memory_bytes, limits: Cgroup::default() }
}

/// Cases: a file's text and arguments.
const CASES: &[(&str, &str, &[&str])] = &[
    ("nothing set", "", &[]),
    ("a misspelt key", "[node]\nid = 1\n\n[cores]\ncuont = 2\n", &[]),
    ("a misspelt section", "[listener]\nkafka = \"0.0.0.0:9092\"\n", &[]),
    ("an unknown empty section", "[tls]\n", &[]),
    ("a known empty section", "[topics]\n", &[]),
    ("a section given as a key", "cores = 4\n", &[]),
    ("Kafka's topic name for a broker default", "[topics]\nretention.ms = 1\n", &[]),
    (
        "wrong types",
        "[cores]\ncount = \"four\"\npin = \"yes\"\nnuma = -1\n[topics]\nauto.create.topics.enable = 1\n",
        &[],
    ),
    ("out of range", "[node]\nid = -1\n[limits]\nconnections_max = 0\n[memory]\nbudget = \"1MiB\"\n", &[]),
    ("a huge number", "[node]\nid = 99999999999999999999\n", &[]),
    ("broken syntax", "[cores\ncount = 2\n", &[]),
    ("the same key twice", "[cores]\ncount = 2\ncount = 3\n", &[]),
    ("a driver that does not exist", "[runtime]\ndriver = \"epoll\"\n", &[]),
    ("an address without a port", "[listeners]\nkafka = \"localhost\"\n", &[]),
    ("all interfaces without an advertised address", "[listeners]\nkafka = \"0.0.0.0:9092\"\n", &[]),
    ("an advertised wildcard", "[listeners]\nadvertised = \"[::]:9092\"\n", &[]),
    ("a flush bound under fsync", "[durability]\nflush_ms = 100\n", &[]),
    ("write with a bound", "[durability]\ndefault = \"write\"\nflush_ms = 100\n", &[]),
    ("write, flushed after each record", "[durability]\ndefault = \"write\"\nflush_messages = 1\n", &[]),
    (
        "a batch larger than a segment",
        "[topics]\nmessage.max.bytes = \"2MiB\"\nlog.segment.bytes = \"1MiB\"\n",
        &[],
    ),
    ("a segment smaller than the default batch", "[topics]\nlog.segment.bytes = \"1MiB\"\n", &[]),
    ("Kafka's other unit", "[topics]\nlog.retention.hours = 3\n", &[]),
    ("a budget in the file that is too large", "[memory]\nbudget = \"64GiB\"\n", &[]),
    ("an argument over the file", "[cores]\ncount = 1\n", &["cores.count=2", "memory.budget=512MiB"]),
    ("an argument with a misspelt key", "", &["core.count=2"]),
    ("an argument without a value", "", &["cores.count"]),
    ("an argument out of range", "", &["cores.count=0"]),
    ("more memory than there is", "", &["memory.budget=64GiB"]),
    ("too many shards for the memory", "", &["cores.count=64", "memory.budget=256MiB"]),
    ("a request larger than its core's memory", "", &["limits.request_bytes_max=1GiB"]),
    (
        "a batch larger than a request",
        "",
        &["limits.request_bytes_max=1MiB", "topics.message.max.bytes=2MiB"],
    ),
    ("more CPUs pinned than exist", "", &["cores.pin=[2, 3, 4]"]),
    (
        "many faults of one section, and one of another",
        "[cores]\npin = [2, 3, 4, 2, 9]\ncount = 6\nspare = 3\n[memory]\nbudget = \"64GiB\"\n",
        &[],
    ),
];

#[test]
fn every_case_says_what_the_golden_file_says() {
    let mut out = String::new();
    for (name, text, arguments) in CASES {
        writeln!(out, "# {name}").expect("a string grows");
        text.lines().for_each(|line| writeln!(out, "| {line}").expect("a string grows"));
        arguments.iter().for_each(|argument| writeln!(out, "| --set {argument}").expect("a string grows"));
        writeln!(out, "{}\n", outcome(text, arguments)).expect("a string grows");
    }
    let path = in_repository("tests/golden/config.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &out).expect("the golden file is written");
    }
    assert!(fs::read_to_string(&path).unwrap_or_default() == out, "BLESS=1 accepts this:\n{out}");
}

fn outcome(text: &str, arguments: &[&str]) -> String {
    let settings: Result<Vec<_>, _> = arguments.iter().map(|argument| Setting::parse(argument)).collect();
    let settled = settings
        .map_err(|problem| Problems(vec![problem]))
        .and_then(|settings| Config::parse("corelog.toml", text, &settings))
        .and_then(|config| Ok((config.resolve(&machine(4, 8 << 30))?, config)));
    match settled {
        Ok((settled, config)) => format!(
            "ok: {}; memory {} ({}); request {}, fetch {}; {}",
            settled.plan,
            units::format_bytes(settled.memory_budget_bytes),
            settled.memory_reason,
            units::format_bytes(settled.request_bytes_max),
            units::format_bytes(settled.fetch_bytes_max),
            config.durability
        ),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn the_example_file_holds_every_key_with_its_default() {
    let path = in_repository("corelog.example.toml");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, example()).expect("the example is written");
    }
    let text = fs::read_to_string(&path).expect("the example file");
    assert!(text == example(), "run `corelog config example > corelog.example.toml`");
    for key in KEYS {
        let (_, name) = key.path.split_once('.').expect("a section and a name");
        assert!(text.contains(&format!("{name} = {}", key.default)), "{}", key.path);
    }
    let defaults = Config::parse("", "", &[]).expect("defaults are valid");
    assert_eq!(Config::parse("corelog.example.toml", &text, &[]).expect("the example is valid"), defaults);
}

#[test]
fn every_key_takes_both_ends_of_its_range() {
    for key in KEYS {
        let ends = match key.kind {
            Kind::Integer { min, max } | Kind::IntegerOrAuto { min, max } => {
                vec![min.to_string(), max.to_string()]
            }
            Kind::Bytes { min, max } | Kind::BytesOrAuto { min, max } | Kind::BytesOrShare { min, max } => {
                vec![min.to_string(), max.to_string()]
            }
            Kind::Choice(choices) => choices.iter().map(|choice| choice.to_string()).collect(),
            Kind::Bool => vec!["true".into(), "false".into()],
            Kind::Text => vec!["x".into(), "17".into()],
            Kind::Address { .. } => vec!["localhost:0".into(), "[::1]:65535".into()],
            Kind::Pin => vec!["[0, 5]".into(), "off".into()],
            Kind::Numa => vec!["0".into(), "spread".into()],
        };
        for end in ends {
            let settings = [Setting::parse(&format!("{}={end}", key.path)).expect("key=value")];
            if let Err(problems) = Config::parse("", "", &settings) {
                // A relation to another key may forbid it, the range may not.
                assert!(!problems.to_string().contains("but takes"), "{problems}");
            }
        }
    }
}

#[test]
fn addresses_are_read_as_clients_write_them() {
    let check = |text: &str, expect: Option<(&str, u16)>| {
        let seen = Address::parse(text);
        assert_eq!(seen.as_ref().map(|address| (address.host.as_str(), address.port)), expect, "{text}");
        if let Some(address) = seen {
            assert_eq!(address.to_string(), text);
        }
    };
    check("127.0.0.1:9092", Some(("127.0.0.1", 9092)));
    check("[::1]:0", Some(("::1", 0)));
    check("broker-1.example.com:9092", Some(("broker-1.example.com", 9092)));
    check("::1:9092", None);
    check("host", None);
    check(":9092", None);
    check("host:99999", None);
    check("a b:1", None);
}

#[test]
fn clients_are_told_the_port_that_was_bound() {
    let check = |kafka: &str, advertised: Option<&str>, expect: &str| {
        let advertised = advertised.and_then(Address::parse);
        let listeners = Listeners { kafka: Address::parse(kafka).expect("an address"), advertised };
        assert_eq!(listeners.advertised(4711).to_string(), expect);
    };
    check("127.0.0.1:0", None, "127.0.0.1:4711");
    check("0.0.0.0:9092", Some("broker:19092"), "broker:19092");
    check("0.0.0.0:0", Some("broker:0"), "broker:4711");
}

#[test]
fn a_missing_file_is_named() {
    let problems = Config::load(Some(Path::new("no/such/file.toml")), &[]).expect_err("there is none");
    assert!(problems.to_string().contains("no/such/file.toml"), "{problems}");
}

#[test]
fn a_file_that_is_no_text_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("corelog.toml");
    fs::write(&file, [0x7f, b'E', b'L', b'F', 0xff]).expect("written");
    let problems = Config::load(Some(&file), &[]).expect_err("no text").to_string();
    assert!(problems.contains("corelog.toml is not UTF-8 text"), "{problems}");
}

#[test]
fn a_small_machine_gets_the_least_budget() {
    let config = Config::parse("", "", &[]).expect("defaults are valid");
    let settled = config.resolve(&machine(2, 512 << 20)).expect("it fits");
    assert_eq!(settled.memory_budget_bytes, 256 << 20);
    assert_eq!(settled.request_bytes_max, (128 << 20) / 5);
}
