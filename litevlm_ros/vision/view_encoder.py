"""Views to visual tokens: tiles, the vision encoder, and the tokens of frames that it has seen lately."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from litevlm_ros.backend import Tiles, VisionEncoder, VisualTokens
from litevlm_ros.errors import ImageError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.types import View
from litevlm_ros.vision.frame_store import FrameStore
from litevlm_ros.vision.tiling import make_tiles

_WORKERS = min(6, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class VisibleViews:
    """The visual tokens of some views, view by view."""

    visual: VisualTokens
    rows: tuple[int, ...]
    """Visual tokens of each view."""
    frames: tuple[Hashable, ...]
    """What each view shows: equal objects where it is the same picture."""
    preprocess_ms: float
    """0 where nothing was left to encode."""
    vision_ms: float
    reused: int
    """Views whose tokens were there already."""


class ViewEncoder:
    """Encodes the views of one model, each named frame once as long as it is kept."""

    def __init__(self, vision: VisionEncoder, model: ModelConfig, max_tiles: int, frames: int) -> None:
        """`frames` is how many frames' visual tokens are kept."""
        self._vision = vision
        self._model = model
        self._max_tiles = max_tiles
        self._store = FrameStore(frames)
        # Pillow resizes outside the interpreter's lock, and six views take six times as long as one.
        self._workers = ThreadPoolExecutor(_WORKERS, "tiling")

    def encode(self, views: Sequence[View]) -> VisibleViews:
        """Runs the vision encoder on the tiles of all views that are new. `views` must not be empty.

        Raises ImageError that names the camera, and EngineError.
        """
        kept = [self._store.find(view) for view in views]
        started = time.perf_counter()
        fresh = [view for view, part in zip(views, kept, strict=True) if part is None]
        tiles = list(self._workers.map(self._tiles, fresh))
        preprocess_ms = _milliseconds_since(started) if tiles else 0.0
        started = time.perf_counter()
        visual, parts = self._encode(tiles, kept)
        vision_ms = _milliseconds_since(started)
        for view, part in zip(views, parts, strict=True):
            self._store.keep(view, part)
        return VisibleViews(
            visual=visual,
            rows=tuple(part.count for part in parts),
            frames=tuple(self._store.name(view) for view in views),
            preprocess_ms=preprocess_ms,
            vision_ms=vision_ms,
            reused=len(views) - len(tiles),
        )

    def _encode(
        self, tiles: Sequence[Tiles], kept: Sequence[VisualTokens | None]
    ) -> tuple[VisualTokens, list[VisualTokens]]:
        """All visual tokens, and those of each view, which come from the next of `tiles` where they were not kept."""
        fresh: list[VisualTokens] = []
        if tiles:
            visual = self._vision.encode(np.concatenate(tiles))
            tokens = [len(each) * self._model.vision.tokens_per_tile for each in tiles]
            fresh = [
                visual.part(end - count, end) for count, end in zip(tokens, itertools.accumulate(tokens), strict=True)
            ]
            if len(fresh) == len(kept):
                return visual, fresh
        parts = [part if part is not None else fresh.pop(0) for part in kept]
        return parts[0] if len(parts) == 1 else self._vision.join(parts), parts

    def _tiles(self, view: View) -> Tiles:
        model = self._model
        try:
            return make_tiles(view.image, self._max_tiles, model.vision.image_size, model.use_thumbnail)
        except ImageError as error:
            raise ImageError(f"{view.camera}: {error}") from None


def _milliseconds_since(started: float) -> float:
    return 1e3 * (time.perf_counter() - started)
