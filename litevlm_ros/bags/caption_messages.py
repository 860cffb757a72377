"""Captions as ROS messages without ROS: entries of the caption log as bytes of a litevlm_ros/Caption."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from litevlm_ros.bags.caption_log import Entry
from litevlm_ros.model_directory import shipped

CAPTION, TEXT = "litevlm_ros/msg/Caption", "std_msgs/msg/String"
_TIMES = range(2**64)
"""The times in nanoseconds that a recording can hold."""


class CaptionMessages:
    """Makes messages of entries, by this package's own definitions."""

    def __init__(self) -> None:
        """Raises ConfigError if the message definitions are not installed."""
        self.types = get_typestore(Stores.ROS2_HUMBLE)
        for name in ("Timings", "Caption"):
            definition = shipped(Path("msg") / f"{name}.msg").read_text(encoding="utf-8")
            self.types.register(get_types_from_msg(definition, f"litevlm_ros/msg/{name}"))

    def fits(self, entry: Any) -> bool:
        """Tells whether a value that was read from a log is an entry: all fields are there, and of their types."""
        try:
            time = entry["bag_time"]
            if type(time) is not int or (time not in _TIMES and -time not in _TIMES):
                return False
            if not all(isinstance(entry[name], str) for name in ("topic", "camera", "frame_id")):
                return False
            if "error" in entry:
                self.types.serialize_cdr(self._header(entry), "std_msgs/msg/Header")
                return isinstance(entry["error"], str)
            numbers = [*entry["timings"].values(), entry["draft_acceptance"]]
            self.caption(entry)
            return all(map(math.isfinite, numbers))
        except Exception:  # values of wrong types raise many kinds
            return False

    def caption(self, entry: Entry) -> memoryview:
        """Returns the bytes of the Caption of an entry without `error`."""
        timings = self.types.types["litevlm_ros/msg/Timings"](**entry["timings"])
        fields = {name for name, _ in self.types.fielddefs[CAPTION][1]} - {"header", "timings"}
        message = self.types.types[CAPTION](
            header=self._header(entry), timings=timings, **{name: entry[name] for name in fields}
        )
        return self.types.serialize_cdr(message, CAPTION)

    def text(self, entry: Entry) -> memoryview:
        """Returns the bytes of the String 'camera: text' of an entry without `error`."""
        return self.types.serialize_cdr(self.types.types[TEXT](data=f"{entry['camera']}: {entry['text']}"), TEXT)

    def _header(self, entry: Entry) -> Any:
        stamp = self.types.types["builtin_interfaces/msg/Time"](**entry["stamp"])
        return self.types.types["std_msgs/msg/Header"](stamp=stamp, frame_id=entry["frame_id"])
