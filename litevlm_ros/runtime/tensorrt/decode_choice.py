"""The choice of what computes steps of up to 16 new tokens: one kernel where it is right, else the engine's blocks."""

from __future__ import annotations

import contextlib
import logging
import time

from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.decode_check import DecodeCheck
from litevlm_ros.runtime.tensorrt.decode_step import DecodeSteps, layer_matrices
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kept_files import KeptFiles
from litevlm_ros.runtime.tensorrt.kernels.decode import DecodeKernels, WeightFormat, decode_obstacle
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.text_buffers import TextBuffers
from litevlm_ros.runtime.tensorrt.text_layers import TextLayers
from litevlm_ros.runtime.tensorrt.weights import TextWeights

_LOGGER = logging.getLogger(__name__)


def choose_decode_steps(
    setting: str,
    config: TextConfig,
    computed: str,
    weights: TextWeights,
    layers: TextLayers,
    buffers: TextBuffers,
    kept: KeptFiles,
    device: CudaDevice,
    memory: DeviceMemory,
    *,
    visual_is_bf16: bool,
) -> DecodeSteps | None:
    """Returns the steps by one kernel, checked against `layers`, or None if those are to compute steps too.

    `setting` is `PipelineConfig.decode`, and `computed` 'fp16' or 'bf16'. The cache must be empty. Raises EngineError
    if the setting is 'kernels' and the kernel cannot be used.
    """
    if setting == "engine":
        return None
    formats = {
        WeightFormat(each.packing, each.block if each.packing == "int4" else 0) for each in layer_matrices(weights)
    }
    stored, *others = sorted(formats, key=str)
    if others:
        obstacle = (
            f"its layers hold weights in {' and in '.join(map(str, (stored, *others)))}, and they take one format"
        )
    elif {weights.embedding.packing, weights.head.packing} != {stored.words}:
        wanted = stored.words or "16 bits"
        obstacle = f"with layers in {stored}, they take tables of words in {wanted}; build the engine again"
    else:
        obstacle = decode_obstacle(config, computed, stored, device.compute_capability)
    if obstacle:
        _report(setting, f"the decode kernels do not take this model here: {obstacle}", logging.INFO)
        return None
    started = time.monotonic()
    with contextlib.ExitStack() as unused:
        try:
            kernels = DecodeKernels(device, config, computed, stored, kept)
            unused.callback(kernels.close)
            steps = DecodeSteps(config, kernels, weights, buffers, device, memory, visual_is_bf16=visual_is_bf16)
            unused.callback(steps.close)
            wrong = DecodeCheck(config, computed, layers, buffers, device, memory).wrong(steps)
        except EngineError as error:
            wrong = str(error)
        if wrong:
            _report(setting, f"the decode kernels cannot be used on {device.name}: {wrong}", logging.WARNING)
            return None
        unused.pop_all()
    seconds = time.monotonic() - started
    _LOGGER.info("Decode steps are one kernel, which reads weights in %s; made and checked in %.1f s", stored, seconds)
    return steps


def _report(setting: str, reason: str, level: int) -> None:
    """Says why blocks compute decode steps. Raises EngineError if the setting does not allow that."""
    if setting == "kernels":
        raise EngineError(f"decode is 'kernels', but {reason}; set decode to auto or engine")
    _LOGGER.log(level, "The engine's blocks compute decode steps, as %s", reason)
