#!/usr/bin/env python3
"""Hostile bytes and bad manners against a broker, over loopback: each must get a clear answer and disturb nobody else.

    tests/faults/hostile.py --bootstrap HOST:PORT            a broker that runs already
    tests/faults/hostile.py --start PATH-TO-CORELOG          one of its own

What is expected is what Apache Kafka does (the same program passes against it); where Kafka itself misbehaves, or answers with
its catch-all, the case says so. After every case an ordinary client writes a record and reads it back. Everything is bounded:
connections by --connections, random frames by --random-frames, and time by each socket's timeout.
The closing line is `N passed, N failed, N skipped`.
"""

import argparse
import contextlib
import gzip
import random
import resource
import socket
import struct
import sys
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "scripts")]
from wire import (API_VERSIONS, FETCH, METADATA, PRODUCE, Closed, Connection, array, batch, fetch_body, frame, header, i8, i16, i32,  # noqa: E402
                  i64, produce_body, record, string, whole_batches)

REQUEST_BYTES_MAX = 104_857_600
FILES_SPARE = 200
CORRUPT, UNKNOWN_TOPIC, TOO_LARGE, INVALID_ACKS, UNSUPPORTED_VERSION, INVALID_REQUEST, UNSUPPORTED_CODEC, INVALID_RECORD = 2, 3, 10, 21, 35, 42, 76, 87
OUT_OF_ORDER, OLD_EPOCH = 45, 47
CATCH_ALL = -1

CASES = []


def case(name):
    def register(function):
        CASES.append((name, function))
        return function

    return register


class World:
    """The broker under attack, and a topic that the ordinary client uses."""

    def __init__(self, address, connections, random_frames, seed):
        self.address, self.connections, self.random_frames, self.seed = address, connections, random_frames, seed
        self.stamp, self.made = f"{time.time_ns() // 1_000_000:x}", 0
        self.good = self.topic("good")
        self.written = 0

    def connect(self):
        return Connection(self.address)

    def topic(self, prefix, configs=(), partitions=1):
        self.made += 1
        name = f"hostile-{prefix}-{self.stamp}-{self.made}"
        with self.connect() as c:
            check(c.create_topic(name, partitions, configs=configs), 0, f"creating {name}")
            deadline = time.monotonic() + 10
            while any(c.fetch(name, 0, partition)[0] != 0 for partition in range(partitions)):  # Kafka answers the creation before it serves the partitions
                check(time.monotonic() < deadline, True, f"{name} served in time")
        return name

    def ordinary_client_works(self):
        value = b"ordinary %d" % self.written
        with self.connect() as c:
            check(c.produce(self.good, batch([value])), (0, self.written), "an ordinary produce")
            error, high_watermark, data = c.fetch(self.good, self.written)
            check((error, high_watermark, value in data), (0, self.written + 1, True), "an ordinary fetch")
        self.written += 1


def check(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.300}, wanted {wanted!r:.300}")


def check_in(got, wanted, what):
    if got not in wanted:
        raise AssertionError(f"{what}: got {got!r:.300}, wanted one of {wanted!r:.300}")


def closes_on(w, data):
    with w.connect() as c:
        with contextlib.suppress(Closed):
            c.send(data)
        c.expect_close()


# Frames and headers.

FRAMES_CLOSED_ON = [
    ("length zero", i32(0)),
    ("negative length", i32(-1) + b"x" * 16),
    ("most negative length", i32(-2147483648)),
    ("length one over the limit", i32(REQUEST_BYTES_MAX + 1) + b"x" * 64),
    ("the largest length", i32(2147483647) + b"x" * 64),
    ("a frame too short for a header", frame(b"\0")),
    ("unknown key", frame(header(9999, 0, 1))),
    ("negative key", frame(header(-7, 0, 1))),
    ("unknown version of Metadata", frame(header(METADATA, 99, 1) + array([]))),
    ("negative version", frame(header(METADATA, -1, 1) + array([]))),
    ("Produce 2, which is advertised and not served", frame(header(PRODUCE, 2, 1) + i16(1) + i32(100) + array([]))),
    ("an empty body", frame(header(METADATA, 1, 1))),
    ("client id longer than the frame", frame(i16(METADATA) + i16(1) + i32(1) + i16(32767) + b"abc")),
    ("array of 2^31-1 topics", frame(header(METADATA, 1, 1) + i32(2147483647))),
    ("array of 2^31-1 topics and one there", frame(header(METADATA, 1, 1) + i32(2147483647) + string("a"))),
    ("string longer than the frame", frame(header(METADATA, 1, 1) + i32(1) + i16(30000) + b"abc")),
    ("a negative string length in an array", frame(header(METADATA, 1, 1) + i32(1) + i16(-5) + b"abc")),
    ("records longer than the frame", frame(header(PRODUCE, 7, 1) + produce_body("t", b"")[:-4] + i32(2000000000))),
    ("a fetch cut in the middle", frame(header(FETCH, 4, 1) + fetch_body("t", 0)[:-9])),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
    ("a TLS hello", bytes.fromhex("1603010200010001fc0303") + bytes(range(64))),
]

for title, data in FRAMES_CLOSED_ON:
    case(f"closed without a word: {title}")(lambda w, data=data: closes_on(w, data))


@case("ApiVersions of an unknown version: error 35 in version 0, and the connection goes on")
def api_versions_unknown(w):
    with w.connect() as c:
        got = c.ask(API_VERSIONS, 99, b"\0")  # header 2 ends with the tagged fields' count
        check(struct.unpack(">h", got[:2])[0], UNSUPPORTED_VERSION, "error code")
        count = struct.unpack(">i", got[2:6])[0]
        keys = [struct.unpack(">hhh", got[6 + 6 * at:12 + 6 * at]) for at in range(count)]
        check(API_VERSIONS in [key for key, _, _ in keys], True, f"key 18 in {keys}")
        check(c.ask(API_VERSIONS, 0, b"")[:2], i16(0), "ApiVersions 0 afterwards")


@case("ApiVersions 3 with an illegal client name: error 42, and the connection goes on")
def api_versions_bad_name(w):
    with w.connect() as c:
        got = c.ask(API_VERSIONS, 3, b"\0" + bytes([2 + 1]) + b"-!" + bytes([1 + 1]) + b"1" + b"\0")
        check(struct.unpack(">h", got[:2])[0], INVALID_REQUEST, "error code")
        check(c.ask(API_VERSIONS, 0, b"")[:2], i16(0), "ApiVersions 0 afterwards")


@case("bytes after the body are ignored, and a null client id is fine")
def trailing_bytes(w):
    with w.connect() as c:
        check(c.ask(METADATA, 1, array([]) + b"more than it takes")[:4] != b"", True, "an answer")
        check(c.ask(API_VERSIONS, 0, b"", client_id=None)[:2], i16(0), "a null client id")


@case("a frame that never ends, left by closing, by half-closing and by a reset")
def truncated(w):
    whole = frame(header(PRODUCE, 7, 1) + produce_body(w.good, batch([b"never"])))
    for cut in (1, 3, 4, 9, len(whole) // 2, len(whole) - 1):
        with w.connect() as c:
            c.send(whole[:cut])
        with w.connect() as c:
            c.send(whole[:cut])
            c.socket.shutdown(socket.SHUT_WR)
            c.expect_close()
        with w.connect() as c:
            c.send(whole[:cut])
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@case("random frames, and sound requests with random bytes flipped")
def random_frames(w):
    rng = random.Random(w.seed)
    sound = [header(PRODUCE, 7, 1) + produce_body(w.topic("flipped"), batch([b"a", b"b"])), header(FETCH, 4, 1) + fetch_body(w.good, 0),
             header(METADATA, 4, 1) + array([string(w.good)]) + i8(0), header(API_VERSIONS, 0, 1)]
    for number in range(w.random_frames):
        if number % 2:
            body = bytearray(rng.choice(sound))
            for _ in range(rng.randint(1, 6)):
                body[rng.randrange(len(body))] = rng.randrange(256)
            # CreateTopics, DeleteTopics and their like are no part of this case: flips must not undo other cases' topics.
            if struct.unpack(">h", body[:2])[0] not in (PRODUCE, FETCH, METADATA, API_VERSIONS):
                body[:2] = i16(METADATA)
            data = frame(bytes(body))
        else:
            data = i32(rng.randint(0, 400)) + rng.randbytes(rng.randint(0, 400))
        with w.connect() as c, contextlib.suppress(Closed):
            c.send(data)
            if number % 10 == 0:
                w.ordinary_client_works()


# Batches.

def zipped(payload):
    return gzip.compress(payload, 6)


LARGE_COUNT = 1_000_000
BATCHES = [
    ("wrong CRC", batch(crc=12345), {CORRUPT}),
    ("magic 0", batch(magic=0), {INVALID_RECORD}),
    ("magic 1", batch(magic=1), {INVALID_RECORD}),
    ("magic 3", batch(magic=3), {CORRUPT}),
    ("no bytes", b"", {INVALID_RECORD}),
    ("less than a header", batch()[:40], {INVALID_RECORD}),
    ("length field past the end", batch(length=100_000), {INVALID_RECORD}),
    ("length field too small", batch(length=10), {CORRUPT}),
    ("negative length field", batch(length=-1), {CORRUPT}),
    ("base offset not 0", batch(base_offset=7), {INVALID_RECORD}),
    ("count larger than the records", batch(count=5, last_offset_delta=4), {INVALID_RECORD}),
    ("a million records claimed", batch(count=LARGE_COUNT, last_offset_delta=LARGE_COUNT - 1), {INVALID_RECORD}),
    ("count smaller than the records", batch([b"a", b"b"], count=1, last_offset_delta=0), {INVALID_RECORD}),
    ("count apart from the last offset delta", batch([b"a", b"b"], last_offset_delta=7), {INVALID_RECORD}),
    ("negative count", batch(count=-1), {INVALID_RECORD}),
    ("negative last offset delta", batch(last_offset_delta=-1), {INVALID_RECORD}),
    ("zero records", batch([], count=0, last_offset_delta=0, payload=b""), {INVALID_RECORD}),
    ("control bit", batch(attributes=0x20), {INVALID_RECORD}),
    ("a producer id without a sequence", batch(producer_id=5, producer_epoch=0, base_sequence=-1), {INVALID_RECORD}),
    ("two batches", batch() + batch(), {INVALID_RECORD}),
    ("a record longer than its batch", batch(payload=b"\xff\xff\x7f" + record(b"x", 0)[1:]), {INVALID_RECORD}),
    ("a record of negative length", batch(payload=b"\x01" + record(b"x", 0)[1:]), {INVALID_RECORD}),
    # Kafka answers what its decoders throw, sometimes with its catch-all.
    ("a varint without an end", batch(payload=b"\xff" * 40), {INVALID_RECORD, CATCH_ALL}),
    ("unknown codec", batch(attributes=6), {CORRUPT, INVALID_RECORD, UNSUPPORTED_CODEC, CATCH_ALL}),
]


def batch_case(title, records, codes):
    @case(f"refused batch: {title}")
    def refused(w):
        topic = w.topic("batch")
        with w.connect() as c:
            check_in(c.produce(topic, records)[0], codes, "error code")
            # The same connection goes on, and nothing of the refused batch is there.
            check(c.produce(topic, batch([b"next"])), (0, 0), "the next batch")
            error, high_watermark, data = c.fetch(topic, 0)
            check((error, high_watermark, b"next" in data), (0, 1, True), "the log")


for title, records, codes in BATCHES:
    batch_case(title, records, codes)


# Kafka opens every compressed batch. A broker may also keep it closed, as Corelog does where nothing depends on what is
# inside: then it must serve the very bytes it was given, and the reader finds out.
UNOPENED = [
    ("gzip of nothing like it", batch(attributes=1, payload=b"not gzip at all"), {CORRUPT, INVALID_RECORD, CATCH_ALL}),
    ("snappy of nothing like it", batch(attributes=2, payload=b"\xff" * 30), {CORRUPT, INVALID_RECORD, CATCH_ALL}),
    ("lz4 of nothing like it", batch(attributes=3, payload=b"\xff" * 30), {CORRUPT, INVALID_RECORD, CATCH_ALL}),
    ("zstd of nothing like it", batch(attributes=4, payload=b"\xff" * 30), {CORRUPT, INVALID_RECORD, CATCH_ALL}),
    ("gzip cut in the middle", batch([b"a" * 500], attributes=1, payload=zipped(record(b"a" * 500, 0))[:-12]), {CORRUPT, INVALID_RECORD, CATCH_ALL}),
    ("64 MiB of zeros in gzip", batch(attributes=1, payload=zipped(bytes(64 << 20))), {CORRUPT, INVALID_RECORD, CATCH_ALL}),
]


def unopened_case(title, records, codes):
    @case(f"refused, or served verbatim: {title}")
    def refused_or_verbatim(w):
        topic = w.topic("unopened")
        with w.connect() as c:
            code = c.produce(topic, records)[0]
            check_in(code, codes | {0}, "error code")
            taken = int(code == 0)
            check(c.produce(topic, batch([b"next"])), (0, taken), "the next batch")
            error, high_watermark, data = c.fetch(topic, 0)
            check((error, high_watermark, b"next" in data), (0, 1 + taken, True), "the log")
            if taken:
                epoch = slice(12, 16)  # the one field of it that a broker writes, not covered by the CRC
                check(data[:epoch.start] + data[epoch.stop:len(records)], records[:epoch.start] + records[epoch.stop:], "the bytes served")


for title, records, codes in UNOPENED:
    unopened_case(title, records, codes)


@case("a fragment after a whole batch is trimmed, the batch is taken")
def fragment(w):
    topic = w.topic("fragment")
    with w.connect() as c:
        check(c.produce(topic, batch([b"whole"]) + batch([b"cut"])[:30]), (0, 0), "produce")
        error, high_watermark, data = c.fetch(topic, 0)
        check((error, high_watermark, len(data)), (0, 1, len(batch([b"whole"]))), "the log")


@case("null records: refused (Kafka never answers)")
def null_records(w):
    with Connection(w.address, seconds=3) as c:
        try:
            check(c.produce(w.good, None)[0], INVALID_RECORD, "error code")
        except TimeoutError:
            print("     no answer within 3 s: this is Kafka's own behaviour", flush=True)


@case("a batch over max.message.bytes is refused with 10")
def too_large(w):
    topic = w.topic("large", [("max.message.bytes", "1000")])
    with w.connect() as c:
        check(c.produce(topic, batch([b"x" * 2000]))[0], TOO_LARGE, "error code")
        check(c.produce(topic, batch([b"x" * 200])), (0, 0), "a small one")


@case("acks of 2, an unknown topic, an unknown partition")
def bad_produce(w):
    with w.connect() as c:
        check(c.produce(w.good, batch(), acks=2)[0], INVALID_ACKS, "acks=2")
        check(c.produce(f"{w.good}-never-made", batch())[0], UNKNOWN_TOPIC, "unknown topic")
        check(c.produce(w.good, batch(), partition=77)[0], UNKNOWN_TOPIC, "unknown partition")
        check(c.produce(w.good, batch(), partition=-1)[0], UNKNOWN_TOPIC, "negative partition")


@case("acks=0 is never answered; on an error the connection is closed")
def acks_zero(w):
    topic = w.topic("acks0")
    with w.connect() as c:
        for number in range(5):
            c.send(frame(header(PRODUCE, 7, number) + produce_body(topic, batch([b"quiet"]), acks=0)))
        check(c.ask(API_VERSIONS, 0, b"")[:2], i16(0), "the first answer is that of ApiVersions")
        deadline = time.monotonic() + 10
        while c.fetch(topic, 0)[1] != 5:
            check(time.monotonic() < deadline, True, "five records in time")
    closes_on(w, frame(header(PRODUCE, 7, 1) + produce_body(f"{topic}-never-made", batch(), acks=0)))


@case("a partition listed twice in one produce: the last entry is appended and answered alone")
def listed_twice(w):
    topic = w.topic("twice")
    with w.connect() as c:
        entries = [i32(0) + i32(len(records)) + records for records in (batch([b"dropped"]), batch([b"taken"]))]
        got = c.ask(PRODUCE, 7, string(None) + i16(-1) + i32(5000) + array([string(topic) + array(entries)]))
        at = 4 + 2 + len(topic.encode())
        check(struct.unpack(">iihq", got[at:at + 18]), (1, 0, 0, 0), "one answer: partition 0, no error, base offset 0")
        error, high_watermark, data = c.fetch(topic, 0)
        check((error, high_watermark, b"taken" in data, b"dropped" in data), (0, 1, True, False), "the log")


@case("sequences: duplicates are acknowledged once, gaps and old epochs refused, a new epoch starts over")
def sequences(w):
    topic = w.topic("sequences")
    with w.connect() as c:
        producer = c.new_producer_id()

        def send(sequence, count=2, epoch=0):
            return c.produce(topic, batch([b"s"] * count, producer_id=producer, producer_epoch=epoch, base_sequence=sequence))

        check([send(s) for s in (0, 2, 4, 6, 8, 10)], [(0, s) for s in (0, 2, 4, 6, 8, 10)], "in sequence")
        check([send(s) for s in (10, 8, 6, 4, 2)], [(0, s) for s in (10, 8, 6, 4, 2)], "each of the last five again")
        check(send(0)[0], OUT_OF_ORDER, "older than the last five")
        check(send(10, count=1)[0], OUT_OF_ORDER, "a part of the last one")
        check(send(14)[0], OUT_OF_ORDER, "a gap")
        check(send(5, epoch=1)[0], OUT_OF_ORDER, "a new epoch that does not start at 0")
        check(send(0, epoch=1), (0, 12), "a new epoch")
        check(send(12)[0], OLD_EPOCH, "the old epoch")
        check(send(10)[0], OLD_EPOCH, "a former duplicate in the old epoch")
        check(c.produce(topic, batch([b"s"], producer_id=producer + 1000, producer_epoch=3, base_sequence=77)), (0, 14), "an unknown producer's first")
        check(c.fetch(topic, 0)[1], 15, "records in the log")


@case("a sequence wraps from 2147483647 to 0")
def sequence_wrap(w):
    topic, last = w.topic("wrap"), 2147483647
    with w.connect() as c:
        for at, (sequence, count) in enumerate([(last - 1, 1), (last, 1), (0, 1), (1, 1)]):
            check(c.produce(topic, batch([b"s"] * count, producer_id=7_000_000, producer_epoch=0, base_sequence=sequence)), (0, at), f"sequence {sequence}")


@case("fetch of a negative offset, past the end, an unknown topic; a limit of zero and of 2^31-1 bytes")
def bad_fetch(w):
    topic = w.topic("fetch")
    with w.connect() as c:
        check(c.produce(topic, batch([b"one"])), (0, 0), "produce")
        check(c.fetch(topic, -5)[0], 1, "a negative offset")
        check(c.fetch(topic, 2)[0], 1, "past the end")
        check(c.fetch(topic, 1 << 62)[0], 1, "far past the end")
        check(c.fetch(f"{topic}-never-made", 0)[0], UNKNOWN_TOPIC, "unknown topic")
        for limit in (0, 1, 2147483647, -1):
            c.ask(FETCH, 4, fetch_body(topic, 0, max_bytes=limit))


FETCHED_BATCHES, FETCHED_BYTES = 6, 10_000


def filled_topic(w, c, partitions=4):
    topic = w.topic("limits", partitions=partitions)
    for partition in range(partitions):
        for _ in range(FETCHED_BATCHES):
            check(c.produce(topic, batch([b"x" * FETCHED_BYTES]), partition=partition)[0], 0, "produce")
    return topic


@case("a fetch over many partitions keeps to its bytes, but for the first batch of the first that has data")
def fetch_limits(w):
    with w.connect() as c:
        topic, one = filled_topic(w, c), len(batch([b"x" * FETCHED_BYTES]))
        for first in range(4):
            order = [((first + at) % 4, 0) for at in range(4)]
            found = c.fetch_many(topic, order, max_bytes=1)
            check({p: whole_batches(data) for p, data in found.items() if data}, {first: [one]}, f"one byte, from partition {first} on")
            # A partition without data does not use up the one batch.
            found = c.fetch_many(topic, [(order[0][0], FETCHED_BATCHES), *order[1:]], max_bytes=1)
            check({p: whole_batches(data) for p, data in found.items() if data}, {order[1][0]: [one]}, "the first that has data")
            found = c.fetch_many(topic, order, max_bytes=25_000)
            check(sum(map(len, found.values())) <= 25_000, True, f"{ {p: len(d) for p, d in found.items()} } within 25,000 bytes")
            check(len(whole_batches(found[first])) > 0, True, "the first partition gives some")
            found = c.fetch_many(topic, order, max_bytes=1 << 20, partition_max=1)
            check(len(whole_batches(found[first])), 1, "one batch, beyond its partition's limit too")


@case("a reader with little room that turns its order, as clients do, reaches the end of every partition")
def fetch_fairness(w):
    with w.connect() as c:
        topic, offsets = filled_topic(w, c), {partition: 0 for partition in range(4)}
        order = list(offsets)
        for _ in range(4 * FETCHED_BATCHES + 4):
            for partition, data in c.fetch_many(topic, [(p, offsets[p]) for p in order], max_bytes=15_000, max_wait_ms=1).items():
                batches = len(whole_batches(data))
                offsets[partition] += batches
                if batches:
                    order.remove(partition)
                    order.append(partition)
        check(offsets, {partition: FETCHED_BATCHES for partition in offsets}, "offsets reached")


@case("min_bytes counts all partitions together, whichever core they are on")
def fetch_min_bytes(w):
    with w.connect() as c:
        topic = filled_topic(w, c)
        offsets = [(partition, FETCHED_BATCHES - 1) for partition in range(4)]
        started = time.monotonic()
        found = c.fetch_many(topic, offsets, max_bytes=1 << 20, min_bytes=4 * FETCHED_BYTES, max_wait_ms=10_000)
        check((len(found), time.monotonic() - started < 5), (4, True), "answered before the wait is over")
        started = time.monotonic()
        c.fetch_many(topic, offsets, max_bytes=1 << 20, min_bytes=8 * FETCHED_BYTES, max_wait_ms=300)
        check(time.monotonic() - started >= 0.25, True, "waits for what is not there")


# Bad manners.

@case("a request sent byte by byte is answered")
def slow_sender(w):
    with w.connect() as c:
        for byte in frame(header(PRODUCE, 7, 3) + produce_body(w.topic("slow"), batch([b"slowly"]))):
            c.send(bytes([byte]))
            time.sleep(0.001)
        check(struct.unpack(">h", c.answer(3)[-26:-24])[0], 0, "error code")


@case("a hundred connections, each stuck in the middle of a frame, disturb nobody")
def stuck_senders(w):
    whole = frame(header(PRODUCE, 7, 1) + produce_body(w.good, batch([b"x" * 50_000])))
    with contextlib.ExitStack() as held:
        for number in range(100):
            held.enter_context(w.connect()).send(whole[:4 + number * 400])
        for _ in range(5):
            w.ordinary_client_works()


@case("two hundred pipelined requests are answered in order")
def pipelined(w):
    topic, count = w.topic("pipelined"), 200
    with w.connect() as c:
        requests = []
        for number in range(count):
            if number % 3 == 0:
                body = header(PRODUCE, 7, number) + produce_body(topic, batch([b"%d" % number]))
            elif number % 3 == 1:
                body = header(FETCH, 4, number) + fetch_body(topic, 0, max_wait_ms=1)
            else:
                body = header(METADATA, 1, number) + array([string(topic)])
            requests.append(frame(body))
        c.send(b"".join(requests))
        for number in range(count):
            c.answer(number)
        check(c.fetch(topic, 0)[1], (count + 2) // 3, "records")


@case("a client that asks for much and never reads costs only itself")
def never_reads(w):
    topic = w.topic("unread")
    with w.connect() as c:
        for _ in range(16):
            check(c.produce(topic, batch([b"x" * 900_000]))[0], 0, "produce")
    with contextlib.ExitStack() as held:
        for _ in range(8):
            c = held.enter_context(w.connect())
            c.socket.setblocking(False)
            asked = frame(header(FETCH, 4, 1) + fetch_body(topic, 0, max_bytes=16 << 20))
            with contextlib.suppress(BlockingIOError, ConnectionError):
                for _ in range(2000):
                    c.socket.send(asked)
        for _ in range(10):
            w.ordinary_client_works()


@case("idle connections, opened and left")
def idle_connections(w):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(w.connections, hard - FILES_SPARE)
    if count < w.connections:
        print(f"     only {count} connections: this process may not open more files", flush=True)
    try:
        with contextlib.ExitStack() as held:
            for number in range(count):
                held.enter_context(w.connect())
                if number % 500 == 0:
                    w.ordinary_client_works()
            for _ in range(10):
                w.ordinary_client_works()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@case("connections opened and closed at once, some by a reset")
def churn(w):
    for number in range(500):
        with w.connect() as c:
            if number % 2:
                c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def run(world, only):
    passed = failed = 0
    for name, function in CASES:
        if only not in name:
            continue
        started = time.monotonic()
        try:
            function(world)
            world.ordinary_client_works()
            passed += 1
            print(f"ok   {name} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:  # whatever the broker makes of it
            failed += 1
            traceback.print_exc()
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
            with contextlib.suppress(Exception):
                world.good, world.written = world.topic("good"), 0
    print(f"{passed} passed, {failed} failed, 0 skipped", flush=True)
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--bootstrap", metavar="HOST:PORT")
    where.add_argument("--start", type=Path, metavar="PROGRAM")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--random-frames", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT")
    args = parser.parse_args()
    with contextlib.ExitStack() as held:
        address = args.bootstrap
        if args.start:
            from broker import Broker

            address = held.enter_context(Broker(args.start, args.start.resolve().parent / "hostile-data")).address
        return run(World(address, args.connections, args.random_frames, args.seed), args.only)


if __name__ == "__main__":
    sys.exit(main())
