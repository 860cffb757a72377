"""A recording: the files of a rosbag2 directory, or one of them alone, with or without metadata.yaml.

A storage file is known by its first bytes. What metadata.yaml promises is compared with what the files hold.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import yaml

from litevlm_ros.bags import mcap_scan, sqlite_file
from litevlm_ros.bags.compression import ZSTD, unpack_file, unpacked_message
from litevlm_ros.bags.mcap_file import McapFile
from litevlm_ros.bags.sqlite_file import SqliteFile
from litevlm_ros.bags.storage import BagError, Channel, Message, StorageFile
from litevlm_ros.errors import first_line

METADATA = "metadata.yaml"
_ENDS = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_WRONG_YAML = (yaml.YAMLError, LookupError, TypeError, ArithmeticError, ValueError, AttributeError, RecursionError)
_ROS1 = b"#ROSBAG V"


class Recording:
    """The files of a recording, which can be read inside its `with` block and are never written to."""

    def __init__(self, path: Path) -> None:
        """Takes a directory, or a storage file. Entering the `with` block raises BagError if nothing can be read."""
        self.path = path
        self.counts: dict[Channel, int] = {}
        """Number of messages of each channel, as metadata.yaml or the files promise."""
        self.seconds = 0.0
        """Time between the first and the last message."""
        self.notes: list[str] = []
        """Sentences about the recording that are worth knowing before it is read."""
        self._files: list[tuple[str, StorageFile]] = []
        self._missing: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Recording:
        with ExitStack() as stack:
            self._scratch = Path(stack.enter_context(TemporaryDirectory(prefix="litevlm_bag_")))
            promised = self._open()
            self._stack = stack.pop_all()
        found: Counter[Channel] = Counter()
        for _, file in self._files:
            found.update(file.contents.counts)
        for channel in found.keys() | promised.keys():
            self.counts[channel] = max(found[channel], promised.get(channel, 0))
        spans = [file.contents for _, file in self._files if file.contents.end]
        if spans:
            self.seconds = (max(span.end for span in spans) - min(span.start for span in spans)) / 1e9
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def damages(self) -> list[str]:
        """The reasons, as far as they are known by now, why messages may be missing."""
        return [*self._missing, *(f"{name}: {damage}" for name, file in self._files for damage in file.damages)]

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yields the messages on these topics, file after file, each in the order of recording. Raises OSError."""
        for _, file in self._files:
            for message in file.messages(topics):
                if message.data.startswith(ZSTD):
                    yield message._replace(data=unpacked_message(message.data))
                else:
                    yield message

    def _open(self) -> dict[Channel, int]:
        """Opens the files and returns the counts that metadata.yaml promises."""
        try:
            if self.path.is_dir():
                files, promised = self._listed()
            else:
                files, promised = [self.path], {}
            for file in files:
                try:
                    self._files.append((file.name, self._storage(file)))
                except (BagError, OSError) as error:
                    if len(files) == 1:
                        raise
                    self._missing.append(str(error))
        except OSError as error:
            raise BagError(f"{self.path} cannot be read: {error.strerror or error}") from error
        if not self._files:
            raise BagError(f"no file of {self.path} can be read: {'; '.join(self._missing) or 'it has none'}")
        return promised

    def _listed(self) -> tuple[list[Path], dict[Channel, int]]:
        """Returns the storage files of the directory, in their order, and the counts of its metadata."""
        there = sorted((file for file in self.path.iterdir() if file.name.endswith(_ENDS)), key=_by_number)
        # A recorder that was killed while it compressed a file leaves both.
        there = [file for file in there if file.suffix != ".zstd" or file.with_suffix("") not in there]
        metadata = self.path / METADATA
        if not metadata.exists():
            if not there:
                raise BagError(self._nothing_here())
            if len(there) > 1:
                self.notes.append(f"{self.path} has no {METADATA}; it is read as {_names(there)}, in this order")
            return there, {}
        try:
            names, promised = _read_metadata(metadata)
        except _WRONG_YAML as error:
            if not there:
                raise BagError(
                    f"{metadata} cannot be read ({first_line(error)}), and no storage file is beside it"
                ) from error
            self.notes.append(f"{metadata} cannot be read ({first_line(error)}); without it, {_names(there)} is read")
            return there, {}
        listed = [self.path / name for name in dict.fromkeys(names)] or there
        unlisted = [file for file in there if file not in listed]
        if unlisted:
            self.notes.append(
                f"{metadata} does not list {_names(unlisted)}, so that is not read; name the file to read it"
            )
        return listed, promised

    def _nothing_here(self) -> str:
        bags = sorted(file.parent.name for file in self.path.glob(f"*/{METADATA}"))
        if bags:
            return f"{self.path} is no bag, but holds some: name one of {', '.join(bags)}"
        old = next(self.path.glob("*.bag"), None)
        if old is not None:
            return _ros1_advice(old)
        return (
            f"{self.path} is no bag: it has neither {METADATA} nor files that end in {' or '.join(_ENDS)}. Name a "
            "directory that `ros2 bag record` has written, or one such file"
        )

    def _storage(self, file: Path) -> StorageFile:
        """Opens one file. Raises BagError or OSError."""
        if not file.exists():
            raise BagError(f"{file} is missing" if file != self.path else f"{file} does not exist")
        if not file.is_file():
            raise BagError(f"{file} is neither a file nor a directory")
        with file.open("rb") as stream:
            head = stream.read(16)
        if head.startswith(ZSTD):
            file = _unpacked(file, self._scratch)
            with file.open("rb") as stream:
                head = stream.read(16)
        if head.startswith(mcap_scan.MAGIC):
            return McapFile(file)
        if head.startswith(sqlite_file.MAGIC):
            return SqliteFile(file, self._scratch)
        if head.startswith(_ROS1):
            raise BagError(_ros1_advice(file))
        if not head:
            raise BagError(f"{file} is empty: nothing was recorded, or its copy broke off")
        raise BagError(f"{file} is no recording: it begins neither as MCAP nor as sqlite3 (.db3) does")


def _read_metadata(metadata: Path) -> tuple[list[str], dict[Channel, int]]:
    """Returns the names of the files, and the number of messages of each channel."""
    about: Any = yaml.safe_load(metadata.read_bytes())["rosbag2_bagfile_information"]
    promised: Counter[Channel] = Counter()
    for item in about["topics_with_message_count"]:
        topic = item["topic_metadata"]
        channel = Channel(*(str(topic[key]) for key in ("name", "type", "serialization_format")))
        promised[channel] += int(item["message_count"])
    # Old versions write the directory too, and no file of a bag lies outside of its directory.
    return [PurePath(name).name for name in about["relative_file_paths"]], dict(promised)


def _by_number(file: Path) -> list[tuple[int, str]]:
    """Sorts drive_2 before drive_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", file.name)]


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files)


def _ros1_advice(file: Path) -> str:
    converted = file.with_name(f"{file.stem}_ros2")
    command = shlex.join(["rosbags-convert", "--src", str(file), "--dst", str(converted)])
    return f"{file} is a recording of ROS 1; convert it with `{command}`, and caption {converted}"


def _unpacked(file: Path, scratch: Path) -> Path:
    unpacked = scratch / file.stem
    try:
        unpack_file(file, unpacked)
    except OSError as error:
        raise BagError(
            f"{file} is compressed and cannot be unpacked in {scratch}: {error.strerror or error}; set TMPDIR to a "
            "directory on a larger disk"
        ) from error
    return unpacked
