"""What tests of faults measure and share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def resident(key: str = "VmRSS", process: int | str = "self") -> int:
    """Bytes of a process's memory that are in RAM; with VmHWM the most that ever were."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


@pytest.fixture
def resident_growth() -> Callable[[Callable[[], Any]], int]:
    """Takes a call and returns by how many bytes this process's memory grew at most while it ran."""

    def measure(call: Callable[[], Any]) -> int:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
        before = resident()
        call()
        return resident("VmHWM") - before

    return measure
