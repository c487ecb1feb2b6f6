//! The program against its own null broker: it connects, agrees on versions, finds the topic, writes, and reports.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

struct NullBroker {
    child: Child,
    address: String,
}

impl NullBroker {
    fn start() -> NullBroker {
        let mut child = Command::new(BENCH)
            .args(["null-broker", "--partitions", "3"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("piped");
        let line = BufReader::new(output).lines().next().expect("a line").expect("text");
        let address = line.strip_prefix("ready: kafka ").expect("the line scripts wait for").to_owned();
        NullBroker { child, address }
    }

    fn produce(&self, more: &[&str]) -> (bool, serde_json::Value) {
        let done = Command::new(BENCH)
            .args(["produce", "--bootstrap", &self.address, "--json", "--quiet", "--no-ceiling"])
            .args(more)
            .output()
            .expect("the program runs");
        let text = String::from_utf8_lossy(&done.stdout);
        let json = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error} in {text:?}; it said {:?}", String::from_utf8_lossy(&done.stderr))
        });
        (done.status.success(), json)
    }
}

impl Drop for NullBroker {
    fn drop(&mut self) {
        self.child.kill().expect("it can be ended");
        self.child.wait().expect("it ends");
    }
}

#[test]
fn a_closed_loop_sends_so_many_records_and_notes_each_batch() {
    let broker = NullBroker::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (ledger, hdr) = (folder.path().join("ledger"), folder.path().join("run.hlog"));
    let (ledger_text, hdr_text) = (ledger.to_str().expect("text"), hdr.to_str().expect("text"));
    let (good, report) = broker.produce(&[
        "--records",
        "1000",
        "--connections",
        "4",
        "--ledger",
        ledger_text,
        "--hdr",
        hdr_text,
    ]);
    assert!(good);
    assert_eq!((&report["total_sent"], &report["total_acknowledged"]), (&1_000.into(), &1_000.into()));
    assert_eq!(report["latencies"]["ack latency"]["count"], 1_000);
    let noted = std::fs::read_to_string(&ledger).expect("a ledger");
    let records: u64 =
        noted.lines().skip(1).filter_map(|line| line.split(' ').nth(3)?.parse::<u64>().ok()).sum();
    assert_eq!(records, 1_000);
    assert!(noted.ends_with("end\n"));
    assert!(std::fs::read_to_string(&hdr).expect("a histogram").contains("Tag=ack,"));
}

#[test]
fn an_open_loop_sends_every_tick() {
    let broker = NullBroker::start();
    let (good, report) =
        broker.produce(&["--rate", "20k", "--records", "2000", "--idempotent", "--compression", "lz4"]);
    assert!(good);
    assert_eq!(report["total_acknowledged"], 2_000);
    assert_eq!(report["target_per_s"], 20_000);
    assert_eq!(report["latencies"]["ack latency"]["count"], 2_000);
}

#[test]
fn a_broker_that_is_not_there_is_a_plain_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let done =
        Command::new(BENCH).args(["verify", "--bootstrap", &address]).output().expect("the program runs");
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("refused"));
}
