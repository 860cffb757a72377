"""Checks that the weights in a directory are those of the model that its config.json describes.

Every key that is missing, unexpected or wrongly shaped is reported by name and file, all of them at once.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

from litevlm_ros.checkpoint.files import SafetensorsDirectory, StoredTensor
from litevlm_ros.checkpoint.keys import (
    PositionSources,
    Sources,
    is_derived,
    lm_head_key,
    text_sources,
    vision_sources,
)
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import TextConfig, VisionConfig

_SHOWN = 8


class WeightCheck:
    """Collects what is wrong with the weights of one directory, so that a person sees all of it at once."""

    def __init__(self, files: SafetensorsDirectory) -> None:
        self.files = files
        self.problems: list[str] = []

    def expect(self, keys: set[str]) -> None:
        """Records the keys that are missing, and those of the files that are not among `keys`."""
        present = self.files.tensors
        for key in sorted(keys - present.keys()):
            self.problems.append(f"{key} is missing from {self.files.directory}")
        for key in sorted(key for key in present.keys() - keys if not is_derived(key)):
            self.problems.append(f"{key} in {present[key].file} is unexpected")

    def concatenated(self, keys: tuple[str, ...], shape: tuple[int, ...]) -> tuple[StoredTensor, ...]:
        """Returns the tensors `keys`, which one after the other make a parameter of `shape`.

        A convolution's kernel may have more axes than `shape`. Returns () if they do not fit, which is recorded, or
        are missing, which `expect` records.
        """
        if any(key not in self.files.tensors for key in keys):
            return ()
        stored = tuple(self.files.tensors[key] for key in keys)
        rows = sum(part.shape[0] if part.shape else 0 for part in stored)
        if rows != shape[0] or any(prod(part.shape[1:]) != prod(shape[1:]) for part in stored):
            self._misshaped(keys, f"{list(shape)} in all")
            return ()
        return stored

    def positions(self, sources: PositionSources, shape: tuple[int, int]) -> tuple[StoredTensor, ...]:
        """Returns position embedding, CLS token and patch bias, which make the parameter `positions` of `shape`.

        Returns () as `concatenated` does.
        """
        keys = (sources.embedding, sources.cls, sources.patch_bias)
        if any(key not in self.files.tensors for key in keys):
            return ()
        stored = tuple(self.files.tensors[key] for key in keys)
        for key, part, size in zip(keys, stored, (prod(shape), shape[1], shape[1]), strict=True):
            if prod(part.shape) != size:
                hint = "; positions for another image size are not interpolated" if key == sources.embedding else ""
                self._misshaped((key,), f"{size} numbers{hint}")
                return ()
        return stored

    def not_finite(self, keys: tuple[str, ...], kind: str) -> None:
        """Records that the tensors `keys` hold numbers that the type `kind`, such as 'float16', does not hold."""
        fix = "; bfloat16 holds them, if they are finite at all: `--precision bf16`" if kind == "float16" else ""
        self.problems.append(
            f"{' + '.join(keys)} in {self.files.directory} holds numbers that are not finite in {kind}{fix}"
        )

    def raise_problems(self, fix: str = "Download the model again, or correct the config.json") -> None:
        """Raises CheckpointError if a problem was recorded."""
        if self.problems:
            more = len(self.problems) - _SHOWN
            listed = "\n  ".join(self.problems[:_SHOWN] + ([f"and {more} more"] if more > 0 else []))
            raise CheckpointError(
                f"The weights in {self.files.directory} do not fit the config.json. {fix}.\n  {listed}"
            )

    def _misshaped(self, keys: tuple[str, ...], wanted: str) -> None:
        for key in keys:
            stored = self.files.tensors[key]
            self.problems.append(f"{key} in {stored.file} is {list(stored.shape)}; the config.json asks for {wanted}")


def check_vision(directory: Path, config: VisionConfig) -> tuple[WeightCheck, Sources, PositionSources]:
    """Opens the weights of a vision encoder and checks their keys. Raises CheckpointError if there is no InternViT."""
    files = SafetensorsDirectory(directory)
    sources, positions = find_vision_sources(files, config)
    check = WeightCheck(files)
    check.expect({key for keys in sources.values() for key in keys} | set(vars(positions).values()))
    return check, sources, positions


def check_text(directory: Path, config: TextConfig) -> tuple[WeightCheck, Sources]:
    """Opens the weights of a text decoder and checks their keys. Raises CheckpointError without a language model."""
    files = SafetensorsDirectory(directory)
    sources = find_text_sources(files, config)
    check = WeightCheck(files)
    spare = lm_head_key(files.tensors) if config.tie_word_embeddings else None
    check.expect({key for keys in sources.values() for key in keys} | ({spare} if spare else set()))
    return check, sources


def find_vision_sources(files: SafetensorsDirectory, config: VisionConfig) -> tuple[Sources, PositionSources]:
    """Finds the tensors of the vision encoder's parameters. Raises CheckpointError if there is no InternViT."""
    found = vision_sources(files.tensors, config)
    if found is None:
        raise CheckpointError(
            f"{files.directory} holds no InternViT: it has no patch embedding. Download the model again"
        )
    return found


def find_text_sources(files: SafetensorsDirectory, config: TextConfig) -> Sources:
    """Finds the tensors of the text decoder's parameters. Raises CheckpointError without a language model."""
    found = text_sources(files.tensors, config)
    if found is None:
        raise CheckpointError(
            f"{files.directory} holds no Qwen2 or Qwen3: it has no embed_tokens.weight. Download the model again"
        )
    return found
