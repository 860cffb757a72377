"""Files beside an engine file that keep what took time to make: plans and kernels for the GPU at hand."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from litevlm_ros.files import write_bytes
from litevlm_ros.model_directory import runtime_cache_directory
from litevlm_ros.trust import distrust

_LOGGER = logging.getLogger(__name__)


_DIGEST_BYTES = hashlib.sha256().digest_size


class KeptFiles:
    """The files that are kept beside one engine. Their names must tell what they fit.

    Each begins with the SHA-256 of its contents, so that one that changed on disk is made again and not run.
    """

    def __init__(self, engine: Path) -> None:
        """`engine` is the engine file. Nothing is read or written yet."""
        self._directory = runtime_cache_directory(engine)
        self._is_told = False

    def read(self, name: str) -> bytes:
        """Returns what was kept under `name`; nothing if it is not there or somebody else could have written it.

        Nor is anything returned of a file that is damaged.
        """
        file = self._directory / name
        try:
            if self._is_distrusted(file):
                return b""
            kept = file.read_bytes()
        except OSError:
            return b""
        contents = kept[_DIGEST_BYTES:]
        if kept[:_DIGEST_BYTES] != hashlib.sha256(contents).digest():
            _LOGGER.warning("%s is damaged, and made again", file)
            return b""
        return contents

    def write(self, name: str, contents: bytes) -> None:
        """Keeps `contents`. A file that cannot be written only costs the time to make it at the next start.

        Nothing is written to a directory that somebody else can write, who could lead the write elsewhere.
        """
        try:
            self._directory.mkdir(exist_ok=True)
            if self._is_distrusted(self._directory):
                return
            write_bytes(self._directory / name, hashlib.sha256(contents).digest() + contents)
        except OSError as error:
            _LOGGER.info("%s cannot be kept (%s), so it is made again at each start", self._directory / name, error)

    def _is_distrusted(self, path: Path) -> bool:
        """Tells whether somebody else could have changed `path`, and logs it the first time. Raises OSError."""
        reason = distrust(path)
        if reason and not self._is_told:
            self._is_told = True
            _LOGGER.warning("%s is not used, so what it keeps is made again at each start: %s", self._directory, reason)
        return reason is not None
