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

from litevlm_ros.errors import LiteVLMError

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 4.0


class Child:
    """A Python module that runs as a process. Leaving the context interrupts it, and kills it if that does not help."""

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
        """The number by which the system knows the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, or None while the process runs."""
        return self._process.poll()

    def require_running(self) -> None:
        """Raises LiteVLMError with the last lines of the log if the process has ended."""
        if self.status is not None:
            raise LiteVLMError(f"{self.name} ended early with status {self.status}. Its last lines:\n{self.tail()}")

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
        """Returns the last lines of its log."""
        with self.log.open(errors="replace") as text:
            return "".join(deque(text, lines)).rstrip()


def end_with_parent() -> None:
    """Has the system end this process by SIGTERM when its parent dies, even by SIGKILL. It does nothing off Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prepare() -> None:
    # Background jobs of a shell ignore SIGINT, and their children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
