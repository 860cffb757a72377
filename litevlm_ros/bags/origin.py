"""The origin of captions: which recording and which model they are from, so that others are not mixed with them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from litevlm_ros.model_directory import PARTS, weight_files

_SAMPLE = 1 << 16
"""Bytes at the beginning and at the end of each file of weights that are compared: all of them would take seconds."""


@dataclass(frozen=True)
class Source:
    """A recording or a model."""

    name: str
    """Name of its file or directory."""
    identity: str
    """Hex digits that others of the same name do not have."""


@dataclass(frozen=True)
class Origin:
    """The recording, the model and the prompt of captions."""

    bag: Source
    model: Source
    prompt: str

    def fields(self) -> dict[str, dict[str, str]]:
        """Returns the fields `bag` and `model` of an entry of the caption log."""
        return {"bag": vars(self.bag), "model": vars(self.model)}


def model_source(directory: Path) -> Source:
    """Returns the name of a model directory, and a hash over its configurations and samples of its weights.

    Raises OSError.
    """
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update((directory / part / "config.json").read_bytes())
        for file in weight_files(directory / part):
            size = file.stat().st_size
            digest.update(f"{file.name}\0{size}\0".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(_SAMPLE))
                stream.seek(max(0, size - _SAMPLE), os.SEEK_SET)
                digest.update(stream.read(_SAMPLE))
    return Source(directory.resolve().name, digest.hexdigest()[:16])
