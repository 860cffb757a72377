"""What an answer about synthetic camera images makes the two graphs read, without a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litevlm_ros.backend import Tiles, TokenIds
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.text.prompt import PromptBuilder
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import View
from litevlm_ros.vision.tiling import make_tiles


@dataclass(frozen=True)
class Workload:
    """Views as tiles, and the prompt's token ids, in which V + i stands for visual token i."""

    views: Sequence[View]
    prompt: TokenIds
    tiles: Callable[[], Tiles]
    """Makes the tiles of all views anew: uint8 [N, size, size, 3]."""

    @classmethod
    def of(cls, directory: Path, views: Sequence[View], question: str, max_tiles: int = 1) -> Workload:
        """What the pipeline of this model directory would make of views and question. Raises LiteVLMError."""
        model, tokenizer = ModelConfig.from_directory(directory), TextTokenizer.from_directory(directory)

        def tiles_of(view: View) -> Tiles:
            return make_tiles(view.image, max_tiles, model.vision.image_size, model.use_thumbnail)

        builder = PromptBuilder(model.template, tokenizer, model.text.vocab_size, model.vision.tokens_per_tile)
        prefix = builder.prefix([(view.camera, len(tiles_of(view))) for view in views])
        prompt = np.array([*prefix, *builder.suffix(question)])
        return cls(views, prompt, lambda: np.concatenate([tiles_of(view) for view in views]))
