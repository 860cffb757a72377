"""Loads both engines of a model on one GPU, as a backend."""

from __future__ import annotations

import atexit
import contextlib
import logging
import time

from litevlm_ros.backend import Backend
from litevlm_ros.config import PipelineConfig, TokenSelectionConfig
from litevlm_ros.engines.tensorrt_module import load_tensorrt
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.runtime.kv_cache import context_capacity
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.engine_files import EngineFile, find_engine
from litevlm_ros.runtime.tensorrt.kernels.launch import CacheKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Scratch, gigabytes
from litevlm_ros.runtime.tensorrt.program import Engine
from litevlm_ros.runtime.tensorrt.text import TensorRTTextDecoder
from litevlm_ros.runtime.tensorrt.token_selection import DeviceTokenSelector
from litevlm_ros.runtime.tensorrt.vision import TensorRTVisionEncoder

_LOGGER = logging.getLogger(__name__)


def load(config: PipelineConfig, model: ModelConfig) -> Backend:
    """Loads both engines of `config.model_dir`, checked against their sidecars and the weights beside them.

    Raises EngineError that says why an engine cannot be used and how to build it again, and ConfigError if
    `config.max_context` is more than the text decoder was built for. What was allocated until then is freed.
    """
    files = {part: find_engine(config, part) for part in (VISION, TEXT)}
    for file in files.values():
        for reason in file.sidecar.check_weights(config.model_dir):
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
        with device:
            vision, text, memory = _load(config, model, files, capacity, device, resources)
    except BaseException:
        close()
        raise
    # A program that ends without closing must not leave engines to be freed behind the driver.
    atexit.register(close)

    def token_selector(selection: TokenSelectionConfig) -> DeviceTokenSelector:
        selector = DeviceTokenSelector(selection, model, vision, device, memory)
        resources.callback(selector.close)
        return selector

    description = _description(device, files, capacity)
    fingerprints = {file.path.name: file.sidecar.engine_sha256 for file in files.values()}
    return Backend("tensorrt", description, vision, text, close, memory.by_purpose, token_selector, fingerprints)


def _load(
    config: PipelineConfig,
    model: ModelConfig,
    files: dict[str, EngineFile],
    capacity: int,
    device: CudaDevice,
    resources: contextlib.ExitStack,
) -> tuple[TensorRTVisionEncoder, TensorRTTextDecoder, DeviceMemory]:
    """Loads the engines and makes their first programs. Everything is freed when `resources` is closed."""
    started = time.monotonic()
    free, total = device.memory()
    _LOGGER.info("%s: %s of %s free before loading", device.name, gigabytes(free), gigabytes(total))
    memory = DeviceMemory(device)
    resources.callback(memory.free)
    kernels = CacheKernels(device)
    resources.callback(kernels.close)
    scratch = Scratch(memory)
    engines = {}
    for part, file in files.items():
        engines[part] = Engine(file, device, memory, scratch)
        resources.callback(engines[part].close)
    text = TensorRTTextDecoder(engines[TEXT], model, capacity, memory, kernels)
    resources.callback(text.close)
    vision = TensorRTVisionEncoder(engines[VISION], model, memory)
    resources.callback(vision.close)
    resources.callback(device.wait)  # for decode steps that ran ahead of the last answer
    if vision.dtype != text.dtype:
        raise EngineError(
            f"{files[VISION].path.name} gives {vision.dtype} and {files[TEXT].path.name} takes {text.dtype} visual "
            f"tokens; build both again with `ros2 run litevlm_ros build_engines --model {config.model_dir} --force`"
        )
    with memory.measured("execution contexts"):
        vision.prepare()
        text.prepare()
    _LOGGER.info(
        "Loaded in %.1f s: %s; %s free now",
        time.monotonic() - started,
        ", ".join(f"{purpose} {gigabytes(size)}" for purpose, size in memory.by_purpose().items()),
        gigabytes(device.memory()[0]),
    )
    return vision, text, memory


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
