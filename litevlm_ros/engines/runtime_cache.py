"""What TensorRT-RTX compiled for one program, kept in a file for the next start. Other TensorRTs have none.

Each program has a cache of its own: with a common one, TensorRT-RTX 1.4 gives a program the kernels that it compiled
for other shapes, which took 1.7 times as long for single tokens of Qwen2-0.5B on an H200.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LOGGER = logging.getLogger(__name__)


def is_supported(engine: Any) -> bool:
    """Whether `engine` compiles when it runs."""
    return hasattr(engine, "create_runtime_config")


def cache_name(profile: int, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of a program's file: its profile and what its inputs have in the first dimension, layers counted once."""
    sizes = {name.partition(".")[0]: shape[0] for name, shape in sorted(shapes.items())}
    return f"{profile}-" + "-".join(str(size) for size in sizes.values())


class RuntimeCache:
    """One program's compiled kernels."""

    def __init__(self, settings: Any, file: Path) -> None:
        """Attaches a cache with what is in `file` to the runtime configuration `settings`."""
        self._file = file
        self._cache = settings.create_runtime_cache()
        # TensorRT refuses what is damaged or of another version; it is written anew then.
        self._before = b""
        with contextlib.suppress(OSError):
            self._before = file.read_bytes()
            self._cache.deserialize(self._before)
        settings.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Writes the file if there is anything new. That it cannot be written costs time at the next start, no more."""
        contents = bytes(self._cache.serialize())
        if len(contents) == len(self._before):
            return
        unfinished = self._file.with_name(f"{self._file.name}.part")
        try:
            self._file.parent.mkdir(exist_ok=True)
            unfinished.write_bytes(contents)
            unfinished.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            _LOGGER.info("%s cannot be written (%s), so kernels are compiled at each start", self._file, error)
