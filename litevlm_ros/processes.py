"""Child processes that log to a file and never outlive their parent, and signals that ask this process to end."""

from __future__ import annotations

import ctypes
import math
import queue
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from litevlm_ros.errors import LiteVLMError

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 4.0
_NOTICE_SECONDS = 0.1
"""The largest time in seconds until a signal is noticed that the system hands to a thread other than the main one."""


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


def end_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that ask this process to end: SIGINT, SIGTERM, and SIGHUP of a terminal that is closed.

    `nohup` has SIGHUP ignored, so that a process outlives its terminal; then SIGHUP is none of them.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """A request that this process ends. Signal handlers and threads may make it, and any threads may wait for it.

    `threading.Event` is not safe for this. A handler runs in the main thread, between two instructions of whatever that
    thread does. If they are inside `Event.wait`, that thread holds the lock which `Event.set` needs, and it would wait
    for itself forever. The `put` of a SimpleQueue may interrupt its `get` in the same thread.
    """

    def __init__(self) -> None:
        self._made = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Makes the request. To make it again changes nothing."""
        self._made = True
        self._wake.put(None)

    def is_set(self) -> bool:
        """Returns True if the request has been made."""
        return self._made

    def wait(self, seconds: float = math.inf) -> bool:
        """Waits up to `seconds` for the request. Returns True if it has been made."""
        deadline = time.monotonic() + seconds
        while not self._made and (left := deadline - time.monotonic()) > 0:
            try:
                # Python calls handlers in the main thread only, and a signal in another thread does not wake that one.
                self._wake.get(timeout=min(left, _NOTICE_SECONDS))
            except queue.Empty:
                continue
            self._wake.put(None)  # for the next thread that waits
        return self._made


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Provides a request that each of `end_signals` makes while the block runs. It is for the main thread of a process.

    After the block the process ignores these signals: launch repeats them, and Python restores the default handlers
    when it exits, so that a repeated signal would kill the process. If the block raises, the handlers from before it
    return.
    """
    stop = StopRequest()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in end_signals()}
    try:
        yield stop
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
    for number in before:
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """Has the system end this process by SIGTERM when its parent dies, even by SIGKILL. It does nothing off Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prepare() -> None:
    # Background jobs of a shell ignore SIGINT, and their children would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
