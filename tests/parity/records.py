"""Record batches as data: written with every field settable, true or not, and read back field by field.

A batch is a dict; what it leaves out is what a correct producer would have written:
  records = ["a", {value = "b", key = "k", delta = 1, time = 5, headers = [["h", "v"]]}, {fill = 1000}]
  base_offset, epoch (partition leader's), magic, crc, attributes, last_offset_delta, base_time, max_time,
  producer_id, producer_epoch, sequence, count, length;  codec = none gzip snappy lz4 zstd;  payload, tail = bytes after it
`magic` 0 and 1 write the old message format. A list of them is written one after the other; text is taken as it is.
"""

import gzip
import struct
import zlib

TIME = 1_700_000_000_000
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
HEADER = struct.Struct(">qiibIhiqqqhii")
FIELDS = ("base_offset", "length", "epoch", "magic", "crc", "attributes", "last_offset_delta", "base_time", "max_time",
          "producer_id", "producer_epoch", "sequence", "count")


def encode(value):
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, list):
        return b"".join(encode(one) for one in value)
    return old_messages(value) if value.get("magic", 2) < 2 else batch(value)


def batch(spec):
    unknown = set(spec) - {*FIELDS, "records", "codec", "payload", "tail"}
    if unknown:
        raise ValueError(f"a batch has no {', '.join(sorted(unknown))}")
    given = [one if isinstance(one, dict) else {"value": one} for one in spec.get("records", [])]
    base_time = spec.get("base_time", TIME)
    given = [{**one, "value": "x" * one["fill"]} if "fill" in one else one for one in given]
    times = [one.get("time", base_time) for one in given] or [base_time]
    payload = spec["payload"].encode("latin-1") if "payload" in spec else b"".join(
        record(one, index, times[index] - base_time) for index, one in enumerate(given))
    codec = CODECS.index(spec.get("codec", "none"))
    payload = COMPRESS[codec](payload)
    after_crc = struct.pack(">hiqqqhii", spec.get("attributes", 0) | codec, spec.get("last_offset_delta", len(given) - 1), base_time,
                            spec.get("max_time", max(times)), spec.get("producer_id", -1), spec.get("producer_epoch", -1),
                            spec.get("sequence", -1), spec.get("count", len(given))) + payload
    rest = struct.pack(">ibI", spec.get("epoch", 0), spec.get("magic", 2), spec.get("crc", crc32c(after_crc))) + after_crc
    return struct.pack(">qi", spec.get("base_offset", 0), spec.get("length", len(rest))) + rest + spec.get("tail", "").encode("latin-1")


def record(one, index, time_delta):
    body = b"\0" + varint(time_delta) + varint(one.get("delta", index)) + blob(one.get("key")) + blob(one.get("value"))
    headers = one.get("headers", [])
    body += varint(len(headers)) + b"".join(blob(name) + blob(value) for name, value in headers)
    return varint(len(body)) + body


def old_messages(spec):
    out = b""
    for offset, value in enumerate(spec["records"]):
        data = value.encode("latin-1")
        body = struct.pack(">bb", spec["magic"], 0) + (struct.pack(">q", TIME) if spec["magic"] else b"")
        body += struct.pack(">i", -1) + struct.pack(">i", len(data)) + data
        out += struct.pack(">qiI", offset, len(body) + 4, zlib.crc32(body)) + body
    return out


def varint(number):
    """Zigzag, as in records."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def blob(text):
    return varint(-1) if text is None else varint(len(text.encode("latin-1"))) + text.encode("latin-1")


def decode(data):
    """The batches; the rest as it is where no whole batch is left."""
    out = []
    while len(data) >= HEADER.size and data[16] == 2:
        fields = dict(zip(FIELDS, HEADER.unpack_from(data)))
        end = 12 + fields["length"]
        if end < HEADER.size or end > len(data):
            break
        fields["crc"] = "right" if fields["crc"] == crc32c(data[21:end]) else "wrong"
        payload, codec = data[HEADER.size:end], fields["attributes"] & 7
        if codec == 1:
            payload = gzip.decompress(payload)
        fields["records"] = read_records(payload, fields["count"]) if codec < 2 else payload.decode("latin-1")
        del fields["length"]
        out.append(fields)
        data = data[end:]
    return out + [data.decode("latin-1")] if data else out


def read_records(data, count):
    out, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value >> 1 ^ -(value & 1)
            shift += 7

    def text():
        nonlocal at
        size = number()
        at += max(size, 0)
        return None if size < 0 else data[at - size:at].decode("latin-1")

    for _ in range(count):
        number()
        at += 1
        one = {"time": number(), "delta": number(), "key": text(), "value": text()}
        one["headers"] = [[text(), text()] for _ in range(number())]
        out.append(one)
    return out


# Compression without libraries: the formats allow stored blocks.


def snappy(data):
    out = unsigned(len(data))
    for at in range(0, len(data), 60):
        part = data[at:at + 60]
        out += bytes([(len(part) - 1) << 2]) + part
    return out


def lz4(data):
    descriptor = bytes([0x60, 0x40])
    return struct.pack("<I", 0x184D2204) + descriptor + bytes([xxh32(descriptor) >> 8 & 0xFF]) + struct.pack("<I", len(data) | 1 << 31) + data + bytes(4)


def zstd(data):
    """One raw block, whose size is in 21 bits; single segment with a content size of 4 bytes."""
    return struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data)) + struct.pack("<I", len(data) << 3 | 1)[:3] + data


COMPRESS = (bytes, lambda data: gzip.compress(data, mtime=0), snappy, lz4, zstd)


def unsigned(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def xxh32(data):
    """Of less than 4 bytes, which is all that a frame descriptor has."""
    assert len(data) < 4
    value = 0x165667B1 + len(data)
    for byte in data:
        value = value + byte * 0x165667B1 & 0xFFFFFFFF
        value = (value << 11 | value >> 21) * 0x9E3779B1 & 0xFFFFFFFF
    value = (value ^ value >> 15) * 0x85EBCA77 & 0xFFFFFFFF
    value = (value ^ value >> 13) * 0xC2B2AE3D & 0xFFFFFFFF
    return value ^ value >> 16


def _crc_table():
    out = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        out.append(value)
    return out


CRC_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
