"""The directory in which a download is put together: its lock, room on its disk, and the move into its place."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from litevlm_ros.errors import DownloadError

STAGING = ".download"
"""Directory below a model directory in which files are put together; what is complete is renamed into its place."""

RESERVE = 256 << 20
"""Bytes that stay free, since a robot whose disk is full can log nothing."""


def free_bytes(directory: Path) -> int:
    """Returns the free bytes on the disk that `directory` is on, or will be on once it exists."""
    directory = directory.absolute()
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def require_free(directory: Path, needed: int, purpose: str) -> None:
    """Raises DownloadError unless `needed` bytes and RESERVE are free on the disk of `directory`."""
    free = free_bytes(directory)
    if free < needed + RESERVE:
        raise DownloadError(
            f"{directory} has {gigabytes(free)} free and {gigabytes(needed + RESERVE)} are needed ({purpose}); "
            "free some room, or give --output a directory on a larger disk"
        )


def gigabytes(count: int) -> str:
    """Formats a number of bytes as '1.88 GB', or as '0.31 MB' below 10 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


@contextmanager
def staging_directory(model: Path) -> Iterator[Path]:
    """Yields `model`/STAGING, locked against other processes, and removes it at the end if nothing is left in it.

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


def replace_together(staged: dict[str, Path], output: Path, staging: Path) -> None:
    """Renames each staged directory to its name below `output`: all of them, or none if one fails.

    A directory that had the name before is deleted afterwards; until then it waits in `staging`, on the same disk.
    Raises DownloadError.
    """
    replaced: list[tuple[Path, Path]] = []
    try:
        for name, source in staged.items():
            target, before = output / name, staging / f"{name}.before"
            _delete(before)
            if target.exists():
                target.rename(before)
            replaced.append((target, before))
            source.rename(target)
    except OSError as error:
        for target, before in reversed(replaced):
            _delete(target)
            if before.exists():
                before.rename(target)
        raise DownloadError(f"{error.filename} cannot be replaced ({error.strerror}); everything is as before. Check "
                            f"that {output} can be written") from error  # fmt: skip
    for _, before in replaced:
        _delete(before)


def _delete(directory: Path) -> None:
    if directory.is_symlink():
        directory.unlink()
    else:
        shutil.rmtree(directory, ignore_errors=True)
