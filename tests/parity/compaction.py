#!/usr/bin/env python3
"""The same records into a compacted topic here and in Kafka, and what compaction leaves of them in both.

    tests/parity/compaction.py --program CORELOG --kafka HOST:PORT

Compared are all records that are left (offset, time, key, value) and every batch that holds some or that its producer is known
by: base offset, last offset delta, epoch and sequence of the producer, count, codec, largest time, and, where a tombstone is
left in it, whether its time runs. Start that Kafka with log.cleaner.backoff.ms=200. Not compared are the batches that stand
for offsets without any (docs/internals/compaction.md).
"""

import argparse
import gzip
import random
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "faults"), str(HERE.parent.parent / "scripts")]
from broker import Broker  # noqa: E402
from wire import Connection, batch, crc32c, i64, varint, whole_batches  # noqa: E402

BATCHES, KEYS, RARE_KEYS = 1500, 70, 4000
BEGIN_MS = 1_760_000_000_000
GZIP, CODEC_MASK, HORIZON = 1, 7, 0x40
CONFIGS = [("cleanup.policy", "compact"), ("segment.bytes", str(1 << 20)), ("min.cleanable.dirty.ratio", "0.01"),
           ("delete.retention.ms", "86400000")]
# So many looks, a second apart, must find the same.
STABLE_LOOKS = 8
LOOKS_MAX = 120


def number(data, at, size):
    return int.from_bytes(data[at:at + size], "big", signed=True)


def read_varint(data, at):
    shift = value = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at


def nullable(value):
    return varint(-1) if value is None else varint(len(value)) + value


def record(value, delta, key):
    body = b"\0" + varint(delta * 3) + varint(delta) + nullable(key) + nullable(value) + varint(0)
    return varint(len(body)) + body


def fill(address, topic):
    """Keys that come again and keys that hardly do, tombstones, packed batches, and an idempotent producer among others."""
    choose = random.Random(5)
    with Connection(address) as c:
        if (error := c.create_topic(topic, 1, CONFIGS)) != 0:
            raise SystemExit(f"{address}: creating a topic: error {error}")
        time.sleep(1)
        producer, sequence = c.new_producer_id(), 0
        for n in range(BATCHES):
            count = choose.randint(1, 5)
            values = [None if choose.random() < 0.15 else (b"%d." % n) * choose.randint(1, 900) for _ in range(count)]
            keys = [b"key-%d" % choose.randrange(KEYS if choose.random() < 0.9 else RARE_KEYS) for _ in range(count)]
            payload = b"".join(record(value, delta, key) for delta, (value, key) in enumerate(zip(values, keys)))
            packed, of_producer, more = choose.random() < 0.3, choose.random() < 0.3, {}
            if of_producer:
                more = {"producer_id": producer, "producer_epoch": 0, "base_sequence": sequence}
                sequence += count
            made = bytearray(batch([b""] * count, payload=gzip.compress(payload, mtime=0) if packed else payload,
                                   attributes=GZIP if packed else 0, timestamp=BEGIN_MS + n, **more))
            made[35:43] = i64(BEGIN_MS + n + 3 * (count - 1))
            made[17:21] = crc32c(bytes(made[21:])).to_bytes(4, "big")
            if (error := c.produce(topic, bytes(made))[0]) != 0:
                raise SystemExit(f"{address}: producing batch {n}: error {error}")


def records_of(one, base):
    payload, at = one[61:], 0
    if number(one, 57, 4) and number(one, 21, 2) & CODEC_MASK == GZIP:
        payload = gzip.decompress(payload)
    for _ in range(number(one, 57, 4)):
        length, at = read_varint(payload, at)
        end = at + length
        time_delta, at = read_varint(payload, at + 1)
        delta, at = read_varint(payload, at)
        length, at = read_varint(payload, at)
        key, at = payload[at:at + length], at + length
        length, at = read_varint(payload, at)
        yield base + delta, number(one, 27, 8) + time_delta, key, None if length < 0 else payload[at:at + length]
        at = end


def read(address, topic):
    records, batches, offset = [], [], 0
    with Connection(address) as c:
        while True:
            error, high_watermark, data = c.fetch(topic, offset)
            if error != 0:
                raise SystemExit(f"{address}: fetching at {offset}: error {error}")
            if offset >= high_watermark:
                return records, batches, high_watermark
            at = 0
            for length in whole_batches(data):
                one = data[at:at + length]
                base, delta, count, attributes = number(one, 0, 8), number(one, 23, 4), number(one, 57, 4), number(one, 21, 2)
                here = list(records_of(one, base))
                has_tombstone = any(value is None for _, _, _, value in here)
                records += here
                if count or number(one, 43, 8) >= 0:
                    mask = CODEC_MASK | HORIZON if has_tombstone else CODEC_MASK
                    batches.append((base, delta, number(one, 43, 8) >= 0, number(one, 51, 2), number(one, 53, 4), count,
                                    attributes & mask, number(one, 35, 8)))
                offset, at = base + delta + 1, at + length


def settled(address, topic):
    last, same = None, 0
    for _ in range(LOOKS_MAX):
        now = read(address, topic)
        same, last = (same + 1 if now == last else 0), now
        if same == STABLE_LOOKS:
            return last
        time.sleep(1)
    raise SystemExit(f"{address}: compaction does not come to its end")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT")
    args = parser.parse_args()
    topic, failed = f"compacted-{int(time.time())}", 0
    with tempfile.TemporaryDirectory(prefix="corelog-compaction-") as folder:
        with Broker(args.program, Path(folder) / "data", more=["--set", "topics.log.cleaner.backoff.ms=200", "--set", "memory.budget=512MiB"]) as broker:
            for address in (broker.address, args.kafka):
                fill(address, topic)
            ours, kafkas = settled(broker.address, topic), settled(args.kafka, topic)
    for what, our, theirs in zip(("records", "batches"), ours, kafkas):
        failed += our != theirs
        print(f"{'FAIL' if our != theirs else 'ok  '} {len(our)} {what} here, {len(theirs)} in Kafka, of {ours[2]} offsets")
        for one, other in ((our, theirs), (theirs, our)):
            print("".join(f"     only {'here' if one is our else 'there'}: {it!r:.150}\n" for it in one if it not in other), end="")
    print(f"{2 - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
