"""The directory of --output: what must hold before anything is written to it, and the claim on it while one writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType

from litevlm_ros.bags.caption_bag import foreign_files
from litevlm_ros.bags.recording import METADATA
from litevlm_ros.errors import ConfigError

_BYTES_PER_CAPTION = 3000
"""The size of a caption, roughly, without its text: its line in the log, and its two messages in the bag."""
_BYTES_PER_TOKEN = 15
"""The same for each token of its text, which is in all three."""


class OutputDirectory:
    """The directory of captions.jsonl and captions/, which is made and held inside the `with` block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "captions.jsonl"
        self.bag = path / "captions"
        self._made: list[Path] = []

    def check(self, recording: Path, *, resume: bool, captions: int, most_tokens: int) -> None:
        """Raises ConfigError if the directory cannot take the captions of `recording`. Touches nothing.

        `captions` is their number, and `most_tokens` the most tokens of one.
        """
        try:
            self._check_place(recording)
            self._check_contents(resume)
            self._check_room(captions * (_BYTES_PER_CAPTION + _BYTES_PER_TOKEN * most_tokens))
        except (OSError, RuntimeError) as error:  # a loop of links is one or the other, by the version of Python
            raise ConfigError(f"--output {self.path} cannot be used ({error}); choose another --output") from error

    def __enter__(self) -> OutputDirectory:
        """Makes the directory and claims it. Raises ConfigError if that fails, or another run writes to it."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove_if_empty)
            try:
                self._make()
                claim = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, claim)
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with TemporaryFile(dir=self.path) as probe:
                    probe.write(b"\0" * 4096)
            except BlockingIOError:
                raise ConfigError(f"another run writes to {self.path}; wait, or choose another --output") from None
            except OSError as error:
                reason = error.strerror or error
                raise ConfigError(f"{self.path} cannot be written ({reason}); choose another --output") from error
            self._release = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release.close()

    def _check_place(self, recording: Path) -> None:
        place = self.path.resolve()
        bag = recording.resolve()
        if bag.is_file() and (bag.parent / METADATA).is_file():
            bag = bag.parent
        if place == bag:
            raise ConfigError(f"--output {self.path} is the recording itself; choose another --output")
        if bag in place.parents:
            raise ConfigError(f"--output {self.path} lies inside the recording {recording}; choose another --output")
        if os.path.lexists(self.path) and not self.path.is_dir():
            kind = "a link to nowhere" if self.path.is_symlink() and not self.path.exists() else "no directory"
            raise ConfigError(f"--output {self.path} is {kind}; choose another --output")
        nearest = self._nearest()
        if not nearest.is_dir():
            raise ConfigError(f"--output {self.path} cannot be made, because {nearest} is no directory")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise ConfigError(f"{nearest} cannot be written by this user; choose another --output")

    def _check_contents(self, resume: bool) -> None:
        if not resume and os.path.lexists(self.bag) and not os.path.lexists(self.log):
            raise ConfigError(
                f"{self.bag} exists; this tool writes a bag of this name, so remove it or choose another --output"
            )
        foreign = foreign_files(self.bag) if resume else []
        if foreign:
            raise ConfigError(
                f"{self.bag} holds what this tool has not written ({', '.join(foreign)}); move that away, or choose "
                "another --output"
            )

    def _check_room(self, needed: int) -> None:
        nearest = self._nearest()
        free = shutil.disk_usage(nearest).free
        if free < needed:
            raise ConfigError(
                f"the captions may take about {_megabytes(needed)}, but the disk of {nearest} has only "
                f"{_megabytes(free)} free; make room, choose another --output, or raise --every"
            )

    def _nearest(self) -> Path:
        """Returns the directory, or the nearest one above it that exists."""
        return next(path for path in (self.path.absolute(), *self.path.absolute().parents) if path.exists())

    def _make(self) -> None:
        for path in reversed([self.path, *self.path.parents]):
            if not path.is_dir():
                path.mkdir()
                self._made.append(path)

    def _remove_if_empty(self) -> None:
        """Removes the directories that this has made, as far as nothing is in them."""
        with contextlib.suppress(OSError):
            while self._made:
                self._made[-1].rmdir()
                self._made.pop()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
