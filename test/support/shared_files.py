"""Files that take long to make, made once for all workers and child processes of a test run."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "LITEVLM_ROS_TEST_FILES"
"""Environment variable with the directory, which the conftest of the first process makes and removes."""


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Returns the directory `name`, which `make` has filled, in this process or in another one of the run."""
    root = Path(os.environ[VARIABLE])
    directory = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            unfinished = Path(tempfile.mkdtemp(dir=root))
            make(unfinished)
            unfinished.rename(directory)
    return directory
