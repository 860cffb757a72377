"""The tiny InternVL as a person has it on the disk: a whole checkpoint with its tokenizer, in a directory to change."""

from __future__ import annotations

import shutil
from pathlib import Path

from tiny_tokenizer import make_tokenizer, write_tokenizer


def write_checkpoint(directory: Path) -> Path:
    """Writes the checkpoint of `tiny_internvl` to `directory`, which must not exist, and returns it. Needs torch."""
    from tiny_internvl import checkpoint

    shutil.copytree(checkpoint(), directory)
    write_tokenizer(make_tokenizer(), directory)
    return directory
