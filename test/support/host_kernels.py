"""CUDA kernels compiled for the host and run there, block by block.

Where lanes of a warp talk to each other, all threads of the block must do so at once.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

_SHIM = """
#include <cmath>
#include <cstddef>
#include <pthread.h>
#include <thread>
#include <vector>
struct Index { unsigned x, y, z; };
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;
static pthread_barrier_t all_here;
inline Index place(unsigned at, Index size) { return {at % size.x, at / size.x % size.y, at / size.x / size.y}; }
template <class Kernel> void run_all(const unsigned *sizes, bool they_meet, Kernel kernel) {
    const Index grid = {sizes[0], sizes[1], sizes[2]}, block = {sizes[3], sizes[4], sizes[5]};
    const unsigned blocks = grid.x * grid.y * grid.z, threads = block.x * block.y * block.z;
    const auto run = [=](unsigned at, unsigned thread) {
        gridDim = grid, blockDim = block, blockIdx = place(at, grid), threadIdx = place(thread, block);
        kernel();
    };
    if (!they_meet) {
        for (unsigned i = 0; i < blocks * threads; ++i) run(i / threads, i % threads);
        return;
    }
    pthread_barrier_init(&all_here, nullptr, threads);
    std::vector<std::thread> running;
    for (unsigned thread = 0; thread < threads; ++thread)
        running.emplace_back([=] {
            for (unsigned at = 0; at < blocks; ++at) {
                run(at, thread);
                pthread_barrier_wait(&all_here);  // shared memory is the next block's when all are done
            }
        });
    for (auto &thread : running) thread.join();
    pthread_barrier_destroy(&all_here);
}
inline void __syncthreads() { pthread_barrier_wait(&all_here); }
template <class T> T __shfl_xor_sync(unsigned, T value, int distance) {
    static T lanes[1024];
    lanes[threadIdx.x] = value;
    __syncthreads();
    const T other = lanes[threadIdx.x ^ distance];
    __syncthreads();
    return other;
}
inline unsigned __ballot_sync(unsigned, bool value) {
    static bool lanes[1024];
    lanes[threadIdx.x] = value;
    __syncthreads();
    unsigned votes = 0;
    for (int i = 0; i < 32; ++i) votes |= unsigned(lanes[threadIdx.x / 32 * 32 + i]) << i;
    __syncthreads();
    return votes;
}
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct float4 { float x, y, z, w; };
#define __popc __builtin_popcount
#define __global__
#define __device__ inline
#define __shared__ static
"""

_TYPES: Mapping[str, Any] = {"P": ctypes.c_void_p, "i": ctypes.c_int, "f": ctypes.c_float}


@functools.cache
def compile_kernels(source: str) -> Any:
    """Compiles the kernels of CUDA `source` to a shared library. Skips the test without a C++ compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("runs CUDA kernels on the host: needs a C++ compiler")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "kernels.so"
        options = ["-O1", "-pthread", "-shared", "-fPIC", "-Wall", "-Werror", "-x", "c++", "-"]
        # glibc has an `advance`, too, which would be called instead of the kernel of that name.
        command = [compiler, *options, "-Wl,-Bsymbolic", "-o", str(library)]
        subprocess.run(command, input=(_SHIM + source + _launchers(source)).encode(), check=True)
        return ctypes.CDLL(str(library))


def with_macros(source: str, macros: Mapping[str, str]) -> str:
    """Returns CUDA `source` as a compiler sees it that is called with -DNAME=VALUE for each macro."""
    return "".join(f"#define {name} {value}\n" for name, value in macros.items()) + source


def run_kernel(
    source: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[tuple[str, float]]
) -> None:
    """Runs all blocks, one after the other. Arguments are ('P', address), ('i', number) or ('f', number).

    Threads that wait for each other run at the same time, others one after the other.
    """
    launch = getattr(compile_kernels(source), f"launch_{name}")
    launch.restype = None
    sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
    launch(sizes, ctypes.c_bool("_sync" in _body(source, name)), *(_TYPES[kind](value) for kind, value in arguments))


def _launchers(source: str) -> str:
    """Returns a function for each kernel that runs all of its threads."""
    launchers = ""
    for name, parameters in re.findall(r"__global__ void (\w+)\(([^)]*)\)", source):
        names = ", ".join(parameter.split()[-1].lstrip("*") for parameter in parameters.split(","))
        launchers += (
            f'extern "C" void launch_{name}(const unsigned *sizes, bool they_meet, {parameters})\n'
            f"{{ run_all(sizes, they_meet, [=] {{ {name}({names}); }}); }}\n"
        )
    return launchers


def _body(source: str, name: str) -> str:
    """Returns the source from the kernel's name to the next kernel."""
    return source.partition(f"void {name}(")[2].partition("__global__")[0]
