"""Builds a serialized engine from an ONNX graph.

Engines are strongly typed: they compute in the types of the graph, with every TensorRT from 10.3 on. TensorRT builds
for the GPU at hand. TensorRT-RTX also builds without one, for the compute capability it is told.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litevlm_ros.engines.sidecar import Profile
from litevlm_ros.engines.tensorrt_module import load_tensorrt, tensorrt_logger
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.files import write_bytes
from litevlm_ros.machine import find_device, format_capability

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """The GPUs that an engine is built for. `name` is TensorRT-RTX's for them; '' where the GPU at hand decides."""

    capability: tuple[int, int]
    name: str = ""


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine, and the bytes that TensorRT reserves besides its weights (0 if it does not say)."""

    contents: Any
    """The engine, as an object with the buffer protocol: TensorRT's own memory, not a copy."""
    activation_bytes: int


def find_target(asked: tuple[int, int] | None) -> Target:
    """Finds the target for a compute capability; None stands for the GPU at hand.

    Raises ConfigError if the installed TensorRT cannot build for it here, and EngineError if there is no TensorRT.
    """
    tensorrt, device = load_tensorrt(), find_device()
    here = device.compute_capability if device else None
    wanted = asked or here
    if wanted is None:
        hint = "say for which with --target-sm, such as 89" if tensorrt.is_rtx else "build on the machine with the GPU"
        raise ConfigError(f"there is no NVIDIA GPU here to build for, or its driver does not start; {hint}")
    if wanted == here:
        return Target(wanted, "CURRENT" if tensorrt.is_rtx else "")
    if not tensorrt.is_rtx:
        found = f"the GPU here is {format_capability(here)}" if here else "there is no GPU here"
        raise ConfigError(f"target-sm is {format_capability(wanted)} and {found}; {tensorrt.title} builds only for the "
                          "GPU it runs on. Leave --target-sm out there, or install TensorRT-RTX")  # fmt: skip
    name = f"SM{wanted[0]}{wanted[1]}"
    known = [each for each in tensorrt.module.ComputeCapability.__members__ if each.startswith("SM")]
    if name not in known:
        raise ConfigError(f"target-sm is {format_capability(wanted)}; {tensorrt.title} builds for "
                          f"{', '.join(each[2:-1] + '.' + each[-1] for each in known)} and the GPU at hand. A Jetson's "
                          "engines are built on a Jetson, by JetPack's TensorRT")  # fmt: skip
    return Target(wanted, name)


def check_precision(precision: str) -> None:
    """Raises ConfigError if the installed TensorRT cannot build engines of this precision here."""
    tensorrt = load_tensorrt()
    if precision != "fp16" and tensorrt.is_rtx and find_device() is None:
        raise ConfigError(
            f"precision is {precision}; without a GPU, {tensorrt.title} builds fp16 only, as it computes quantized "
            "weights on one. Build on the machine with the GPU, or use --precision fp16"
        )


def build_engine(
    graph: Path,
    profiles: Sequence[Profile],
    target: Target,
    *,
    workspace_mib: int = 0,
    timing_cache: Path | None = None,
    quiet: bool = False,
) -> BuiltEngine:
    """Builds the engine of the file `graph`.

    `workspace_mib` bounds the memory that TensorRT may use for a layer, in MiB (0: no bound). `timing_cache` keeps
    what TensorRT measured for the next build, where TensorRT measures at all. Raises EngineError with TensorRT's own
    reason, and KeyboardInterrupt.
    """
    trt = load_tensorrt().module
    logger, messages = tensorrt_logger()
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"TensorRT does not read {graph.name}: {reasons or messages.take()}")
    config = builder.create_builder_config()
    if workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    if target.name:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target.name), 0)
    for profile in profiles:
        _add_profile(builder, network, config, profile)
    with _timing_cache(config, timing_cache), _progress(config, quiet) as stop:
        contents = _interruptible(lambda: builder.build_serialized_network(network, config), stop)
    if contents is None:
        raise EngineError(f"TensorRT does not build {graph.name}: {messages.take()}")
    return BuiltEngine(contents, _activation_bytes(trt, logger, contents))


def _strongly_typed(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    # Where the flag is gone, networks are never anything else.
    return 1 << int(flag) if flag is not None else 0


def _add_profile(builder: Any, network: Any, config: Any, sizes: Profile) -> None:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        limits = sizes.shapes.get(tensor.name.partition(".")[0])
        if limits is not None:
            profile.set_shape(tensor.name, *((size, *tuple(tensor.shape)[1:]) for size in limits))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT refuses the profile {sizes.name} with {sizes.shapes}")


def progress_monitor(*, quiet: bool = False) -> Any:
    """Makes a monitor for `IBuilderConfig.progress_monitor`, whose `stop()` lets TensorRT end the build early.

    It draws one bar for each phase, nested as the phases are. Bars appear on a terminal only, so a log gets no
    half-drawn lines; `quiet` leaves them out altogether.
    """
    from tqdm import tqdm

    trt = load_tensorrt().module

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        """Called by TensorRT from its own threads, one at a time for each phase."""

        def __init__(self) -> None:
            super().__init__()
            self._bars: dict[str, Any] = {}
            self._stopped = False

        def stop(self) -> None:
            self._stopped = True
            for name in list(self._bars):
                self.phase_finish(name)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self._stopped:
                return
            depth = len(self._bars)
            self._bars[phase_name] = tqdm(
                total=num_steps,
                desc="  " * depth + phase_name,
                position=depth,
                leave=False,
                disable=True if quiet else None,
            )

        def step_complete(self, phase_name: str, step: int) -> bool:
            bar = self._bars.get(phase_name)
            if bar is not None:
                bar.update(step + 1 - bar.n)
            return not self._stopped

        def phase_finish(self, phase_name: str) -> None:
            bar = self._bars.pop(phase_name, None)
            if bar is not None:
                bar.close()

    return Monitor()


@contextlib.contextmanager
def _progress(config: Any, quiet: bool) -> Iterator[Callable[[], None]]:
    """Shows the progress of a build with `config`, and yields a function that ends it early."""
    monitor = progress_monitor(quiet=quiet)
    config.progress_monitor = monitor
    try:
        yield monitor.stop
    finally:
        monitor.stop()


def _interruptible(work: Callable[[], Any], stop: Callable[[], None]) -> Any:
    """Runs `work` in another thread, so that Ctrl-C reaches this one, and returns its result.

    TensorRT's calls last minutes and swallow KeyboardInterrupt. After an interrupt this calls `stop`, waits for `work`
    to end, and raises KeyboardInterrupt.
    """
    with ThreadPoolExecutor(1, "build") as thread:
        try:
            return thread.submit(work).result()
        except KeyboardInterrupt:
            stop()
            _LOGGER.warning("interrupted: TensorRT stops at its next step")
            raise


@contextlib.contextmanager
def _timing_cache(config: Any, file: Path | None) -> Iterator[None]:
    """Gives a build with `config` what TensorRT measured before, from `file`, and writes back what it measures now.

    A file that cannot be written costs time at the next build, no more. TensorRT-RTX measures nothing when it builds.
    """
    if file is None or load_tensorrt().is_rtx:
        yield
        return
    before = b""
    with contextlib.suppress(OSError):
        before = file.read_bytes()
    cache = config.create_timing_cache(before) or config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    yield
    after = bytes(config.get_timing_cache().serialize())
    if after == before:
        return
    try:
        write_bytes(file, after)
    except OSError as error:
        _LOGGER.warning("%s cannot be written (%s), so the next build measures again", file, error)


def _activation_bytes(trt: Any, logger: Any, contents: Any) -> int:
    """Returns what `BuiltEngine.activation_bytes` is. That takes a GPU, because it takes a loaded engine."""
    if find_device() is None:
        return 0
    engine = trt.Runtime(logger).deserialize_cuda_engine(contents)
    return int(engine.device_memory_size_v2) if engine is not None else 0
