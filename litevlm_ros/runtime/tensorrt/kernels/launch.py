"""Compiles the CUDA sources beside this file for the GPU at hand and launches their kernels.

NVRTC, CUDA's run-time compiler, does that in some 50 ms when a model is loaded, so no CUDA toolkit is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.vision.token_selection import COSINE_ONE, DIRECTION_ONE, RANDOM_SEED

WORD_BYTES = 16
"""Kernels copy rows in words of this size."""

MOST_TOKENS = 1024
"""The most tokens of a tile that can be selected from: their places take ten bits, and shared memory holds the rest."""

KINDS = {"FLOAT": 0, "HALF": 1, "BF16": 2}
"""TensorRT's name of the type of visual tokens → the kernels' number for it."""

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
    **{f"KIND_{name}": f"{number}" for name, number in KINDS.items()},
    **{f"METHOD_{name.upper()}": f"{number}" for name, number in METHODS.items()},
}
"""The macros that token_selection.cu is compiled with."""

_WARP = 32
_COPY_THREADS = 128
_MOST_COPY_BLOCKS = 16


def read_source(name: str) -> str:
    """Returns the CUDA source `name`, such as 'cache.cu', of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def compile_kernels(source: str, compute_capability: tuple[int, int], macros: Mapping[str, str] | None = None) -> bytes:
    """Compiles CUDA C++ to machine code for GPUs of one compute capability, with `macros` defined.

    Raises EngineError if NVRTC is not installed or does not compile the source.
    """
    try:
        from cuda.bindings import nvrtc

        _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], [])
    except (ImportError, RuntimeError) as error:
        raise EngineError(
            f"NVRTC, CUDA's run-time compiler, does not load ({error}); install it: on a Jetson "
            "`sudo apt-get install cuda-nvrtc-12-6`, elsewhere `pip install nvidia-cuda-nvrtc`"
        ) from error
    architecture = f"--gpu-architecture=sm_{compute_capability[0]}{compute_capability[1]}"
    options = [architecture.encode(), *(f"-D{name}={value}".encode() for name, value in (macros or {}).items())]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(program, log)
        reason = log.decode(errors="replace").strip(" \0\n") or result
        raise EngineError(
            f"NVRTC does not compile for this GPU ({architecture}): {reason}; install the NVRTC of the CUDA "
            "version that `nvidia-smi` shows"
        )
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    code = b" " * size
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return code


class _Kernels:
    """The kernels of one source, loaded on a device and launched on its stream."""

    def __init__(
        self, device: CudaDevice, source: str, kinds: Mapping[str, str], macros: Mapping[str, str] | None = None
    ) -> None:
        """Loads the kernels that `kinds` names. Its values are the kinds of their arguments as pycuda writes them:
        'P' for an address, 'i' for a number. Raises EngineError as `compile_kernels` does."""
        code = compile_kernels(read_source(source), device.compute_capability, macros)
        self._device = device
        self._module: Any = device.driver.module_from_buffer(code)
        self._functions = {name: self._module.get_function(name).prepare(kind) for name, kind in kinds.items()}

    def launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: int) -> None:
        """Enqueues one kernel."""
        self._functions[name].prepared_async_call(grid, block, self._device.stream, *arguments)

    def close(self) -> None:
        """Unloads the kernels. None of them may be running."""
        self._functions.clear()
        del self._module


class CacheKernels:
    """The kernels of cache.cu, enqueued on the device's stream. All addresses are in device memory."""

    def __init__(self, device: CudaDevice) -> None:
        """Compiles and loads the kernels. Raises EngineError if NVRTC is missing or refuses them."""
        self._kernels = _Kernels(device, "cache.cu", {"append_rows": "PPPPiii", "advance": "PPPPPPi"})

    def append(
        self,
        *,
        staged: int,
        cache: int,
        past_length: int,
        count: int,
        tensors: int,
        row_bytes: int,
        staged_rows: int,
        cache_rows: int,
    ) -> None:
        """Copies the first rows of each of `tensors` staged blocks behind the valid rows of its cache.

        `past_length` and `count` are addresses of int64 counters; `row_bytes` is a multiple of WORD_BYTES.
        """
        row = row_bytes // WORD_BYTES
        blocks = min(_MOST_COPY_BLOCKS, -(-staged_rows * row // _COPY_THREADS))
        numbers = row, staged_rows, cache_rows
        self._kernels.launch(
            "append_rows", (tensors, blocks), (_COPY_THREADS, 1, 1), staged, cache, past_length, count, *numbers
        )

    def advance(
        self, *, next_token: int, input_id: int, position: int, past_length: int, step: int, ring: int, ring_size: int
    ) -> None:
        """Moves the token to the next step's input and to `ring[step % ring_size]`, and adds one to all counters.

        All but `ring_size` are addresses of int64.
        """
        counters = input_id, position, past_length, step
        self._kernels.launch("advance", (1, 1), (1, 1, 1), next_token, *counters, ring, ring_size)

    def close(self) -> None:
        """Unloads the kernels."""
        self._kernels.close()


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
        self._kernels = _Kernels(device, "token_selection.cu", kinds, SELECTION_MACROS)

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
