"""The memory that a process takes."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any


def resident(key: str = "VmRSS", process: int | str = "self") -> int:
    """Bytes of a process's memory that are in RAM; with VmHWM the most that ever were."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def growth(call: Callable[[], Any]) -> int:
    """Bytes by which this process's memory grew at most while `call` ran."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    before = resident()
    call()
    return resident("VmHWM") - before


def fresh_memory(size: int) -> mmap.mmap:
    """Takes `size` bytes from the kernel, all in RAM, past the allocator, which may have some left from other tests."""
    memory = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        memory[page] = 1
    return memory
