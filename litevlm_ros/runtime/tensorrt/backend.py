"""Loads both engines of a model and its weights on one GPU, as a backend."""

from __future__ import annotations

import atexit
import contextlib
import logging
import time
from dataclasses import dataclass

from litevlm_ros.backend import Backend, Tiler
from litevlm_ros.config import PipelineConfig, TokenSelectionConfig
from litevlm_ros.engines.graphs import block_graphs
from litevlm_ros.engines.plan_archive import PlanArchive
from litevlm_ros.engines.shapes import next_size, prompt_rows
from litevlm_ros.engines.tensorrt_module import load_tensorrt
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.precision import computed_in
from litevlm_ros.runtime.kv_cache import context_capacity
from litevlm_ros.runtime.tensorrt.attention import TextAttention, VisionAttention
from litevlm_ros.runtime.tensorrt.block_check import BlockCheck
from litevlm_ros.runtime.tensorrt.block_choice import BlockChoice
from litevlm_ros.runtime.tensorrt.block_race import BlockRace
from litevlm_ros.runtime.tensorrt.decode_choice import choose_decode_steps
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.engine_files import EngineFile, find_engine
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.kernels.text import TextKernels
from litevlm_ros.runtime.tensorrt.kernels.tiling import TILED_ENCODINGS
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room, gigabytes
from litevlm_ros.runtime.tensorrt.plans import BlockPlans
from litevlm_ros.runtime.tensorrt.preprocessing import DeviceTiler
from litevlm_ros.runtime.tensorrt.text import TensorRTTextDecoder
from litevlm_ros.runtime.tensorrt.text_blocks import TextBlocks
from litevlm_ros.runtime.tensorrt.text_buffers import TextBuffers
from litevlm_ros.runtime.tensorrt.text_layers import TextLayers
from litevlm_ros.runtime.tensorrt.text_programs import BlockPrograms
from litevlm_ros.runtime.tensorrt.token_selection import DeviceTokenSelector
from litevlm_ros.runtime.tensorrt.vision import TensorRTVisionEncoder
from litevlm_ros.runtime.tensorrt.vision_blocks import VisionBlocks
from litevlm_ros.runtime.tensorrt.weights import load_text_weights, load_vision_weights

LIBRARIES = "plans and libraries"
"""The purpose of device memory that TensorRT and cuDNN take for themselves."""

_LOGGER = logging.getLogger(__name__)


def load(config: PipelineConfig, model: ModelConfig) -> Backend:
    """Loads both engines of `config`, checked against their sidecars, the model and the weights beside them.

    Raises EngineError that says why an engine cannot be used and how to build it again, CheckpointError if weights are
    missing or do not fit, and ConfigError if `config.max_context` is more than the text decoder was built for. What was
    allocated until then is freed.
    """
    files = {part: find_engine(config, part) for part in (VISION, TEXT)}
    for file in files.values():
        for reason in (
            *file.sidecar.check_weights(config.model_dir),
            *file.sidecar.check_graph(model, config.model_dir),
        ):
            raise EngineError(reason)
    capacity = _capacity(config, model, files[TEXT])
    device = CudaDevice(spin=config.spin_threads)
    resources = contextlib.ExitStack()

    def close() -> None:
        atexit.unregister(close)
        with device:
            resources.close()
        device.close()

    try:
        with contextlib.ExitStack() as reading, device:
            for file in files.values():
                reading.enter_context(file.sidecar.unchanged(file.path, config.model_dir))
            loading = _Loading(config, model, files, device, resources)
            vision, text, memory = loading.load(capacity)
    except BaseException:
        close()
        raise
    # A program that ends without closing must not leave engines to be freed behind the driver.
    atexit.register(close)

    def token_selector(selection: TokenSelectionConfig) -> DeviceTokenSelector:
        selector = DeviceTokenSelector(selection, model, vision, device, memory)
        resources.callback(selector.close)
        return selector

    def tiler(of: ModelConfig, max_tiles: int) -> Tiler:
        with device:
            made = DeviceTiler(device, memory, of, max_tiles)
        resources.callback(made.close)
        return made

    return Backend(
        name="tensorrt",
        description=_description(device, files, capacity),
        vision=vision,
        text=text,
        close=close,
        memory=memory.by_purpose,
        token_selector=token_selector,
        tiler=tiler,
        raw_encodings=TILED_ENCODINGS,
        fingerprints={file.path.name: file.sidecar.engine_sha256 for file in files.values()},
    )


@dataclass(frozen=True)
class _Loading:
    """One load. Everything that it makes is freed when `resources` is closed."""

    config: PipelineConfig
    model: ModelConfig
    files: dict[str, EngineFile]
    device: CudaDevice
    resources: contextlib.ExitStack

    def load(self, capacity: int) -> tuple[TensorRTVisionEncoder, TensorRTTextDecoder, DeviceMemory]:
        """Loads weights and plans, and makes the programs that every answer needs."""
        started = time.monotonic()
        free, total = self.device.memory()
        _LOGGER.info("%s: %s of %s free before loading", self.device.name, gigabytes(free), gigabytes(total))
        memory = DeviceMemory(self.device)
        self.resources.callback(memory.free)
        scratch = Room(self.device, memory, "blocks' working memory")
        vision = self._vision(memory, scratch)
        text = self._text(memory, scratch, capacity, visual_is_bf16=vision.dtype == "bf16")
        self.resources.callback(self.device.wait)  # for decode steps that ran ahead of the last answer
        with memory.measured(LIBRARIES):
            vision.prepare()
            text.prepare()
        _LOGGER.info(
            "Loaded in %.1f s: %s; %s free now",
            time.monotonic() - started,
            ", ".join(f"{purpose} {gigabytes(size)}" for purpose, size in memory.by_purpose().items()),
            gigabytes(self.device.memory()[0]),
        )
        return vision, text, memory

    def _vision(self, memory: DeviceMemory, scratch: Room) -> TensorRTVisionEncoder:
        sidecar = self.files[VISION].sidecar
        computed = computed_in(sidecar.precision_built)
        archive, plans, choice = self._plans(VISION, memory, scratch)
        weights = load_vision_weights(self.config.model_dir, self.model, archive, self.device, memory)
        self.resources.callback(weights.close)
        attention = VisionAttention(self.device, memory, plans, self.model.vision, computed)
        self.resources.callback(attention.close)
        blocks = VisionBlocks(self.model, choice, self.device, scratch, computed)
        self.resources.callback(blocks.close)
        encoder = TensorRTVisionEncoder(
            self.model, blocks, weights, attention, self.device, memory,
            precision=sidecar.precision_built, computed=computed, max_tiles=sidecar.max_tiles,
        )  # fmt: skip
        self.resources.callback(encoder.close)
        scratch.on_move(encoder.forget_graphs)
        return encoder

    def _text(self, memory: DeviceMemory, scratch: Room, capacity: int, *, visual_is_bf16: bool) -> TensorRTTextDecoder:
        sidecar, config = self.files[TEXT].sidecar, self.model.text
        computed = computed_in(sidecar.precision_built)
        archive, plans, choice = self._plans(TEXT, memory, scratch)
        weights = load_text_weights(self.config.model_dir, self.model, archive, self.device, memory)
        self.resources.callback(weights.close)
        kernels = TextKernels(self.device, config, computed)
        self.resources.callback(kernels.close)
        # A size that there are plans for, also where the cache is smaller than the engine's largest prompt.
        most_new = next_size(min(sidecar.max_prompt, capacity), prompt_rows(sidecar.max_prompt))
        buffers = TextBuffers(config, capacity, most_new, capacity, self.device, memory)
        attention = TextAttention(self.device, memory, plans, config, computed, buffers.cache_rows)
        self.resources.callback(attention.close)
        head_is_packed = bool(weights.head.packing)
        blocks = TextBlocks(config, choice, self.device, scratch, computed, head_is_packed=head_is_packed)
        self.resources.callback(blocks.close)
        layers = TextLayers(
            config, blocks, weights, attention, kernels, buffers, self.device, memory, visual_is_bf16=visual_is_bf16
        )
        programs = BlockPrograms(self.device, layers, kernels, buffers)
        self.resources.callback(programs.close)
        scratch.on_move(programs.forget_graphs)
        kept = KeptFiles(self.files[TEXT].path)
        with memory.measured(LIBRARIES):
            steps = choose_decode_steps(
                self.config.decode, config, computed, weights, layers, buffers, kept, self.device, memory,
                visual_is_bf16=visual_is_bf16,
            )  # fmt: skip
        if steps is not None:
            self.resources.callback(steps.close)
        decoder = TensorRTTextDecoder(
            self.model, capacity, programs, steps, buffers, self.device,
            precision=sidecar.precision_built, computed=computed,
        )  # fmt: skip
        self.resources.callback(decoder.close)
        return decoder

    def _plans(self, part: str, memory: DeviceMemory, scratch: Room) -> tuple[PlanArchive, BlockPlans, BlockChoice]:
        archive = PlanArchive.open(self.files[part].path)
        graphs, computed = block_graphs(part, archive.precision, self.model), computed_in(archive.precision)
        check = BlockCheck(part, graphs, self.model, computed, self.device, memory)
        plans = BlockPlans(archive, self.device, scratch, check)
        self.resources.callback(plans.close)
        race = BlockRace(check, KeptFiles(self.files[part].path), self.device)
        choice = BlockChoice(f"the {part.replace('_', ' ')}'s", plans, check, race, self.device, memory)
        self.resources.callback(choice.close)
        return archive, plans, choice


def _capacity(config: PipelineConfig, model: ModelConfig, file: EngineFile) -> int:
    """Returns the rows of the cache: as many as asked for, or as model and engine allow. Raises ConfigError."""
    most = file.sidecar.max_context
    capacity = context_capacity(config, model)
    if config.max_context > most:
        raise ConfigError(
            f"max_context is {config.max_context}; allowed: up to the {most} that {file.path.name} was built for. Use "
            f"0 for that, or build it for more with `{file.sidecar.command(config.model_dir)} --max-context "
            f"{config.max_context}`"
        )
    return min(capacity, most)


def _description(device: CudaDevice, files: dict[str, EngineFile], capacity: int) -> str:
    precisions = ", ".join(f"{part.partition('_')[0]} {file.sidecar.precision_built}" for part, file in files.items())
    return f"{load_tensorrt().title}, {device.name}, {precisions}, context {capacity}"
