"""Builds the engines of a model directory, with their sidecars, where those that are there do not fit."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from litevlm_ros.engines.build_memory import build_memory, check_memory, worker_count
from litevlm_ros.engines.fingerprint import hash_weights
from litevlm_ros.engines.graphs import block_graphs, graph_hash
from litevlm_ros.engines.kernel_compiler import KernelCompiler, kernel_compiler
from litevlm_ros.engines.plan_archive import PlanKey, write_archive
from litevlm_ros.engines.plan_builder import build_plan
from litevlm_ros.engines.shapes import Sizes, foreseen
from litevlm_ros.engines.target import Target, find_target
from litevlm_ros.engines.tensorrt_module import load_tensorrt
from litevlm_ros.engines.wanted import WantedEngine
from litevlm_ros.errors import EngineError
from litevlm_ros.files import explaining_full_disk
from litevlm_ros.machine import find_device, format_capability
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import (
    PARTS,
    VISION,
    engine_name,
    runtime_cache_directory,
    sidecar_file,
    weight_bytes,
)
from litevlm_ros.packages import CONVERSION, ENGINES, pip_command
from litevlm_ros.precision import PACKED_PRECISIONS, choose_precision, describe_packing
from litevlm_ros.types import Notify

if TYPE_CHECKING:
    from litevlm_ros.convert.calibration import Calibration

TIMING_CACHE = "timing.cache"
"""The file in the output directory that keeps what TensorRT measured for the next build."""

_BUILDS = 4
"""The most plans that TensorRT-RTX builds at a time. TensorRT measures kernels as it builds, so it builds one."""


@dataclass(frozen=True)
class BuildRequest:
    """The engines to build. `precisions` maps each part to build (VISION, TEXT) to the precision asked for it.

    `target` is a compute capability, None for the GPU at hand. `calibration` makes what the scales of INT4 weights are
    chosen with, and is called for those alone; with `recalibrate`, as for pictures that a person has named, INT4
    engines are built again even if they are up to date. `strict` allows no precision but those that were asked for.
    """

    model: Path
    output: Path
    precisions: dict[str, str]
    sizes: Sizes
    target: tuple[int, int] | None = None
    calibration: Calibration | None = None
    recalibrate: bool = False
    workspace_mib: int = 0
    force: bool = False
    strict: bool = False
    check_memory: bool = True


@dataclass
class _Begun:
    """An engine whose plans are built; their kernels may still be being compiled."""

    graphs: dict[str, bytes]
    started: float
    plans: dict[PlanKey, bytes] = field(default_factory=dict)
    kernels: dict[PlanKey, Future[bytes]] = field(default_factory=dict)


def build_engines(request: BuildRequest, notify: Notify = print) -> list[Path]:
    """Builds the engines that are missing or do not fit, and returns the files of all that were requested.

    Raises LiteVLMError, of which OutputError if the disk is full, and OSError; engines that were finished stay.
    """
    model = ModelConfig.from_directory(request.model)
    sizes = request.sizes.checked(model)
    target = find_target(request.target)
    chosen = {part: choose_precision(part, asked, target.capability, strict=request.strict)
              for part, asked in request.precisions.items()}  # fmt: skip
    for part, precision in chosen.items():
        if precision.reason:
            notify(f"{part}: {precision.asked} was asked for, {precision.built} is built, because {precision.reason}")
    compiled = _compiles_ahead(target, notify)
    missing = []
    for part, precision in chosen.items():
        wanted = WantedEngine(
            part,
            precision,
            target,
            sizes,
            foreseen(part, sizes, model, precision.built),
            compiled,
            hash_weights(request.model / part) if precision.built in PACKED_PRECISIONS else "",
            graph_hash(part, precision.built, model),
        )
        reason = "--force" if request.force else wanted.reason_to_build(request.output, recalibrate=request.recalibrate)
        notify(f"{wanted.file}: building ({reason})" if reason else f"{wanted.file}: up to date")
        if packing := describe_packing(precision.built):
            notify(f"{wanted.file}: {packing}")
        if reason:
            missing.append(wanted)
    if missing:
        _build(missing, request, model, notify)
    return [request.output / engine_name(part, precision.built) for part, precision in chosen.items()]


def _compiles_ahead(target: Target, notify: Notify) -> bool:
    """Tells whether kernels can be compiled here: TensorRT-RTX compiles them for the GPU at hand."""
    if not load_tensorrt().is_rtx or not target.is_here or find_device() is None:
        return False
    if importlib.util.find_spec("pycuda") is None:
        notify("pycuda is not installed, so kernels are compiled when the node loads the engines, which takes minutes; "
               f"install it with `{pip_command('pycuda')}`")  # fmt: skip
        return False
    return True


def _build(missing: Sequence[WantedEngine], request: BuildRequest, model: ModelConfig, notify: Notify) -> None:
    """Builds engines. Kernels of all of them are compiled at the same time, beside everything else."""
    needed = _needed_memory(missing, request)
    if request.check_memory:
        check_memory(needed)
    with contextlib.ExitStack() as stack:
        compiler = stack.enter_context(kernel_compiler(worker_count(needed))) if missing[0].compiled else None
        stack.enter_context(explaining_full_disk(request.output))
        request.output.mkdir(parents=True, exist_ok=True)
        begun = [_begin(wanted, request, model, compiler) for wanted in missing]
        for wanted in missing:
            with explaining_full_disk(request.output / wanted.file):
                _finish(wanted, begun.pop(0), request, notify)


def _needed_memory(missing: Sequence[WantedEngine], request: BuildRequest) -> int:
    """Returns the bytes of memory that building the engines takes at most besides compiling kernels."""
    sizes = {part: weight_bytes(request.model / part) for part in PARTS}
    packed = [wanted for wanted in missing if wanted.precision.built in PACKED_PRECISIONS]
    calibrated = [wanted for wanted in packed if wanted.precision.built == "int4" and request.calibration]
    # The text decoder is calibrated with visual tokens of the vision encoder.
    computed = {part for wanted in calibrated for part in (VISION, wanted.part)}
    return build_memory(
        max((sizes[wanted.part] for wanted in packed), default=0), max((sizes[part] for part in computed), default=0)
    )


def _begin(wanted: WantedEngine, request: BuildRequest, model: ModelConfig, compiler: KernelCompiler | None) -> _Begun:
    """Draws the graphs of an engine, builds its plans, and begins to compile their kernels."""
    begun = _Begun({}, time.monotonic())
    try:
        for block in block_graphs(wanted.part, wanted.precision.built, model):
            begun.graphs[block.name] = block.serialized()
    except ImportError as error:
        raise EngineError(f"engines are built from graphs, which need onnx ({error}); install it with "
                          f"`{pip_command(*ENGINES[:2])}`") from error  # fmt: skip

    def build(key: PlanKey) -> bytes:
        return build_plan(
            begun.graphs[key.block],
            key,
            wanted.target,
            workspace_mib=request.workspace_mib,
            timing_cache=request.output / TIMING_CACHE,
        )

    # The largest come first, as their kernels take longest.
    keys = wanted.keys[::-1]
    threads = ThreadPoolExecutor(_BUILDS if load_tensorrt().is_rtx else 1, "build")
    try:
        # A thread builds, so that Ctrl-C reaches this one: TensorRT's calls swallow KeyboardInterrupt.
        with _progress(f"{wanted.file}: plans", len(keys)) as bar:
            for key, plan in zip(keys, threads.map(build, keys), strict=True):
                begun.plans[key] = plan
                if compiler:
                    begun.kernels[key] = compiler.submit(f"{wanted.file}'s plan {key}", plan)
                bar.update()
    finally:
        threads.shutdown(cancel_futures=True)
    return begun


def _finish(wanted: WantedEngine, begun: _Begun, request: BuildRequest, notify: Notify) -> None:
    """Packs the weights of an engine, waits for its kernels, and writes it with its sidecar."""
    packed, calibration = _pack(wanted, request)
    kernels = {}
    with _progress(f"{wanted.file}: kernels", len(begun.kernels)) as bar:
        for key, future in begun.kernels.items():
            kernels[key] = KernelCompiler.finished(future)
            bar.update()
    plans = {key: (begun.plans[key], kernels.get(key, b"")) for key in wanted.keys}
    file = request.output / wanted.file
    # Neither may be taken for one of the new engine.
    sidecar_file(file).unlink(missing_ok=True)
    shutil.rmtree(runtime_cache_directory(file), ignore_errors=True)
    write_archive(file, wanted.part, wanted.precision.built, begun.graphs, plans, packed)
    seconds = time.monotonic() - begun.started
    wanted.sidecar(file, calibration, seconds).write(request.output)
    size = file.stat().st_size / 1e6
    capability = format_capability(wanted.target.capability)
    notify(f"{wanted.file}: {size:.0f} MB in {seconds:.0f} s for compute capability {capability}")


def _pack(wanted: WantedEngine, request: BuildRequest) -> tuple[dict[str, np.ndarray[Any, Any]], str]:
    """Returns the packed weights of an engine, and in words what their scales were chosen with."""
    precision = wanted.precision.built
    if precision not in PACKED_PRECISIONS:
        return {}, ""
    try:
        from litevlm_ros.convert.calibration import data_for
        from litevlm_ros.convert.packed_weights import pack
    except ImportError as error:
        raise EngineError(f"packing weights needs torch ({error}); install it with "
                          f"`{pip_command(*CONVERSION)}`") from error  # fmt: skip
    data = data_for(precision, request.calibration)
    return pack(wanted.part, request.model, precision, data), data.description if data else ""


@contextlib.contextmanager
def _progress(title: str, total: int) -> Iterator[Any]:
    """Yields a progress bar. It appears on a terminal only, so a log gets no half-drawn lines."""
    from tqdm import tqdm

    with tqdm(total=total, desc=title, leave=False, disable=None) as bar:
        yield bar
