"""The interface of a storage file of a recording, and the error about what cannot be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from litevlm_ros.errors import LiteVLMError


class BagError(LiteVLMError):
    """A bag cannot be read, or not to its end."""


class Channel(NamedTuple):
    """A topic with its type, such as sensor_msgs/msg/Image, and the encoding of its messages, which ROS 2 calls cdr."""

    topic: str
    kind: str
    encoding: str


class Message(NamedTuple):
    """One recorded message. Its bytes may still be compressed."""

    channel: Channel
    time: int
    """Time of the recording in nanoseconds."""
    data: bytes


@dataclass(frozen=True)
class Contents:
    """The contents of a storage file, as its index tells them or as a search has found them."""

    counts: dict[Channel, int]
    """Number of messages of each channel."""
    start: int = 0
    end: int = 0
    """Times of the first and the last message in nanoseconds; both are 0 where there is none."""


class StorageFile(Protocol):
    """A file of messages, which is opened for each reading. It is never written to."""

    contents: Contents
    damages: list[str]
    """The reasons why messages may be missing. Reading adds those that it meets."""

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yields the messages on these topics that can be read, in the order of recording. Raises OSError."""
        ...
