"""Room on the disk, and one download at a time."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from litevlm_ros.download.errors import DownloadError

STAGING = ".download"
"""Directory below a model directory where everything is put together; what is whole is renamed into its place."""

RESERVE = 256 << 20
"""Bytes that stay free: a robot whose disk is full logs nothing."""


def free_bytes(directory: Path) -> int:
    """Free bytes on the disk that `directory` is on, or will be on once it is made."""
    directory = directory.absolute()
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def require_free(directory: Path, needed: int, purpose: str) -> None:
    """Raise DownloadError unless `needed` bytes and RESERVE are free on the disk of `directory`."""
    free = free_bytes(directory)
    if free < needed + RESERVE:
        raise DownloadError(
            f"{directory} has {gigabytes(free)} free and {gigabytes(needed + RESERVE)} are needed ({purpose}); "
            "free some room, or give --output a directory on a larger disk"
        )


def gigabytes(count: int) -> str:
    """'1.88 GB'; below 10 MB '0.31 MB'."""
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


@contextmanager
def staging_directory(model: Path) -> Iterator[Path]:
    """`model`/STAGING, locked against other processes; removed at the end if nothing was left in it.

    Raises DownloadError if another process holds it, or it cannot be written.
    """
    staging = model / STAGING
    lock = staging / "lock"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        opened = lock.open("w")
    except OSError as error:
        raise DownloadError(f"{model} cannot be written ({error.strerror}); give --output another directory") from error
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DownloadError(f"another download_models is filling {model}; wait for it, or end it") from error
        try:
            yield staging
        finally:
            lock.unlink(missing_ok=True)
            if not any(staging.iterdir()):
                staging.rmdir()
