from __future__ import annotations

from litevlm_ros.lab.benchmarking.kernel_resources import KernelResources, read_log, resource_table

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
