"""Reading of the images in a rosbag2 recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from litevlm_ros.errors import ConfigError, ImageError, LiteVLMError
from litevlm_ros.images.decoding import decode_compressed, decode_raw
from litevlm_ros.types import RgbImage

RAW_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"


class BagError(LiteVLMError):
    """A bag cannot be read."""


@dataclass(frozen=True)
class RecordedImage:
    """One recorded image message."""

    topic: str
    bag_time: int
    """Time of the recording in nanoseconds."""
    stamp: tuple[int, int]
    """Stamp of its header in seconds and nanoseconds."""
    frame_id: str
    message: Any
    """The deserialized message, or None for bytes that do not fit its type; the stamp is zero then."""

    def decode(self) -> RgbImage:
        """Returns the RGB image. Raises ImageError."""
        message = self.message
        if message is None:
            raise ImageError("the message is not what its type says")
        if message.__msgtype__ == COMPRESSED_TYPE:
            return decode_compressed(message.format, message.data)
        return decode_raw(
            message.encoding, message.width, message.height, message.step, message.data, bool(message.is_bigendian)
        )


class ImageBag:
    """A bag directory of `ros2 bag record`, in sqlite3 or MCAP, zstd or not, that is open inside its `with` block."""

    def __init__(self, path: Path) -> None:
        """Takes the directory, or a file in it. Entering the `with` block raises BagError if it cannot be read."""
        self.path = path.parent if path.is_file() else path
        # The definitions of images are the same in every distribution, and bags of Humble do not have any.
        self._types = get_typestore(Stores.ROS2_HUMBLE)

    def __enter__(self) -> ImageBag:
        if not (self.path / "metadata.yaml").is_file():
            raise BagError(
                f"{self.path} is no bag: it has no metadata.yaml. Name a directory that `ros2 bag record` has written; "
                "one of a recording that broke off is mended by `ros2 bag reindex`"
            )
        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except Exception as error:  # the libraries of the storages raise many kinds
            raise self._unreadable(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    @property
    def image_topics(self) -> Mapping[str, int]:
        """Number of messages of each image topic."""
        counts: dict[str, int] = {}
        for connection in self._reader.connections:
            if connection.msgtype in (RAW_TYPE, COMPRESSED_TYPE):
                counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        return counts

    def choose(self, topics: Sequence[str]) -> list[str]:
        """Returns `topics` without repetitions, or all image topics if there are none.

        Raises ConfigError for a topic without images, or a bag without any.
        """
        known = self.image_topics
        if not known:
            others = [f"{item.topic} ({item.msgtype})" for item in self._reader.connections] or ["nothing"]
            raise ConfigError(f"{self.path} has no images ({RAW_TYPE} or {COMPRESSED_TYPE}), only: {', '.join(others)}")
        wrong = [topic for topic in topics if topic not in known]
        if wrong:
            raise ConfigError(f"{self.path} has no images on {', '.join(wrong)}; it has them on {', '.join(known)}")
        return list(dict.fromkeys(topics)) or list(known)

    def images(self, topics: Sequence[str], period: float = 0.0) -> Iterator[RecordedImage | None]:
        """Yields one item for each message on these topics, in the order of recording.

        The item is None if the topic's last image came less than `period` seconds before. Raises BagError where the bag
        ends early.
        """
        next_time = dict.fromkeys(topics, 0)
        connections = [connection for connection in self._reader.connections if connection.topic in next_time]
        messages = self._reader.messages(connections)
        while True:
            try:
                connection, bag_time, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                raise self._unreadable(error) from error
            if bag_time < next_time[connection.topic]:
                yield None
                continue
            next_time[connection.topic] = bag_time + round(period * 1e9)
            yield self._image(connection.topic, connection.msgtype, bag_time, data)

    def _image(self, topic: str, kind: str, bag_time: int, data: bytes) -> RecordedImage:
        try:
            message: Any = self._types.deserialize_cdr(data, kind)
            stamp = message.header.stamp
        except Exception:  # bytes that do not fit the type raise many kinds
            return RecordedImage(topic, bag_time, (0, 0), "", None)
        return RecordedImage(topic, bag_time, (stamp.sec, stamp.nanosec), message.header.frame_id, message)

    def _unreadable(self, error: Exception) -> BagError:
        reason = str(error) or type(error).__name__
        return BagError(
            f"{self.path} cannot be read: {reason}. If its recording broke off, `ros2 bag reindex` may mend it; "
            "if its copy did, copy it again"
        )
