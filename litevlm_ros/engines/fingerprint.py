"""Identifies what an engine depends on: TensorRT, the GPU, and weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from litevlm_ros.engines.tensorrt_module import load_tensorrt, title
from litevlm_ros.errors import CheckpointError
from litevlm_ros.machine import find_device, format_capability
from litevlm_ros.model_directory import weight_files

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Machine:
    """The TensorRT and the GPU that run engines on a machine.

    `flavour` is 'tensorrt' or 'tensorrt_rtx'. `compute_capability` is written as '8.7'; '' if there is no GPU.
    """

    flavour: str
    version: str
    compute_capability: str

    @property
    def tensorrt(self) -> str:
        """Name and version for people: 'TensorRT-RTX 1.4.0.76'."""
        return title(self.flavour, self.version)


def this_machine() -> Machine:
    """Finds the installed TensorRT and the first GPU. Raises EngineError if no TensorRT is installed."""
    tensorrt = load_tensorrt()
    device = find_device()
    return Machine(tensorrt.flavour, tensorrt.version, format_capability(device.compute_capability) if device else "")


def hash_weights(directory: Path) -> str:
    """Returns the SHA-256 over `config.json` and all safetensors files of `vision_encoder/` or `text_decoder/`.

    Raises CheckpointError if there are none.
    """
    files = weight_files(directory)
    if not files:
        raise CheckpointError(f"{directory} holds no safetensors files; download the model again with "
                              "`ros2 run litevlm_ros download_models`")  # fmt: skip
    digest = hashlib.sha256()
    for file in (directory / "config.json", *files):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
