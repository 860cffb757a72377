"""Copies of what describes a model, for graphs that are written to another directory. It needs no PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path

from litevlm_ros.checksums import check_part, rewriting
from litevlm_ros.model_directory import PARTS


def copy_description(model: Path, output: Path) -> None:
    """Copies everything but weights, that is configurations and tokenizer, from one model directory to another.

    With graphs or engines, `output` then runs as any model directory. It may be `model` itself. The copies are listed.
    Raises CheckpointError if a file of `model` has changed since it was listed, and OSError.
    """
    for part in PARTS:
        check_part(model, part)
    if output.resolve() == model.resolve():
        return
    for part in PARTS:
        (output / part).mkdir(parents=True, exist_ok=True)
        copied = [file for file in (model / part).iterdir() if file.is_file() and ".safetensors" not in file.name]
        with rewriting(output, *(f"{part}/{file.name}" for file in copied)):
            for file in copied:
                shutil.copyfile(file, output / part / file.name)
