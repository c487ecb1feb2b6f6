//! A connection against clients that pipeline, fall silent, never read, or never finish what they began to send.

use std::time::Duration;

use engine::ids::PartitionId;
use engine::log::Faults;
use rt::sim::SimDisk;

use super::*;
use crate::shard::join::future_bytes;
use crate::shard::tests::{batch, live, settings, start_with, topic_id, try_create};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const FIND_COORDINATOR: i16 = 10;
const JOIN_GROUP: i16 = 11;
const HEARTBEAT: i16 = 12;
const API_VERSIONS: i16 = 18;
const TOPIC: &str = "orders";

/// A client without manners: bytes out, frames in.
struct Rude {
    core: Core,
    stream: Stream,
    received: Vec<u8>,
}

impl Rude {
    async fn send(&self, bytes: Vec<u8>) {
        self.stream.send(vec![Slice::from(bytes)]).await.expect("the broker takes it");
    }

    /// The correlation id of the next answer, and what follows it; `None` when the broker has closed.
    async fn answer(&mut self) -> Option<(i32, Vec<u8>)> {
        let cutter = FrameCutter::new(1 << 24);
        loop {
            if let Ok(Cut::Frame(content)) = cutter.cut(&self.received) {
                let frame = self.received[content.clone()].to_vec();
                self.received.drain(..content.end);
                let (id, rest) = frame.split_first_chunk().expect("an answer has a header");
                return Some((i32::from_be_bytes(*id), rest.to_vec()));
            }
            let buffer = self.core.buffers().take(64 << 10, Reservation::Control).await;
            let room = 0..buffer.len();
            let (count, buffer) = self.stream.recv(buffer, room).await;
            match count {
                Ok(count) if count > 0 => self.received.extend_from_slice(&buffer[..count]),
                Ok(_) | Err(_) => return None,
            }
        }
    }
}

fn request(key: i16, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    for part in [key, version] {
        frame.extend(part.to_be_bytes());
    }
    frame.extend(correlation.to_be_bytes());
    frame.extend((-1_i16).to_be_bytes());
    frame.extend(body);
    let mut out = i32::try_from(frame.len()).expect("it is small").to_be_bytes().to_vec();
    out.extend(frame);
    out
}

fn api_versions(correlation: i32) -> Vec<u8> {
    request(API_VERSIONS, 0, correlation, &[])
}

/// An array of one topic with an array of one partition: its index, then the rest of it.
fn one_partition(index: i32, rest: &[u8]) -> Vec<u8> {
    let mut out = 1_i32.to_be_bytes().to_vec();
    out.extend(i16::try_from(TOPIC.len()).expect("it is short").to_be_bytes());
    out.extend(TOPIC.as_bytes());
    out.extend(1_i32.to_be_bytes());
    out.extend(index.to_be_bytes());
    out.extend(rest);
    out
}

fn produce(correlation: i32, partition: i32, bytes: usize) -> Vec<u8> {
    let records = batch(&"x".repeat(bytes));
    let mut body = (-1_i16).to_be_bytes().to_vec();
    body.extend((-1_i16).to_be_bytes());
    body.extend(5000_i32.to_be_bytes());
    let mut blob = i32::try_from(records.len()).expect("it is small").to_be_bytes().to_vec();
    blob.extend(&records[..]);
    body.extend(one_partition(partition, &blob));
    request(PRODUCE, 3, correlation, &body)
}

fn fetch(correlation: i32, partition: i32, max_wait_ms: i32) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [-1, max_wait_ms, 1, 8 << 20] {
        body.extend(field.to_be_bytes());
    }
    body.push(0);
    let mut rest = 0_i64.to_be_bytes().to_vec();
    rest.extend((8_i32 << 20).to_be_bytes());
    body.extend(one_partition(partition, &rest));
    request(FETCH, 4, correlation, &body)
}

/// A broker of one core with a topic of two partitions, and as many clients as are asked for.
async fn served(core: &Core, arguments: &[&str], clients: usize) -> (Rc<Shard>, Vec<Rude>) {
    let shard = start_with(core, Faults::default(), settings(arguments)).await;
    assert_eq!(try_create(&shard, TOPIC, 2).await, 0);
    core.spawn(Class::Control, sweep(shard.clone())).detach();
    let listener = core.listen("127.0.0.1:0".parse().expect("an address")).await.expect("listens");
    let mut rude = Vec::new();
    for _ in 0..clients {
        let stream = core.connect(listener.local_addr()).await.expect("connects");
        let (accepted, _) = listener.accept().await.expect("accepts");
        core.spawn(Class::Produce, serve(shard.clone(), accepted)).detach();
        rude.push(Rude { core: core.clone(), stream, received: Vec::new() });
    }
    (shard, rude)
}

fn end_of(shard: &Rc<Shard>, index: i32) -> i64 {
    let id = PartitionId { topic: topic_id(shard), index };
    shard.hosted(id).and_then(|hosted| hosted.open_log()).expect("it is open").log_end_offset().0
}

#[test]
fn two_hundred_pipelined_requests_are_all_answered_in_order() {
    live(&SimDisk::new(), |core, _| async move {
        let (_shard, mut clients) = served(&core, &[], 1).await;
        clients[0].send((0..200).flat_map(api_versions).collect()).await;
        for correlation in 0..200 {
            assert_eq!(clients[0].answer().await.map(|(id, _)| id), Some(correlation));
        }
    });
}

#[test]
fn a_silent_connection_is_closed_and_a_used_one_is_not() {
    live(&SimDisk::new(), |core, _| async move {
        let (_shard, mut clients) = served(&core, &["limits.connection_idle_ms_max=5000"], 2).await;
        for correlation in 0..5 {
            core.sleep(Duration::from_secs(3)).await;
            clients[0].send(api_versions(correlation)).await;
            assert!(clients[0].answer().await.is_some());
        }
        assert!(clients[1].answer().await.is_none(), "15 seconds of silence");
        // A long poll under way does not exempt, as in Kafka.
        clients[0].send(fetch(9, 0, 60_000)).await;
        assert!(clients[0].answer().await.is_none());
    });
}

#[test]
fn no_more_requests_than_the_limit_are_worked_on_beside_an_unanswered_one() {
    live(&SimDisk::new(), |core, _| async move {
        let (shard, mut clients) = served(&core, &["limits.connection_requests_in_flight_max=4"], 1).await;
        let mut bytes = fetch(0, 1, 2_000);
        bytes.extend((1..20).flat_map(|correlation| produce(correlation, 0, 10)));
        clients[0].send(bytes).await;
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(end_of(&shard, 0), 3, "beside the fetch");
        for correlation in 0..20 {
            assert_eq!(clients[0].answer().await.map(|(id, _)| id), Some(correlation));
        }
        assert_eq!(end_of(&shard, 0), 19);
    });
}

#[test]
fn no_more_bytes_than_the_limit_are_worked_on_beside_an_unanswered_request() {
    live(&SimDisk::new(), |core, _| async move {
        let limits = [
            "topics.message.max.bytes=60000",
            "limits.request_bytes_max=64KiB",
            "limits.connection_bytes_in_flight_max=64KiB",
        ];
        let (shard, mut clients) = served(&core, &limits, 1).await;
        let mut bytes = fetch(0, 1, 2_000);
        bytes.extend((1..4).flat_map(|correlation| produce(correlation, 0, 30_000)));
        clients[0].send(bytes).await;
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(end_of(&shard, 0), 2);
        for correlation in 0..4 {
            assert_eq!(clients[0].answer().await.map(|(id, _)| id), Some(correlation));
        }
        assert_eq!(end_of(&shard, 0), 3);
    });
}

/// Six batches of half a megabyte: more than a socket takes unread.
async fn fill(client: &mut Rude) {
    for correlation in 0..6 {
        client.send(produce(correlation, 0, 500_000)).await;
        assert!(client.answer().await.is_some());
    }
}

#[test]
fn a_client_that_does_not_read_holds_one_fetch_answer() {
    live(&SimDisk::new(), |core, _| async move {
        let (shard, mut clients) = served(&core, &[], 2).await;
        fill(&mut clients[1]).await;
        let id = PartitionId { topic: topic_id(&shard), index: 0 };
        let log = shard.hosted(id).and_then(|hosted| hosted.open_log()).expect("it is open");
        let reads = || log.counters().reads_from_tail + log.counters().reads_from_disk;
        clients[0].send((0..20).flat_map(|correlation| fetch(correlation, 0, 0)).collect()).await;
        core.sleep(Duration::from_secs(20)).await;
        assert_eq!(reads(), 1, "the others wait until the first is taken");
        // Nobody is short of memory: a client may take its time.
        for correlation in 0..20 {
            let (id, body) = clients[0].answer().await.expect("it is still served");
            assert_eq!(id, correlation);
            assert!(body.len() > 3_000_000);
        }
    });
}

#[test]
fn where_memory_is_short_the_slowest_reader_is_ended() {
    live(&SimDisk::new(), |core, _| async move {
        let (shard, mut clients) = served(&core, &[], 3).await;
        fill(&mut clients[2]).await;
        clients[0].send(fetch(0, 0, 0)).await;
        core.sleep(Duration::from_secs(4)).await;
        clients[1].send(fetch(0, 0, 0)).await;
        squeeze(&shard);
        core.sleep(Duration::from_secs(2)).await;
        squeeze(&shard);
        assert!(clients[0].answer().await.is_none(), "slow for more than five seconds");
        assert!(clients[1].answer().await.is_some(), "slow for less, and then it reads");
    });
}

#[test]
fn a_large_request_that_never_ends_gives_way_to_others() {
    live(&SimDisk::new(), |core, _| async move {
        let (_shard, mut clients) = served(&core, &[], 2).await;
        // More than large requests may hold together: it is let in alone.
        clients[0].send((20_i32 << 20).to_be_bytes().to_vec()).await;
        core.sleep(Duration::from_secs(60)).await;
        clients[1].send(produce(7, 0, 100_000)).await;
        assert_eq!(clients[1].answer().await.map(|(id, _)| id), Some(7));
        assert!(clients[0].answer().await.is_none());
    });
}

#[test]
fn a_long_poll_ends_with_its_connection() {
    live(&SimDisk::new(), |core, _| async move {
        let (shard, mut clients) = served(&core, &[], 1).await;
        let free = shard.fetches_waiting.available();
        clients[0].send(fetch(0, 0, i32::MAX)).await;
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(shard.fetches_waiting.available(), free - 1, "it waits");
        clients.clear();
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(shard.fetches_waiting.available(), free);
    });
}

#[test]
fn a_parked_join_ends_with_its_connection_also_behind_another_answer() {
    live(&SimDisk::new(), |core, _| async move {
        let delay = "groups.group.initial.rebalance.delay.ms=30000";
        let (shard, mut clients) = served(&core, &[delay, "groups.offsets.topic.num.partitions=2"], 2).await;
        let group = [0, 1, b'g'];
        loop {
            clients[0].send(request(FIND_COORDINATOR, 0, 0, &group)).await;
            clients[0].answer().await.expect("a coordinator");
            clients[0].send(request(HEARTBEAT, 0, 1, &[&group[..], &[0; 4], &[0, 0]].concat())).await;
            let (_, code) = clients[0].answer().await.expect("an answer");
            if code != [0, 0] {
                // An unknown member, where there is one that has loaded.
                break;
            }
        }
        // Version 2, timeouts of a minute, no member id, and one protocol without metadata.
        let minute = 60_000_i32.to_be_bytes();
        let join =
            [&group[..], &minute, &minute, &[0, 0], &[0, 1, b'c'], &[0, 0, 0, 1], &[0, 1, b'r'], &[0; 4]];
        for (client, correlation) in [(0, 5), (1, 5), (1, 6)] {
            clients[client].send(request(JOIN_GROUP, 2, correlation, &join.concat())).await;
        }
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(crate::groups::counts(&shard).waiting, 3);
        clients.pop();
        core.sleep(Duration::from_secs(1)).await;
        assert_eq!(crate::groups::counts(&shard).waiting, 1, "those of the other connection wait no more");
        // What they changed stands: when the phase is over there are three members.
        let (id, answer) = clients[0].answer().await.expect("the phase ends");
        assert_eq!((id, answer[..6].to_vec()), (5, [0; 6].to_vec()), "not throttled, no error");
        assert_eq!(crate::groups::counts(&shard).waiting, 0);
    });
}

#[test]
fn pieces_are_cut_at_their_size() {
    let check = |lengths: &[usize], bytes: usize, now: &[usize], later: &[usize]| {
        let mut slices: Vec<Slice> = lengths.iter().map(|&length| Slice::from(vec![1; length])).collect();
        let rest = split_off(&mut slices, bytes);
        let lengths = |slices: &[Slice]| slices.iter().map(Slice::len).collect::<Vec<_>>();
        assert_eq!((lengths(&slices), lengths(&rest)), (now.to_vec(), later.to_vec()));
    };
    check(&[], 10, &[], &[]);
    check(&[4, 6], 10, &[4, 6], &[]);
    check(&[4, 7, 2], 10, &[4, 6], &[1, 2]);
    check(&[25], 10, &[10], &[15]);
    check(&[10, 1], 10, &[10, 0], &[1]);
}

#[test]
fn connections_and_requests_are_held_in_little() {
    const CONNECTION_BYTES_MAX: usize = 640;
    const WRITER_BYTES_MAX: usize = 576;
    const REQUEST_BYTES_MAX: usize = 384;
    let connection = future_bytes(|(shard, stream)| serve(shard, stream));
    assert!(connection <= CONNECTION_BYTES_MAX, "{connection}");
    let writer = future_bytes(|(shard, shared)| write_replies(shard, shared));
    assert!(writer <= WRITER_BYTES_MAX, "{writer}");
    let request = future_bytes(|(shard, client, frame, at)| handlers::handle(shard, client, frame, at));
    assert!(request <= REQUEST_BYTES_MAX, "{request}");
}

#[test]
fn what_waits_and_what_is_small_is_copied_and_a_produce_never() {
    let check = |key: i16, bytes: usize, expect: bool| {
        let mut frame = vec![0; bytes];
        frame[..2].copy_from_slice(&key.to_be_bytes());
        assert_eq!(is_copied(&frame), expect, "{bytes} bytes of {key}");
    };
    check(PRODUCE, 100, false);
    check(HEARTBEAT, 100, true);
    check(HEARTBEAT, READ_BYTES, true);
    check(HEARTBEAT, READ_BYTES + 1, false);
    for waits in [FETCH, JOIN_GROUP] {
        check(waits, READ_BYTES + 1, true);
        check(waits, WAITING_COPIED_BYTES_MAX, true);
        check(waits, WAITING_COPIED_BYTES_MAX + 1, false);
    }
}
