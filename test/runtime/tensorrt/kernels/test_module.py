"""NVRTC takes every kernel of the package for the GPUs that it is made for, and none of them needs too much."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.lab.benchmarking.kernel_resources import kernel_resources, launcher_macros
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt import kernels
from litevlm_ros.runtime.tensorrt.kernels.module import compile_kernels, compile_with_log, read_source

DEMO = Path(__file__).parents[4] / "models/demo"
MOST_REGISTERS = 255
MOST_SHARED = 48 << 10
"""The shared memory that a block gets without asking for more, in bytes."""

QWEN2_1_5B = {"hidden_size": 1536, "intermediate_size": 8960, "num_heads": 12, "num_kv_heads": 2, "head_dim": 128}
QWEN2_7B = {"hidden_size": 3584, "intermediate_size": 18944, "num_heads": 28, "num_kv_heads": 4, "head_dim": 128}
UNEVEN = {"hidden_size": 20, "intermediate_size": 44, "num_heads": 2, "num_kv_heads": 1, "head_dim": 10}
"""Sizes of text decoders. The kernels of rows.cu compile for widths that are no multiples of 8, but are not called."""


@pytest.fixture(autouse=True)
def _installed() -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed: pip install cuda-bindings")
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")


def kernels_in(source: str) -> list[str]:
    """The names of the kernels that a source defines."""
    return [part.partition("void ")[2].partition("(")[0] for part in read_source(source).split("__global__")[1:]]


@pytest.mark.parametrize("capability", [(8, 7), (9, 0)])
@pytest.mark.parametrize("text", [{}, QWEN2_1_5B, QWEN2_7B, UNEVEN], ids=["demo", "1.5B", "7B", "uneven"])
def test_every_kernel_compiles_without_spilling(text: dict[str, Any], capability: tuple[int, int]) -> None:
    model = ModelConfig.from_directory(DEMO)
    model = replace(model, text=replace(model.text, **text))
    found = kernel_resources(model, capability)
    sources = sorted(file.name for file in resources.files(kernels).iterdir() if file.name.endswith(".cu"))
    assert sorted((*launcher_macros(model, "fp16"), "decode.cu")) == sources, "a source is missing from launcher_macros"
    for source in launcher_macros(model, "fp16"):  # test_decode.py compiles decode.cu
        in_bf16 = launcher_macros(model, "fp16")[source] != launcher_macros(model, "bf16")[source]
        names = sorted((2 if in_bf16 else 1) * kernels_in(source))
        assert sorted(each.kernel for each in found if each.source == source) == names
    assert [each for each in found if each.spill_bytes] == []
    assert [each for each in found if not 0 < each.registers <= MOST_REGISTERS] == []
    assert [each for each in found if each.shared_bytes > MOST_SHARED] == []
    assert any(each.shared_bytes for each in found), "kernels of this package do use shared memory"


def test_the_source_is_what_its_macros_make_of_it() -> None:
    source = "#ifndef WIDTH\n#error no width\n#endif\n" + read_source("finite.cu")
    assert compile_kernels(source, (9, 0), {"WIDTH": "3"})[:4] == b"\x7fELF"
    with pytest.raises(EngineError, match="no width"):
        compile_kernels(source, (9, 0))


def test_a_compilation_without_a_log_leaves_python_alone() -> None:
    """NVRTC writes into bytes, and those of one character are shared."""
    assert compile_with_log(read_source("finite.cu"), (9, 0))[1] == ""
    assert list(b" " * 1) == [32]


def test_it_says_what_it_does_not_compile() -> None:
    with pytest.raises(EngineError, match=r"(?s)sm_90.*nonsense"):
        compile_kernels("nonsense", (9, 0))
