"""Loading of a part's weights: from the checkpoint's safetensors files, or packed from the engine file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from math import prod

import numpy as np

from litevlm_ros.checkpoint.check import WeightCheck
from litevlm_ros.checkpoint.files import ITEM_BYTES, StoredTensor, read_positions
from litevlm_ros.checkpoint.keys import PositionSources, Sources
from litevlm_ros.engines.block_parameters import POSITIONS, BlockParameter
from litevlm_ros.engines.plan_archive import PlanArchive
from litevlm_ros.engines.sidecar import rebuild_command
from litevlm_ros.errors import CheckpointError, EngineError
from litevlm_ros.precision import computed_in
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.weights import VALUES_A_WORD, WeightKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Slots
from litevlm_ros.runtime.tensorrt.packed_weights import (
    StoredWeight,
    fits,
    packing_of,
    stored_weight,
    tensor_names,
)
from litevlm_ros.runtime.tensorrt.weight_upload import Transfer, WeightUpload

_STORED_KINDS = {"float": "F32", "float16": "F16", "bfloat16": "BF16"}
"""ONNX's name of a block's type → safetensors' name."""
_TORCH_NAMES = {"float": "float32"}
_MOST_NUMBERS = (1 << 31) - 1
"""Kernels count the numbers of a matrix in 32 bits."""


class WeightLoading:
    """The parameters of a part on their way to the device, each of them once. The device must be current."""

    def __init__(
        self,
        purpose: str,
        parameters: Iterable[BlockParameter],
        archive: PlanArchive,
        device: CudaDevice,
        memory: DeviceMemory,
    ) -> None:
        """`parameters` may come several times, and `purpose` is for the memory's accounts. Raises EngineError."""
        self.addresses: dict[str, int] = {}
        """The parameters that are loaded as numbers, by name."""
        self.packed: dict[str, StoredWeight] = {}
        """The parameters that are loaded packed, by name."""
        self.is_packed = archive.precision in VALUES_A_WORD
        self.kernels = WeightKernels(device, computed_in(archive.precision))
        self._purpose = purpose
        self._archive = archive
        self._device = device
        self._memory = memory
        self._parameters = {parameter.name: parameter for parameter in parameters}

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
        slots = Slots(
            self._memory, self._purpose, {name: parameter_bytes(each) for name, each in self._parameters.items()}
        )
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
        sizes: dict[str, int] = {}
        for parameter in self._parameters.values():
            found = self._packed_tensors(parameter)
            tensors |= found
            sizes |= {name: _loaded_bytes(parameter, name, each) for name, each in found.items()}
        slots = Slots(self._memory, self._purpose, sizes)
        transfers: list[Transfer] = []
        for name, each in tensors.items():
            if name in self._parameters:
                self.addresses[name] = slots[name]
                transfers += self._converted(name, (each,))
            else:
                transfers.append(Transfer(each, slots[name]))
        for name, parameter in self._parameters.items():
            packing = packing_of(name, self._archive.packed)
            if packing:
                self.packed[name] = stored_weight(parameter, packing, tensors, {each: slots[each] for each in tensors})
        upload = WeightUpload(self._device, self.kernels)
        try:
            bad = upload.run(transfers)
        except CheckpointError as error:
            raise self._refused(str(error)) from error
        finally:
            upload.close()
        if bad:
            raise self._refused("some of its weights are not finite")

    def stored(self, name: str) -> StoredWeight:
        """Returns the parameter `name` as it was loaded."""
        return self.packed.get(name) or StoredWeight(self.addresses[name])

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

    def _packed_tensors(self, parameter: BlockParameter) -> dict[str, StoredTensor]:
        """Returns the tensors of one parameter in the engine file, by name. Raises EngineError if they do not fit."""
        packing = packing_of(parameter.name, self._archive.packed)
        names = tensor_names(parameter.name, packing)
        for name in names:
            if name not in self._archive.packed:
                raise self._refused(f"its weight {name} is missing")
        found = {name: self._archive.packed[name] for name in names}
        if not fits(parameter, packing, found):
            raise self._refused(
                f"its weight {names[0]} is not of the shape {list(parameter.shape)}, or its scales are not"
            )
        return found

    def _refused(self, reason: str) -> EngineError:
        file = self._archive.file
        return EngineError(f"{file} cannot be used ({reason}); build it again with `{rebuild_command(file)}`")


def _loaded_bytes(parameter: BlockParameter, name: str, tensor: StoredTensor) -> int:
    """Returns the bytes in device memory of the tensor `name` of a parameter, which has as many rows as its input."""
    if name == parameter.name:
        return parameter_bytes(parameter)
    return tensor.length // parameter.shape[0] * int(parameter.tensor.shape[0])


def parameter_bytes(parameter: BlockParameter) -> int:
    """Returns the bytes of a parameter as a block reads it. Raises EngineError if it has too many numbers."""
    numbers = prod(map(int, parameter.tensor.shape))
    if numbers > _MOST_NUMBERS:
        raise EngineError(f"{parameter.name} has {numbers} numbers; TensorRT engines take at most {_MOST_NUMBERS}, "
                          "use backend:=onnxruntime")  # fmt: skip
    return numbers * ITEM_BYTES[_STORED_KINDS[parameter.tensor.type]]
