"""Recordings of a few small images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

RAW, COMPRESSED, TEXT = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
START = 1_700_000_000 * 10**9
"""Nanoseconds."""


class SmallBag:
    """Two cameras with an image every half second, whose stamp is 0.1 s before its recording."""

    def __init__(self, distribution: Stores = Stores.ROS2_HUMBLE) -> None:
        self.types = get_typestore(distribution)

    def _header(self, time: int) -> Any:
        types = self.types.types
        sec, nanosec = divmod(time - 10**8, 10**9)
        stamp = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id="optical")

    def serialized(self, message: Any) -> bytes:
        return bytes(self.types.serialize_cdr(message, message.__msgtype__))

    def write_messages(
        self, path: Path, messages: Iterable[tuple[str, int, Any]], storage: StoragePlugin = StoragePlugin.MCAP
    ) -> Path:
        """Writes messages (topic, time of the recording, message)."""
        connections: dict[str, Any] = {}
        with Writer(path, version=8, storage_plugin=storage) as writer:
            for topic, time, message in messages:
                kind = message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=self.types)
                writer.write(connections[topic], time, self.types.serialize_cdr(message, kind))
        return path

    def raw(self, time: int, value: int, **changes: Any) -> Any:
        fields = {"height": 24, "width": 32, "encoding": "rgb8", "is_bigendian": 0, "step": 96, **changes}
        data = np.full(24 * 96, value, np.uint8)
        return self.types.types[RAW](header=self._header(time), data=data, **fields)

    def compressed(self, time: int, value: int) -> Any:
        jpeg = cv2.imencode(".jpg", np.full((24, 32, 3), value, np.uint8))[1].ravel()
        return self.types.types[COMPRESSED](header=self._header(time), format="jpeg", data=jpeg)

    def write(
        self,
        path: Path,
        storage: StoragePlugin,
        *,
        images: int = 4,
        compression: CompressionMode = CompressionMode.NONE,
        malformed: int = -1,
        foreign: bool = True,
    ) -> Path:
        """`malformed` is the index of a raw image whose step is wrong. `foreign` adds texts beside the images."""
        writer = Writer(path, version=8, storage_plugin=storage)
        writer.set_compression(compression, CompressionFormat.ZSTD)
        with writer:
            raw = writer.add_connection("/front/image_raw", RAW, typestore=self.types)
            jpeg = writer.add_connection("/back/image_raw/compressed", COMPRESSED, typestore=self.types)
            text = writer.add_connection("/chatter", TEXT, typestore=self.types) if foreign else None
            for index in range(images):
                time = START + index * 500_000_000
                step = {"step": 1} if index == malformed else {}
                message = self.raw(time, 10 * (index % 20), **step)
                writer.write(raw, time, self.types.serialize_cdr(message, RAW))
                writer.write(
                    jpeg, time + 1, self.types.serialize_cdr(self.compressed(time + 1, 10 * (index % 20)), COMPRESSED)
                )
                if text is not None:
                    said = self.types.types[TEXT](data="hello")
                    writer.write(text, time + 2, self.types.serialize_cdr(said, TEXT))
        return path
