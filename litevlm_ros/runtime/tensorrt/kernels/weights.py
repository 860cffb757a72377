"""Launches the kernels of weights.cu."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, KernelModule

KINDS = {"F32": 0, "F16": 1, "BF16": 2}
"""Type of a checkpoint in safetensors' spelling → the kernels' number for it."""

WEIGHT_MACROS: Mapping[str, str] = {f"KIND_{name}": f"{number}" for name, number in KINDS.items()}
"""The macros that weights.cu is compiled with, besides those of the computed type."""

VALUES_A_WORD = {"fp8": 16, "int8": 16, "int4": 32}
"""Packing of a weight → its numbers in a word of 16 bytes."""

_THREADS = 256
_MOST_BLOCKS = 4096
_NUMBERS_A_THREAD = 8


class WeightKernels:
    """The kernels of weights.cu, enqueued on the device's stream. All addresses are in device memory."""

    def __init__(self, device: CudaDevice, computed: str) -> None:
        """Compiles and loads the kernels; unpacked numbers have the type `computed`, 'fp16' or 'bf16'.

        Raises EngineError.
        """
        kinds = {"convert": "PPPiiiiii", **{f"unpack_{packing}": "PPPii" for packing in VALUES_A_WORD}}
        self._module = KernelModule(device, "weights.cu", kinds, {**NUMBER_MACROS[computed], **WEIGHT_MACROS})

    def convert(
        self,
        source: int,
        source_kind: str,
        target: int,
        target_kind: str,
        bad: int,
        *,
        first: int,
        count: int,
        columns: int,
        stride: int,
    ) -> None:
        """Converts the `count` numbers at `source` from one of KINDS to another.

        They are number `first` and the following ones of a matrix of `columns` columns. `target` is the address of the
        matrix, whose rows are `stride` numbers apart there. int32 `bad` becomes 1 if a number is not finite in its new
        type, and is left alone otherwise.
        """
        kinds = KINDS[source_kind], KINDS[target_kind]
        grid = _blocks(-(-count // _NUMBERS_A_THREAD))
        numbers = *kinds, first, count, columns, stride
        self._module.launch("convert", grid, (_THREADS, 1, 1), source, target, bad, *numbers)

    def unpack(self, packing: str, values: int, scales: int, target: int, *, words: int, words_a_scale: int) -> None:
        """Writes the numbers of a packed weight to `target`, each rounded once from its value times its scale.

        `packing` is one of VALUES_A_WORD. The weight has `words` words of 16 bytes at `values`, and one of the fp16
        `scales` for each `words_a_scale` words. `values` and `target` are aligned to 16 bytes.
        """
        addresses = values, scales, target
        self._module.launch(f"unpack_{packing}", _blocks(words), (_THREADS, 1, 1), *addresses, words, words_a_scale)

    def close(self) -> None:
        """Unloads the kernels. None of them may be running."""
        self._module.close()


def _blocks(threads: int) -> tuple[int, int]:
    """Returns the grid of at least so many threads, within reason: kernels go on with what is left."""
    return min(max(1, -(-threads // _THREADS)), _MOST_BLOCKS), 1
