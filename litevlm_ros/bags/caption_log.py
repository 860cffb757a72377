"""The log captions.jsonl: a line for each image, written as soon as it is captioned, so that a run can be continued."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from types import TracebackType
from typing import Any, NoReturn

from litevlm_ros.bags.origin import Origin
from litevlm_ros.errors import ConfigError, OutputError, printable
from litevlm_ros.files import explaining_full_disk

Entry = dict[str, Any]
"""One line: `topic`, `camera`, `bag_time` (nanoseconds), `stamp` (`sec`, `nanosec`), `frame_id`, `bag` and `model`
(`name` and `identity` of each), and either the fields of a litevlm_ros/Caption (`prompt`, `text`, ..., `timings` in
milliseconds) or `error`."""

_BEGINNING = b'{"topic": '
"""The first bytes of each line."""


class CaptionLog:
    """Appends entries to the log, inside its `with` block."""

    def __init__(self, file: Path, origin: Origin, is_entry: Callable[[Any], bool], *, resume: bool) -> None:
        """Reads the log if it is there, and writes nothing.

        Raises OSError, and ConfigError if the file exists and is not to be continued, is no plain file, or holds
        captions of another origin.
        """
        self.file = file
        self.done: Counter[tuple[str, int]] = Counter()
        """Number of images with a line from an earlier run, by topic and recording time, which images may share."""
        self.kept: list[Entry] = []
        """The entries of earlier runs."""
        self.rejected: list[bytes] = []
        """Lines that are no entries, but for the last one if it was cut off."""
        self.rejected_file: Path | None = None
        """The file that has got these lines."""
        self._is_entry = is_entry
        self._is_new = not os.path.lexists(file)
        if self._is_new:
            return
        if not resume:
            raise ConfigError(f"{file} exists; --resume continues it, another --output leaves it alone")
        if file.is_symlink() or not file.is_file():
            raise ConfigError(f"{file} is no plain file, so it cannot be continued; choose another --output")
        lines = file.read_bytes().split(b"\n")
        for line in lines:
            entry = _parsed(line)
            if is_entry(entry):
                self.kept.append(entry)
                self.done[entry["topic"], entry["bag_time"]] += 1
            elif line.strip() and not (line is lines[-1] and _is_cut_off(line)):
                self.rejected.append(line)
        _check_origin(file, self.kept, origin)

    def __enter__(self) -> CaptionLog:
        """Opens the log. Lines that are no entries go to a file of their own. Raises OSError and OutputError."""
        with explaining_full_disk(self.file):
            if not self._is_new:
                self._rewrite()
            # Without a buffer: a line is in the file, or the error is raised, when `add` returns.
            try:
                self._stream = self.file.open("xb" if self._is_new else "ab", buffering=0)
            except FileExistsError:
                raise OutputError(f"{self.file} has appeared meanwhile; choose another --output") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, entry: Entry) -> None:
        """Appends a line, which is in the file when this returns. Raises OutputError if it cannot be."""
        line = memoryview(_line(entry))
        if not os.fstat(self._stream.fileno()).st_nlink:
            raise OutputError(f"{self.file} was deleted or replaced while captions were written to it; start again")
        end = self._stream.seek(0, os.SEEK_END)
        try:
            with explaining_full_disk(self.file):
                while line:
                    line = line[self._stream.write(line) :]
        except BaseException:
            if line:
                self._stream.truncate(end)
            raise

    def entries(self) -> Iterator[Entry]:
        """Yields the entries that the file holds now. Raises OSError."""
        with self.file.open("rb") as lines:
            for line in lines:
                entry = _parsed(line)
                if self._is_entry(entry):
                    yield entry

    def _rewrite(self) -> None:
        directory = self.file.parent
        if self.rejected:
            with NamedTemporaryFile(
                prefix="captions_rejected_", suffix=".txt", dir=directory, delete=False
            ) as rejected:
                rejected.write(b"".join(line + b"\n" for line in self.rejected))
            self.rejected_file = Path(rejected.name)
        with TemporaryDirectory(prefix=f".{self.file.stem}_", dir=directory) as scratch:
            written = Path(scratch) / self.file.name
            with written.open("xb") as stream:
                stream.writelines(map(_line, self.kept))
                stream.flush()
                os.fsync(stream.fileno())
            written.replace(self.file)


def _check_origin(file: Path, kept: list[Entry], origin: Origin) -> None:
    for entry in kept:
        for name, expected in origin.fields().items():
            found = entry.get(name, expected)
            if found != expected:
                known = found if isinstance(found, dict) else {}
                raise ConfigError(
                    f"{file} holds captions of another {name} ({_shown(known)}), not of this one ({_shown(expected)}); "
                    "choose another --output"
                )
        if entry.get("prompt", origin.prompt) != origin.prompt:
            raise ConfigError(
                f"{file} holds answers to '{printable(entry['prompt'])}', not to '{printable(origin.prompt)}'; choose "
                "another --output"
            )


def _shown(source: dict[str, Any]) -> str:
    return printable(f"{source.get('name', 'unknown')}, {source.get('identity', 'unknown')}")


def _parsed(line: bytes) -> Any:
    """Returns the value in a line, or None."""
    try:
        return json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return None


def _is_cut_off(line: bytes) -> bool:
    """Tells whether a line without an end can be the beginning of one of ours, or what a lost cache leaves of it."""
    return line.startswith(_BEGINNING) or _BEGINNING.startswith(line) or not line.strip(b"\0")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _line(entry: Entry) -> bytes:
    return f"{json.dumps(entry, ensure_ascii=False)}\n".encode(errors="replace")
