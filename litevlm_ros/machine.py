"""Facts about this machine: its CPU, its GPU, and the memory that is free and in use.

The GPU is asked through its driver with ctypes, so that no CUDA package is needed to find out that there is none.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from litevlm_ros.errors import ConfigError

JETSON_LOAD = (
    "/sys/devices/platform/gpu.0/load",
    "/sys/devices/platform/bus@0/17000000.gpu/load",
    "/sys/devices/platform/17000000.gpu/load",
    "/sys/devices/gpu.0/load",
)
"""Files in which a Jetson writes how busy its GPU is, in tenths of a percent. NVML does not know it there."""

_MOST_PROCESSES = 256
_UNKNOWN = (1 << 64) - 1
"""NVML's figure where it does not know the memory of a process."""

# CUdevice_attribute
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76
_INTEGRATED = 18


# --- CPU and memory


def describe() -> dict[str, Any]:
    """Returns names of CPU and GPU ('' for none), cores and versions, to go with figures that were measured here."""
    gpu = find_device()
    return {
        "cpu": _cpu_name(),
        "gpu": gpu.name if gpu else "",
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def physical_cores() -> int:
    """Returns the number of cores that this process may use; hardware threads of one core count once."""
    cpus = os.sched_getaffinity(0)
    cores = set()
    for cpu in cpus:
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            return len(cpus)
        cores.add(siblings)
    return len(cores)


@functools.cache
def cpu_features() -> frozenset[str]:
    """Returns Linux's names of the CPU's instructions, such as 'avx512_vnni' or 'asimddp'; none on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    # The keys of x86-64 and of ARM.
    found = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(found, "").split())


def resident_bytes() -> int:
    """Returns the bytes of this process that are in RAM."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """Returns the bytes that a new process could have, swap included."""
    try:
        swap = psutil.swap_memory().free
    except (OSError, ValueError, IndexError, RuntimeError):  # psutil does not understand every kernel's /proc
        swap = 0
    return int(psutil.virtual_memory().available + swap)


def _cpu_name() -> str:
    # psutil does not know it. In the second file, boards such as a Jetson name themselves.
    for file, key in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if line.startswith(key)]
        if lines:
            return lines[0].split(":", 1)[-1].strip("\0 \t")
    return platform.processor() or platform.machine()


# --- GPU


@dataclass(frozen=True)
class Device:
    """A GPU. `compute_capability` is (major, minor), `total_memory` is in bytes, and a Jetson's GPU is `integrated`."""

    name: str
    compute_capability: tuple[int, int]
    total_memory: int
    integrated: bool


@functools.cache
def find_device(index: int = 0) -> Device | None:
    """Returns the GPU that CUDA numbers `index`, or None without a GPU or without a driver that starts."""
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


def format_capability(capability: tuple[int, int]) -> str:
    """Writes (8, 7) as '8.7'."""
    return f"{capability[0]}.{capability[1]}"


def parse_capability(text: str) -> tuple[int, int]:
    """Reads '87', 'sm_87' or '8.7' as (8, 7), and '120' or '12.0' as (12, 0). Raises ConfigError for anything else."""
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if not match:
        raise ConfigError(f"compute capability {text!r} is not understood; write it as 87 or 8.7 (Jetson Orin)")
    return int(match[1]), int(match[2])


def gpu_load() -> float | None:
    """Returns how busy the first GPU is, in percent; None if there is none or it does not tell."""
    for file in JETSON_LOAD:
        try:
            return int(Path(file).read_text(encoding="ascii")) / 10
        except (OSError, ValueError):
            continue
    return _nvml_load()


def gpu_memory_in_use() -> int | None:
    """Returns the bytes of the first GPU that programs use, as `nvidia-smi` shows; None where NVML does not tell."""
    memory = _Memory()
    nvml, handle = _nvml(), ctypes.c_void_p()
    if nvml is None or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
        return None
    return None if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) else int(memory.used)


def own_gpu_memory() -> int | None:
    """Returns the bytes of the first GPU that this process uses, CUDA's context included.

    None where NVML does not tell: on a Jetson, and in a container that has process numbers of its own.
    """
    nvml, handle = _nvml(), ctypes.c_void_p()
    if nvml is None or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
        return None
    processes, count = (_Process * _MOST_PROCESSES)(), ctypes.c_uint(_MOST_PROCESSES)
    try:
        failed = nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle, ctypes.byref(count), processes)
    except AttributeError:  # drivers before 510
        return None
    own = [each.memory for each in processes[: 0 if failed else count.value] if each.pid == os.getpid()]
    return int(own[0]) if own and own[0] != _UNKNOWN else None


@functools.cache
def _driver() -> Any:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return None if driver.cuInit(0) else driver
    except OSError:
        return None


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def _nvml_load() -> float | None:
    nvml = _nvml()
    handle, load = ctypes.c_void_p(), _Utilization()
    if nvml is None or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
        return None
    if nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(load)):
        return None
    return float(load.gpu)


@functools.cache
def _nvml() -> Any:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return None if library.nvmlInit_v2() else library
