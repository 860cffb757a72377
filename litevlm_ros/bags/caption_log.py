"""captions.jsonl: one line for each frame that was looked at, written as it is, so that a run can be continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from litevlm_ros.errors import ConfigError

Entry = dict[str, Any]
"""`topic`, `camera`, `bag_time` (nanoseconds), `stamp` (`sec`, `nanosec`), `frame_id`, and either the fields of a
litevlm_ros/Caption (`prompt`, `text`, ..., `timings` in milliseconds) or `error`."""


class CaptionLog:
    """The file, which is written to inside its `with` block."""

    def __init__(self, file: Path, prompt: str, *, resume: bool) -> None:
        """Raises ConfigError if the file exists and is not to be continued, or holds answers to another prompt."""
        self.file = file
        if file.exists() and not resume:
            raise ConfigError(f"{file} exists; --resume continues it, another --output leaves it alone")
        # A line that a crash has cut off is dropped.
        kept = list(read(file)) if file.exists() else []
        others = {entry["prompt"] for entry in kept if "prompt" in entry} - {prompt}
        if others:
            raise ConfigError(f"{file} holds answers to {others.pop()!r}, not to {prompt!r}; choose another --output")
        self.done = {(entry["topic"], entry["bag_time"]) for entry in kept}
        """Topic and time of every frame that has a line."""
        self._kept = kept

    def __enter__(self) -> CaptionLog:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".part")
        partial.write_text("".join(map(_line, self._kept)), encoding="utf-8")
        partial.replace(self.file)
        self._stream = self.file.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, entry: Entry) -> None:
        """One more line, on the disk when this returns."""
        self._stream.write(_line(entry))
        self._stream.flush()


def read(file: Path) -> Iterator[Entry]:
    """The entries up to the first line that is not complete."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                return
            yield entry


def _line(entry: Entry) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
