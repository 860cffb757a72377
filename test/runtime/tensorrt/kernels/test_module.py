"""NVRTC takes every kernel of the package for the GPUs that it is made for, and none of them needs too much."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.lab.benchmarking.kernel_resources import kernel_resources, launcher_macros
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt import kernels
from litevlm_ros.runtime.tensorrt.kernels.module import compile_kernels, compile_with_log, read_source

DEMO = Path(__file__).parents[4] / "models/demo"
MOST_REGISTERS = 255
MOST_SHARED = 48 << 10
"""What a block gets of shared memory without asking for more."""


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
def test_every_kernel_compiles_without_spilling(capability: tuple[int, int]) -> None:
    model = ModelConfig.from_directory(DEMO)
    found = kernel_resources(model, capability)
    sources = sorted(file.name for file in resources.files(kernels).iterdir() if file.name.endswith(".cu"))
    assert sorted(launcher_macros(model, "fp16")) == sources, "a source is missing from launcher_macros"
    for source in sources:
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
