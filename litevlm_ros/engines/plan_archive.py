"""The file format of engines: all plans of a part, the graphs they come from, and packed weights.

`NAME.engine` is a safetensors file (https://huggingface.co/docs/safetensors), so its contents are found by its header
and read where they lie. Its tensors are `graph.BLOCK`, `plan.KEY` and `kernels.KEY` as bytes, and `packed.NAME`; its
metadata says what it is.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litevlm_ros.checkpoint.files import StoredTensor, read_header
from litevlm_ros.engines.sidecar import rebuild_command
from litevlm_ros.errors import EngineError
from litevlm_ros.files import replacing

ARCHIVE_FORMAT = "litevlm_ros plans 1"
"""The value of `format` in the metadata. Readers refuse others."""

_DTYPES = {"uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "int32": "I32", "uint32": "U32",
           "float16": "F16", "float32": "F32"}  # fmt: skip
"""numpy's name of a type → safetensors' name."""


@dataclass(frozen=True, order=True)
class PlanKey:
    """Names one plan: a block with `rows` rows; `columns` is the cache's capacity for text attention, 0 for others."""

    block: str
    rows: int
    columns: int = 0

    def __str__(self) -> str:
        """Returns 'qkv-1025', or 'attention-64-2048' with columns."""
        return f"{self.block}-{self.rows}-{self.columns}" if self.columns else f"{self.block}-{self.rows}"

    @classmethod
    def parse(cls, text: str) -> PlanKey:
        """Reads what `str` writes. Raises ValueError for anything else."""
        block, *sizes = text.split("-")
        if not block or not 1 <= len(sizes) <= 2:
            raise ValueError(f"{text!r} names no plan")
        return cls(block, *map(int, sizes))


class PlanArchive:
    """An engine file that is open for reading. It stays readable when the file is replaced.

    `part` is VISION or TEXT, and `precision` one of PRECISIONS. `graphs` maps each block to its serialized ONNX model,
    from which plans for other sizes are built. `packed` has the places of packed weights, none for fp16 and bf16.
    """

    def __init__(
        self, file: Path, contents: mmap.mmap, tensors: Mapping[str, StoredTensor], part: str, precision: str
    ) -> None:
        """For `open`."""
        self.file = file
        self.part = part
        self.precision = precision
        self._contents = contents
        self._tensors = tensors
        self.graphs: Mapping[str, bytes] = {name: self._bytes(f"graph.{name}") for name in self._names("graph")}
        self.keys: Collection[PlanKey] = tuple(PlanKey.parse(name) for name in self._names("plan"))
        self.packed: Mapping[str, StoredTensor] = {name: tensors[f"packed.{name}"] for name in self._names("packed")}

    @classmethod
    def open(cls, file: Path) -> PlanArchive:
        """Opens an engine file. Raises EngineError, with the command that builds it again, if it is none."""
        try:
            tensors, metadata = read_header(file)
            if metadata.get("format") != ARCHIVE_FORMAT:
                raise ValueError(f"its format is not '{ARCHIVE_FORMAT}'")
            with file.open("rb") as opened:
                contents = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            return cls(file, contents, tensors, metadata["part"], metadata["precision"])
        except (OSError, ValueError, LookupError) as error:
            raise EngineError(
                f"{file} cannot be used ({error}); build it again with `{rebuild_command(file)}`"
            ) from error

    def plan(self, key: PlanKey) -> bytes:
        """Returns the serialized plan. Raises KeyError if it is not in `keys`."""
        return self._bytes(f"plan.{key}")

    def kernels(self, key: PlanKey) -> bytes:
        """Returns TensorRT-RTX's runtime cache of a plan, with its compiled kernels; b'' if there is none."""
        name = f"kernels.{key}"
        return self._bytes(name) if name in self._tensors else b""

    def _bytes(self, name: str) -> bytes:
        stored = self._tensors[name]
        return self._contents[stored.offset : stored.offset + stored.length]

    def _names(self, kind: str) -> Iterator[str]:
        prefix = f"{kind}."
        return (name[len(prefix) :] for name in self._tensors if name.startswith(prefix))


def write_archive(
    file: Path,
    part: str,
    precision: str,
    graphs: Mapping[str, bytes],
    plans: Mapping[PlanKey, tuple[bytes, bytes]],
    packed: Mapping[str, np.ndarray[Any, Any]],
) -> None:
    """Writes an engine file, whole or not at all. `plans` maps each key to its plan and its kernels (b'' for none).

    Raises OSError.
    """
    entries: list[tuple[str, str, tuple[int, ...], Any]] = []
    # Wide numbers come first, so that all are aligned to their size, as safetensors wants it.
    for name, array in sorted(packed.items(), key=lambda item: -item[1].itemsize):
        entries.append((f"packed.{name}", _DTYPES[array.dtype.name], array.shape, np.ascontiguousarray(array)))
    blobs = {f"graph.{name}": graph for name, graph in graphs.items()}
    for key, (plan, kernels) in plans.items():
        blobs |= {f"plan.{key}": plan} | ({f"kernels.{key}": kernels} if kernels else {})
    entries += [(name, "U8", (len(blob),), blob) for name, blob in blobs.items()]
    metadata = {"format": ARCHIVE_FORMAT, "part": part, "precision": precision}
    header = _header(metadata, ((name, kind, shape, memoryview(data).nbytes) for name, kind, shape, data in entries))
    with replacing(file) as unfinished, unfinished.open("wb") as opened:
        opened.write(len(header).to_bytes(8, "little"))
        opened.write(header)
        for *_, data in entries:
            opened.write(memoryview(data).cast("B") if memoryview(data).nbytes else b"")


def _header(metadata: Mapping[str, str], entries: Iterable[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, kind, shape, length in entries:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": (end, end + length)}
        end += length
    text = json.dumps(header).encode()
    return text + b" " * (-len(text) % 8)
