"""What the process and the GPU have in use. Asked of the kernel and the driver, without starting a program."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

PROCESS_STATUS = Path("/proc/self/status")

JETSON_LOAD = (
    "/sys/devices/platform/gpu.0/load",
    "/sys/devices/platform/bus@0/17000000.gpu/load",
    "/sys/devices/platform/17000000.gpu/load",
    "/sys/devices/gpu.0/load",
)
"""Where Jetsons tell how busy their GPU is, in tenths of a percent. NVML does not know that of them."""


def resident_bytes(status: Path = PROCESS_STATUS) -> int:
    """Memory of this process that is in RAM; 0 where the kernel does not say."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    sizes = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:")]
    return sizes[0] if sizes else 0


def gpu_load() -> float | None:
    """How busy the first GPU is, in percent; None where there is none or it does not tell."""
    for file in JETSON_LOAD:
        try:
            return int(Path(file).read_text(encoding="ascii")) / 10
        except (OSError, ValueError):
            continue
    return _nvml_load()


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


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
