"""Launches the kernels of bias.cu."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, KernelModule

_KINDS = {"add_bias": "PPii", "gelu": "PPii"}
_WORD_NUMBERS = 8
_THREADS = 128
_ROWS = 4
"""Rows of which a thread does the same word."""


def bias_macros(computed: str) -> Mapping[str, str]:
    """Returns the macros that bias.cu is compiled with. `computed` is 'fp16' or 'bf16'."""
    return {**NUMBER_MACROS[computed], "ROWS": f"{_ROWS}"}


class BiasKernels:
    """The kernels of bias.cu, enqueued on the device's stream.

    They work in place on numbers [rows, width] and a bias [1, width]. The bias is fp32 if numbers are 'fp16', and bf16
    if they are 'bf16' (`engines.block_graph.wide_type`). Both are addresses aligned to 16 bytes, and the width is a
    multiple of 8. All arithmetic is fp32, and the result is rounded once.
    """

    def __init__(self, device: CudaDevice, computed: str) -> None:
        """Compiles and loads the kernels for numbers of type `computed`, 'fp16' or 'bf16'. Raises EngineError."""
        self._module = KernelModule(device, "bias.cu", _KINDS, bias_macros(computed))

    def add(self, numbers: int, bias: int, rows: int, width: int) -> None:
        """Adds the bias."""
        self._launch("add_bias", numbers, bias, rows, width)

    def gelu(self, numbers: int, bias: int, rows: int, width: int) -> None:
        """Replaces the numbers by GELU(numbers + bias), as `engines.block_graph.Body.gelu` has it."""
        self._launch("gelu", numbers, bias, rows, width)

    def close(self) -> None:
        """Unloads the kernels. None of them may be running."""
        self._module.close()

    def _launch(self, kernel: str, numbers: int, bias: int, rows: int, width: int) -> None:
        words = width // _WORD_NUMBERS
        grid = -(-words // _THREADS), -(-rows // _ROWS)
        self._module.launch(kernel, grid, (_THREADS, 1, 1), numbers, bias, rows, words)
