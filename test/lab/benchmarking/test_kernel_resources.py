from __future__ import annotations

from dataclasses import replace

import pytest
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.lab.benchmarking.kernel_resources import (
    KernelResources,
    decode_resources,
    read_log,
    resource_table,
)
from litevlm_ros.runtime.tensorrt.kernels.decode import WeightFormat

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'choose' for 'sm_87'
ptxas info    : Function properties for choose
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 9216 bytes smem, 396 bytes cmem[0]
ptxas info    : Compile time = 61.281 ms
ptxas info    : Compiling entry function 'gather' for 'sm_87'
ptxas info    : Function properties for gather
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 18 registers, used 0 barriers, 380 bytes cmem[0]
"""


def test_the_log_is_read() -> None:
    assert read_log("a.cu", "fp16", LOG) == [
        KernelResources("a.cu", "fp16", "choose", 40, 16, 12, 9216),
        KernelResources("a.cu", "fp16", "gather", 18, 0, 0, 0),
    ]


def test_the_table_has_a_line_for_each_kernel() -> None:
    header, *lines = resource_table(read_log("a.cu", "bf16", LOG)).splitlines()
    assert header.split("  ")[0] == "kernel"
    assert [line.split() for line in lines] == [
        ["a.cu", "choose", "bf16", "40", "16", "12", "9216"],
        ["a.cu", "gather", "bf16", "18", "0", "0", "0"],
    ]


def test_a_variant_is_named_in_the_table() -> None:
    (first, _) = read_log("decode.cu", "fp16", LOG, "int8, 16 tokens")
    _, line = resource_table([first]).splitlines()
    assert line.split("  ")[0] == "decode.cu choose fp16 int8, 16 tokens"


def test_the_decode_kernel_is_listed_for_all_numbers_of_tokens() -> None:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed: pip install cuda-bindings")
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError:
        pytest.skip("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    text = replace(INTERNVL2_1B.text, num_layers=1)  # and INT4 has blocks that it does not take
    formats = (("fp16", WeightFormat("fp8")), ("fp16", WeightFormat("int4", 32)))
    found = decode_resources(text, (8, 7), formats)
    assert [each.variant for each in found] == ["fp8, 1 token", "fp8, 8 tokens", "fp8, 16 tokens"]
    assert {(each.source, each.kernel, each.computed) for each in found} == {("decode.cu", "decode", "fp16")}
    assert all(each.registers > 0 for each in found)
