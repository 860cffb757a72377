"""Captions as a bag, like a recording of the node's topics."""

from __future__ import annotations

import os
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml
from rosbags.rosbag2 import StoragePlugin, Writer

from litevlm_ros.bags.caption_log import Entry
from litevlm_ros.bags.caption_messages import CAPTION, TEXT, CaptionMessages
from litevlm_ros.errors import OutputError

CAPTION_TOPIC, TEXT_TOPIC = "/litevlm/caption", "/litevlm/caption_text"
_VERSION: Literal[8] = 8
"""Version of the bag's metadata: the newest that ROS 2 Humble reads."""
_METADATA = "metadata.yaml"
_MARK = ("written_by", "litevlm_ros bag_caption")
"""Key and value in the metadata of the bags that `write_caption_bag` has written."""
_LATEST = 2**63 - 1


def foreign_files(directory: Path) -> list[str]:
    """Names what is at this path that `write_caption_bag` has not written. Raises OSError.

    The list is empty if nothing is there, or nothing but a bag of captions.
    """
    if not os.path.lexists(directory):
        return []
    if directory.is_symlink() or not directory.is_dir():
        return [directory.name]
    own = {_METADATA, f"{directory.name}.mcap", f"{directory.name}.db3"}
    if not _has_mark(directory / _METADATA):
        own = set()
    there = sorted(file.name for file in directory.iterdir())
    return [name for name in there if name not in own] or ([] if own else [directory.name])


def write_caption_bag(directory: Path, entries: Iterable[Entry], messages: CaptionMessages, storage: str) -> None:
    """Writes the captions among the entries, each at the time at which its image was recorded.

    `storage` is 'mcap' or 'sqlite3'. A bag of captions that is there already is replaced when the new one is complete.
    Raises OSError, and OutputError if something else is there.
    """
    with TemporaryDirectory(prefix=f".{directory.name}_", dir=directory.parent) as scratch:
        # The files of a bag have its name, so an unfinished one has that name too, within a directory of another name.
        finished, old = Path(scratch) / directory.name, Path(scratch) / "old" / directory.name
        _write(finished, entries, messages, storage)
        _refuse_foreign(directory, directory)
        if directory.exists():
            old.parent.mkdir()
            directory.rename(old)
            try:
                _refuse_foreign(old, directory)  # once more, now that nobody else finds it
            except OutputError:
                old.rename(directory)
                raise
        try:
            directory.mkdir()  # fails if something has appeared there; renaming would replace an empty directory
        except FileExistsError:
            _refuse_foreign(directory, directory)
            raise
        finished.rename(directory)


def _write(directory: Path, entries: Iterable[Entry], messages: CaptionMessages, storage: str) -> None:
    writer = Writer(directory, version=_VERSION, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_custom_data(*_MARK)
    with writer as bag:
        captions = bag.add_connection(CAPTION_TOPIC, CAPTION, typestore=messages.types)
        texts = bag.add_connection(TEXT_TOPIC, TEXT, typestore=messages.types)
        for entry in sorted(entries, key=itemgetter("bag_time")):
            if "error" not in entry:
                time = min(max(0, entry["bag_time"]), _LATEST)
                bag.write(captions, time, messages.caption(entry))
                bag.write(texts, time, messages.text(entry))
    for file in directory.iterdir():  # so that a power cut leaves the old bag or this one
        with file.open("rb") as written:
            os.fsync(written.fileno())


def _refuse_foreign(there: Path, directory: Path) -> None:
    foreign = foreign_files(there)
    if foreign:
        raise OutputError(
            f"the bag of captions is not written, because {directory} holds what this tool has not written "
            f"({', '.join(foreign)}). Move that away; the same command with --resume then writes the bag"
        )


def _has_mark(metadata: Path) -> bool:
    try:
        about: Any = yaml.safe_load(metadata.read_bytes())["rosbag2_bagfile_information"]
        return _MARK in about["custom_data"].items()
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return False
