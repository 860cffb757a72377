"""The time and the memory that `build_engines` takes, as a person would run it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.precision import precision_flag

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Build:
    """`seconds` from the command's start to its end, `peak_bytes` of host memory of all its processes, size on disk."""

    seconds: float
    peak_bytes: int
    file_bytes: int


def time_build(model: Path, output: Path, vision: str, text: str, max_tiles: int, max_context: int) -> Build:
    """Builds both engines of `model` to the directory `output`. Raises EngineError with what the command says."""
    command = [sys.executable, "-m", "litevlm_ros.tools.build_engines", "--model", str(model), "--output", str(output)]
    command += [precision_flag(VISION), vision, precision_flag(TEXT), text]
    command += ["--max-tiles", str(max_tiles), "--max-context", str(max_context), "--force"]
    started, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        root = psutil.Process(process.pid)
        while True:
            peak = max(peak, _private_bytes(root))
            try:
                _, said = process.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        seconds = time.monotonic() - started
    if process.returncode:
        raise EngineError(f"`{' '.join(command)}` failed: {said.strip()[-2000:]}")
    return Build(seconds, peak, sum(file.stat().st_size for file in output.glob("*.engine")))


def _private_bytes(root: psutil.Process) -> int:
    """Returns the memory of a process and its children. Pages that they share with files count once."""
    total, shared = 0, 0
    try:
        for process in (root, *root.children(recursive=True)):
            try:
                memory = process.memory_info()
            except psutil.NoSuchProcess:
                continue
            total += memory.rss - memory.shared
            shared = max(shared, memory.shared)
    except psutil.NoSuchProcess:
        return 0
    return int(total + shared)
