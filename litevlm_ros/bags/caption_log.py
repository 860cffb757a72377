"""The log captions.jsonl: a line for each image, written as soon as it is captioned, so that a run can be continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from litevlm_ros.errors import ConfigError
from litevlm_ros.files import write_text

Entry = dict[str, Any]
"""One line: `topic`, `camera`, `bag_time` (nanoseconds), `stamp` (`sec`, `nanosec`), `frame_id`, and either the fields
of a litevlm_ros/Caption (`prompt`, `text`, ..., `timings` in milliseconds) or `error`."""


class CaptionLog:
    """Appends entries to the log, inside its `with` block."""

    def __init__(self, file: Path, prompt: str, *, resume: bool) -> None:
        """Raises ConfigError if the file exists and is not to be continued, or holds answers to another prompt."""
        self.file = file
        if file.exists() and not resume:
            raise ConfigError(f"{file} exists; --resume continues it, another --output leaves it alone")
        # `read_entries` drops a line that a crash has cut off.
        kept = list(read_entries(file)) if file.exists() else []
        others = {entry["prompt"] for entry in kept if "prompt" in entry} - {prompt}
        if others:
            raise ConfigError(f"{file} holds answers to {others.pop()!r}, not to {prompt!r}; choose another --output")
        self.done = {(entry["topic"], entry["bag_time"]) for entry in kept}
        """Topic and recording time of every image that has a line from an earlier run."""
        self._kept = kept

    def __enter__(self) -> CaptionLog:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.file, "".join(map(_line, self._kept)))
        self._stream = self.file.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, entry: Entry) -> None:
        """Appends a line, which is in the file when this returns. Raises OSError."""
        self._stream.write(_line(entry))
        self._stream.flush()


def read_entries(file: Path) -> Iterator[Entry]:
    """Reads the entries up to the first line that is not complete. Raises OSError."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                return
            yield entry


def _line(entry: Entry) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
