"""Captions as a bag, like a recording of the node's topics."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from litevlm_ros.bags.caption_log import Entry
from litevlm_ros.model_directory import shipped

CAPTION_TOPIC, TEXT_TOPIC = "/litevlm/caption", "/litevlm/caption_text"
_CAPTION, _TEXT = "litevlm_ros/msg/Caption", "std_msgs/msg/String"
_VERSION: Literal[8] = 8
"""Version of the bag's metadata: the newest that ROS 2 Humble reads."""


def caption_typestore() -> Any:
    """Returns the message types of rosbags, with litevlm_ros/Caption from this package's definitions.

    Raises ConfigError if the definitions are not installed.
    """
    types = get_typestore(Stores.ROS2_HUMBLE)
    for name in ("Timings", "Caption"):
        definition = shipped(Path("msg") / f"{name}.msg").read_text(encoding="utf-8")
        types.register(get_types_from_msg(definition, f"litevlm_ros/msg/{name}"))
    return types


def write_caption_bag(directory: Path, entries: Iterable[Entry], storage: str) -> None:
    """Writes the captions among the entries, each at the time at which its image was recorded.

    `storage` is 'mcap' or 'sqlite3'. A bag that is there already is replaced when the new one is complete. Raises
    OSError, and ConfigError if the message definitions are not installed.
    """
    types = caption_typestore()
    # The files of a bag have its name, so an unfinished one has that name too, within a directory of another name.
    unfinished = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    with Writer(unfinished / directory.name, version=_VERSION, storage_plugin=StoragePlugin[storage.upper()]) as bag:
        captions = bag.add_connection(CAPTION_TOPIC, _CAPTION, typestore=types)
        texts = bag.add_connection(TEXT_TOPIC, _TEXT, typestore=types)
        for entry in sorted(entries, key=itemgetter("bag_time")):
            if "error" in entry:
                continue
            time = entry["bag_time"]
            bag.write(captions, time, types.serialize_cdr(_caption(types, entry), _CAPTION))
            text = types.types[_TEXT](data=f"{entry['camera']}: {entry['text']}")
            bag.write(texts, time, types.serialize_cdr(text, _TEXT))
    shutil.rmtree(directory, ignore_errors=True)
    (unfinished / directory.name).rename(directory)
    unfinished.rmdir()


def _caption(types: Any, entry: Entry) -> Any:
    header = types.types["std_msgs/msg/Header"](
        stamp=types.types["builtin_interfaces/msg/Time"](**entry["stamp"]), frame_id=entry["frame_id"]
    )
    timings = types.types["litevlm_ros/msg/Timings"](**entry["timings"])
    fields = {name for name, _ in types.fielddefs[_CAPTION][1]} - {"header", "timings"}
    return types.types[_CAPTION](header=header, timings=timings, **{name: entry[name] for name in fields})
