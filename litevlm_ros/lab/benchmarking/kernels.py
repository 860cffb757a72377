"""Which GPU kernels a stage spends its time in, traced by PyTorch's profiler, inside CUDA graphs too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from litevlm_ros.backend import Backend
from litevlm_ros.lab.benchmarking.workload import Workload

_SHOWN = 12
_NAME_WIDTH = 90


@dataclass(frozen=True)
class Kernel:
    """One kernel by name: launches and µs, of one run of the stage."""

    name: str
    launches: float
    microseconds: float


def trace_stages(backend: Backend, work: Workload, tokens: int) -> dict[str, list[Kernel]]:
    """The kernels of 'vision', 'prefill' and 'decode_token', the longest first."""
    visual = backend.vision.encode(work.tiles())
    length = len(work.prompt)

    def prefill() -> None:
        backend.text.cache.truncate(0)
        backend.text.forward(work.prompt, np.arange(length), visual)

    def decode() -> None:
        backend.text.cache.truncate(length)
        for _ in backend.text.decode_greedy(0, length, tokens):
            pass

    pixels = work.tiles()
    prefill()
    return {
        "vision": trace(lambda: backend.vision.encode(pixels)),
        "prefill": trace(prefill),
        "decode_token": trace(decode, runs=tokens),
    }


def trace(work: Callable[[], object], runs: int = 1) -> list[Kernel]:
    """The kernels of `work`, which is counted as `runs` runs. It runs once before, unseen."""
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    kernels = [
        Kernel(event.key, event.count / runs, event.self_device_time_total / runs)
        for event in profiler.key_averages()
        if event.self_device_time_total
    ]
    return sorted(kernels, key=lambda kernel: -kernel.microseconds)


def kernel_table(stages: dict[str, list[Kernel]]) -> str:
    """For people: the longest kernels of each stage, and all of them together."""
    lines = []
    for stage, kernels in stages.items():
        whole = sum(kernel.microseconds for kernel in kernels)
        launches = sum(kernel.launches for kernel in kernels)
        lines.append(f"{stage}: {whole:.0f} µs in {launches:.0f} launches of {len(kernels)} kernels")
        for kernel in kernels[:_SHOWN]:
            share = kernel.microseconds / whole
            lines.append(
                f"{kernel.microseconds:10.1f} µs {share:5.0%} {kernel.launches:7.1f}x  {kernel.name[:_NAME_WIDTH]}"
            )
    return "\n".join(lines)
