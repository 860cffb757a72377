"""Weights of a part on the device: one copy, which every block and every shape reads.

fp16 and bf16 engines read them from the checkpoint's safetensors files, others from the engine file, which holds them
packed (convert/packed_weights.py). Packed weights stay packed in device memory: before each run of a block, kernels
unpack the matrices of that run into a buffer that all runs share. Tables of words are read as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litevlm_ros.checkpoint.check import check_text, check_vision
from litevlm_ros.engines.block_parameters import EMBEDDING, BlockParameter, embedding, text_runs, vision_runs
from litevlm_ros.engines.plan_archive import PlanArchive
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.precision import computed_in
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.weights import WeightKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, aligned
from litevlm_ros.runtime.tensorrt.packed_weights import StoredWeight, is_unpacked, scales_of
from litevlm_ros.runtime.tensorrt.weight_loading import WeightLoading, parameter_bytes


@dataclass(frozen=True)
class RunWeights:
    """The weights of one run of a block.

    `addresses` maps the names in `BlockGraph.weights` to device memory. A packed table of words is there as it is
    stored, and its scales have the name of `scales_of`. `unpack` enqueues kernels that fill those of other packed
    weights, to be called before the block and after the one before it; it does nothing for fp16 and bf16.
    `stored` maps the same names to the weights as they stay in device memory.
    """

    addresses: Mapping[str, int]
    unpack: Callable[[], None]
    stored: Mapping[str, StoredWeight] = field(default_factory=dict)


class PartWeights:
    """The weights of a part. `runs` are those of `engines/block_parameters.py`, in order."""

    def __init__(self, runs: Sequence[RunWeights], kernels: WeightKernels) -> None:
        """Keeps `kernels`, which `runs` may launch, until `close`."""
        self.runs = runs
        self._kernels = kernels

    def close(self) -> None:
        """Unloads the kernels. None of them may be running. The memory belongs to its DeviceMemory."""
        self._kernels.close()


class TextWeights(PartWeights):
    """`embedding` and `head` are the words' tables [padded vocabulary, H]: numbers of the computed type, or int8."""

    def __init__(self, runs: Sequence[RunWeights], kernels: WeightKernels, embedding: StoredWeight) -> None:
        """As for PartWeights."""
        super().__init__(runs, kernels)
        self.embedding, self.head = embedding, runs[-1].stored["head"]


def load_vision_weights(
    config_dir: Path, model: ModelConfig, archive: PlanArchive, device: CudaDevice, memory: DeviceMemory
) -> PartWeights:
    """Loads the weights of the vision encoder. The device must be current.

    `config_dir` is a model directory, which only an fp16 or bf16 `archive` needs the weights of. Raises
    CheckpointError, also for numbers that are not finite in the computed type, and EngineError.
    """
    runs = vision_runs(model, computed_in(archive.precision))
    loading = WeightLoading("vision weights", (each for run in runs for each in run), archive, device, memory)
    with loading.closed_on_failure():
        if loading.is_packed:
            loading.load_packed()
        else:
            check, sources, positions = check_vision(config_dir / VISION, model.vision)
            loading.load_checkpoint(check, sources, positions)
        return PartWeights(_weights_of_runs("vision weights", runs, loading, memory), loading.kernels)


def load_text_weights(
    config_dir: Path, model: ModelConfig, archive: PlanArchive, device: CudaDevice, memory: DeviceMemory
) -> TextWeights:
    """Loads the weights of the text decoder, as `load_vision_weights` does."""
    computed = computed_in(archive.precision)
    runs, table = text_runs(model.text, computed), embedding(model.text, computed)
    loading = WeightLoading("text weights", (*(each for run in runs for each in run), table), archive, device, memory)
    with loading.closed_on_failure():
        if loading.is_packed:
            loading.load_packed()
        else:
            loading.load_checkpoint(*check_text(config_dir / TEXT, model.text))
        unpacked = _weights_of_runs("text weights", runs, loading, memory)
        return TextWeights(unpacked, loading.kernels, loading.stored(EMBEDDING))


def _weights_of_runs(
    purpose: str, runs: Sequence[Sequence[BlockParameter]], loading: WeightLoading, memory: DeviceMemory
) -> tuple[RunWeights, ...]:
    """Returns the weights of each run, which are loaded. All runs unpack into the same memory."""
    packed = [[each for each in run if is_unpacked(each, loading.stored(each.name))] for run in runs]
    size = max(sum(aligned(parameter_bytes(each)) for each in run) for run in packed)
    scratch = memory.allocate(f"{purpose}, unpacked", size) if size else 0
    return tuple(_weights_of_run(run, loading, scratch) for run in runs)


def _weights_of_run(run: Sequence[BlockParameter], loading: WeightLoading, scratch: int) -> RunWeights:
    addresses, stored, work = {}, {}, []
    for parameter in run:
        name, weight = parameter.tensor.name, loading.stored(parameter.name)
        stored[name] = weight
        if is_unpacked(parameter, weight):
            addresses[name] = scratch
            work.append((weight, scratch))
            scratch += aligned(parameter_bytes(parameter))
            continue
        addresses[name] = weight.values
        if weight.packing:
            addresses[scales_of(name)] = weight.scales

    def unpack() -> None:
        for packed, target in work:
            packed.unpack(loading.kernels, target)

    return RunWeights(addresses, unpack, stored)
