"""Calls of the classes that launch kernels, with arrays, on a fake GPU whose memory is the host's."""

from __future__ import annotations

from typing import Any

import numpy as np

from litevlm_ros.runtime.tensorrt.device import CudaDevice


def call(kernels: Any, name: str, *arguments: Any) -> None:
    """Makes an object of a class by `kernels(device)`, and calls its method `name` with the addresses of arrays."""
    device = CudaDevice()
    with device:
        made = kernels(device)
        getattr(made, name)(*(each.ctypes.data if isinstance(each, np.ndarray) else each for each in arguments))
        device.wait()
        made.close()
    device.close()
