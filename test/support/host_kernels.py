"""CUDA kernels compiled for the host, where host_cuda.h runs them block by block."""

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

_WARNINGS = [
    "-Wall",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-sign-compare",
    "-Wno-div-by-zero",
    "-Wno-maybe-uninitialized",
]
"""Without those that NVRTC does not have. `#pragma unroll` is its own, and a division may be behind a constant 0."""
_CUDA = Path(__file__).with_name("host_cuda.h")
_TYPES: Mapping[str, Any] = {"P": ctypes.c_void_p, "i": ctypes.c_int, "f": ctypes.c_float}


@functools.cache
def compile_kernels(source: str, launchers: str) -> Any:
    """Compiles CUDA `source`, and C++ functions that launch its kernels, to a shared library.

    Skips the test without a C++ compiler.
    """
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("runs CUDA kernels on the host: needs a C++ compiler")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "kernels.so"
        # Kernels read numbers as words.
        options = ["-O1", "-fno-strict-aliasing", "-fPIC", *_WARNINGS]
        # The C library has a `sync` and an `advance`, too. The namespace hides it from functions of C++, and the linker
        # from kernels, whose names are those of C.
        linked = ["-shared", "-pthread", "-Wl,-Bsymbolic"]
        command = [compiler, *options, *linked, "-include", str(_CUDA), "-x", "c++", "-", "-o", str(library)]
        text = f"namespace {{\n{source}\n}}\n{launchers}"
        subprocess.run(command, input=text.encode(), check=True)
        return ctypes.CDLL(str(library))


def with_macros(source: str, macros: Mapping[str, str]) -> str:
    """Returns CUDA `source` as a compiler sees it that is called with -DNAME=VALUE for each macro."""
    return "".join(f"#define {name} {value}\n" for name, value in macros.items()) + source


def run_kernel(
    source: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[tuple[str, float]]
) -> None:
    """Runs all blocks, one after the other. Arguments are ('P', address), ('i', number) or ('f', number).

    Threads that wait for each other take turns, others run one after the other.
    """
    launch = getattr(compile_kernels(source, _launchers(source)), f"launch_{name}")
    launch.restype = ctypes.c_bool
    sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
    they_meet = ctypes.c_bool(name in _that_meet(source))
    assert launch(sizes, they_meet, *(_TYPES[kind](value) for kind, value in arguments)), f"{name} waits for ever"


def _launchers(source: str) -> str:
    """Returns a function for each kernel that runs all of its threads."""
    launchers = ""
    for name, parameters in re.findall(r"__global__ void (\w+)\(([^)]*)\)", source):
        names = ", ".join(parameter.split()[-1].lstrip("*") for parameter in parameters.split(","))
        launchers += (
            f'extern "C" bool launch_{name}(const unsigned *sizes, bool they_meet, {parameters})\n'
            f"{{ return host::run_in_turn(sizes, they_meet, [=] {{ {name}({names}); }}); }}\n"
        )
    return launchers


def _that_meet(source: str) -> set[str]:
    """Returns the kernels and functions in which the threads of a warp or a block meet, or that call such functions."""
    bodies = re.findall(
        r"__(?:device|global)__ (?:constexpr )?[\w &*]+?(\w+)\((.*?)(?=__(?:device|global)__ |\Z)", source, re.S
    )
    meeting, before = {"__syncthreads"}, 0
    while before < len(meeting):
        before = len(meeting)
        calls = re.compile(r"_sync\(|\b(?:" + "|".join(meeting) + r")\b")
        meeting |= {name for name, body in bodies if calls.search(body)}
    return meeting
