"""Just enough of the Kafka protocol to be rude with it: raw requests by hand, and record batches with every field settable.

Written apart from the broker's own codec on purpose: a fault both sides share would not show. Only versions without tagged
fields are spoken, but for ApiVersions 3. All integers are big-endian.
"""

import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, INIT_PRODUCER_ID = 0, 1, 2, 3, 18, 19, 20, 22
ANSWER_SECONDS_MAX = 15


def i8(n): return struct.pack(">b", n)
def i16(n): return struct.pack(">h", n)
def i32(n): return struct.pack(">i", n)
def i64(n): return struct.pack(">q", n)


def string(text):
    return i16(-1) if text is None else i16(len(text.encode())) + text.encode()


def array(items):
    return i32(len(items)) + b"".join(items)


def header(key, version, correlation, client_id="rude"):
    return i16(key) + i16(version) + i32(correlation) + string(client_id)


def frame(body):
    return i32(len(body)) + body


def varint(n):
    """Zigzag, as in records."""
    n = (n << 1) ^ (n >> 63)
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out) + bytes([n])


def crc32c(data, table=[]):
    if not table:
        for n in range(256):
            for _ in range(8):
                n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
            table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def record(value, delta, key=None):
    body = b"\0" + varint(0) + varint(delta) + (varint(-1) if key is None else varint(len(key)) + key) + varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def batch(values=(b"good",), *, base_offset=0, magic=2, attributes=0, last_offset_delta=None, count=None, length=None, crc=None,
          producer_id=-1, producer_epoch=-1, base_sequence=-1, timestamp=1_700_000_000_000, payload=None):
    """A record batch v2; whatever is given is written as it is, true or not."""
    payload = b"".join(record(value, delta) for delta, value in enumerate(values)) if payload is None else payload
    after_crc = (i16(attributes) + i32(len(values) - 1 if last_offset_delta is None else last_offset_delta) + i64(timestamp) + i64(timestamp)
                 + i64(producer_id) + i16(producer_epoch) + i32(base_sequence) + i32(len(values) if count is None else count) + payload)
    crc = crc32c(after_crc) if crc is None else crc
    rest = i32(0) + i8(magic) + struct.pack(">I", crc) + after_crc
    return i64(base_offset) + i32(len(rest) if length is None else length) + rest


def produce_body(topic, records, acks=-1, partition=0, timeout_ms=5000):
    blob = i32(-1) if records is None else i32(len(records)) + records
    return string(None) + i16(acks) + i32(timeout_ms) + array([string(topic) + array([i32(partition) + blob])])


def fetch_body(topic, offset, partition=0, max_wait_ms=100, max_bytes=1 << 20):
    return (i32(-1) + i32(max_wait_ms) + i32(1) + i32(max_bytes) + i8(0)
            + array([string(topic) + array([i32(partition) + i64(offset) + i32(max_bytes)])]))


def fetch_many_body(topic, offsets, max_bytes, partition_max=1 << 20, min_bytes=1, max_wait_ms=500):
    """`offsets` are (partition, offset) pairs, in the order in which they are asked for. Fetch 4."""
    parts = [i32(partition) + i64(offset) + i32(partition_max) for partition, offset in offsets]
    return i32(-1) + i32(max_wait_ms) + i32(min_bytes) + i32(max_bytes) + i8(0) + array([string(topic) + array(parts)])


def whole_batches(data):
    """The lengths of the whole batches that `data` begins with; a broker may cut the last one."""
    lengths = []
    while len(data) >= 12 and len(data) >= 12 + struct.unpack(">i", data[8:12])[0]:
        lengths.append(12 + struct.unpack(">i", data[8:12])[0])
        data = data[lengths[-1]:]
    return lengths


class Closed(Exception):
    """The broker closed the connection."""


class Connection:
    """One TCP connection to the broker."""

    def __init__(self, address, seconds=ANSWER_SECONDS_MAX):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Closed from error

    def receive(self):
        """One whole frame's body."""
        size = struct.unpack(">i", self._exactly(4))[0]
        return self._exactly(size)

    def _exactly(self, count):
        out = bytearray()
        while len(out) < count:
            try:
                more = self.socket.recv(count - len(out))
            except ConnectionResetError as error:
                raise Closed from error
            if not more:
                raise Closed
            out += more
        return bytes(out)

    def ask(self, key, version, body, client_id="rude"):
        """Sends one request and returns the body of its answer, its correlation id checked."""
        self.correlation += 1
        self.send(frame(header(key, version, self.correlation, client_id) + body))
        return self.answer(self.correlation)

    def answer(self, correlation):
        got = self.receive()
        if struct.unpack(">i", got[:4])[0] != correlation:
            raise AssertionError(f"answer {struct.unpack('>i', got[:4])[0]} where {correlation} was due")
        return got[4:]

    def expect_close(self):
        """The broker closes without a word."""
        try:
            more = self.socket.recv(1)
        except ConnectionResetError:
            return
        except TimeoutError as error:
            raise AssertionError("the connection was neither answered nor closed") from error
        if more:
            raise AssertionError("the connection was answered, not closed")

    def produce(self, topic, records, acks=-1, partition=0):
        """(error code, base offset) of the one partition. Produce 7."""
        got = self.ask(PRODUCE, 7, produce_body(topic, records, acks, partition))
        at = 4 + 2 + len(topic.encode()) + 4 + 4
        return struct.unpack(">hq", got[at:at + 10])

    def fetch(self, topic, offset, partition=0):
        """(error code, high watermark, record bytes) of the one partition. Fetch 4."""
        got = self.ask(FETCH, 4, fetch_body(topic, offset, partition))
        at = 4 + 4 + 2 + len(topic.encode()) + 4 + 4
        error, high_watermark, _, aborted = struct.unpack(">hqqi", got[at:at + 22])
        at += 22 + 16 * max(aborted, 0)
        size = struct.unpack(">i", got[at:at + 4])[0]
        return error, high_watermark, got[at + 4:at + 4 + max(size, 0)]

    def fetch_many(self, topic, offsets, max_bytes, **more):
        """Record bytes by partition. Fetch 4."""
        got = self.ask(FETCH, 4, fetch_many_body(topic, offsets, max_bytes, **more))
        topics, at, found = struct.unpack(">i", got[4:8])[0], 8, {}
        for _ in range(topics):
            at += 2 + struct.unpack(">h", got[at:at + 2])[0]
            count, at = struct.unpack(">i", got[at:at + 4])[0], at + 4
            for _ in range(count):
                partition, error, _, _, aborted = struct.unpack(">ihqqi", got[at:at + 26])
                if error:
                    raise AssertionError(f"partition {partition}: error {error}")
                at += 26 + 16 * max(aborted, 0)
                size = struct.unpack(">i", got[at:at + 4])[0]
                found[partition] = got[at + 4:at + 4 + max(size, 0)]
                at += 4 + max(size, 0)
        return found

    def new_producer_id(self):
        """A producer id, epoch 0. InitProducerId 0. A broker that has just started may be loading its ids: error 14."""
        for _ in range(100):
            got = self.ask(INIT_PRODUCER_ID, 0, string(None) + i32(60_000))
            error, producer_id, epoch = struct.unpack(">hqh", got[4:16])
            if error != 14:
                break
            time.sleep(0.05)
        if (error, epoch) != (0, 0):
            raise AssertionError(f"InitProducerId: error {error}, epoch {epoch}")
        return producer_id

    def create_topic(self, topic, partitions=1, configs=()):
        """The error code. CreateTopics 2."""
        pairs = array([string(name) + string(value) for name, value in configs])
        got = self.ask(CREATE_TOPICS, 2, array([string(topic) + i32(partitions) + i16(1) + array([]) + pairs]) + i32(10_000) + i8(0))
        at = 4 + 4 + 2 + len(topic.encode())
        return struct.unpack(">h", got[at:at + 2])[0]
