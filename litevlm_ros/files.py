"""Files that are written whole or not at all, and the explanation when they cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from litevlm_ros.errors import OutputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yields a path beside `file` to write to, which takes the place of `file` when the block ends.

    A reader sees the old contents or the new ones, never half of them, and they are on the disk when the block ends.
    After an exception `file` is as it was and nothing is left beside it. Raises OSError.
    """
    unfinished = file.with_name(f".{file.name}.part")
    try:
        yield unfinished
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def write_bytes(file: Path, contents: bytes | bytearray | memoryview) -> None:
    """Writes `file` whole or not at all. Raises OSError."""
    with replacing(file) as unfinished:
        unfinished.write_bytes(contents)


def write_text(file: Path, contents: str) -> None:
    """Writes `file` as UTF-8, whole or not at all. Raises OSError."""
    with replacing(file) as unfinished:
        unfinished.write_text(contents, encoding="utf-8")


@contextlib.contextmanager
def explaining_full_disk(file: Path) -> Iterator[None]:
    """Turns the OSError of a disk that is full or read-only into an OutputError that names `file` and the fix."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise OutputError(
            f"{file} cannot be written ({error.strerror}); make room on the disk, or give --output another directory"
        ) from error
