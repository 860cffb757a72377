"""Reading of the images in a recording."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.typesys import Stores, get_typestore

from litevlm_ros.bags.image_topics import one_for_each_camera
from litevlm_ros.bags.recording import Recording
from litevlm_ros.bags.storage import BagError, Message
from litevlm_ros.errors import ConfigError, ImageError, printable
from litevlm_ros.images.message import COMPRESSED_TYPE, RAW_TYPE, decode_message
from litevlm_ros.images.sample_range import SampleRange
from litevlm_ros.types import RgbImage


@dataclass(frozen=True)
class RecordedImage:
    """One recorded image message."""

    topic: str
    bag_time: int
    """Time of the recording in nanoseconds. Several images may have the same one."""
    stamp: tuple[int, int]
    """Stamp of its header in seconds and nanoseconds."""
    frame_id: str
    message: Any
    """The deserialized message, or None for bytes that do not fit its type; the stamp is zero then."""
    samples: SampleRange
    """The range of 16-bit values on its topic so far."""

    def decode(self) -> RgbImage:
        """Returns the RGB image. Raises ImageError."""
        message = self.message
        if message is None:
            raise ImageError("the message is not what its type says")
        return decode_message(message, compressed=message.__msgtype__ == COMPRESSED_TYPE, samples=self.samples)


class ImageBag:
    """The images of a recording in sqlite3 or MCAP, zstd or not, which can be read inside its `with` block."""

    def __init__(self, path: Path) -> None:
        """Takes a directory or a storage file. Entering the `with` block raises BagError if it cannot be read."""
        self.path = path
        self._recording = Recording(path)
        self._samples: dict[str, SampleRange] = {}
        # The definitions of images are the same in every distribution, and bags of Humble do not have any.
        self._types = get_typestore(Stores.ROS2_HUMBLE)

    def __enter__(self) -> ImageBag:
        self._recording.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recording.__exit__(kind, error, trace)

    @property
    def notes(self) -> list[str]:
        """Sentences about the recording that are worth knowing before it is read, damages among them."""
        return [*self._recording.notes, *self._recording.damages]

    @property
    def image_topics(self) -> Mapping[str, int]:
        """Number of messages of each image topic, as the recording's index promises, by name."""
        counts: Counter[str] = Counter()
        for channel, count in sorted(self._recording.counts.items()):
            if channel.kind in (RAW_TYPE, COMPRESSED_TYPE) and channel.encoding == "cdr":
                counts[channel.topic] += count
        return counts

    def choose(self, topics: Sequence[str]) -> list[str]:
        """Returns `topics` without repetitions, or one image topic for each camera if there are none.

        Raises ConfigError for a topic without images, or a bag without any.
        """
        known = self.image_topics
        if not known:
            raise ConfigError(
                f"{self.path} has no images ({RAW_TYPE} or {COMPRESSED_TYPE}), {self._others()}{self._ros1()}"
            )
        if not any(known.values()):
            raise ConfigError(f"{self.path} has image topics ({', '.join(known)}), but no image was recorded on them")
        wrong = [printable(topic) for topic in topics if not known.get(topic)]
        if wrong:
            there = [topic for topic, count in known.items() if count]
            raise ConfigError(f"{self.path} has no images on {', '.join(wrong)}; it has them on {', '.join(there)}")
        return list(dict.fromkeys(topics)) or one_for_each_camera(known)

    def total(self, topics: Sequence[str]) -> int:
        """Returns the number of images on these topics that the index promises."""
        return sum(self.image_topics[topic] for topic in topics)

    def most_images(self, topic: str, period: float) -> int:
        """Returns the most images of a topic that are `period` seconds apart."""
        count = self.image_topics[topic]
        return min(count, int(self._recording.seconds / period) + 1) if period else count

    def identity(self) -> str:
        """Returns hex digits that tell recordings apart: a hash over the first image. Copies have the same ones.

        Raises BagError if no image can be read.
        """
        for message in self._recording.messages(self.image_topics.keys()):
            head = f"{message.channel.topic}\0{message.time}\0".encode()
            return hashlib.sha256(head + message.data).hexdigest()[:16]
        raise BagError(f"no image of {self.path} can be read: {'; '.join(self._recording.damages) or 'none is there'}")

    def images(self, topics: Sequence[str], period: float = 0.0) -> Iterator[RecordedImage | None]:
        """Yields one item for each message on these topics, in the order of recording.

        The item is None if the topic's last image came less than `period` seconds before. What cannot be read is left
        out, and at the end BagError is raised if there were fewer images than promised.
        """
        last: dict[str, int] = {}
        given: Counter[str] = Counter()
        least = round(period * 1e9)
        for message in self._recording.messages(topics):
            topic = message.channel.topic
            if message.channel.kind not in (RAW_TYPE, COMPRESSED_TYPE):
                continue
            given[topic] += 1
            # Recorded times go back where the clock of a simulator was set back.
            if topic in last and abs(message.time - last[topic]) < least:
                yield None
            else:
                last[topic] = message.time
                yield self._image(message)
        short = [f"{topic} has {given[topic]} of the {self.image_topics[topic]} images that the index promises"
                 for topic in topics if given[topic] < self.image_topics[topic]]  # fmt: skip
        reasons = [*self._recording.damages, *short]
        if reasons:
            raise BagError(
                f"{self.path} is damaged or incomplete, and was read as far as it goes: {'; '.join(reasons)}. If there "
                "is a better copy, put it in this place; the same command with --resume then captions the rest"
            )

    def _image(self, message: Message) -> RecordedImage:
        channel, time, data = message
        samples = self._samples.setdefault(channel.topic, SampleRange(channel.topic))
        try:
            image: Any = self._types.deserialize_cdr(data, channel.kind)
            stamp = image.header.stamp
        except Exception:  # bytes that do not fit the type raise many kinds
            return RecordedImage(channel.topic, time, (0, 0), "", None, samples)
        return RecordedImage(channel.topic, time, (stamp.sec, stamp.nanosec), image.header.frame_id, image, samples)

    def _others(self) -> str:
        counts = self._recording.counts
        if not counts and self._recording.damages:
            return f"and nothing else can be read: {'; '.join(self._recording.damages)}"
        if not counts:
            return "and no other topics either: it is empty"
        return "only: " + ", ".join(
            f"{channel.topic} ({channel.kind}{'' if channel.encoding == 'cdr' else ', ' + channel.encoding})"
            for channel in sorted(counts)
        )

    def _ros1(self) -> str:
        if not any(channel.encoding == "ros1" for channel in self._recording.counts):
            return ""
        return ". Its messages are those of ROS 1, of which this tool reads none"
