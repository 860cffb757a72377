"""Visual tokens in host memory, and the selector that drops some, with the trained scorer on ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.backend import Selection, VisualTokens
from litevlm_ros.config import TokenSelectionConfig
from litevlm_ros.errors import ConfigError, EngineError, NotFiniteError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import SCORER_GRAPH
from litevlm_ros.runtime.onnx.finite_check import all_finite
from litevlm_ros.runtime.onnx.session import export_hint, open_session
from litevlm_ros.vision.token_selection import choose, highest, tokens_kept

_TOOL = "train_token_scorer"


@dataclass(frozen=True)
class HostVisualTokens:
    """Visual tokens in host memory: fp32 or fp16 [count, text width]."""

    rows: npt.NDArray[Any]

    @property
    def count(self) -> int:
        """See `VisualTokens.count`."""
        return len(self.rows)

    def part(self, first: int, end: int) -> HostVisualTokens:
        """See `VisualTokens.part`."""
        return HostVisualTokens(self.rows[first:end])


class HostTokenSelector:
    """A `TokenSelector` for every method."""

    def __init__(self, config: TokenSelectionConfig, model: ModelConfig, directory: Path, options: Any) -> None:
        """Opens the scorer of the model directory `directory` if `config` asks for it.

        `options` is an onnxruntime.SessionOptions. Raises ConfigError if the scorer is missing, and EngineError if it
        belongs to another model.
        """
        self._method = config.method
        self._tile = model.vision.tokens_per_tile, model.text.hidden_size
        self._keep = tokens_kept(config.keep, model.vision.tokens_per_tile)
        self._file = directory / SCORER_GRAPH
        self._scorer = _open_scorer(self._file, self._tile, options) if config.method == "scorer" else None

    def select(self, visual: VisualTokens) -> Selection:
        """See `TokenSelector.select`."""
        assert isinstance(visual, HostVisualTokens)
        tiles = visual.rows.reshape(-1, *self._tile)
        kept = highest(self._scores(tiles), self._keep) if self._scorer else choose(tiles, self._method, self._keep)
        places = (kept + self._tile[0] * np.arange(len(tiles))[:, None]).reshape(-1)
        return Selection(HostVisualTokens(visual.rows[places]), places)

    def _scores(self, tiles: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        assert self._scorer is not None
        try:
            # Tiles are scored one by one, so that rounding cannot depend on the tiles beside them.
            wide = tiles.astype(np.float32)
            scores = [self._scorer.run(["scores"], {"visual_tokens": tile[None]})[0] for tile in wide]
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"the token scorer failed on {len(tiles)} tiles: {error}") from error
        if not all_finite(*scores):
            raise NotFiniteError(
                f"the token scorer gives infinite or NaN scores, so {self._file} is damaged; "
                f"{export_hint(self._file.parent, _TOOL)}, or set token_selection to diversity"
            )
        return np.concatenate(scores)


def _open_scorer(file: Path, tile: tuple[int, int], options: Any) -> Any:
    if not file.is_file():
        raise ConfigError(
            f"token_selection is 'scorer', but {file} is missing; train one with `ros2 run litevlm_ros "
            f"train_token_scorer --model {file.parent}`, or use 'diversity', which needs none"
        )
    shapes = {"visual_tokens": ("N", *tile), "scores": ("N", tile[0])}
    return open_session(file, options, shapes, tool=_TOOL)
