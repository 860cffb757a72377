"""Whether a loaded model takes more memory than it should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_STATUS = Path("/proc/self/status")


def over_budget(budget_mb: int, device_memory: Mapping[str, int], *, status: Path = _STATUS) -> str:
    """What takes how much, and what to do, if that is more than `budget_mb`; '' if it is not, or if the budget is 0.

    `device_memory` are bytes by purpose, as `Backend.memory` gives them. The process's own memory is added, because on
    a Jetson both are the same RAM.
    """
    taken = {"the process": _resident(status), **device_memory}
    total = sum(taken.values()) // 1_000_000
    if not budget_mb or total <= budget_mb:
        return ""
    parts = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sorted(taken.items(), key=lambda item: -item[1]))
    return (
        f"The model takes {total} MB, more than memory_budget_mb ({budget_mb}): {parts}. Lower max_context or "
        "max_tiles, or build engines with fewer bits (`ros2 run litevlm_ros build_engines --help`)"
    )


def _resident(status: Path) -> int:
    """Bytes of this process in RAM; 0 where the kernel does not say."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    sizes = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:")]
    return sizes[0] if sizes else 0
