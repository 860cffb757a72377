"""The sizes that engines are built for. Each plan has one number of rows, so calls are filled up to the next of these.

A size that is not foreseen here is built where it first occurs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.engines.plan_archive import PlanKey
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import VISION
from litevlm_ros.precision import PACKED_PRECISIONS

MOST_PROMPT = 2048
"""The most new tokens of one call. Longer prompts are read in parts."""

DEFAULT_TILES = 12
"""The number of tiles in LiteVLM's own measurements (arXiv 2506.07416)."""
DEFAULT_CONTEXT = 4096
"""The rows of the KV cache where nobody asks for others, if the model allows as many."""

_TILES = (1, 2, 3, 4, 5, 6, 8, 10, 12)
"""The numbers of tiles of one call. GPUs are busy with 12; more tiles run in several calls."""

_PROMPT = (
    *(1, 2, 4, 8, 16, 32),
    *range(64, 512, 64),
    *range(512, 1024, 128),
    *range(1024, MOST_PROMPT + 1, 256),
)
"""The numbers of new tokens of one call: filling up to the next one adds at most a quarter from 256 on."""


@dataclass(frozen=True)
class Sizes:
    """The most tiles in one prompt, and the most rows of the KV cache, that engines are built for."""

    max_tiles: int
    max_context: int

    def checked(self, model: ModelConfig) -> Sizes:
        """Returns these sizes with 0 replaced by the default. Raises ConfigError for what `model` does not allow."""
        allowed = model.text.max_position_embeddings
        if self.max_tiles < 1:
            raise ConfigError(f"max_tiles is {self.max_tiles}; allowed: from 1. Use the number of your views")
        if not 0 <= self.max_context <= allowed:
            raise ConfigError(f"max_context is {self.max_context}; allowed: up to this model's {allowed}. Use 0 for "
                              f"{DEFAULT_CONTEXT}, or less if the model has less")  # fmt: skip
        return Sizes(self.max_tiles, self.max_context or min(DEFAULT_CONTEXT, allowed))

    @property
    def max_prompt(self) -> int:
        """The most new tokens of one call."""
        return min(MOST_PROMPT, self.max_context)


def tile_counts(max_tiles: int) -> tuple[int, ...]:
    """Returns the numbers of tiles of one call of the vision encoder, in order. The last is at most 12."""
    return _cut(_TILES, min(max_tiles, _TILES[-1]))


def prompt_rows(max_prompt: int) -> tuple[int, ...]:
    """Returns the numbers of new tokens of one call of the text decoder, in order. The last is `max_prompt`."""
    return _cut(_PROMPT, max_prompt)


def logit_rows() -> tuple[int, ...]:
    """Returns the numbers of tokens of one call whose logits are computed, in order."""
    return (1, 2, 4, 8, MOST_LOGITS)


def next_size(count: int, sizes: Sequence[int]) -> int:
    """Returns the smallest of `sizes` that holds `count`. Raises ValueError if none does."""
    return min(size for size in sizes if size >= count)


def foreseen(part: str, sizes: Sizes, model: ModelConfig, precision: str) -> tuple[PlanKey, ...]:
    """Returns the plans that the engine of `part` (VISION or TEXT) is built with.

    A head that `precision` packs needs none.
    """
    if part == VISION:
        rows = [tiles * (1 + model.vision.grid**2) for tiles in tile_counts(sizes.max_tiles)]
        return tuple(PlanKey(block, count) for block in ("patches", "qkv", "mlp", "projector") for count in rows)
    new = prompt_rows(sizes.max_prompt)
    return (
        *(PlanKey("qkv", count) for count in new),
        *(PlanKey("mlp", count) for count in sorted({*new, *logit_rows()})),
        *(PlanKey("head", count) for count in (() if precision in PACKED_PRECISIONS else logit_rows())),
    )


def _cut(sizes: Iterable[int], most: int) -> tuple[int, ...]:
    return (*(size for size in sizes if size < most), most)
