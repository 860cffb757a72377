"""CUDA C++ to machine code for the GPU at hand, which needs no CUDA toolkit."""

from __future__ import annotations

from litevlm_ros.errors import EngineError


def compile_kernels(source: str, compute_capability: tuple[int, int]) -> bytes:
    """Machine code for one GPU. Raises EngineError."""
    try:
        from cuda.bindings import nvrtc

        _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], [])
    except (ImportError, RuntimeError) as error:
        raise EngineError(
            f"NVRTC, CUDA's run-time compiler, does not load ({error}); install it: on a Jetson "
            "`sudo apt-get install cuda-nvrtc-12-6`, elsewhere `pip install nvidia-cuda-nvrtc`"
        ) from error
    options = [f"--gpu-architecture=sm_{compute_capability[0]}{compute_capability[1]}".encode()]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(program, log)
        reason = log.decode(errors="replace").strip(" \0\n") or result
        raise EngineError(
            f"NVRTC does not compile for this GPU ({options[0].decode()}): {reason}; install the NVRTC of the CUDA "
            "version that `nvidia-smi` shows"
        )
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    code = b" " * size
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return code
