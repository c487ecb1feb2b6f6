//! A real broker is produced to and fetched from, and what it tells over HTTP is held against what was done.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use engine::batch::Codec;
use engine::batch::build::BatchBuilder;
use net::client::{Client, Error, Options};
use net::error_code::ErrorCode;
use net::messages::find_coordinator::FindCoordinatorRequest;
use net::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use net::messages::leave_group::LeaveGroupRequest;
use net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use net::messages::offset_fetch::OffsetFetchRequest;
use net::messages::sync_group::SyncGroupRequest;
use rt::{Core, Slice};

mod prometheus;

use prometheus::Page;

const TOPIC: &str = "measured";
const PARTITIONS: i32 = 4;
const BATCHES: i32 = 40;
const VALUE_BYTES: usize = 20_000;

/// A broker on two cores, ended with the test.
struct Broker {
    child: Child,
    kafka: SocketAddr,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Broker {
    fn start() -> Broker {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        command.args(["start", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path().join("data"));
        for setting in [
            "admin.listen=127.0.0.1:0",
            "cores.count=2",
            "cores.pin=off",
            "memory.budget=256MiB",
            "groups.group.initial.rebalance.delay.ms=0",
            "groups.group.min.session.timeout.ms=1000",
            "groups.offsets.topic.num.partitions=3",
        ] {
            command.args(["--set", setting]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let (mut kafka, mut admin) = (None, None);
        for line in output.lines().map_while(Result::ok) {
            let address =
                |start: &str| line.strip_prefix(start).map(|text| text.parse().expect("an address"));
            admin = admin.or(address("ready: admin "));
            kafka = kafka.or(address("ready: kafka "));
            if kafka.is_some() {
                break;
            }
        }
        let (kafka, admin) = kafka.zip(admin).expect("both lines come");
        Broker { child, kafka, admin, _folder: folder }
    }

    fn topic(&self, action: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        command.arg("topic").args(action).args(["--bootstrap", &self.kafka.to_string()]);
        let done = command.output().expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn scrape(&self) -> Page {
        let (status, body) = self.get("GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
        assert_eq!(status, 200, "{body}");
        prometheus::parse(&body).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Status and body of the answer.
    fn get(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        // A connection with bytes that nobody read may end with a reset, behind the answer.
        while let Ok(count) = stream.read(&mut buffer)
            && count > 0
        {
            answer.extend_from_slice(&buffer[..count]);
        }
        let answer = String::from_utf8(answer).expect("it is text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an end of the head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = format!("Content-Length: {}", body.len());
        assert!(request.starts_with("HEAD") || head.lines().any(|line| line == length), "{head}");
        (status, body.to_owned())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().expect("it can be ended");
        self.child.wait().expect("it ends");
    }
}

fn batch(number: i32) -> Slice {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(1_000, None, Some(&vec![number as u8; VALUE_BYTES]), &[]);
    Slice::from(builder.finish())
}

/// Bytes of the batches written and of those read back. The last fetch finds nothing and waits.
async fn write_and_read(core: Core, address: SocketAddr) -> (usize, usize) {
    let client = Client::connect(&core, address, Options::default()).await.expect("connects");
    let (mut written, mut read) = (0, 0);
    for number in 0..BATCHES {
        let batch = batch(number);
        written += batch.len();
        let acks = if number % 2 == 0 { -1 } else { 1 };
        client.produce(TOPIC, number % PARTITIONS, batch, acks, 10_000).await.expect("is acknowledged");
    }
    for partition in 0..PARTITIONS {
        let fetched = client.fetch(TOPIC, partition, 0, 8 << 20, 0).await.expect("is there");
        assert_eq!(fetched.high_watermark, i64::from(BATCHES / PARTITIONS));
        read += fetched.records.len();
        let end = client.fetch(TOPIC, partition, fetched.high_watermark, 8 << 20, 20).await.expect("waits");
        assert!(end.records.is_empty());
    }
    let missing = client.produce(TOPIC, PARTITIONS, batch(0), -1, 10_000).await;
    assert!(matches!(missing, Err(Error::Broker(ErrorCode::UnknownTopicOrPartition))), "{missing:?}");
    (written, read)
}

#[test]
fn one_copy_on_the_way_in_none_on_the_way_out_and_every_stage_has_its_time() {
    let broker = Broker::start();
    broker.topic(&["create", TOPIC, "--partitions", &PARTITIONS.to_string()]);
    let before = broker.scrape();
    assert_eq!(before.sum("corelog_appended_bytes_total", &[]), 0.0);

    let address = broker.kafka;
    let config = rt::Config::new(1);
    let (written, read) =
        rt::block_on_one(config, move |core| write_and_read(core, address)).expect("a core");
    assert_eq!(written, read);
    let page = broker.scrape();
    let total = |name: &str| page.sum(name, &[]);
    assert_eq!(total("corelog_appended_bytes_total"), written as f64);
    assert_eq!(total("corelog_append_copied_bytes_total"), written as f64, "one copy");
    assert_eq!(total("corelog_fetched_bytes_total"), read as f64);
    assert_eq!(total("corelog_fetch_copied_bytes_total"), 0.0, "no copy");
    assert!(total("corelog_receive_moved_bytes_total") <= f64::from(BATCHES + 1) * 2.0 * 4096.0);
    assert_eq!(total("corelog_appended_batches_total"), f64::from(BATCHES));
    assert!(total("corelog_received_bytes_total") > written as f64);
    assert!(total("corelog_sent_bytes_total") > read as f64);

    let stage = |family: &str, stage: &str| page.sum(&format!("{family}_count"), &[("stage", stage)]);
    let produced = f64::from(BATCHES);
    for (name, count) in [("parse", 1.0), ("queue", 0.0), ("disk", 0.0), ("reply", 1.0), ("whole", 1.0)] {
        assert_eq!(stage("corelog_produce_stage_seconds", name), produced + count, "{name}");
    }
    let fetched = f64::from(2 * PARTITIONS);
    for (name, count) in [("parse", fetched), ("wait", fetched / 2.0), ("reply", fetched), ("whole", fetched)]
    {
        assert_eq!(stage("corelog_fetch_stage_seconds", name), count, "{name}");
    }
    assert!(stage("corelog_fetch_stage_seconds", "read") >= fetched);
    // One of two cores has the connection; partitions are dealt out to both.
    for family in ["corelog_produce_stage_seconds", "corelog_fetch_stage_seconds"] {
        let hops = stage(family, "hop");
        assert!(hops > 0.0 && hops % 2.0 == 0.0, "{family}: as many ways out as back, {hops}");
    }
    let waited = page.sum("corelog_fetch_stage_seconds_sum", &[("stage", "wait")]);
    assert!(waited >= 0.01 * f64::from(PARTITIONS), "{waited}");

    assert_eq!(page.sum("corelog_requests_total", &[("api", "Produce")]), produced + 1.0);
    let missing = [("api", "Produce"), ("error", "UNKNOWN_TOPIC_OR_PARTITION")];
    assert_eq!(page.sum("corelog_errors_total", &missing), 1.0);
    assert_eq!(page.sum("corelog_partitions", &[("state", "open")]), f64::from(PARTITIONS));
    assert_eq!(page.sum("corelog_partitions", &[("state", "offline")]), 0.0);

    broker.topic(&["delete", TOPIC]);
    let after = broker.scrape();
    assert_eq!(after.sum("corelog_appended_bytes_total", &[]), written as f64, "a counter never goes back");
    assert_eq!(after.sum("corelog_partitions", &[]), 0.0);
}

/// A member that falls silent holds up another, which leaves when it is in; two offsets are committed by nobody.
async fn come_and_go(core: Core, address: SocketAddr) {
    let client = Client::connect(&core, address, Options::default()).await.expect("connects");
    let join = async || {
        let request = JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 1_000,
            rebalance_timeout_ms: 600_000,
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: b"".into() }],
            ..Default::default()
        };
        // Newer versions ask twice.
        let reply = client.call_up_to(&request, 3).await.expect("is answered");
        let joined = reply.decode().expect("an answer");
        assert_eq!(joined.error_code, 0);
        (joined.member_id.to_string(), joined.generation_id)
    };
    let found = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
    client.call_up_to(&found, 3).await.expect("is answered");
    // Their partitions are loaded at once, but not before they are asked for.
    for group in ["g", "by hand"] {
        let fetch = OffsetFetchRequest { group_id: group.into(), topics: None, ..Default::default() };
        loop {
            let reply = client.call_up_to(&fetch, 7).await.expect("is answered");
            let code = reply.decode().expect("an answer").error_code;
            if code != ErrorCode::CoordinatorLoadInProgress as i16 {
                assert_eq!(code, 0);
                break;
            }
        }
    }
    let (silent, generation_id) = join().await;
    let sync = SyncGroupRequest {
        group_id: "g".into(),
        generation_id,
        member_id: silent.into(),
        ..Default::default()
    };
    let synced = client.call_up_to(&sync, 3).await.expect("is answered");
    assert_eq!(synced.decode().expect("an answer").error_code, 0);
    let (member_id, _) = join().await;
    let leave = LeaveGroupRequest { group_id: "g".into(), member_id: member_id.into(), ..Default::default() };
    let left = client.call_up_to(&leave, 2).await.expect("is answered");
    assert_eq!(left.decode().expect("an answer").error_code, 0);
    let partition = |partition_index| OffsetCommitRequestPartition { partition_index, ..Default::default() };
    let commit = OffsetCommitRequest {
        group_id: "by hand".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![partition(0), partition(1)],
            ..Default::default()
        }],
        ..Default::default()
    };
    let committed = client.call_up_to(&commit, 9).await.expect("is answered");
    let committed = committed.decode().expect("an answer");
    assert!(committed.topics[0].partitions.iter().all(|one| one.error_code == 0), "{committed:?}");
}

#[test]
fn what_happens_to_groups_is_counted() {
    let broker = Broker::start();
    broker.topic(&["create", TOPIC, "--partitions", "2"]);
    let address = broker.kafka;
    rt::block_on_one(rt::Config::new(1), move |core| come_and_go(core, address)).expect("a core");
    let page = broker.scrape();
    assert_eq!(page.sum("corelog_groups", &[]), 2.0);
    assert_eq!(page.sum("corelog_group_rebalances_total", &[("protocol", "classic")]), 1.0);
    assert_eq!(page.sum("corelog_group_rebalances_total", &[("protocol", "consumer")]), 0.0);
    let removed = |reason| page.sum("corelog_group_members_removed_total", &[("reason", reason)]);
    assert_eq!((removed("session"), removed("left"), removed("rebalance")), (1.0, 1.0, 0.0));
    assert_eq!(page.sum("corelog_offset_commits_total", &[]), 2.0);
    assert_eq!(page.sum("corelog_offset_expirations_total", &[]), 0.0);
}

#[test]
fn what_is_no_request_for_the_page_gets_a_clear_answer_and_the_next_one_is_served() {
    let broker = Broker::start();
    let check = |request: &str, expect: u16| assert_eq!(broker.get(request).0, expect, "{request:.60}");
    check("GET / HTTP/1.1\r\n\r\n", 404);
    check("POST /metrics HTTP/1.1\r\n\r\n", 405);
    check("what is this\r\n\r\n", 400);
    check(&format!("GET /metrics HTTP/1.1\r\na: {}", "x".repeat(9_000)), 431);
    assert_eq!(broker.get("HEAD /metrics HTTP/1.1\r\n\r\n"), (200, String::new()));
    assert_eq!(broker.get("GET /healthz HTTP/1.1\r\n\r\n"), (200, "ok\n".to_owned()));
    // So many that say nothing are waited for; one more is closed at once.
    let silent: Vec<TcpStream> =
        (0..16).map(|_| TcpStream::connect(broker.admin).expect("it listens")).collect();
    let mut one_more = TcpStream::connect(broker.admin).expect("it listens");
    assert!(one_more.read(&mut [0; 16]).is_ok_and(|count| count == 0));
    drop(silent);
}
