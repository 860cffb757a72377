"""Builds the engines of a model directory, with their sidecars, where those that are there do not fit."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from litevlm_ros.engines.fingerprint import hash_file, hash_sources, hash_weights, this_machine
from litevlm_ros.engines.onnx_to_engine import BuiltEngine, Target, build_engine, check_precision, find_target
from litevlm_ros.engines.profiles import Sizes, profiles
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import EngineError
from litevlm_ros.files import explaining_full_disk, write_bytes
from litevlm_ros.machine import available_bytes, format_capability
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import (
    TEXT,
    VISION,
    copy_description,
    engine_name,
    runtime_cache_directory,
    sidecar_file,
    weight_bytes,
)
from litevlm_ros.precision import FP8_FORMS, Precision, choose_precision
from litevlm_ros.types import Notify

if TYPE_CHECKING:
    from litevlm_ros.convert.calibration import Calibration

TIMING_CACHE = "timing.cache"
"""The file in the output directory that keeps what TensorRT measured for the next build."""

_PACKAGE = Path(__file__).parent.parent
_DRAWING = ("convert/onnx_graphs.py", "convert/engine_graph.py", "engines/profiles.py")
_QUANTIZING = tuple(
    f"convert/{name}.py" for name in ("calibration", "quantization", "quantized_graph", "quantized_weights")
)


@dataclass(frozen=True)
class BuildRequest:
    """The engines to build. `precisions` maps each part to build (VISION, TEXT) to the precision asked for it.

    `target` is a compute capability, None for the GPU at hand. `calibration` makes what quantized engines are
    calibrated with, and is called for those alone; with `recalibrate`, as for pictures that a person has named,
    calibrated engines are built again even if they are up to date. `fp8_form` is one of FP8_FORMS.
    """

    model: Path
    output: Path
    precisions: dict[str, str]
    sizes: Sizes
    target: tuple[int, int] | None = None
    calibration: Calibration | None = None
    recalibrate: bool = False
    fp8_form: str = FP8_FORMS[0]
    workspace_mib: int = 0
    force: bool = False
    strict: bool = False
    check_memory: bool = True


@dataclass(frozen=True)
class _EnginePlan:
    """An engine as it should be, in the terms of a sidecar."""

    part: str
    precision: Precision
    target: Target
    sizes: Sizes
    weights_sha256: str
    graph_sha256: str
    fp8_form: str

    @property
    def file(self) -> str:
        return engine_name(self.part, self.precision.built)


def build_engines(request: BuildRequest, notify: Notify = print) -> list[Path]:
    """Builds the engines that are missing or do not fit, and returns the files of all that were requested.

    Raises LiteVLMError, of which OutputError if the disk is full, and OSError; engines that were finished stay.
    """
    model = ModelConfig.from_directory(request.model)
    sizes = request.sizes.checked(model)
    capability = request.target or find_target(None).capability
    chosen = {part: choose_precision(part, asked, capability, strict=request.strict)
              for part, asked in request.precisions.items()}  # fmt: skip
    for part, precision in chosen.items():
        if precision.reason:
            notify(f"{part}: {precision.asked} was asked for, {precision.built} is built, because {precision.reason}")
    target = find_target(request.target)
    plans = []
    for part, precision in chosen.items():
        check_precision(precision.built)
        weights = hash_weights(request.model / part)
        form = request.fp8_form if precision.built == "fp8" else ""
        plans.append(_EnginePlan(part, precision, target, sizes, weights, graph_hash(part, precision.built), form))
    files = []
    for plan in plans:
        reason = "--force" if request.force else _reason_to_build(plan, request, model)
        if not reason:
            notify(f"{plan.file}: up to date")
        else:
            notify(f"{plan.file}: building ({reason})")
            with explaining_full_disk(request.output / plan.file):
                _build(plan, request, model, notify)
        files.append(request.output / plan.file)
    return files


def graph_hash(part: str, precision: str) -> str:
    """Returns a hash of the code that draws the graph of `part` (VISION or TEXT) in `precision`."""
    return hash_sources(graph_sources(part, precision))


def graph_sources(part: str, precision: str) -> list[Path]:
    """Lists the sources that decide what the graph of `part` is; those that quantize count only where they are used."""
    names = [*_DRAWING, "convert/intern_vit.py" if part == VISION else "convert/qwen2.py"]
    if precision != "fp16":
        names += _QUANTIZING
    return [_PACKAGE / name for name in names]


def _reason_to_build(plan: _EnginePlan, request: BuildRequest, model: ModelConfig) -> str:
    """Says why the engine that is there, if any, is not the one that is asked for; returns '' if it is."""
    file = request.output / plan.file
    if not file.is_file():
        return "there is none yet"
    try:
        sidecar = EngineSidecar.read(file)
    except EngineError as error:
        return str(error).partition(";")[0]
    machine = this_machine()
    capability = format_capability(plan.target.capability)
    if (sidecar.flavour, sidecar.version) != (machine.flavour, machine.version):
        return f"it was built by version {sidecar.version} and {machine.tensorrt} is installed"
    if capability not in sidecar.compute_capabilities:
        return f"it was built for compute capability {', '.join(sidecar.compute_capabilities)}, not {capability}"
    if sidecar.weights_sha256 != plan.weights_sha256:
        return "the weights have changed"
    if sidecar.graph_sha256 != plan.graph_sha256:
        return "this version draws another graph"
    if sidecar.precision_built != plan.precision.built:
        return f"it was built in {sidecar.precision_built}"
    if sidecar.fp8_form != plan.fp8_form:
        return f"its FP8 has the form {sidecar.fp8_form}, not {plan.fp8_form}"
    if sidecar.profiles != profiles(plan.part, plan.sizes, model):
        return "it was built for another max_tiles or max_context"
    if sidecar.calibration and request.recalibrate:
        return "calibration images were given"
    damage = sidecar.check_file(file)
    return damage[0].partition(";")[0] if damage else ""


def _build(plan: _EnginePlan, request: BuildRequest, model: ModelConfig, notify: Notify) -> None:
    try:
        # Imported here, because engines that are up to date need no torch.
        from litevlm_ros.convert.engine_graph import write_engine_graph
    except ImportError as error:
        raise EngineError(f"engines are built from graphs, which need torch, onnx and onnxscript ({error}); install "
                          "them with `pip install 'litevlm_ros[convert]'`") from error  # fmt: skip
    if request.check_memory:
        check_memory(plan.part, build_memory(weight_bytes(request.model / plan.part)))
    request.output.mkdir(parents=True, exist_ok=True)
    copy_description(request.model, request.output)
    started = time.monotonic()
    with _graph_file(request.output, plan) as file:
        graph = write_engine_graph(
            plan.part, request.model, plan.precision.built, file, request.calibration, plan.fp8_form
        )
        for note in graph.notes:
            notify(f"{plan.file}: {note}")
        exported = time.monotonic() - started
        notify(f"{plan.file}: graph drawn in {exported:.0f} s")
        built = build_engine(
            file,
            profiles(plan.part, plan.sizes, model),
            plan.target,
            workspace_mib=request.workspace_mib,
            timing_cache=request.output / TIMING_CACHE,
        )
    seconds = time.monotonic() - started
    size = _write(request.output / plan.file, built)
    _sidecar(plan, request, model, built, graph.calibration, size, seconds).write(request.output)
    notify(
        f"{plan.file}: {size / 1e6:.0f} MB in {seconds:.0f} s for compute capability "
        f"{format_capability(plan.target.capability)}"
    )


def build_memory(weights: int) -> int:
    """Returns the bytes of memory that exporting and building a part take at most, from the bytes of its fp16 weights.

    Measured on InternVL2-1B with TensorRT-RTX 1.4 on x86-64: 5.5 GB at the most, for a text decoder of 0.99 GB.
    """
    return int(4.5 * weights) + (1 << 30)


def check_memory(part: str, needed: int) -> None:
    """Raises EngineError, with what helps, if a build that takes `needed` bytes does not fit into memory and swap.

    Without this check an 8 GB board would swap until it no longer answers.
    """
    available = available_bytes()
    if available >= needed:
        return
    swap = -(-(needed - available) // (1 << 30)) + 1
    raise EngineError(
        f"building the {part.replace('_', ' ')} takes up to {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} "
        f"GB are free, swap included. Close other programs (a Jetson's desktop takes 1 GB), or add swap: `sudo "
        f"fallocate -l {swap}G /mnt/litevlm.swap && sudo chmod 600 /mnt/litevlm.swap && sudo mkswap /mnt/litevlm.swap "
        "&& sudo swapon /mnt/litevlm.swap`; or use a smaller model, or build on another machine with the same GPU and "
        "TensorRT (models/README.md, prebuilt engines). --skip-memory-check builds in spite of this"
    )


@contextmanager
def _graph_file(output: Path, plan: _EnginePlan) -> Iterator[Path]:
    """Yields a path at which to draw the graph of an engine.

    An fp16 graph stays as `<part>.onnx`, unless there is one, which may be ONNX Runtime's.
    """
    kept = output / f"{plan.part}.onnx"
    with tempfile.TemporaryDirectory(prefix=".build_", dir=output) as directory:
        file = Path(directory) / kept.name
        yield file
        if plan.precision.built == "fp16" and not kept.exists():
            # The weights come first, so that a graph is never there without them.
            for made in sorted(Path(directory).iterdir(), key=lambda path: path == file):
                made.replace(output / made.name)


def _write(file: Path, built: BuiltEngine) -> int:
    """Writes the engine in place of an older one, whose sidecar and kernels are removed first. Returns its bytes."""
    sidecar_file(file).unlink(missing_ok=True)
    shutil.rmtree(runtime_cache_directory(file), ignore_errors=True)
    write_bytes(file, built.contents)
    return file.stat().st_size


def _sidecar(
    plan: _EnginePlan,
    request: BuildRequest,
    model: ModelConfig,
    built: BuiltEngine,
    calibration: str,
    size: int,
    seconds: float,
) -> EngineSidecar:
    machine = this_machine()
    capability = format_capability(plan.target.capability)
    return EngineSidecar(
        file=plan.file,
        part=plan.part,
        flavour=machine.flavour,
        version=machine.version,
        compute_capabilities=(capability,),
        target=capability,
        engine_sha256=hash_file(request.output / plan.file),
        engine_bytes=size,
        weights_sha256=plan.weights_sha256,
        graph_sha256=plan.graph_sha256,
        precision_asked=plan.precision.asked,
        precision_built=plan.precision.built,
        precision_reason=plan.precision.reason,
        fp8_form=plan.fp8_form,
        calibration=calibration,
        profiles=profiles(plan.part, plan.sizes, model),
        max_prompt=plan.sizes.max_prompt if plan.part == TEXT else 0,
        max_context=plan.sizes.max_context if plan.part == TEXT else 0,
        max_tiles=plan.sizes.max_tiles if plan.part == VISION else 0,
        activation_bytes=built.activation_bytes,
        build_seconds=round(seconds, 1),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
