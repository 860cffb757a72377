"""Weights of a part on the device: one copy, which every block and every shape reads.

fp16 and bf16 engines read them from the checkpoint's safetensors files, others from the engine file, which holds them
packed (convert/packed_weights.py). Packed weights stay packed in device memory: before each run of a block, kernels
unpack the matrices of that run into a buffer that all runs share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from litevlm_ros.checkpoint.check import WeightCheck, check_text, check_vision
from litevlm_ros.checkpoint.files import ITEM_BYTES, StoredTensor, read_positions
from litevlm_ros.checkpoint.keys import PositionSources, Sources
from litevlm_ros.engines.block_parameters import (
    EMBEDDING,
    POSITIONS,
    BlockParameter,
    embedding,
    text_runs,
    vision_runs,
)
from litevlm_ros.engines.plan_archive import PlanArchive
from litevlm_ros.engines.sidecar import rebuild_command
from litevlm_ros.errors import CheckpointError, EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.precision import computed_in
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.weights import KINDS, VALUES_A_WORD, WeightKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Slots, aligned
from litevlm_ros.runtime.tensorrt.weight_upload import Transfer, WeightUpload

_STORED_KINDS = {"float": "F32", "float16": "F16", "bfloat16": "BF16"}
"""ONNX's name of a block's type → safetensors' name."""
_TORCH_NAMES = {"float": "float32"}
_MOST_NUMBERS = (1 << 31) - 1
"""Kernels count the numbers of a matrix in 32 bits."""
_WORD_BYTES = 16


@dataclass(frozen=True)
class RunWeights:
    """The weights of one run of a block.

    `addresses` maps the names in `BlockGraph.weights` to device memory. `unpack` enqueues kernels that fill those of
    packed weights, to be called before the block and after the one before it; it does nothing for fp16 and bf16.
    """

    addresses: Mapping[str, int]
    unpack: Callable[[], None]


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
    """`embedding` is the address of the words' table [padded vocabulary, H] in the computed type."""

    def __init__(self, runs: Sequence[RunWeights], kernels: WeightKernels, embedding: int) -> None:
        """As for PartWeights."""
        super().__init__(runs, kernels)
        self.embedding = embedding


def load_vision_weights(
    config_dir: Path, model: ModelConfig, archive: PlanArchive, device: CudaDevice, memory: DeviceMemory
) -> PartWeights:
    """Loads the weights of the vision encoder. The device must be current.

    `config_dir` is a model directory, which only an fp16 or bf16 `archive` needs the weights of. Raises
    CheckpointError, also for numbers that are not finite in the computed type, and EngineError.
    """
    part = _Part("vision weights", vision_runs(model, computed_in(archive.precision)), archive, device, memory)
    with part.closed_on_failure():
        if part.is_packed:
            part.load_packed()
        else:
            check, sources, positions = check_vision(config_dir / VISION, model.vision)
            part.load_checkpoint(check, sources, positions)
        return PartWeights(part.runs(), part.kernels)


def load_text_weights(
    config_dir: Path, model: ModelConfig, archive: PlanArchive, device: CudaDevice, memory: DeviceMemory
) -> TextWeights:
    """Loads the weights of the text decoder, as `load_vision_weights` does."""
    computed = computed_in(archive.precision)
    runs, table = text_runs(model.text, computed), embedding(model.text, computed)
    part = _Part("text weights", runs, archive, device, memory, (table,))
    with part.closed_on_failure():
        if part.is_packed:
            part.load_packed()
        else:
            part.load_checkpoint(*check_text(config_dir / TEXT, model.text))
        return TextWeights(part.runs(), part.kernels, part.addresses[EMBEDDING])


class _Unpacking(NamedTuple):
    """A packed weight on the device: addresses of its values and scales, and what `WeightKernels.unpack` needs."""

    packing: str
    values: int
    scales: int
    words: int
    words_a_scale: int


class _Part:
    """The parameters of a part on their way to the device, each of them once."""

    def __init__(
        self,
        purpose: str,
        runs: Sequence[Sequence[BlockParameter]],
        archive: PlanArchive,
        device: CudaDevice,
        memory: DeviceMemory,
        others: Iterable[BlockParameter] = (),
    ) -> None:
        """`others` are parameters that no run has."""
        self.addresses: dict[str, int] = {}
        self.is_packed = archive.precision in VALUES_A_WORD
        self.kernels = WeightKernels(device, computed_in(archive.precision))
        self._purpose = purpose
        self._runs = runs
        self._archive = archive
        self._device = device
        self._memory = memory
        self._packed: dict[str, _Unpacking] = {}
        self._parameters = {parameter.name: parameter for run in (*runs, others) for parameter in run}

    @contextlib.contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """Unloads the kernels if the block raises."""
        try:
            yield
        except BaseException:
            self.kernels.close()
            raise

    def load_checkpoint(self, check: WeightCheck, sources: Sources, positions: PositionSources | None = None) -> None:
        """Loads all parameters from a checkpoint. Raises CheckpointError with all that is wrong with it."""
        keys = {name: sources[name] for name in self._parameters if name != POSITIONS}
        stored = {name: check.concatenated(keys[name], self._parameters[name].shape) for name in keys}
        summands: tuple[StoredTensor, ...] = ()
        if positions is not None:
            rows, width = self._parameters[POSITIONS].shape
            summands = check.positions(positions, (rows, width))
        check.raise_problems()
        slots = Slots(self._memory, self._purpose, {name: _size(each) for name, each in self._parameters.items()})
        self.addresses = {name: slots[name] for name in self._parameters}
        transfers = [transfer for name, tensors in stored.items() for transfer in self._converted(name, tensors)]
        owners = [(key, name) for name in keys for key in keys[name]]
        upload = WeightUpload(self._device, self.kernels)
        try:
            if positions is not None:
                total = read_positions(summands)
                if not np.isfinite(total).all():
                    check.not_finite(tuple(vars(positions).values()), "float32")
                upload.write(self.addresses[POSITIONS], total)
            bad = {id(transfer) for transfer in upload.run(transfers)}
        finally:
            upload.close()
        for transfer, (key, name) in zip(transfers, owners, strict=True):
            if id(transfer) in bad:
                kind = self._parameters[name].tensor.type
                check.not_finite((key,), _TORCH_NAMES.get(kind, kind))
        check.raise_problems()

    def load_packed(self) -> None:
        """Loads all parameters from the engine file. Raises EngineError if they are not there."""
        tensors: dict[str, StoredTensor] = {}
        for parameter in self._parameters.values():
            tensors |= self._packed_tensors(parameter)
        sizes = {
            name: _size(self._parameters[name]) if name in self._parameters else each.length
            for name, each in tensors.items()
        }
        slots = Slots(self._memory, self._purpose, sizes)
        transfers: list[Transfer] = []
        for name, each in tensors.items():
            if name in self._parameters:
                self.addresses[name] = slots[name]
                transfers += self._converted(name, (each,))
            else:
                transfers.append(Transfer(each, slots[name]))
        for name in self._parameters:
            packing = self._packing(name)
            if packing:
                values, scales = tensors[f"{name}.{packing}"], tensors[f"{name}.scale"]
                words = values.length // _WORD_BYTES
                each_scale = words // max(1, prod(scales.shape))
                self._packed[name] = _Unpacking(
                    packing, slots[f"{name}.{packing}"], slots[f"{name}.scale"], words, each_scale
                )
        upload = WeightUpload(self._device, self.kernels)
        try:
            bad = upload.run(transfers)
        except CheckpointError as error:
            raise self._refused(str(error)) from error
        finally:
            upload.close()
        if bad:
            raise self._refused("some of its weights are not finite")

    def runs(self) -> tuple[RunWeights, ...]:
        """Returns the weights of each run, when they are loaded."""
        packed = [[each for each in run if each.name in self._packed] for run in self._runs]
        size = max(sum(aligned(_size(each)) for each in run) for run in packed)
        scratch = self._memory.allocate(f"{self._purpose}, unpacked", size) if size else 0
        return tuple(self._run(run, scratch) for run in self._runs)

    def _run(self, run: Sequence[BlockParameter], scratch: int) -> RunWeights:
        addresses, work = {}, []
        for parameter in run:
            packed = self._packed.get(parameter.name)
            if packed is None:
                addresses[parameter.tensor.name] = self.addresses[parameter.name]
                continue
            addresses[parameter.tensor.name] = scratch
            work.append((packed, scratch))
            scratch += aligned(_size(parameter))

        def unpack() -> None:
            for packed, target in work:
                self.kernels.unpack(
                    packed.packing,
                    packed.values,
                    packed.scales,
                    target,
                    words=packed.words,
                    words_a_scale=packed.words_a_scale,
                )

        return RunWeights(addresses, unpack)

    def _converted(self, name: str, tensors: Iterable[StoredTensor]) -> Iterable[Transfer]:
        """Yields the transfers of tensors that lie one behind the other in parameter `name`."""
        parameter = self._parameters[name]
        kind = _STORED_KINDS[parameter.tensor.type]
        # An input has as many axes as its parameter, or one more in front for a bias.
        inner = len(parameter.shape) - 1
        padded = parameter.tensor.shape[len(parameter.tensor.shape) - inner :]
        columns, stride = prod(parameter.shape[1:]), prod(map(int, padded))
        target = self.addresses[name]
        for stored in tensors:
            yield Transfer(stored, target, kind, columns, stride)
            target += prod(stored.shape) // columns * stride * ITEM_BYTES[kind]

    def _packing(self, name: str) -> str:
        """Returns the packing of a parameter in the engine file, '' if it is stored as numbers."""
        return next((each for each in VALUES_A_WORD if f"{name}.{each}" in self._archive.packed), "")

    def _packed_tensors(self, parameter: BlockParameter) -> dict[str, StoredTensor]:
        """Returns the tensors of one parameter in the engine file, by name. Raises EngineError if they do not fit."""
        packing = self._packing(parameter.name)
        names = (f"{parameter.name}.{packing}", f"{parameter.name}.scale") if packing else (parameter.name,)
        for name in names:
            if name not in self._archive.packed:
                raise self._refused(f"its weight {name} is missing")
        found = {name: self._archive.packed[name] for name in names}
        first, *scale = found.values()
        if packing:
            words, rest = divmod(prod(parameter.shape), VALUES_A_WORD[packing])
            sound = not rest and first.length == words * _WORD_BYTES and scale[0].dtype == "F16"
            sound = sound and words % max(1, prod(scale[0].shape)) == 0
        else:
            sound = first.shape == parameter.shape and first.dtype in KINDS
        if not sound:
            raise self._refused(f"its weight {names[0]} is not of the shape {list(parameter.shape)}")
        return found

    def _refused(self, reason: str) -> EngineError:
        file = self._archive.file
        return EngineError(f"{file} cannot be used ({reason}); build it again with `{rebuild_command(file)}`")


def _size(parameter: BlockParameter) -> int:
    """Returns the bytes of a parameter as a block reads it. Raises EngineError if it has too many numbers."""
    numbers = prod(map(int, parameter.tensor.shape))
    if numbers > _MOST_NUMBERS:
        raise EngineError(f"{parameter.name} has {numbers} numbers; TensorRT engines take at most {_MOST_NUMBERS}, "
                          "use backend:=onnxruntime")  # fmt: skip
    return numbers * ITEM_BYTES[_STORED_KINDS[parameter.tensor.type]]
