"""The sizes that engines are built for, as optimization profiles. All profiles of an engine share its weights."""

from __future__ import annotations

from dataclasses import dataclass

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.engines.sidecar import Profile
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION

MOST_PROMPT = 2048
"""The most new tokens of one call. Longer prompts are read in parts, because attention over all at once takes too much
memory."""

_LIKELY_TILES = 6
_LIKELY_PROMPT = 320
_LIKELY_ROWS = 512


@dataclass(frozen=True)
class Sizes:
    """The most tiles of one call and in one prompt, and the most rows of the KV cache, that engines are built for."""

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


DEFAULT_TILES = 12
"""The number of tiles in LiteVLM's own measurements (arXiv 2506.07416)."""
DEFAULT_CONTEXT = 4096
"""The rows of the KV cache where nobody asks for others, if the model allows as many."""


def profiles(part: str, sizes: Sizes, model: ModelConfig) -> tuple[Profile, ...]:
    """Returns the profiles of the engine of `part` (VISION or TEXT)."""
    if part == VISION:
        return (Profile("tiles", {"pixels": (1, min(_LIKELY_TILES, sizes.max_tiles), sizes.max_tiles)}),)
    assert part == TEXT
    visual = min(sizes.max_tiles * model.vision.tokens_per_tile, sizes.max_context)
    cache = (1, min(_LIKELY_ROWS, sizes.max_context), sizes.max_context)

    def profile(name: str, likely: int, most: int) -> Profile:
        new = (1, min(likely, most), most)
        logits = min(MOST_LOGITS, most)
        shapes = {"input_ids": new, "position_ids": new, "logit_positions": (1, 1, logits)}
        return Profile(name, shapes | {"visual_tokens": (1, visual, visual), "past_key": cache, "past_value": cache})

    return (
        profile("prefill", _LIKELY_PROMPT, sizes.max_prompt),
        # Verifying a draft should be as fast as reading a single token, so one profile takes both.
        profile("decode", 1, min(MOST_LOGITS, sizes.max_prompt)),
    )
