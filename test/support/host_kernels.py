"""CUDA kernels that use nothing but blockIdx, blockDim, gridDim and threadIdx, compiled for the host and run there."""

from __future__ import annotations

import ctypes
import functools
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

_SHIM = """
#include <cstddef>
struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;
extern "C" void place(const unsigned *numbers) {
    Index *all[] = {&gridDim, &blockDim, &blockIdx, &threadIdx};
    for (int i = 0; i < 4; ++i) *all[i] = {numbers[3 * i], numbers[3 * i + 1], numbers[3 * i + 2]};
}
struct uint4 { unsigned x, y, z, w; };
#define __global__
"""


@functools.cache
def compile_kernels(source: str) -> Any:
    """The kernels of CUDA `source` as a shared library. Skips the test without a C++ compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("runs CUDA kernels on the host: needs a C++ compiler")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "kernels.so"
        command = [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-x", "c++", "-", "-o", str(library)]
        subprocess.run(command, input=(_SHIM + source).encode(), check=True)
        return ctypes.CDLL(str(library))


def run_kernel(
    source: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[tuple[str, int]]
) -> None:
    """All threads, one after the other. Arguments are ('P', address) or ('i', number)."""
    library = compile_kernels(source)
    kernel = getattr(library, name)
    kernel.restype = None
    values = [ctypes.c_void_p(value) if kind == "P" else ctypes.c_int(value) for kind, value in arguments]
    grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
    for at in itertools.product(*map(range, (*grid, *block))):
        library.place((ctypes.c_uint * 12)(*grid, *block, *at))
        kernel(*values)
