"""Launches the kernel of head.cu."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.engines.text_blocks import padded_vocabulary
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, KernelModule

_KINDS = {"multiply_by_head": "PPPPii"}
_VALUES_A_WORD = 16
_THREADS = 256
_WORDS_A_WARP, _ROWS_A_WARP = 4, 4
"""The rows of the head, and of numbers, that a warp multiplies."""


def head_macros(config: TextConfig, computed: str) -> Mapping[str, str]:
    """Returns the macros that head.cu is compiled with. `computed` is 'fp16' or 'bf16'."""
    shapes = {
        "ROW_WORDS": config.hidden_size // _VALUES_A_WORD,
        "WORDS": _WORDS_A_WARP,
        "ROWS": _ROWS_A_WARP,
    }
    return {**NUMBER_MACROS[computed], **{name: f"{value}" for name, value in shapes.items()}}


class HeadKernel:
    """The kernel of head.cu for one model, enqueued on the device's stream.

    H is the text width, a multiple of 16, and V the padded vocabulary. Numbers have the type `computed`.
    """

    def __init__(self, device: CudaDevice, config: TextConfig, computed: str) -> None:
        """Compiles and loads the kernel for numbers of type `computed`, 'fp16' or 'bf16'. Raises EngineError."""
        self._words = padded_vocabulary(config)
        self._module = KernelModule(device, "head.cu", _KINDS, head_macros(config, computed))

    def multiply(self, rows: int, head: int, scales: int, logits: int, count: int) -> None:
        """Writes `logits`, numbers [K, V], of `count` = K `rows`, numbers [K, H].

        A logit is the product of a row and of a row of the int8 `head` [V, H], summed up in fp32, times that row's fp16
        scale of `scales` [V], and is rounded once. All are addresses in device memory; `rows` and `head` are aligned to
        16 bytes.
        """
        warps = -(-self._words // _WORDS_A_WARP)
        grid = -(-warps * 32 // _THREADS), -(-count // _ROWS_A_WARP)
        addresses = rows, head, scales, logits
        self._module.launch("multiply_by_head", grid, (_THREADS, 1, 1), *addresses, count, self._words)

    def close(self) -> None:
        """Unloads the kernel. It may not be running."""
        self._module.close()
