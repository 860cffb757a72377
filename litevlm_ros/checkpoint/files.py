"""The safetensors files of one directory: the place of each tensor's bytes, and reading of them as numbers.

A safetensors file (https://huggingface.co/docs/safetensors) is 8 bytes with the length of its header, little endian;
the header in JSON; and the bytes of all tensors, row by row and little endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import WEIGHTS, WEIGHTS_INDEX

FLOATS = ("F32", "F16", "BF16")
"""The types of weights that are read, in safetensors' spelling."""

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Type in safetensors' spelling → bytes of a number."""

_LONGEST_HEADER = 32 << 20
"""Bytes of a header that are read; those of published models have less than a hundredth."""

_DOWNLOAD = "download the model again with `ros2 run litevlm_ros download_models`"


@dataclass(frozen=True)
class StoredTensor:
    """Place of a tensor: `offset` and `length` are bytes within `file`; `dtype` is in safetensors' spelling."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class SafetensorsDirectory:
    """The tensors of a directory that holds `model.safetensors`, or shards with `model.safetensors.index.json`.

    Raises CheckpointError if there is neither, a shard is missing, a file is damaged, or a tensor is
    not fp32, fp16 or bf16.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tensors: dict[str, StoredTensor] = {}
        for file in self._files():
            self.tensors |= _read_floats(file)

    def _files(self) -> list[Path]:
        index = self.directory / WEIGHTS_INDEX
        single = self.directory / WEIGHTS
        if single.is_file():
            return [single]
        if not index.is_file():
            pickled = any(self.directory.glob("*.bin")) or any(self.directory.glob("*.pth"))
            hint = "pickled weights are not read, convert them to safetensors" if pickled else _DOWNLOAD
            raise CheckpointError(f"{self.directory} holds neither {WEIGHTS} nor {WEIGHTS_INDEX}; {hint}")
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted({str(name) for name in weight_map.values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{index} is damaged ({error!r}); {_DOWNLOAD}") from error
        for name in names:
            if Path(name).name != name:
                raise CheckpointError(f"{index} names {name!r}, which is outside its directory; {_DOWNLOAD}")
            if not (self.directory / name).is_file():
                raise CheckpointError(f"{index} lists {name}, which is missing; {_DOWNLOAD}")
        return [self.directory / name for name in names]


def read_header(file: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Returns the tensors of one safetensors file and its metadata, {} if it has none.

    Raises OSError, and ValueError, with the reason, if `file` is no safetensors file or was cut off.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if len(start) < 8:
            raise ValueError(f"it has only {size} bytes")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"its header claims {length} of {size} bytes")
        header = _parsed(opened.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is no JSON object")
    tensors = {key: _place(file, key, entry, 8 + length, size) for key, entry in header.items()}
    return tensors, {str(key): str(value) for key, value in metadata.items()}


def read_numbers(stored: StoredTensor) -> npt.NDArray[np.float32]:
    """Reads a tensor of one of FLOATS as an fp32 array of its shape. Raises CheckpointError if that fails."""
    kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[stored.dtype]
    try:
        numbers = np.fromfile(stored.file, kind, prod(stored.shape), offset=stored.offset).reshape(stored.shape)
    except (OSError, ValueError) as error:
        raise unreadable(stored.file, error) from error
    if stored.dtype == "BF16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


def read_positions(summands: Sequence[StoredTensor]) -> npt.NDArray[np.float32]:
    """Reads InternViT's `positions` as fp32 [rows, width]: the position embedding with all that is always added to it.

    `summands` are the embedding, the CLS token (added to row 0) and the patch embedding's bias (to all other rows), as
    `WeightCheck.positions` returns them. Raises CheckpointError if they cannot be read.
    """
    embedding, cls, bias = map(read_numbers, summands)
    rows = embedding.reshape(-1, bias.size)
    return np.concatenate((rows[:1] + cls.reshape(1, -1), rows[1:] + bias))


def unreadable(file: Path, reason: object) -> CheckpointError:
    """Returns the error for weights that cannot be read."""
    return CheckpointError(f"{file} is damaged or not a safetensors file ({reason}); {_DOWNLOAD}")


def _read_floats(file: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of one file. Raises CheckpointError, also if one is of another type than FLOATS."""
    try:
        tensors, _ = read_header(file)
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from error
    for key, stored in tensors.items():
        if stored.dtype not in FLOATS:
            raise CheckpointError(f"{file}: {key} is {stored.dtype}; supported: {', '.join(FLOATS)}")
    return tensors


def _parsed(header: bytes) -> dict[str, object]:
    try:
        parsed = json.loads(header)
    except RecursionError as error:
        raise ValueError("its header is nested too deep") from error
    if not isinstance(parsed, dict):
        raise ValueError("its header is no JSON object")
    return parsed


def _place(file: Path, key: str, entry: object, start: int, size: int) -> StoredTensor:
    """Returns the place that a header's `entry` describes, with bytes that begin at `start` of a file of `size`."""
    try:
        kind, shape = entry["dtype"], entry["shape"]  # type: ignore[index]
        begin, end = entry["data_offsets"]  # type: ignore[index]
        sound = all(type(number) is int and number >= 0 for number in (*shape, begin, end)) and begin <= end
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its header describes {key!r} wrongly ({error!r})") from error
    if not sound or not isinstance(kind, str):
        raise ValueError(f"its header describes {key!r} wrongly")
    if end > size - start:
        raise ValueError(f"{key} ends beyond the file, which was cut off at {size} bytes")
    if kind in ITEM_BYTES and prod(shape) * ITEM_BYTES[kind] != end - begin:
        raise ValueError(f"{key} of shape {list(shape)} has {end - begin} bytes")
    return StoredTensor(file, kind, tuple(shape), start + begin, end - begin)
