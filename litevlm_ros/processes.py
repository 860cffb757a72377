"""Child processes that log to a file and never outlive their parent."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 4.0


class Child:
    """A Python module running as a process. Leaving the context interrupts it, then kills it."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Starts `python -m module arguments` with its output in the file `log`."""
        self.name = module.rpartition(".")[2]
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                # A group of its own: Ctrl-C reaches the parent alone, which ends its children in order.
                start_new_session=True,
                preexec_fn=_prepare,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process_id(self) -> int:
        """By which the system knows it."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.poll()

    def stop(self) -> int:
        """Interrupts the process, kills it if that does not end it, and returns its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        with self.log.open(errors="replace") as text:
            return "".join(deque(text, lines)).rstrip()


def _prepare() -> None:
    # A shell's background jobs ignore SIGINT, and so would their children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        # Covers the parent's SIGKILL, after which no code of ours runs.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
