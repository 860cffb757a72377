"""The kernel of decode.cu compiled for the host, where host_tensor.cuh takes the place of tensor.cuh's assembly."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

from host_kernels import compile_kernels, with_macros

from litevlm_ros.runtime.tensorrt.kernels.decode import DECODE_SOURCES, Step
from litevlm_ros.runtime.tensorrt.kernels.module import read_source

_TENSOR = Path(__file__).with_name("host_tensor.cuh")
_MEMORY = "alignas(128) thread_local uint4 memory[SHARED_BYTES / sizeof(uint4)];\n"
"""The shared memory of a block, which the kernel declares as external."""
_LAUNCHER = """
extern "C" bool launch_decode(unsigned blocks, const void *step)
{
    return host::run_at_once(
        blocks, THREADS + 32, [] { std::memset(memory, 0xff, sizeof memory); }, [=] { decode(*(const Step *)step); });
}
"""


def run_decode(macros: Mapping[str, str], step: Step) -> None:
    """Runs a step, whose addresses are those of arrays, in all blocks at once.

    Their shared memory holds NaN first. Skips the test without a C++ compiler.
    """
    head = read_source()
    names = list(DECODE_SOURCES)
    names.remove("tensor.cuh")
    source = head + _MEMORY + _TENSOR.read_text(encoding="utf-8") + read_source(*names)[len(head) :]
    launch = compile_kernels(with_macros(source, macros), _LAUNCHER).launch_decode
    launch.restype = ctypes.c_bool
    blocks = int(macros["TEAMS"]) * int(macros["TEAM"])
    assert launch(ctypes.c_uint(blocks), ctypes.c_char_p(step.packed())), "a block waits for ever"
