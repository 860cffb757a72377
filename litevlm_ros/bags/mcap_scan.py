"""Reading of an MCAP file from its beginning, without its index: as far as it goes.

The format is described at https://mcap.dev/spec. A recorder that was killed leaves a file without an index, and a copy
that broke off ends in the middle of a record.
"""

from __future__ import annotations

import os
import struct
from binascii import crc32
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from litevlm_ros.bags.compression import unpacked_start
from litevlm_ros.bags.storage import Channel, Message

MAGIC = b"\x89MCAP0\r\n"
"""The first and the last bytes of a complete file."""

_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 2, 3, 4, 5, 6, 15
_HEAD = struct.Struct("<BQ")
_MOST_CHUNK_BYTES = 1 << 30
"""The most bytes that a chunk may unpack to: recorders write chunks of some megabytes."""


class McapScan:
    """One pass over the messages of a file, in its own order, in which only the messages of a chunk are sorted."""

    def __init__(self, file: Path, channels: Mapping[int, Channel]) -> None:
        """`channels` are those that the index tells, by their ids; a damaged part of the file may have held them."""
        self.channels = dict(channels)
        """The channels that are known by now, by their ids."""
        self.damages: list[str] = []
        """Places that the pass has met and could not read, in words."""
        self._file = file
        self._schemas: dict[int, str] = {}

    def messages(self) -> Iterator[Message]:
        """Yields the messages up to the first place from which the file cannot be read. Raises OSError."""
        with self._file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(len(MAGIC))
            while True:
                at = stream.tell()
                head = stream.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    self._tell(f"it ends at byte {size}, before its index")
                    return
                code, length = _HEAD.unpack(head)
                if code in (_DATA_END, _FOOTER):
                    return
                if code == 0:
                    self._tell(f"it is damaged from byte {at} on")
                    return
                yield from self._record(stream, code, min(length, size - stream.tell()), at, cut=at + 9 + length > size)
                if at + _HEAD.size + length > size:
                    self._tell(f"it ends at byte {size}, in the middle of a record")
                    return
                stream.seek(at + _HEAD.size + length)

    def _record(self, stream: BinaryIO, code: int, length: int, at: int, *, cut: bool) -> Iterator[Message]:
        if code == _CHUNK:
            yield from self._chunk(stream.read(length), at, cut=cut)
        elif code in (_SCHEMA, _CHANNEL, _MESSAGE) and not cut:
            yield from self._read(code, stream.read(length), at)

    def _chunk(self, body: bytes, at: int, *, cut: bool) -> Iterator[Message]:
        """Yields the messages of a chunk, and those at the beginning of one that is `cut`."""
        try:
            size, checksum, letters = struct.unpack_from("<QII", body, 16)
            compression = body[32 : 32 + letters].decode()
            data = unpacked_start(body[40 + letters :], compression, min(size, _MOST_CHUNK_BYTES))
        except Exception as error:  # the decompressors raise many kinds
            if not cut:
                self._tell(f"its chunk at byte {at} cannot be unpacked ({error})")
            return
        if not cut and (len(data) != size or (checksum and crc32(data) != checksum)):
            self._tell(f"its chunk at byte {at} is damaged")
            return
        messages: list[Message] = []
        start = 0
        while start + _HEAD.size <= len(data):
            code, length = _HEAD.unpack_from(data, start)
            start += _HEAD.size
            if start + length > len(data):
                break
            messages.extend(self._read(code, data[start : start + length], at))
            start += length
        yield from sorted(messages, key=lambda message: message.time)

    def _read(self, code: int, body: bytes, at: int) -> Iterator[Message]:
        try:
            if code == _SCHEMA:
                self._schemas[struct.unpack_from("<H", body)[0]] = _text(body, 2)[0]
            elif code == _CHANNEL:
                number, schema = struct.unpack_from("<HH", body)
                topic, end = _text(body, 4)
                encoding, _ = _text(body, end)
                self.channels[number] = Channel(topic, self._schemas.get(schema, ""), encoding)
            elif code == _MESSAGE:
                number, _, time, _ = struct.unpack_from("<HIQQ", body)
                yield Message(self.channels[number], time, body[22:])
        except (struct.error, UnicodeDecodeError, KeyError):
            self._tell(f"its records at byte {at} are damaged")

    def _tell(self, damage: str) -> None:
        if damage not in self.damages:
            self.damages.append(damage)


def _text(body: bytes, start: int) -> tuple[str, int]:
    """Returns the string at `start` and the place behind it."""
    (size,) = struct.unpack_from("<I", body, start)
    end = start + 4 + size
    return body[start + 4 : end].decode(), end
