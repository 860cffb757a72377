"""Files beside an engine file that keep what took time to make: plans and kernels for the GPU at hand."""

from __future__ import annotations

import logging
from pathlib import Path

from litevlm_ros.files import write_bytes
from litevlm_ros.model_directory import runtime_cache_directory
from litevlm_ros.runtime.tensorrt.engine_files import distrust

_LOGGER = logging.getLogger(__name__)


class KeptFiles:
    """The files that are kept beside one engine. Their names must tell what they fit."""

    def __init__(self, engine: Path) -> None:
        """`engine` is the engine file. Nothing is read or written yet."""
        self._directory = runtime_cache_directory(engine)

    def read(self, name: str) -> bytes:
        """Returns what was kept under `name`; nothing if it is not there or somebody else could have written it."""
        file = self._directory / name
        try:
            return b"" if distrust(file) else file.read_bytes()
        except OSError:
            return b""

    def write(self, name: str, contents: bytes) -> None:
        """Keeps `contents`. A file that cannot be written only costs the time to make it at the next start."""
        try:
            self._directory.mkdir(exist_ok=True)
            write_bytes(self._directory / name, contents)
        except OSError as error:
            _LOGGER.info("%s cannot be kept (%s), so it is made again at each start", self._directory / name, error)
