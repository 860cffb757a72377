"""The few facts about the GPU that are needed before any CUDA package is: asked of the driver through ctypes."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76
_INTEGRATED = 18


@dataclass(frozen=True)
class Device:
    """A GPU. `compute_capability` is (major, minor), `total_memory` in bytes; a Jetson is `integrated`."""

    name: str
    compute_capability: tuple[int, int]
    total_memory: int
    integrated: bool


@functools.cache
def find_device(index: int = 0) -> Device | None:
    """The GPU that CUDA numbers `index`; None without a GPU or without a driver that starts."""
    driver = _driver()
    handle = ctypes.c_int()
    if driver is None or driver.cuDeviceGet(ctypes.byref(handle), index):
        return None
    name = ctypes.create_string_buffer(256)
    total = ctypes.c_size_t()
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
        return value.value

    capability = (attribute(_CAPABILITY_MAJOR), attribute(_CAPABILITY_MINOR))
    return Device(name.value.decode(errors="replace"), capability, total.value, bool(attribute(_INTEGRATED)))


def free_memory(index: int = 0) -> int | None:
    """Bytes that are free on GPU `index`; None without one. Starts CUDA on it if nothing has yet."""
    driver = _driver()
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    if driver is None or driver.cuDeviceGet(ctypes.byref(handle), index):
        return None
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle):
        return None
    try:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        driver.cuCtxPushCurrent_v2(context)
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        return None if failed else free.value
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(handle)


@functools.cache
def _driver() -> Any:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return None if driver.cuInit(0) else driver
    except OSError:
        return None
