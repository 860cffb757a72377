"""NVRTC takes all kernels for every GPU this package names."""

from __future__ import annotations

import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.runtime.tensorrt.kernels.launch import SELECTION_MACROS, compile_kernels, read_source


@pytest.fixture(autouse=True)
def _installed() -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed: pip install cuda-bindings")
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")


@pytest.mark.parametrize("capability", [(8, 7), (8, 9), (9, 0), (12, 0)])
@pytest.mark.parametrize(("name", "macros"), [("cache.cu", {}), ("token_selection.cu", SELECTION_MACROS)])
def test_it_compiles_them(name: str, macros: dict[str, str], capability: tuple[int, int]) -> None:
    assert compile_kernels(read_source(name), capability, macros)[:4] == b"\x7fELF"


def test_it_says_what_it_does_not_compile() -> None:
    with pytest.raises(EngineError, match=r"(?s)sm_90.*nonsense"):
        compile_kernels("nonsense", (9, 0))
