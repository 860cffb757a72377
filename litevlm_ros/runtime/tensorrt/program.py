"""TensorRT engines, and programs made of them: an engine at fixed shapes and addresses, run as one CUDA graph.

A program has an execution context of its own, because a captured graph may refer to what its context holds for the
shapes it was captured with. Contexts share the engine's weights and one block of working memory, so they are cheap.
TensorRT-RTX compiles kernels for the shapes of each context and keeps them in files (`RuntimeCache`).
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litevlm_ros.engines.tensorrt_module import load_tensorrt, tensorrt_logger
from litevlm_ros.errors import EngineError
from litevlm_ros.files import write_bytes
from litevlm_ros.model_directory import runtime_cache_directory
from litevlm_ros.runtime.tensorrt.device import CudaDevice, CudaGraph
from litevlm_ros.runtime.tensorrt.engine_files import EngineFile
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Scratch

_LOGGER = logging.getLogger(__name__)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine. Sizes that vary are -1; `dtype` is TensorRT's name for it, such as 'HALF'."""

    dtype: str
    shape: Shape


class Engine:
    """A loaded engine, which all its programs share."""

    def __init__(self, file: EngineFile, device: CudaDevice, memory: DeviceMemory, scratch: Scratch) -> None:
        """Loads the engine. Raises EngineError, with the command that builds it again, if TensorRT refuses it."""
        self.file = file
        self.device = device
        self.scratch = scratch
        tensorrt = load_tensorrt()
        self._trt = tensorrt.module
        logger, self._messages = tensorrt_logger()
        started = time.monotonic()
        title = f"{file.sidecar.part.replace('_', ' ')} weights"
        with memory.measured(title):
            self._runtime = self._trt.Runtime(logger)
            self._engine = self._deserialize()
            if self._engine is None:
                raise self._broken(f"TensorRT does not load it: {self._messages.take()}")
            device.driver.Context.synchronize()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.tensors = {name: self._tensor(name) for name in names}
        self.profiles = range(self._engine.num_optimization_profiles)
        _LOGGER.debug("%s loaded in %.1f s", file.path, time.monotonic() - started)

    @property
    def rebuild_command(self) -> str:
        """The command that builds this engine again."""
        return self.file.sidecar.command(self.file.path.parent)

    def limits(self, name: str, profile: int) -> tuple[int, int]:
        """Returns the smallest and the largest first dimension that an input has in a profile."""
        least, _, most = self._engine.get_tensor_profile_shape(name, profile)
        return int(least[0]), int(most[0])

    def check(self, expected: Mapping[str, Sequence[int | str]]) -> None:
        """Raises EngineError unless the engine has exactly these tensors; texts stand for sizes that vary."""
        if self.tensors.keys() != expected.keys():
            raise self._broken(f"it has other inputs or outputs than this version expects "
                               f"({', '.join(sorted(self.tensors.keys() ^ expected.keys()))})")  # fmt: skip
        for name, shape in expected.items():
            found = self.tensors[name].shape
            if len(found) != len(shape) or any(
                not isinstance(size, str) and there not in (-1, size) for size, there in zip(shape, found, strict=True)
            ):
                raise self._broken(f"it belongs to another model than the config.json files beside it: {name} is "
                                   f"{list(found)} instead of {list(shape)}")  # fmt: skip

    def program(
        self,
        profile: int,
        shapes: Mapping[str, Shape],
        addresses: Mapping[str, int],
        then: Callable[[], None] | None = None,
    ) -> Program:
        """Makes a program: inputs of these shapes, all tensors at these addresses, and behind it what `then` enqueues.

        The engine runs once within this call, on whatever the inputs hold. Raises EngineError.
        """
        started = time.monotonic()
        settings, cache = self._settings(cache_name(profile, shapes))
        context = self._context(settings)
        stream = self.device.stream.handle
        if not context.set_optimization_profile_async(profile, stream):
            raise self._failed(f"has no profile {profile}")
        self.device.wait()
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise self._failed(f"does not take {name} of {list(shape)}")
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise self._failed(f"does not take the address of {name}")
        missing = context.infer_shapes()
        if missing:
            raise self._failed(f"lacks the shape of {', '.join(missing)}")
        context.set_device_memory(*self.scratch.at_least(int(context.update_device_memory_size_for_shapes())))
        program = Program(self, context, settings, then)
        if cache is not None:
            cache.save()
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items() if "." not in name)
        _LOGGER.debug("%s for %s in %.2f s", self.file.path.name, sizes, time.monotonic() - started)
        return program

    def enqueue(self, context: Any) -> None:
        """Enqueues one run of a program's `context`. Raises EngineError."""
        if not context.execute_async_v3(self.device.stream.handle):
            raise self._failed("did not run")

    def close(self) -> None:
        """Frees the weights. All programs must be closed."""
        del self._engine, self._runtime

    def _deserialize(self) -> Any:
        try:
            with (
                self.file.path.open("rb") as opened,
                mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as contents,
            ):
                return self._runtime.deserialize_cuda_engine(contents)
        except OSError as error:
            raise EngineError(f"{self.file.path} cannot be read: {error.strerror}; correct its permissions") from error

    def _settings(self, name: str) -> tuple[Any, RuntimeCache | None]:
        """Returns what contexts are made with: TensorRT-RTX's settings and their cache `name`, or a strategy alone."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(self._engine, "create_runtime_config"):  # only TensorRT-RTX compiles when an engine runs
            return strategy, None
        settings = self._engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(strategy)
        # A program has one set of shapes, so it is worth the best kernels for them.
        kernels = self._trt.DynamicShapesKernelSpecializationStrategy
        settings.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
        return settings, RuntimeCache(settings, runtime_cache_directory(self.file.path) / name)

    def _context(self, settings: Any) -> Any:
        context = self._engine.create_execution_context(settings)
        if context is None:
            raise self._failed("gives no execution context")
        return context

    def _tensor(self, name: str) -> Tensor:
        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        return Tensor(self._engine.get_tensor_dtype(name).name, shape)

    def _failed(self, what: str) -> EngineError:
        return EngineError(f"{self.file.path.name} {what}: {self._messages.take()}")

    def _broken(self, what: str) -> EngineError:
        return EngineError(f"{self.file.path} cannot be used, {what}; build it again with `{self.rebuild_command}`")


class Program:
    """An engine at fixed shapes and addresses; see `Engine.program`."""

    def __init__(self, engine: Engine, context: Any, settings: Any, then: Callable[[], None] | None) -> None:
        self._engine = engine
        self._context = context
        self._settings = settings  # the context refers to them without keeping them alive
        self._then = then
        # The first run compiles and allocates, which a capture must not see.
        engine.enqueue(context)
        engine.device.wait()
        self._graph = self._capture()

    def run(self) -> None:
        """Enqueues the engine and what follows it. Raises EngineError."""
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()

    def close(self) -> None:
        """Frees graph and context. The program must not be running."""
        if self._graph is not None:
            self._graph.close()
        self._graph = self._context = self._settings = None

    def _enqueue(self) -> None:
        self._engine.enqueue(self._context)
        if self._then is not None:
            self._then()

    def _capture(self) -> CudaGraph | None:
        device, capturable = self._engine.device, getattr(self._context, "is_stream_capturable", None)
        if capturable is None or capturable(device.stream.handle):
            try:
                return CudaGraph(device, self._enqueue)
            except EngineError as error:
                reason = str(error)
        else:
            reason = "TensorRT says that it cannot be captured"
        _LOGGER.warning("%s runs without a CUDA graph, which is slower: %s", self._engine.file.path.name, reason)
        return None


class RuntimeCache:
    """The kernels that TensorRT-RTX compiled for one program, kept in a file for the next start.

    Each program has a cache of its own: with a common one, TensorRT-RTX 1.4 gives a program the kernels that it
    compiled for other shapes, which took 1.7 times as long for single tokens of Qwen2-0.5B on an H200.
    """

    def __init__(self, settings: Any, file: Path) -> None:
        """Attaches a cache with the contents of `file`, if there is one, to the runtime configuration `settings`."""
        self._file = file
        self._cache = settings.create_runtime_cache()
        # TensorRT refuses a file that is damaged or of another version; it is written anew then.
        self._before = b""
        with contextlib.suppress(OSError):
            self._before = file.read_bytes()
            self._cache.deserialize(self._before)
        settings.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Writes the file if there is anything new. A file that cannot be written only costs time at the next start."""
        contents = bytes(self._cache.serialize())
        if len(contents) == len(self._before):
            return
        try:
            self._file.parent.mkdir(exist_ok=True)
            write_bytes(self._file, contents)
        except OSError as error:
            _LOGGER.info("%s cannot be written (%s), so kernels are compiled at each start", self._file, error)


def cache_name(profile: int, shapes: Mapping[str, Shape]) -> str:
    """Returns the file name of a program's cache: its profile and the first dimensions of its inputs.

    Inputs that each layer has, such as past_key.0, count once.
    """
    sizes = {name.partition(".")[0]: shape[0] for name, shape in sorted(shapes.items())}
    return f"{profile}-" + "-".join(str(size) for size in sizes.values())
