"""The tests of our own kernels, which run them on the host, once more with the kernels on the GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_kernels
import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

HOST_TESTS = Path(__file__).resolve().parent.parent / "runtime" / "tensorrt" / "kernels"


def mirrored(file: Path) -> Iterator[tuple[str, Any]]:
    """Yields the tests of a file that runs kernels, loaded anew so that they run on the GPU."""
    specification = importlib.util.spec_from_file_location(f"on_the_gpu_{file.stem}", file)
    assert specification is not None
    assert specification.loader is not None
    module: Any = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    if hasattr(module, "run_kernel"):
        module.run_kernel = gpu_kernels.run_kernel
        names = (name for name in vars(module) if name.startswith("test_"))
        yield from ((f"{file.stem}_{name.removeprefix('test_')}", getattr(module, name)) for name in names)


globals().update(each for file in sorted(HOST_TESTS.glob("test_*.py")) for each in mirrored(file))
