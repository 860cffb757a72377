"""What figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.engines.cuda_driver import find_device


def machine() -> dict[str, Any]:
    """CPU, GPU ('' for none) and versions."""
    gpu = find_device()
    return {
        "cpu": _cpu_name(),
        "gpu": gpu.name if gpu else "",
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _cpu_name() -> str:
    # The second is where a Jetson says what it is.
    for file, key in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if line.startswith(key)]
        if lines:
            return lines[0].split(":", 1)[-1].strip("\0 \t")
    return platform.processor() or platform.machine()
