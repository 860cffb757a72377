"""Launches the kernels of vision_rows.cu."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.engines.vision_blocks import PROJECTOR_EPS
from litevlm_ros.model_config import VisionConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.bias import BiasKernels
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, KernelModule, flat, threads_of_row

_KINDS = {
    "add_positions": "PPi",
    "add_and_normalise": "PPPPPPf",
    "add_scaled_and_normalise": "PPPPPPPPf",
    "fold_and_normalise": "PPPPPf",
    "scale_change": "PPPPi",
}
_WORD_FLOATS = 4
_NORM_STEPS = 8
"""Words of a row that a thread normalises if the row is short enough: a row of InternViT-300M's sum is one warp's."""
_SCALE_THREADS, _SCALE_ROWS = 128, 4
"""Threads of a block of `scale_change`, and the rows that each of them scales."""


def vision_row_macros(config: VisionConfig, computed: str) -> Mapping[str, str]:
    """Returns the macros that vision_rows.cu is compiled with. `computed` is 'fp16' or 'bf16'."""
    shapes = {
        "SUM_WORDS": config.hidden_size // _WORD_FLOATS,
        "GRID": config.grid,
        "FOLD": config.shuffle,
        "NORM_THREADS": _norm_threads(config.hidden_size),
        "FOLD_THREADS": _norm_threads(config.projector_size),
        "ROWS": _SCALE_ROWS,
    }
    return {**NUMBER_MACROS[computed], **{name: f"{value}" for name, value in shapes.items()}}


def _norm_threads(width: int) -> int:
    return threads_of_row(-(-width // _WORD_FLOATS), _NORM_STEPS)


class VisionRowKernels:
    """The kernels between the products of the vision encoder's blocks, enqueued on the device's stream.

    All addresses are in device memory and aligned to 16 bytes. R are the rows of all tiles, 1 + grid² for each, and W
    the vision width, a multiple of 8. Numbers have the type `computed`; biases and scales are fp32 if that is 'fp16',
    and bf16 if it is 'bf16' (`engines.block_graph.wide_type`); sums, norms and positions are fp32. All arithmetic is
    fp32, and each result is rounded once.
    """

    def __init__(self, device: CudaDevice, config: VisionConfig, computed: str) -> None:
        """Compiles and loads the kernels for numbers of type `computed`, 'fp16' or 'bf16'. Raises EngineError."""
        self._eps = config.layer_norm_eps
        self._norm_threads, self._fold_threads = map(_norm_threads, (config.hidden_size, config.projector_size))
        self._sum_words = config.hidden_size // _WORD_FLOATS
        self._bias = BiasKernels(device, computed)
        self._module = KernelModule(device, "vision_rows.cu", _KINDS, vision_row_macros(config, computed))

    def add_positions(self, sum: int, positions: int, rows: int) -> None:
        """Adds `positions` [1 + grid², W] to the rows of each tile of `sum` [R, W]."""
        words = rows * self._sum_words
        self._module.launch("add_positions", *flat(words), sum, positions, words)

    def add_and_normalise(
        self, sum: int, change: int, weight: int, bias: int, residual: int, normalised: int, rows: int
    ) -> None:
        """Writes `residual` = `sum` + numbers `change`, all [R, W], and its LayerNorm `normalised`, numbers [R, W].

        The norm is (x - mean) / sqrt(variance + layer_norm_eps) * `weight` [W] + `bias` [W] (arXiv 1607.06450).
        """
        addresses = sum, change, weight, bias, residual, normalised
        self._normalise("add_and_normalise", rows, self._norm_threads, *addresses, self._eps)

    def add_scaled_and_normalise(
        self,
        residual: int,
        mixed: int,
        mixed_bias: int,
        scale: int,
        weight: int,
        bias: int,
        sum: int,
        normalised: int,
        rows: int,
    ) -> None:
        """Writes `sum` = `residual` + (fp32 `mixed` + `mixed_bias`) * `scale`, and its LayerNorm as above."""
        addresses = residual, mixed, mixed_bias, scale, weight, bias, sum, normalised
        self._normalise("add_scaled_and_normalise", rows, self._norm_threads, *addresses, self._eps)

    def fold_and_normalise(self, sum: int, change: int, weight: int, bias: int, normalised: int, tokens: int) -> None:
        """Writes the rows of the projector, numbers [tokens, W * shuffle²]: the LayerNorm of `sum` + `change`.

        A row has the patches of a square, `shuffle` a side, row by row (the pixel shuffle `v2` of InternVL).
        """
        addresses = sum, change, weight, bias, normalised
        self._normalise("fold_and_normalise", tokens, self._fold_threads, *addresses, PROJECTOR_EPS)

    def add_bias(self, numbers: int, bias: int, rows: int, width: int) -> None:
        """Adds `bias` [1, `width`] to `numbers` [rows, `width`], as `BiasKernels.add` does."""
        self._bias.add(numbers, bias, rows, width)

    def gelu(self, numbers: int, bias: int, rows: int, width: int) -> None:
        """Replaces `numbers` [rows, `width`] by GELU(numbers + `bias`), as `BiasKernels.gelu` does."""
        self._bias.gelu(numbers, bias, rows, width)

    def scale_change(self, product: int, bias: int, scale: int, change: int, rows: int) -> None:
        """Writes numbers `change` = (fp32 `product` + `bias`) * `scale`, both [R, W]."""
        grid = -(-self._sum_words // _SCALE_THREADS), -(-rows // _SCALE_ROWS)
        self._module.launch("scale_change", grid, (_SCALE_THREADS, 1, 1), product, bias, scale, change, rows)

    def close(self) -> None:
        """Unloads the kernels. None of them may be running."""
        self._bias.close()
        self._module.close()

    def _normalise(self, kernel: str, rows: int, threads: int, *arguments: float) -> None:
        self._module.launch(kernel, (rows, 1), (threads, 1, 1), *arguments)
