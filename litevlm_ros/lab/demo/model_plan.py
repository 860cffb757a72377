"""The plan to get a model to run here: the steps that are left, with their disk, memory and time."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litevlm_ros.config import PipelineConfig
from litevlm_ros.download.staging import RESERVE, free_bytes, gigabytes
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.demo.progress import words
from litevlm_ros.lab.demo.wanted_model import WantedModel, hub_address
from litevlm_ros.machine import available_bytes, find_device, gpu_memory_in_use
from litevlm_ros.precision import CPU_PRECISIONS

TENSORRT, ONNXRUNTIME = "tensorrt", "onnxruntime"
"""Values of `PipelineConfig.backend`."""

_DOWNLOAD_RATE = 10e6
"""Bytes a second that the time of a download is told for."""

_PACKAGE_BYTES = 900_000_000
"""Bytes of PyTorch for the CPU and onnx, with what they need, once installed. Those with CUDA take several times as
much."""

_CONVERSION_MEMORY = 500 << 20
"""Bytes of memory of a process that has imported PyTorch."""
_SPLIT_MEMORY = 0.7
"""Bytes of memory that splitting takes for each byte of the checkpoint, because all tensors of the text decoder are
read before they are written. 1.5 GB were measured in all with InternVL2-1B's size."""
_SPLIT_SECONDS = 3e-9
"""Seconds for each byte: 2e-9 were measured on a virtual disk."""

_ON_CPU = CPU_PRECISIONS[0]
_GRAPH_BYTES = 1.1
_EXPORT_MEMORY = 5.5
_EXPORT_SECONDS = 45e-9
_EXPORT_BASE_SECONDS = 10.0
_RUN_MEMORY = 1.8
_RUN_BASE_MEMORY = 300 << 20
"""Costs of graphs in _ON_CPU for each weight: bytes on the disk, bytes of memory and seconds to export, and bytes of
memory to run; and what comes on top. With InternVL2-1B's size on two cores of an Intel Xeon, 0.96 GB on the disk, 35 s
and 5.3 GB to export and 1.9 GB to run were measured, with all processes of the demo."""

_ENGINE_BYTES = 60 << 20
_ENGINE_SECONDS = {"fp16": 60.0, "fp8": 90.0}
"""On an H100 with 16 cores it is 9 and 24 s, of which most is to compile kernels, with up to six processes."""
_ENGINE_MEMORY = {"fp16": 2.6e9, "fp8": 3.6e9}
"""Bytes of memory to build engines of InternVL2-1B; kernels are compiled in fewer processes where memory is short."""
_GPU_MEMORY = {"fp16": 2.8, "fp8": 2.0}
"""Bytes of the GPU's memory to run engines for each weight. 2.62 GB and 1.87 GB were measured with InternVL2-1B."""
_ENGINE_RUN_MEMORY = 1.5e9
"""Bytes of memory beside the GPU's, which both are one on a Jetson."""


@dataclass(frozen=True)
class Step:
    """One step of the way. Sizes are in bytes: `disk` stays in the end, `passing_disk` goes with the next step."""

    name: str
    what: str
    seconds: float = 0.0
    memory: int = 0
    disk: int = 0
    passing_disk: int = 0


@dataclass(frozen=True)
class ModelPlan:
    """The way to a model that runs: `steps` are those that are left, none for a model that is ready.

    `backend` is TENSORRT or ONNXRUNTIME, `precision` that of the engines or graphs that are to be made, and `why` says
    why the CPU runs the model, '' on a GPU. `run_memory` is in bytes.
    """

    wanted: WantedModel
    backend: str
    precision: str
    why: str
    steps: tuple[Step, ...]
    run_memory: int

    @property
    def is_ready(self) -> bool:
        """True if nothing is left to do."""
        return not self.steps

    @property
    def kept_disk(self) -> int:
        """Bytes that the steps leave on the disk."""
        return sum(step.disk for step in self.steps)

    @property
    def peak_disk(self) -> int:
        """The most bytes that the steps take on the disk at a time."""
        level, passing, most = 0, 0, 0
        for step in self.steps:
            level += step.disk
            most = max(most, level + passing + step.passing_disk)
            passing = step.passing_disk
        return most

    @property
    def peak_memory(self) -> int:
        """The most bytes of memory that a step or the run takes. Steps run in a process of their own, one at a time."""
        return max(self.run_memory, *(step.memory for step in self.steps), 0)

    def lines(self) -> list[str]:
        """Returns what the way takes, for people."""
        wanted = self.wanted
        where = f"on the CPU: {self.why}" if self.why else "on the GPU"
        if self.is_ready:
            return [f"{wanted.name}: reusing {wanted.directory}, which has everything to run {where}"]
        free, memory = free_bytes(wanted.directory), available_bytes()
        seconds = sum(step.seconds for step in self.steps)
        return [
            f"{wanted.name} has {wanted.parameters / 1e6:.1f} million weights and will run {where}.",
            "Before it runs, once:",
            *(f"  {number}. {step.what}" for number, step in enumerate(self.steps, 1)),
            f"Disk: {gigabytes(self.kept_disk)} in {wanted.directory}, {gigabytes(self.peak_disk)} meanwhile; "
            f"{gigabytes(free)} are free.",
            f"Memory: {gigabytes(self.peak_memory)} at most, {gigabytes(self.run_memory)} when it runs; "
            f"{gigabytes(memory)} are free.",
            f"Time: about {words(seconds)}. Ctrl-C loses little: the same command continues.",
        ]

    def check(self) -> None:
        """Raises ConfigError, with what helps, if disk or memory is too small for it."""
        directory = self.wanted.directory
        if not self.is_ready and not os.access(existing := _existing(directory), os.W_OK):
            raise ConfigError(
                f"{directory} cannot be written (permission denied for {existing}), and graphs or engines go there; "
                "copy the model to a directory of your own, or give --models one"
            )
        free, needed = free_bytes(directory), self.peak_disk + RESERVE
        if not self.is_ready and free < needed:
            raise ConfigError(
                f"{self.wanted.name} takes {gigabytes(needed)} of disk and {directory} has {gigabytes(free)} free; "
                "free some room, or give --models a directory on a larger disk"
            )
        memory = available_bytes()
        if memory < self.peak_memory:
            raise ConfigError(
                f"{self.wanted.name} takes {gigabytes(self.peak_memory)} of memory and {gigabytes(memory)} are free, "
                "swap included; close other programs, add swap (models/README.md tells how), or take a smaller model"
            )


def make_plan(wanted: WantedModel) -> ModelPlan:
    """Looks at this machine and at the model directory, and plans what is left to do. Takes no notable time."""
    precision, why = _gpu_choice(wanted)
    backend = ONNXRUNTIME if why else TENSORRT
    run_memory = int(_ENGINE_RUN_MEMORY)
    if backend == ONNXRUNTIME:
        run_memory = _RUN_BASE_MEMORY + int(_RUN_MEMORY * wanted.parameters)
    steps = [*_install_steps(wanted)]
    if steps or obstacle(wanted.directory, backend):
        steps = [*_package_steps(), *steps, _make_step(wanted, backend, precision)]
    return ModelPlan(wanted, backend, precision, why, tuple(steps), run_memory)


def obstacle(directory: Path, backend: str) -> str | None:
    """Says why `backend` cannot run a model directory here, with the fix; returns None if it can."""
    config = PipelineConfig(directory, backend=backend)
    if backend == TENSORRT:
        from litevlm_ros.runtime.tensorrt import engine_files

        return engine_files.obstacle(config)
    from litevlm_ros.runtime.onnx import graph_choice

    return graph_choice.obstacle(config)


def _existing(directory: Path) -> Path:
    """Returns the directory, or the nearest one above it that exists."""
    directory = directory.absolute()
    return next(path for path in (directory, *directory.parents) if path.exists())


def _gpu_choice(wanted: WantedModel) -> tuple[str, str]:
    """Returns the precision to run in, and why not on the GPU, '' if there."""
    from litevlm_ros.runtime.tensorrt.engine_files import machine_obstacle

    reason = machine_obstacle()
    device = find_device()
    if reason is not None or device is None:
        return _ON_CPU, reason or "there is no NVIDIA GPU here"
    free = device.total_memory - (gpu_memory_in_use() or 0)
    for precision, factor in _GPU_MEMORY.items():
        if factor * wanted.parameters <= free:
            return precision, ""
    needed = min(_GPU_MEMORY.values()) * wanted.parameters
    return _ON_CPU, f"{device.name} has {gigabytes(free)} of memory free and {gigabytes(int(needed))} are needed"


def _package_steps() -> Sequence[Step]:
    if importlib.util.find_spec("torch") is not None:
        return ()
    what = f"install PyTorch and onnx, which the conversion needs: {gigabytes(_PACKAGE_BYTES)}"
    return (Step("packages", what, _PACKAGE_BYTES / _DOWNLOAD_RATE, disk=_PACKAGE_BYTES),)


def _install_steps(wanted: WantedModel) -> Sequence[Step]:
    if wanted.is_installed:
        return ()
    size = wanted.weight_bytes
    memory, seconds = _CONVERSION_MEMORY + int(_SPLIT_MEMORY * size), _SPLIT_SECONDS * size
    split = f"split the checkpoint into its two parts: {gigabytes(size)} on the disk, {words(seconds)}"
    if isinstance(wanted.source, Path):
        return (Step("split", split, seconds, memory, size),)
    missing = max(0, size - wanted.staged_bytes)
    wait = missing / _DOWNLOAD_RATE
    continued = " that are missing" if missing < size else ""
    download = f"download {gigabytes(missing)}{continued} from {hub_address()}: {words(wait)} at 10 MB/s"
    return (
        Step("download", download, wait, passing_disk=missing),
        Step("split", split, seconds, memory, size, passing_disk=0),
    )


def _make_step(wanted: WantedModel, backend: str, precision: str) -> Step:
    if backend == TENSORRT:
        seconds = _ENGINE_SECONDS[precision]
        packed = int(wanted.parameters) if precision == "fp8" else 0
        what = f"build TensorRT engines in {precision}: {gigabytes(_ENGINE_BYTES + packed)}, {words(seconds)}"
        return Step("build", what, seconds, int(_ENGINE_MEMORY[precision]), _ENGINE_BYTES + packed)
    size = int(_GRAPH_BYTES * wanted.parameters)
    seconds = _EXPORT_BASE_SECONDS + _EXPORT_SECONDS * wanted.parameters
    memory = _CONVERSION_MEMORY + int(_EXPORT_MEMORY * wanted.parameters)
    what = f"export graphs for the CPU in {precision}: {gigabytes(size)}, {words(seconds)} on two cores"
    return Step("export", what, seconds, memory, size)
