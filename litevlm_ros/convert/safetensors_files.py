"""Reading of the safetensors files of one directory: the tensors, and the place of each tensor's bytes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import WEIGHTS, WEIGHTS_INDEX

_FLOATS = ("F32", "F16", "BF16")


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
            self.tensors |= _read_header(file)

    def load(self, key: str) -> Tensor:
        """Returns a tensor in its stored dtype. Raises CheckpointError."""
        stored = self.tensors[key]
        try:
            with safe_open(stored.file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{stored.file} is damaged ({error}). Download the model again") from error
        return tensor

    def _files(self) -> list[Path]:
        index = self.directory / WEIGHTS_INDEX
        single = self.directory / WEIGHTS
        if single.is_file():
            return [single]
        if not index.is_file():
            pickled = any(self.directory.glob("*.bin")) or any(self.directory.glob("*.pth"))
            hint = (
                "pickled weights are not read, convert them to safetensors" if pickled else "download the model again"
            )
            raise CheckpointError(f"{self.directory} holds neither {WEIGHTS} nor {WEIGHTS_INDEX}; {hint}")
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted({str(name) for name in weight_map.values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{index} is damaged ({error!r}). Download the model again") from error
        for name in names:
            if Path(name).name != name:
                raise CheckpointError(
                    f"{index} names {name!r}, which is outside its directory. Download the model again"
                )
            if not (self.directory / name).is_file():
                raise CheckpointError(f"{index} lists {name}, which is missing. Download the model again")
        return [self.directory / name for name in names]


def _read_header(file: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of one file. Raises CheckpointError.

    Its format: 8 bytes with the header's length, little endian; the header in JSON; the bytes of all tensors.
    """
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            size = file.stat().st_size
            if length > size - 8:
                raise ValueError(f"its header claims {length} of {size} bytes")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        tensors = {}
        for key, entry in header.items():
            begin, end = entry["data_offsets"]
            if end > size - 8 - length:
                raise ValueError(f"{key} ends beyond the file, which was cut off at {size} bytes")
            tensors[key] = StoredTensor(file, entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise CheckpointError(f"{file} is not a safetensors file ({error}). Download the model again") from error
    for key, stored in tensors.items():
        if stored.dtype not in _FLOATS:
            raise CheckpointError(f"{file}: {key} is {stored.dtype}; supported: {', '.join(_FLOATS)}")
    return tensors
