"""The record of a run: each caption and answer as a line of JSON, and their means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

STAGES = ("queue", "decode_image", "preprocess", "vision", "select", "prefill", "decode", "total")
"""The stages of litevlm_ros/Timings, in their order."""


class Record:
    """Writes what arrives to a file, one JSON object a line, at once. `recording` opens one.

    {"kind": "caption", "camera": "", "stamp": {"sec": 0, "nanosec": 0}, "text": "", "finish_reason": "",
     "generated_tokens": 0, "timings": {STAGE: MILLISECONDS}}
    {"kind": "answer", "question": "", "cameras": [""], "stamp": ..., and the same as for a caption}
    """

    def __init__(self, file: Path, stream: TextIO) -> None:
        """`stream` is the opened `file`."""
        self.file = file
        self._stream = stream
        self._captions: list[dict[str, float]] = []

    def caption(self, message: Any) -> None:
        """Writes a litevlm_ros/Caption."""
        timings = self._write(message, {"kind": "caption", "camera": message.camera})
        self._captions.append(timings)

    def answer(self, question: str, message: Any) -> None:
        """Writes a litevlm_ros/Answer."""
        self._write(message, {"kind": "answer", "question": question, "cameras": list(message.cameras)})

    def mean(self) -> dict[str, float]:
        """Returns the mean milliseconds of each stage of the captions; {} without captions."""
        count = len(self._captions)
        return {stage: sum(each[stage] for each in self._captions) / count for stage in STAGES} if count else {}

    def _write(self, message: Any, about: dict[str, Any]) -> dict[str, float]:
        timings = {stage: round(float(getattr(message.timings, stage)), 3) for stage in STAGES}
        stamp = message.header.stamp
        line = {
            **about,
            "stamp": {"sec": stamp.sec, "nanosec": stamp.nanosec},
            "text": message.text,
            "finish_reason": message.finish_reason,
            "generated_tokens": message.generated_tokens,
            "timings": timings,
        }
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()
        return timings


@contextmanager
def recording(file: Path) -> Iterator[Record]:
    """Yields a record in `file`, which is begun anew. Raises OSError."""
    with file.open("w", encoding="utf-8") as stream:
        yield Record(file, stream)


def stages(timings: dict[str, float], names: Sequence[str] = STAGES) -> str:
    """Lists the stages that took time, such as 'vision 12.1, prefill 9.3, total 40.2 ms'."""
    return ", ".join(f"{name.replace('_', ' ')} {timings[name]:.1f}" for name in names if timings[name]) + " ms"
