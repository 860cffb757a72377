"""Whether a loaded model takes more memory than it should."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.machine import resident_bytes


def over_budget(budget_mb: int, device_memory: Mapping[str, int]) -> str:
    """What takes how much, and what to do, if that is more than `budget_mb`; '' if it is not, or if the budget is 0.

    `device_memory` are bytes by purpose, as `Backend.memory` gives them. The process's own memory is added, because on
    a Jetson both are the same RAM.
    """
    taken = {"the process": resident_bytes(), **device_memory}
    total = sum(taken.values()) // 1_000_000
    if not budget_mb or total <= budget_mb:
        return ""
    parts = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sorted(taken.items(), key=lambda item: -item[1]))
    return (
        f"The model takes {total} MB, more than memory_budget_mb ({budget_mb}): {parts}. Lower max_context or "
        "max_tiles, or build engines with fewer bits (`ros2 run litevlm_ros build_engines --help`)"
    )
