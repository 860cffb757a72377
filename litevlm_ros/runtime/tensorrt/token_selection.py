"""Token selection in device memory."""

from __future__ import annotations

import numpy as np

from litevlm_ros.backend import Selection, VisualTokens
from litevlm_ros.config import TokenSelectionConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.selection import METHODS, MOST_TOKENS, SelectionKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Slots
from litevlm_ros.runtime.tensorrt.vision import DeviceVisualTokens, TensorRTVisionEncoder
from litevlm_ros.vision.token_selection import tokens_kept

TILES_AT_ONCE = 16
"""The number of tiles that there is working memory for: 12 MB with InternVL2-1B."""


class DeviceTokenSelector:
    """A `TokenSelector` for the methods without training. Visual tokens never leave the device.

    Only the places of the kept ones do, 3 KB for 768 of them, because rotary positions are made of them on the host.
    """

    def __init__(
        self,
        config: TokenSelectionConfig,
        model: ModelConfig,
        vision: TensorRTVisionEncoder,
        device: CudaDevice,
        memory: DeviceMemory,
    ) -> None:
        """Compiles the kernels and allocates their working memory.

        Raises ConfigError for another method and for tiles that are too large, and EngineError if NVRTC is missing or
        memory is short.
        """
        if config.method not in METHODS:
            raise ConfigError(
                f"token_selection is {config.method!r}; allowed on TensorRT: off, {', '.join(METHODS)}. Use 'diversity'"
            )
        tokens, width = model.vision.tokens_per_tile, model.text.hidden_size
        if tokens > MOST_TOKENS or width % 8:
            raise ConfigError(
                f"token_selection is {config.method!r}, but tiles of this model have {tokens} tokens of width {width}; "
                f"allowed on TensorRT: at most {MOST_TOKENS}, of a multiple of 8. Use 'off'"
            )
        self._method, self._keep = config.method, tokens_kept(config.keep, tokens)
        self._tokens = tokens
        self._vision = vision
        self._device = device
        with device:
            self._kernels = SelectionKernels(device, tokens, width, vision.dtype)
            sizes = {"unit": 2 * tokens * width, "cosines": 4 * tokens * tokens, "places": 4 * self._keep}
            every = {name: TILES_AT_ONCE * size for name, size in sizes.items()}
            self._work = Slots(memory, "token selection", every)
            self._host_places = memory.pinned((TILES_AT_ONCE * self._keep,), np.int32)
            # CUDA loads a kernel at its first launch: now, so that the first question need not wait for it.
            self.select(vision.empty(tokens))

    def select(self, visual: VisualTokens) -> Selection:
        """See `TokenSelector.select`. Raises EngineError."""
        assert isinstance(visual, DeviceVisualTokens)
        tiles = visual.count // self._tokens
        places = np.empty((tiles, self._keep), np.int64)
        with self._device:
            kept = self._vision.empty(places.size)
            for first in range(0, tiles, TILES_AT_ONCE):
                count = min(TILES_AT_ONCE, tiles - first)
                self._select(
                    visual.part(first * self._tokens, (first + count) * self._tokens),
                    kept.part(first * self._keep, (first + count) * self._keep),
                    count,
                )
                found = self._host_places[: count * self._keep].reshape(count, self._keep)
                places[first : first + count] = found + first * self._tokens
        return Selection(kept, places.reshape(-1))

    def close(self) -> None:
        """Unloads the kernels."""
        self._kernels.close()

    def _select(self, visual: DeviceVisualTokens, kept: DeviceVisualTokens, tiles: int) -> None:
        """Selects of at most TILES_AT_ONCE tiles, and waits until the places are on the host."""
        work, rows = self._work, visual.address
        if self._method != "random":
            self._kernels.compare(tiles, rows, work["unit"], work["cosines"])
        self._kernels.choose(self._method, self._keep, tiles, rows, work["cosines"], work["places"])
        self._kernels.gather(kept.count, rows, work["places"], kept.address, kept.size // kept.count)
        host = self._host_places[: kept.count]
        self._device.driver.memcpy_dtoh_async(host, work["places"], self._device.stream)
        self._device.wait()
