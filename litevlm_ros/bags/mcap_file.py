"""One MCAP file of a recording: read by its index, and without it where the index or a part of the data is damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2.storage_mcap import McapReader

from litevlm_ros.bags.mcap_scan import MAGIC, McapScan
from litevlm_ros.bags.storage import Channel, Contents, Message
from litevlm_ros.errors import first_line


class McapFile:
    """A `StorageFile` in MCAP."""

    def __init__(self, path: Path) -> None:
        """Reads the index, or the whole file where there is none. Raises OSError."""
        self.path = path
        self.damages: list[str] = []
        self._indexed = True
        self._channels: dict[int, Channel] = {}
        try:
            self.contents = self._index()
        except Exception:  # the reader raises many kinds for damaged bytes
            self._indexed = False
            self.contents = self._search()

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yields the messages on these topics that can be read, in the order of recording. Raises OSError."""
        given: Counter[tuple[Channel, int]] = Counter()
        promised = sum(count for channel, count in self.contents.counts.items() if channel.topic in topics)
        reason = ""
        if self._indexed:
            try:
                for message in self._by_index(topics):
                    given[message.channel, message.time] += 1
                    yield message
            except Exception as error:  # as above
                reason = first_line(error)
            if given.total() >= promised:
                return
        before, found = given.copy(), given.total()
        scan = McapScan(self.path, self._channels)
        for message in scan.messages():
            key = message.channel, message.time
            if message.channel.topic not in topics:
                continue
            if before[key]:
                before[key] -= 1
            else:
                found += 1
                yield message
        for damage in scan.damages or [reason] * bool(reason and found < promised):
            self._tell(damage)

    def _index(self) -> Contents:
        reader = McapReader(self.path)
        reader.open()
        try:
            counts: Counter[Channel] = Counter()
            for connection in reader.connections:
                self._channels[connection.id] = _channel(connection)
                counts[_channel(connection)] += connection.msgcount
            about = reader.metadata
            return Contents(dict(counts), *((about.start_time, about.end_time - 1) if about.message_count else ()))
        finally:
            reader.close()

    def _search(self) -> Contents:
        scan = McapScan(self.path, {})
        counts: Counter[Channel] = Counter()
        start, end = 0, 0
        for message in scan.messages():
            start = min(start, message.time) if counts else message.time
            end = max(end, message.time)
            counts[message.channel] += 1
        for damage in scan.damages:
            self._tell(damage)
        with self.path.open("rb") as stream:
            stream.seek(max(0, self.path.stat().st_size - len(MAGIC)))
            if stream.read() != MAGIC and not scan.damages:
                self._tell("its index at the end is missing")
        return Contents({channel: counts[channel] for channel in scan.channels.values()}, start, end)

    def _by_index(self, topics: Collection[str]) -> Iterator[Message]:
        reader = McapReader(self.path)
        reader.open()
        try:
            chosen = [connection for connection in reader.connections if connection.topic in topics]
            for connection, time, data in reader.messages(chosen) if chosen else ():
                yield Message(_channel(connection), time, data)
        finally:
            reader.close()

    def _tell(self, damage: str) -> None:
        if damage not in self.damages:
            self.damages.append(damage)


def _channel(connection: Connection) -> Channel:
    encoding = connection.ext.serialization_format if isinstance(connection.ext, ConnectionExtRosbag2) else "ros1"
    return Channel(connection.topic, connection.msgtype, encoding)
