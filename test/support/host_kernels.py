"""CUDA kernels compiled for the host and run there, block by block; warps may talk in blocks of one warp only."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

_SHIM = """
#include <cmath>
#include <cstddef>
#include <pthread.h>
struct Index { unsigned x, y, z; };
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;
static pthread_barrier_t all_here;
extern "C" void place(const unsigned *numbers) {
    Index *all[] = {&gridDim, &blockDim, &blockIdx, &threadIdx};
    for (int i = 0; i < 4; ++i) *all[i] = {numbers[3 * i], numbers[3 * i + 1], numbers[3 * i + 2]};
}
extern "C" void expect(unsigned threads) { pthread_barrier_init(&all_here, nullptr, threads); }
inline void __syncthreads() { pthread_barrier_wait(&all_here); }
template <class T> T __shfl_xor_sync(unsigned, T value, int distance) {
    static T lanes[32];
    lanes[threadIdx.x] = value;
    __syncthreads();
    const T other = lanes[threadIdx.x ^ distance];
    __syncthreads();
    return other;
}
inline unsigned __ballot_sync(unsigned, bool value) {
    static bool lanes[32];
    lanes[threadIdx.x] = value;
    __syncthreads();
    unsigned votes = 0;
    for (int i = 0; i < 32; ++i) votes |= unsigned(lanes[i]) << i;
    __syncthreads();
    return votes;
}
struct uint4 { unsigned x, y, z, w; };
#define __popc __builtin_popcount
#define __global__
#define __device__ inline
#define __shared__ static
"""


@functools.cache
def compile_kernels(source: str) -> Any:
    """Compiles the kernels of CUDA `source` to a shared library. Skips the test without a C++ compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("runs CUDA kernels on the host: needs a C++ compiler")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "kernels.so"
        command = [
            compiler,
            "-O1",
            "-pthread",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Werror",
            "-x",
            "c++",
            "-",
            "-o",
            str(library),
        ]
        subprocess.run(command, input=(_SHIM + source).encode(), check=True)
        return ctypes.CDLL(str(library))


def with_macros(source: str, macros: Mapping[str, str]) -> str:
    """Returns CUDA `source` as a compiler sees it that is called with -DNAME=VALUE for each macro."""
    return "".join(f"#define {name} {value}\n" for name, value in macros.items()) + source


def run_kernel(
    source: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[tuple[str, int]]
) -> None:
    """Runs all blocks, one after the other. Arguments are ('P', address) or ('i', number).

    Threads that wait for each other run at the same time, others one after the other.
    """
    library = compile_kernels(source)
    kernel = getattr(library, name)
    kernel.restype = None
    values = [ctypes.c_void_p(value) if kind == "P" else ctypes.c_int(value) for kind, value in arguments]
    grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]

    def run(at: tuple[int, ...]) -> None:
        library.place((ctypes.c_uint * 12)(*grid, *block, *at))
        kernel(*values)

    threads = math.prod(block) if "_sync" in _body(source, name) else 1
    library.expect(threads)
    with ThreadPoolExecutor(threads) as workers:
        for place in itertools.product(*map(range, grid)):
            list(workers.map(run, [(*place, *thread) for thread in itertools.product(*map(range, block))]))


def _body(source: str, name: str) -> str:
    """Returns the source from the kernel's name to the next kernel."""
    return source.partition(f"void {name}(")[2].partition("__global__")[0]
