"""Compiles the CUDA sources beside this file for the GPU at hand, and launches their kernels.

NVRTC, CUDA's run-time compiler, does that in some 50 ms a source when a model is loaded, so no CUDA toolkit is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from litevlm_ros.errors import EngineError
from litevlm_ros.packages import pip_command
from litevlm_ros.runtime.tensorrt.device import CudaDevice

NUMBERS = "numbers.cuh"
"""The source that every other one begins with: fp16 and bf16 as floats."""

NUMBER_MACROS: Mapping[str, Mapping[str, str]] = {"fp16": {"NUMBER_IS_HALF": "1"}, "bf16": {"NUMBER_IS_BF16": "1"}}
"""Precision → the macros with which `number` in CUDA sources is of that type."""


def read_source(*names: str) -> str:
    """Returns CUDA sources of this package, such as 'pixels.cu', one behind the other and behind NUMBERS."""
    return "".join(_read(each) for each in (NUMBERS, *names))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def compile_kernels(source: str, compute_capability: tuple[int, int], macros: Mapping[str, str] | None = None) -> bytes:
    """Compiles CUDA C++ to machine code for GPUs of one compute capability, with `macros` defined.

    Raises EngineError if NVRTC is not installed or does not compile the source.
    """
    return compile_with_log(source, compute_capability, macros)[0]


def compiler_version() -> tuple[int, ...]:
    """Returns the version of NVRTC. Raises EngineError if it is not installed."""
    try:
        from cuda.bindings import nvrtc

        _, *version = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise _missing(error) from error
    return tuple(map(int, version))


def compile_with_log(
    source: str,
    compute_capability: tuple[int, int],
    macros: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> tuple[bytes, str]:
    """Compiles as `compile_kernels` does, with more of NVRTC's `options`. Returns machine code, and NVRTC's log.

    Raises EngineError as `compile_kernels` does.
    """
    try:
        from cuda.bindings import nvrtc

        _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], [])
    except (ImportError, RuntimeError) as error:
        raise _missing(error) from error
    architecture = f"--gpu-architecture=sm_{compute_capability[0]}{compute_capability[1]}"
    defined = [f"-D{name}={value}" for name, value in (macros or {}).items()]
    every = [option.encode() for option in (architecture, *defined, *options)]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(every), every)
    log = _log(nvrtc, program)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise EngineError(
            f"NVRTC does not compile for this GPU ({architecture}): {log or result}; install the NVRTC of the CUDA "
            "version that `nvidia-smi` shows"
        )
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    code = b" " * size
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return code, log


def _missing(error: Exception) -> EngineError:
    return EngineError(
        f"NVRTC, CUDA's run-time compiler, does not load ({error}); install it: on a Jetson "
        "`sudo apt-get install cuda-nvrtc-12-6`, elsewhere "
        f"`{pip_command('nvidia-cuda-nvrtc')}`"
    )


def _log(nvrtc: Any, program: Any) -> str:
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    if size <= 1:  # NVRTC would write its final NUL into Python's only b" "
        return ""
    text = b" " * size
    nvrtc.nvrtcGetProgramLog(program, text)
    return text.decode(errors="replace").strip(" \0\n")


_THREADS, _MOST_THREADS = 256, 1024
_WARP = 32


def flat(threads: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Returns the grid and the block of at least so many threads, for kernels that need no more than a number."""
    return (-(-threads // _THREADS), 1), (_THREADS, 1, 1)


def threads_of_row(words: int, steps: int) -> int:
    """Returns the threads of a block that works on a row of `words`, of which a thread takes `steps` if it can.

    They are whole warps. A long row takes more steps.
    """
    return min(_WARP * -(-words // (steps * _WARP)), _MOST_THREADS)


class KernelModule:
    """The kernels of one source, loaded on a device and launched on its stream."""

    def __init__(
        self, device: CudaDevice, source: str, kinds: Mapping[str, str], macros: Mapping[str, str] | None = None
    ) -> None:
        """Compiles and loads the kernels that `kinds` names, with `macros` defined.

        The values of `kinds` are the kinds of the arguments as pycuda writes them: 'P' for an address, 'i' for an
        int, 'f' for a float. Raises EngineError as `compile_kernels` does.
        """
        code = compile_kernels(read_source(source), device.compute_capability, macros)
        self._device = device
        self._module: Any = device.driver.module_from_buffer(code)
        self._functions = {name: self._module.get_function(name).prepare(kind) for name, kind in kinds.items()}

    def launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: float) -> None:
        """Enqueues one kernel with `grid` blocks of `block` threads."""
        self._functions[name].prepared_async_call(grid, block, self._device.stream, *arguments)

    def close(self) -> None:
        """Unloads the kernels. None of them may be running."""
        self._functions.clear()
        del self._module
