"""A look at the GPU from beside a loaded backend: waiting for it, and visual tokens copied to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.backend import Backend, VisualTokens
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.vision import DeviceVisualTokens

_NUMBER_BYTES = 2
_BF16_SHIFT = 16


class Gpu:
    """The primary context of the first GPU, which a loaded backend uses too. It belongs to the backend's thread."""

    def __init__(self) -> None:
        """Raises EngineError if CUDA does not start."""
        self._device = CudaDevice(spin=True)

    def wait(self) -> None:
        """Waits until the GPU has done all work, on whichever stream."""
        with self._device as device:
            device.driver.Context.synchronize()

    def free_memory(self) -> int:
        """Returns the bytes of device memory that no program uses."""
        with self._device as device:
            return device.memory()[0]

    def read(self, backend: Backend, visual: VisualTokens) -> npt.NDArray[np.float32]:
        """Returns the visual tokens [count, text width] of a TensorRT backend."""
        assert isinstance(visual, DeviceVisualTokens)
        vision: Any = backend.vision
        shape = visual.count, visual.size // (_NUMBER_BYTES * visual.count)
        with self._device as device:
            words = DeviceMemory(device).read(visual.address, shape, np.uint16)
        if vision.dtype == "bf16":
            return (words.astype(np.uint32) << _BF16_SHIFT).view(np.float32)
        return words.view(np.float16).astype(np.float32)

    def overwrite(self, visual: VisualTokens, number: np.generic) -> None:
        """Sets all numbers of visual tokens to one of two bytes, such as an infinite one for a test."""
        assert isinstance(visual, DeviceVisualTokens)
        with self._device as device:
            DeviceMemory(device).write(visual.address, np.full(visual.size // _NUMBER_BYTES, number))

    def close(self) -> None:
        """Gives the context back."""
        self._device.close()
