"""The GPU kernels that each stage spends its time in, traced by PyTorch's profiler, inside CUDA graphs too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from litevlm_ros.backend import Backend, CutViews
from litevlm_ros.config import CAPTION_PROMPT, PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.benchmarking.stages import Workload
from litevlm_ros.machine import describe
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.packages import pip_command
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Notify, View

_SHOWN = 12
_NAME_WIDTH = 90


@dataclass(frozen=True)
class Kernel:
    """A kernel by name, with its launches and its µs in one run of the stage."""

    name: str
    launches: float
    microseconds: float


def trace_stages(
    backend: Backend, work: Workload, tokens: int, cut: Callable[[], CutViews] | None = None
) -> dict[str, list[Kernel]]:
    """Returns the kernels of 'vision', 'prefill' and 'decode_token', the longest first.

    If `cut` cuts the views on the device, its kernels are those of 'preprocess', and vision takes its tiles.
    """
    visual = backend.vision.encode(work.tiles())
    length = len(work.prompt)

    def prefill() -> None:
        backend.text.cache.truncate(0)
        backend.text.forward(work.prompt, np.arange(length), visual)

    def decode() -> None:
        backend.text.cache.truncate(length)
        for _ in backend.text.decode_greedy(0, length, tokens):
            pass

    traced = {"preprocess": trace(cut)} if cut else {}
    pixels = cut().tiles if cut else work.tiles()
    prefill()
    return traced | {
        "vision": trace(lambda: backend.vision.encode(pixels)),
        "prefill": trace(prefill),
        "decode_token": trace(decode, runs=tokens),
    }


def trace(work: Callable[[], object], runs: int = 1) -> list[Kernel]:
    """Returns the kernels of `work`, which counts as `runs` runs, after a run that is not traced. Needs PyTorch."""
    import torch

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


def kernel_tracer(
    config: PipelineConfig, views: Sequence[View], tokens: int, notify: Notify = print
) -> Callable[[Backend], dict[str, Any]]:
    """Returns a function that traces a backend, prints the table by `notify` and returns its figures for JSON.

    Raises ConfigError without PyTorch, and CheckpointError.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--kernels needs PyTorch's profiler ({error}): `{pip_command('torch')}`") from error
    work = Workload.of(config.model_dir, views, CAPTION_PROMPT, config.max_tiles)
    model = ModelConfig.from_directory(config.model_dir)

    def trace_backend(backend: Backend) -> dict[str, Any]:
        tiler = backend.tiler(model, config.max_tiles) if backend.tiler else None
        stages = trace_stages(backend, work, tokens, (lambda: tiler.cut(views)) if tiler else None)
        notify(kernel_table(stages))
        return {stage: [asdict(kernel) for kernel in kernels] for stage, kernels in stages.items()}

    return trace_backend


def report_kernels(config: PipelineConfig, views: Sequence[View], tokens: int) -> tuple[str, dict[str, Any]]:
    """Traces the model of `config`. Returns a table and its figures for JSON. Raises LiteVLMError."""
    lines: list[str] = []
    tracer = kernel_tracer(config, views, tokens, lines.append)
    with contextlib.closing(Pipeline.from_config(config)) as pipeline:
        backend = pipeline.backend.description
        kernels = tracer(pipeline.backend)
    return "\n".join([backend, *lines]), {"machine": describe(), "backend": backend, "kernels": kernels}


def kernel_table(stages: dict[str, list[Kernel]]) -> str:
    """Returns a table of the longest kernels of each stage, and of all together."""
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
