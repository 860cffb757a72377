"""A model with an outlier: one matrix so large that what it gives overflows in fp16, as real models of this family do.

Qwen2-1.5B's residual passes 65504, the largest number of fp16, which random or small weights never show.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from litevlm_ros.model_directory import CHECKSUMS

OUTLIER_LAYER = 1
"""The text decoder's layer (counted from 0) whose `down_proj` is multiplied."""

_HEADER_LENGTH = 8
"""Bytes of the little-endian number in front of a safetensors file's JSON header."""


def write_model_with_outlier(
    source: Path, target: Path, factor: float = 6e4, layer: int = OUTLIER_LAYER, weight: str = "mlp.down_proj.weight"
) -> Path:
    """Copies the model directory `source` to `target`, with one weight of one text layer multiplied by `factor`.

    The weights keep their dtype and stay finite in it: models/demo has numbers up to 0.28 in `down_proj`, so up to
    1.7e4 afterwards, and a residual beyond 65504. Graphs that read their weights from the checkpoint, such as
    models/demo's, have the outlier too; graphs with weights of their own and engines are not copied, because they would
    not. Returns `target`.

    Raises ValueError if a number of the weight would not be finite, and LookupError if no file has that layer.
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.engine*", "*.runtime_cache", CHECKSUMS))
    for graph in target.glob("*.onnx"):
        if b"model.safetensors" not in graph.read_bytes():
            graph.unlink()
    name = f"layers.{layer}.{weight}"
    files = (target / "text_decoder").glob("*.safetensors")
    changed = [_change(file, name, lambda numbers, dtype: _multiplied(numbers, dtype, factor)) for file in files]
    if not any(changed):
        raise LookupError(f"no safetensors file in {target / 'text_decoder'} has {name}")
    return target


def write_nan(file: Path, weight: str) -> None:
    """Makes the first number NaN of the fp16 weight in a safetensors file whose name ends with `weight`."""
    _change(file, weight, lambda numbers, dtype: np.float16(np.nan).tobytes() + numbers[2:])


def _change(file: Path, name: str, changed: Callable[[bytes, str], bytes]) -> bool:
    """Replaces the bytes of the tensors whose names end with `name`; returns False if the file has none."""
    with file.open("r+b") as stored:
        length = int.from_bytes(stored.read(_HEADER_LENGTH), "little")
        header = json.loads(stored.read(length))
        found = [entry for key, entry in header.items() if key.endswith(name)]
        for entry in found:
            begin, end = entry["data_offsets"]
            stored.seek(_HEADER_LENGTH + length + begin)
            numbers = stored.read(end - begin)
            stored.seek(_HEADER_LENGTH + length + begin)
            stored.write(changed(numbers, entry["dtype"]))
    return bool(found)


def _multiplied(numbers: bytes, dtype: str, factor: float) -> bytes:
    """Returns the numbers of dtype F32, F16 or BF16 times `factor`, rounded to that dtype."""
    if dtype == "BF16":
        wide = (np.frombuffer(numbers, np.uint16).astype(np.uint32) << 16).view(np.float32) * np.float32(factor)
        bits = wide.view(np.uint32)
        rounded: np.ndarray = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even
        finite = np.isfinite((rounded.astype(np.uint32) << 16).view(np.float32)).all()
    else:
        kind = {"F32": np.float32, "F16": np.float16}[dtype]
        with np.errstate(over="ignore"):
            rounded = (np.frombuffer(numbers, kind).astype(np.float64) * factor).astype(kind)
        finite = np.isfinite(rounded).all()
    if not finite:
        raise ValueError(f"times {factor:g}, the weights are not finite in {dtype}; give a smaller factor")
    return rounded.tobytes()
