"""Engines of a model directory: which of them must be built, and building them with their sidecars."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from litevlm_ros.engines.fingerprint import hash_file, hash_sources, hash_weights, this_machine
from litevlm_ros.engines.memory import build_memory, check_memory
from litevlm_ros.engines.onnx_to_engine import BuiltEngine, Target, build_engine, check_precision, find_target
from litevlm_ros.engines.profiles import Sizes, profiles
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import format_capability
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import (
    TEXT,
    VISION,
    copy_description,
    engine_name,
    runtime_cache_directory,
    sidecar_file,
)
from litevlm_ros.precision import FP8_FORMS, Precision, choose_precision

Report = Callable[[str], object]
"""Called with each line for the person who waits."""

TIMING_CACHE = "timing.cache"
"""File in the output directory with what TensorRT measured."""

_PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Request:
    """What to build. `precisions` has the parts to build with the precision asked for each.

    `images` is a directory of pictures to calibrate with. `target` is a compute capability, None for the GPU at hand.
    `fp8_form` is one of FP8_FORMS.
    """

    model: Path
    output: Path
    precisions: dict[str, str]
    sizes: Sizes
    target: tuple[int, int] | None = None
    images: Path | None = None
    fp8_form: str = FP8_FORMS[0]
    workspace_mib: int = 0
    force: bool = False
    strict: bool = False
    check_memory: bool = True


@dataclass(frozen=True)
class _Plan:
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


def build_engines(request: Request, report: Report = print) -> list[Path]:
    """The engine files of all parts, built where needed. Raises LiteVLMError; what was built before stays."""
    model = ModelConfig.from_directory(request.model)
    sizes = request.sizes.checked(model)
    capability = request.target or find_target(None).capability
    chosen = {part: choose_precision(part, asked, capability, strict=request.strict)
              for part, asked in request.precisions.items()}  # fmt: skip
    for part, precision in chosen.items():
        if precision.reason:
            report(f"{part}: {precision.asked} was asked for, {precision.built} is built, because {precision.reason}")
    target = find_target(request.target)
    plans = []
    for part, precision in chosen.items():
        check_precision(precision.built)
        weights = hash_weights(request.model / part)
        form = request.fp8_form if precision.built == "fp8" else ""
        plans.append(_Plan(part, precision, target, sizes, weights, graph_hash(part, precision.built), form))
    files = []
    for plan in plans:
        reason = "--force" if request.force else _reason_to_build(plan, request, model)
        if not reason:
            report(f"{plan.file}: up to date")
        else:
            report(f"{plan.file}: building ({reason})")
            with _full_disk_explained(request.output / plan.file):
                _build(plan, request, model, report)
        files.append(request.output / plan.file)
    return files


def graph_hash(part: str, precision: str) -> str:
    """Hash of the code that draws the graph of `part`; quantization counts where it is used."""
    names = ["convert/onnx_graphs.py", "convert/engine_graph.py", "engines/profiles.py"]
    names.append("convert/intern_vit.py" if part == VISION else "convert/qwen2.py")
    if precision != "fp16":
        quantizing = ("calibration", "quantization", "quantized_graph", "quantized_weights")
        names += [f"convert/{name}.py" for name in quantizing]
    return hash_sources(_PACKAGE / name for name in names)


def _reason_to_build(plan: _Plan, request: Request, model: ModelConfig) -> str:
    """Why the engine that is there, if any, is not the one that is asked for; '' if it is."""
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
    if sidecar.calibration and request.images is not None:
        return "calibration images were given"
    damage = sidecar.check_file(file)
    return damage[0].partition(";")[0] if damage else ""


def _build(plan: _Plan, request: Request, model: ModelConfig, report: Report) -> None:
    try:
        # Imported here: engines that are up to date need no torch.
        from litevlm_ros.convert.engine_graph import write_engine_graph
    except ImportError as error:
        raise EngineError(f"engines are built from graphs, which need torch, onnx and onnxscript ({error}); install "
                          "them with `pip install 'litevlm_ros[convert]'`") from error  # fmt: skip
    if request.check_memory:
        check_memory(plan.part, build_memory(_weight_bytes(request.model / plan.part)))
    request.output.mkdir(parents=True, exist_ok=True)
    copy_description(request.model, request.output)
    started = time.monotonic()
    with _graph_file(request.output, plan) as file:
        graph = write_engine_graph(plan.part, request.model, plan.precision.built, file, request.images, plan.fp8_form)
        for note in graph.notes:
            report(f"{plan.file}: {note}")
        exported = time.monotonic() - started
        report(f"{plan.file}: graph drawn in {exported:.0f} s")
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
    report(f"{plan.file}: {size / 1e6:.0f} MB in {seconds:.0f} s for compute capability "
           f"{format_capability(plan.target.capability)}")  # fmt: skip


@contextmanager
def _full_disk_explained(file: Path) -> Iterator[None]:
    """For everything that a build writes: graph, engine and sidecar."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        raise EngineError(f"{file} cannot be written ({error.strerror}); make room on the disk, or give --output "
                          "another directory") from error  # fmt: skip


def _weight_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


@contextmanager
def _graph_file(output: Path, plan: _Plan) -> Iterator[Path]:
    """Where to draw the graph: it stays as `<part>.onnx` if there is no other, which may be ONNX Runtime's."""
    kept = output / f"{plan.part}.onnx"
    with tempfile.TemporaryDirectory(prefix=".build_", dir=output) as directory:
        file = Path(directory) / kept.name
        yield file
        if plan.precision.built == "fp16" and not kept.exists():
            # Data first: a graph is never there without it.
            for made in sorted(Path(directory).iterdir(), key=lambda path: path == file):
                made.replace(output / made.name)


def _write(file: Path, built: BuiltEngine) -> int:
    """Puts the engine in its place; never half of it, and never beside the sidecar of another. Returns its bytes."""
    sidecar_file(file).unlink(missing_ok=True)
    shutil.rmtree(runtime_cache_directory(file), ignore_errors=True)
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with unfinished.open("wb") as opened:
            size = opened.write(built.contents)
            opened.flush()
            os.fsync(opened.fileno())
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    return size


def _sidecar(
    plan: _Plan,
    request: Request,
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
