"""Launches the kernel of pixels.cu."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.engines.vision_blocks import patch_width
from litevlm_ros.model_config import VisionConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, KernelModule
from litevlm_ros.vision.tiling import IMAGENET_MEAN, IMAGENET_STD

_THREADS = 128


def pixel_macros(config: VisionConfig, computed: str) -> Mapping[str, str]:
    """Returns the macros that pixels.cu is compiled with. `computed` is 'fp16' or 'bf16'."""
    return {
        "PATCH": f"{config.patch_size}",
        "GRID": f"{config.grid}",
        "WIDTH": f"{patch_width(config)}",
        **{f"MEAN_{channel}": f"{value}f" for channel, value in enumerate(IMAGENET_MEAN)},
        **{f"STD_{channel}": f"{value}f" for channel, value in enumerate(IMAGENET_STD)},
        **NUMBER_MACROS[computed],
    }


class PixelKernels:
    """The kernel of pixels.cu for one model. All addresses are in device memory."""

    def __init__(self, device: CudaDevice, config: VisionConfig, computed: str) -> None:
        """Compiles and loads the kernel. Raises EngineError if NVRTC is missing or refuses it."""
        self._rows = 1 + config.grid**2
        self._kernels = KernelModule(device, "pixels.cu", {"patches": "PP"}, pixel_macros(config, computed))

    def patches(self, tiles: int, count: int, output: int) -> None:
        """Enqueues the normalisation of `count` tiles, uint8 [count, size, size, 3].

        `output` takes numbers [count * (1 + grid²), patch width] as the vision encoder's block 'patches' reads them.
        """
        self._kernels.launch("patches", (count * self._rows, 1), (_THREADS, 1, 1), tiles, output)

    def close(self) -> None:
        """Unloads the kernel."""
        self._kernels.close()
