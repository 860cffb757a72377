"""Small MCAP files with what rosbags' writer cannot make: chunks in LZ4, no chunks, no index (https://mcap.dev/spec)."""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Iterable
from pathlib import Path

from lz4 import frame as lz4
from rosbags.rosbag2.storage_mcap import zstd

MAGIC = b"\x89MCAP0\r\n"
PACK = {"": lambda data: data, "zstd": zstd.compress, "lz4": lz4.compress, "unknown": lambda data: data}


def record(code: int, body: bytes) -> bytes:
    return struct.pack("<BQ", code, len(body)) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def write_mcap(
    file: Path,
    messages: Iterable[tuple[str, str, int, bytes]],
    *,
    compression: str | None = "",
    per_chunk: int = 4,
    ends: bool = True,
    profile: str = "ros2",
    encoding: str = "cdr",
) -> Path:
    """Writes messages (topic, type, time, bytes).

    `compression` None writes no chunks. With `ends`, the data end and a footer without an index follow.
    """
    channels: dict[str, int] = {}
    records: list[bytes] = []
    for topic, kind, time, data in messages:
        before = b""
        if topic not in channels:
            number = channels[topic] = len(channels) + 1
            before = record(3, struct.pack("<H", number) + text(kind) + text("ros2msg") + text(""))
            before += record(4, struct.pack("<HH", number, number) + text(topic) + text(encoding) + text(""))
        records.append(before + record(5, struct.pack("<HIQQ", channels[topic], 0, time, time) + data))
    out = MAGIC + record(1, text(profile) + text("tests"))
    if compression is None:
        out += b"".join(records)
    else:
        for start in range(0, len(records), per_chunk):
            data = b"".join(records[start : start + per_chunk])
            packed = PACK[compression](data)
            head = struct.pack("<QQQI", 0, 2**62, len(data), crc32(data)) + text(compression)
            out += record(6, head + struct.pack("<Q", len(packed)) + packed)
    if ends:
        out += record(15, b"\0\0\0\0") + record(2, bytes(20)) + MAGIC
    file.write_bytes(out)
    return file
