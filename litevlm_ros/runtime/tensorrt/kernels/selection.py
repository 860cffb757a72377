"""Launches the kernels of token_selection.cu."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import KernelModule
from litevlm_ros.vision.token_selection import COSINE_ONE, DIRECTION_ONE, RANDOM_SEED

WORD_BYTES = 16
"""Kernels copy rows in words of this size."""

MOST_TOKENS = 1024
"""The most tokens of a tile that can be selected from: their places take ten bits, and shared memory holds the rest."""

KINDS = {"fp32": 0, "fp16": 1, "bf16": 2}
"""Type of visual tokens → the kernels' number for it."""

METHODS = {"random": 0, "diversity": 1, "similarity": 2}
"""Method of token selection → the kernels' number for it."""

_EDGE = 16
"""The edge of a block of cosines, in threads."""

SELECTION_MACROS: Mapping[str, str] = {
    "COSINE_ONE": f"{COSINE_ONE}",
    "DIRECTION_ONE": f"{DIRECTION_ONE}",
    "RANDOM_SEED": f"{RANDOM_SEED}u",
    "MOST_TOKENS": f"{MOST_TOKENS}",
    "EDGE": f"{_EDGE}",
    **{f"KIND_{name.upper()}": f"{number}" for name, number in KINDS.items()},
    **{f"METHOD_{name.upper()}": f"{number}" for name, number in METHODS.items()},
}
"""The macros that token_selection.cu is compiled with."""

_WARP = 32
_COPY_THREADS = 128


class SelectionKernels:
    """The kernels of token_selection.cu for tiles of one shape. All addresses are in device memory.

    T is the number of tokens of a tile, and H their width.
    """

    def __init__(self, device: CudaDevice, tokens: int, width: int, kind: str) -> None:
        """Compiles and loads the kernels for tiles of `tokens`, at most MOST_TOKENS, of an even `width`.

        `kind` is one of KINDS. Raises EngineError if NVRTC is missing or refuses them.
        """
        self._tokens, self._width, self._kind = tokens, width, KINDS[kind]
        kinds = {"directions": "PPii", "cosines": "PPii", "choose": "PPPiiiii", "gather": "PPPi"}
        self._kernels = KernelModule(device, "token_selection.cu", kinds, SELECTION_MACROS)

    def compare(self, tiles: int, rows: int, unit: int, cosines: int) -> None:
        """Writes the `cosines` int32 [tiles, T, T] of visual tokens `rows` [tiles, T, H].

        `unit` int16 [tiles, T, H] takes their directions.
        """
        blocks = -(-self._tokens // _EDGE)
        launch = self._kernels.launch
        launch("directions", (tiles * self._tokens, 1), (_WARP, 1, 1), rows, unit, self._width, self._kind)
        launch("cosines", (blocks, blocks, tiles), (_EDGE, _EDGE, 1), unit, cosines, self._tokens, self._width // 2)

    def choose(self, method: str, keep: int, tiles: int, rows: int, cosines: int, places: int) -> None:
        """Writes the `places` int32 [tiles, keep], among the tokens of all tiles, of those that `method` keeps.

        'random' reads no cosines.
        """
        numbers = self._tokens, self._width, self._kind, keep, METHODS[method]
        self._kernels.launch("choose", (tiles, 1), (_WARP, 1, 1), rows, cosines, places, *numbers)

    def gather(self, count: int, rows: int, places: int, result: int, row_bytes: int) -> None:
        """Copies the `count` rows at `places`; `row_bytes` is a multiple of WORD_BYTES."""
        row = row_bytes // WORD_BYTES
        self._kernels.launch("gather", (count, 1), (_COPY_THREADS, 1, 1), rows, places, result, row)

    def close(self) -> None:
        """Unloads the kernels."""
        self._kernels.close()
