"""The plans of an engine file, ready to be enqueued.

Each plan is one block at one number of rows. Its execution context is made when it is first needed, is given other
addresses before each layer, and is freed when no program uses the block any more. Plans share one block of working
memory, as they run one after the other.

A plan for a size that nobody foresaw is built here, which takes seconds, and is kept in a directory beside the engine
file. So are the kernels that TensorRT-RTX compiles for plans that were built on a machine without this GPU.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from litevlm_ros.engines.block_graph import UNIT
from litevlm_ros.engines.kernel_compiler import runtime_settings
from litevlm_ros.engines.plan_archive import PlanArchive, PlanKey
from litevlm_ros.engines.plan_builder import build_plan
from litevlm_ros.engines.sidecar import rebuild_command
from litevlm_ros.engines.target import find_target
from litevlm_ros.engines.tensorrt_module import load_tensorrt, tensorrt_logger
from litevlm_ros.errors import EngineError
from litevlm_ros.precision import computed_in, precision_flag
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.memory import Room

_LOGGER = logging.getLogger(__name__)

_DIGITS = 12
"""The digits of a graph's SHA-256 in a file's name."""


class BlockPlans:
    """The blocks of one engine file. The device must be current in every call."""

    def __init__(
        self, archive: PlanArchive, device: CudaDevice, scratch: Room, check: BlockCheck | None = None
    ) -> None:
        """Each block is checked by `check`, if there is one, before anybody gets it."""
        self._check = check
        self._archive = archive
        self._device = device
        self._scratch = scratch
        self._logger, self._messages = tensorrt_logger()
        self._runtime: Any = load_tensorrt().module.Runtime(self._logger)
        self._kept = KeptFiles(archive.file)
        self._blocks: WeakValueDictionary[PlanKey, PlanBlock] = WeakValueDictionary()
        scratch.on_move(self._place)

    def block(self, name: str, rows: int, columns: int = 0) -> PlanBlock:
        """Returns the block `name` for so many rows, and columns where it has any.

        Raises EngineError if TensorRT does not load or build its plan, or computes it wrong.
        """
        key = PlanKey(name, rows, columns)
        block = self._blocks.get(key)
        if block is None:
            started = time.monotonic()
            block = self._blocks[key] = self._load(key)
            _LOGGER.debug("%s: %s ready in %.2f s", self._archive.file.name, key, time.monotonic() - started)
        return block

    def holds(self, name: str, rows: int) -> bool:
        """Tells whether the engine file has a plan of the block `name` for so many rows, which need not be built."""
        return PlanKey(name, rows) in self._archive.keys

    def close(self) -> None:
        """Frees all blocks. None of them may be running."""
        for block in list(self._blocks.values()):
            block.close()
        del self._runtime

    def _place(self) -> None:
        for block in list(self._blocks.values()):
            block.place()

    def _load(self, key: PlanKey) -> PlanBlock:
        if key in self._archive.keys:
            engine = self._runtime.deserialize_cuda_engine(self._archive.plan(key))
        else:
            engine = self._unforeseen(key)
        kernels = self._kept.read(f"{self._stem(key)}.kernels") or self._archive.kernels(key)
        if engine is None:
            raise EngineError(
                f"{self._archive.file}: TensorRT does not load its plan {key}: {self._messages.take()}; build it again "
                f"with `{rebuild_command(self._archive.file)}`"
            )
        settings, cache = runtime_settings(engine, bytes(kernels))
        block = PlanBlock(self._name(key), engine, settings, self._device, self._shapes(engine, key), self._scratch)
        wrong = self._check.wrong(key.block, key.rows, block) if self._check else ""
        if wrong:
            flag = precision_flag(self._archive.part)
            other = "fp16" if computed_in(self._archive.precision) == "bf16" else "bf16"
            raise EngineError(
                f"TensorRT does not compute the plan {key} of {self._archive.file.name} right on {self._device.name}: "
                f"{wrong}. Build engines in another precision, such as `ros2 run litevlm_ros build_engines {flag} "
                f"{other}`, or set backend to onnxruntime"
            )
        if cache is not None:
            compiled = bytes(cache.serialize())
            if len(compiled) != len(kernels):  # TensorRT-RTX compiles if they are damaged or of another version
                self._kept.write(f"{self._stem(key)}.kernels", compiled)
        return block

    def _unforeseen(self, key: PlanKey) -> Any:
        """Returns the engine of a plan that the archive lacks: the kept one if TensorRT loads it, or a new one."""
        kept = self._kept.read(f"{self._stem(key)}.plan")
        engine = self._runtime.deserialize_cuda_engine(kept) if kept else None
        return engine if engine is not None else self._runtime.deserialize_cuda_engine(self._build(key))

    def _stem(self, key: PlanKey) -> str:
        """Returns the name of kept files, which tells a plan from those of another model or version."""
        graph = self._archive.graphs.get(key.block, b"")
        return f"{key}-{hashlib.sha256(graph).hexdigest()[:_DIGITS]}"

    def _shapes(self, engine: Any, key: PlanKey) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each input of a plan, which its only profile fixes."""
        trt = load_tensorrt().module
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        return {name: tuple(engine.get_tensor_profile_shape(name, 0)[2]) for name in inputs}

    def _build(self, key: PlanKey) -> bytes:
        graph = self._archive.graphs.get(key.block)
        if graph is None:
            raise EngineError(
                f"{self._archive.file} has no graph of {key.block!r}; build it again with "
                f"`{rebuild_command(self._archive.file)}`"
            )
        _LOGGER.info("%s: building a plan for %s, once", self._archive.file.name, key)
        plan = build_plan(graph, key, find_target(None))
        self._kept.write(f"{self._stem(key)}.plan", plan)
        return plan

    def _name(self, key: PlanKey) -> str:
        return f"{Path(self._archive.file).name}, {key}"


class PlanBlock(Block):
    """One plan with its execution context."""

    def __init__(
        self,
        name: str,
        engine: Any,
        settings: Any,
        device: CudaDevice,
        shapes: Mapping[str, tuple[int, ...]],
        scratch: Room,
    ) -> None:
        """Makes the context, for which TensorRT-RTX compiles what `settings` do not know. Raises EngineError."""
        self._name = name
        self._device = device
        self._engine = engine
        self._settings = settings  # the context refers to them without keeping them alive
        _, self._messages = tensorrt_logger()
        self._context: Any = engine.create_execution_context(settings)
        if self._context is None:
            raise self._failed("gives no execution context")
        for tensor, shape in shapes.items():
            if not self._context.set_input_shape(tensor, shape):
                raise self._failed(f"does not take {tensor} of {list(shape)}")
        missing = self._context.infer_shapes()
        if missing:
            raise self._failed(f"lacks the shape of {', '.join(missing)}")
        self.reads_unit = UNIT in shapes
        self._scratch = scratch
        self._scratch_bytes = int(self._context.update_device_memory_size_for_shapes())
        self.place()

    def place(self) -> None:
        """Gives the context the working memory that there is now, and more of it if that is too little."""
        self._context.set_device_memory(*self._scratch.at_least(self._scratch_bytes))

    def enqueue(self, addresses: Mapping[str, int]) -> None:
        """See Block. All tensors of the plan must have an address."""
        for tensor, address in addresses.items():
            if not self._context.set_tensor_address(tensor, address):
                raise self._failed(f"does not take the address of {tensor}")
        if not self._context.execute_async_v3(self._device.stream.handle):
            raise self._failed("did not run")

    def close(self) -> None:
        """Frees the context, and then what it refers to. The block must not be running."""
        self._context = None
        self._settings = self._engine = None

    def __del__(self) -> None:
        self.close()

    def _failed(self, what: str) -> EngineError:
        return EngineError(f"{self._name} {what}: {self._messages.take()}")
