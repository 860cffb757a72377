"""Weights that stay packed in device memory, as convert/packed_weights.py writes them into an engine file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from litevlm_ros.checkpoint.files import StoredTensor
from litevlm_ros.engines.block_parameters import BlockParameter
from litevlm_ros.precision import WORD_PRECISION, WORD_TABLES
from litevlm_ros.runtime.tensorrt.kernels.weights import KINDS, VALUES_A_WORD, WeightKernels

_WORD_BYTES = 16


@dataclass(frozen=True)
class StoredWeight:
    """A weight as it lies in device memory: the address of its values, and how they are packed.

    `packing` is one of VALUES_A_WORD, or '' for numbers as blocks read them. Packed values have fp16 scales at the
    address `scales`, one for each `block` inputs: those of a whole row but for int4.
    """

    values: int
    packing: str = ""
    scales: int = 0
    block: int = 0
    words: int = 0
    """The number of words of 16 bytes of packed values."""

    def unpack(self, kernels: WeightKernels, target: int) -> None:
        """Enqueues the kernel that writes the numbers of a packed weight to `target`."""
        words_a_scale = self.block // VALUES_A_WORD[self.packing]
        kernels.unpack(self.packing, self.values, self.scales, target, words=self.words, words_a_scale=words_a_scale)


def is_unpacked(parameter: BlockParameter, weight: StoredWeight) -> bool:
    """Tells whether a kernel unpacks `weight` before its block runs. Blocks read tables of words as they are stored."""
    return bool(weight.packing) and parameter.name not in WORD_TABLES


def scales_of(name: str) -> str:
    """Returns the name of a packed weight's scales, in an engine file and where a block reads it as it is stored."""
    return f"{name}.scale"


def packing_of(name: str, tensors: Mapping[str, StoredTensor]) -> str:
    """Returns the packing of a parameter among an engine file's `tensors`, '' if it is stored as numbers."""
    packings = (WORD_PRECISION,) if name in WORD_TABLES else VALUES_A_WORD
    return next((each for each in packings if f"{name}.{each}" in tensors), "")


def tensor_names(name: str, packing: str) -> tuple[str, ...]:
    """Returns the names of a parameter's tensors in an engine file: its values, and its scales if it has any."""
    return (f"{name}.{packing}", scales_of(name)) if packing else (name,)


def fits(parameter: BlockParameter, packing: str, found: Mapping[str, StoredTensor]) -> bool:
    """Tells whether the tensors of `tensor_names` have the shapes and types that `parameter` is packed in."""
    first, *scales = found.values()
    if not packing:
        return first.shape == parameter.shape and first.dtype in KINDS
    words, rest = divmod(prod(parameter.shape), VALUES_A_WORD[packing])
    return not rest and first.length == words * _WORD_BYTES and block_of(parameter, packing, scales[0]) > 0


def block_of(parameter: BlockParameter, packing: str, scale: StoredTensor) -> int:
    """Returns how many inputs of a packed weight share one of its scales; 0 if the scales do not fit the weight."""
    blocks = scale.shape[-1] if packing == "int4" and scale.shape else 1
    expected = (*parameter.shape[:1], blocks) if packing == "int4" else parameter.shape[:1]
    if len(parameter.shape) != 2 or scale.dtype != "F16" or scale.shape != expected or not blocks:
        return 0
    block, rest = divmod(parameter.shape[1], blocks)
    return block if not rest and block % VALUES_A_WORD[packing] == 0 else 0


def stored_weight(
    parameter: BlockParameter, packing: str, found: Mapping[str, StoredTensor], addresses: Mapping[str, int]
) -> StoredWeight:
    """Returns a packed weight whose tensors, which fit it, were loaded to `addresses` by their names."""
    values, scales = tensor_names(parameter.name, packing)
    return StoredWeight(
        addresses[values],
        packing,
        addresses[scales],
        block_of(parameter, packing, found[scales]),
        found[values].length // _WORD_BYTES,
    )
