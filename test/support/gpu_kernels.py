"""`host_kernels.run_kernel` on a GPU: the tests of kernels on the host run there with the same arrays.

Arguments are addresses of numpy arrays, whose sizes nobody tells. So what lies behind each address is uploaded, as far
as it can be read, and of what comes back only the bytes that the kernel has changed are written.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import compile_kernels
from litevlm_ros.runtime.tensorrt.memory import ALIGNMENT, DeviceMemory

_MOST_BYTES = 2 << 20
"""No array of these tests is larger."""


def run_kernel(
    source: str, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[tuple[str, int]]
) -> None:
    """Runs a kernel of CUDA `source` to its end. Arguments are ('P', address or 0) or ('i', number)."""
    with _device() as device:
        memory = DeviceMemory(device)
        function = _module(source).get_function(name).prepare("".join(kind for kind, _ in arguments))
        buffers, values = [], []
        for kind, value in arguments:
            if kind == "P" and value:
                before = _readable(value)
                # Kernels read words of 16 bytes, or none where a test shifts an array by a byte.
                address = memory.allocate(name, before.size + ALIGNMENT) + value % ALIGNMENT
                memory.write(address, before)
                buffers.append((value, before, address))
                values.append(address)
            else:
                values.append(value)
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        function.prepared_async_call(grid, block, device.stream, *values)
        for host, before, address in buffers:
            after = memory.read(address, before.shape, before.dtype)
            for place in np.flatnonzero(after != before):
                ctypes.memset(host + int(place), int(after[place]), 1)
        memory.free()


@functools.cache
def _device() -> CudaDevice:
    return CudaDevice()


@functools.cache
def _module(source: str) -> Any:
    device = _device()
    return device.driver.module_from_buffer(compile_kernels(source, device.compute_capability))


def _readable(address: int) -> np.ndarray:
    """Copies what lies behind `address`: _MOST_BYTES, or what there is."""
    end = address
    for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
        bounds, rights = line.split()[:2]
        first, last = (int(bound, 16) for bound in bounds.split("-"))
        if first <= end < last and rights.startswith("rw"):
            end = last
        if end >= address + _MOST_BYTES:
            break
    size = min(end - address, _MOST_BYTES)
    assert size > 0, f"nothing is mapped at {address:#x}"
    return np.frombuffer(ctypes.string_at(address, size), np.uint8)
