"""NVRTC takes all kernels for every GPU this package names."""

from __future__ import annotations

import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.kernels import cache_kernels, selection_kernels
from litevlm_ros.runtime.tensorrt.kernels.nvrtc import compile_kernels


@pytest.fixture(autouse=True)
def _installed() -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed: pip install cuda-bindings")
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")


@pytest.mark.parametrize("capability", [(8, 7), (8, 9), (9, 0), (12, 0)])
@pytest.mark.parametrize("module", [cache_kernels, selection_kernels])
def test_it_compiles_them(module: object, capability: tuple[int, int]) -> None:
    assert compile_kernels(module.SOURCE, capability)[:4] == b"\x7fELF"  # type: ignore[attr-defined]


def test_it_says_what_it_does_not_compile() -> None:
    with pytest.raises(EngineError, match=r"(?s)sm_90.*nonsense"):
        compile_kernels("nonsense", (9, 0))
