"""Launches the kernels of rows.cu."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.bias import BiasKernels
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, KernelModule, flat, threads_of_row

_KINDS = {"add_and_normalise": "PPPPPf", "normalise_heads": "PPPif", "silu_gate": "PPi"}
_WORD_FLOATS = 4
_WORD_NUMBERS = 8
_HEAD_WORD_NUMBERS = 4
_WARP = 32
_NORM_STEPS = 2
"""Words of a row that a thread normalises if the row is short enough: blocks of 1792 rows fit on an H100 at once."""


def row_macros(config: TextConfig, computed: str) -> Mapping[str, str]:
    """Returns the macros that rows.cu is compiled with. `computed` is 'fp16' or 'bf16'."""
    words, threads = config.hidden_size // _WORD_FLOATS, _norm_threads(config)
    shapes = {
        "SUM_WORDS": words,
        "GATE_WORDS": config.intermediate_size // _WORD_NUMBERS,
        "NORM_THREADS": threads,
        "NORM_STEPS": -(-words // threads),
        "HEADS": config.num_heads,
        "KV_HEADS": config.num_kv_heads,
        "HEAD_WORDS": config.head_dim // _HEAD_WORD_NUMBERS,
    }
    return {**NUMBER_MACROS[computed], **{name: f"{value}" for name, value in shapes.items()}}


def _norm_threads(config: TextConfig) -> int:
    return threads_of_row(-(-config.hidden_size // _WORD_FLOATS), _NORM_STEPS)


class RowKernels:
    """The kernels of rows.cu for one model, enqueued on the device's stream.

    All addresses are in device memory and aligned to 16 bytes. H is the text width, W the width of queries, keys and
    values together (`engines.text_blocks.qkv_width`), and I that of the MLP; each is a multiple of 8. Numbers have the
    type `computed`.
    """

    def __init__(self, device: CudaDevice, config: TextConfig, computed: str) -> None:
        """Compiles and loads the kernels for numbers of type `computed`, 'fp16' or 'bf16'. Raises EngineError."""
        self._eps = config.rms_norm_eps
        self._norm_threads = _norm_threads(config)
        self._gate_words = config.intermediate_size // _WORD_NUMBERS
        self._heads = config.num_heads + config.num_kv_heads
        self._qkv_width, self._bias = qkv_width(config), BiasKernels(device, computed)
        self._module = KernelModule(device, "rows.cu", _KINDS, row_macros(config, computed))

    def add_and_normalise(self, total: int, change: int, weight: int, sum: int, normalised: int, rows: int) -> None:
        """Writes `sum` = `total` + `change`, all fp32 [rows, H], and its RMSNorm `normalised`, numbers [rows, H].

        The norm is sum / sqrt(mean(sum²) + rms_norm_eps) * fp32 `weight` [H] (arXiv 1910.07467), rounded once from
        fp32. `sum` may be `total`.
        """
        addresses = total, change, weight, sum, normalised
        self._module.launch("add_and_normalise", (rows, 1), (self._norm_threads, 1, 1), *addresses, self._eps)

    def add_bias(self, numbers: int, bias: int, rows: int) -> None:
        """Adds `bias` [1, W] to `numbers` [rows, W], as `BiasKernels.add` does."""
        self._bias.add(numbers, bias, rows, self._qkv_width)

    def normalise_heads(self, qkv: int, query_weight: int, key_weight: int, rows: int) -> None:
        """Replaces each head of the queries and of the keys in `qkv`, numbers [rows, W], by its RMSNorm.

        The norm is that of `add_and_normalise` over the D numbers of a head, with the fp32 weights [D] that all heads
        of the queries, and all of the keys, share (Qwen3, arXiv 2505.09388). D is a multiple of 4.
        """
        threads = flat(rows * self._heads * _WARP)
        self._module.launch("normalise_heads", *threads, qkv, query_weight, key_weight, rows, self._eps)

    def silu_gate(self, both: int, active: int, rows: int) -> None:
        """Writes `active` [rows, I] = silu(gate) * up from `both` [rows, 2 I], which holds gate and then up of a row.

        silu(x) = x / (1 + exp(-x)) (arXiv 1702.03118). It is computed in fp32 and rounded once.
        """
        self._module.launch("silu_gate", *flat(rows * self._gate_words), both, active, rows)

    def close(self) -> None:
        """Unloads the kernels. None of them may be running."""
        self._bias.close()
        self._module.close()
