"""Lines about work that prints nothing by itself for a long time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from litevlm_ros.types import Notify

PERIOD = 10.0
"""Seconds between two lines."""


@contextmanager
def reporting(title: str, expected: float, notify: Notify) -> Iterator[None]:
    """While the block runs, tells every PERIOD seconds how long it has run, and how long it takes as a rule.

    `expected` is in seconds. Nothing is told of a block that is quicker than PERIOD.
    """
    ended = threading.Event()
    started = time.monotonic()

    def report() -> None:
        while not ended.wait(PERIOD):
            seconds = time.monotonic() - started
            rule = f"of about {words(expected)}" if seconds < expected else "longer than as a rule"
            notify(f"  {title}: {seconds:.0f} s, {rule}")

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def words(seconds: float) -> str:
    """Returns '40 s', '3 min' or '1.5 h'."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
