"""From views to visual tokens: tiling, the vision encoder, and a store of the frames that were encoded lately."""

from __future__ import annotations

import itertools
import operator
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from litevlm_ros.backend import CutViews, Tiler, VisionEncoder, VisualTokens
from litevlm_ros.model_config import VisionConfig
from litevlm_ros.types import milliseconds_since
from litevlm_ros.vision.stitching import Picture, Stitcher, frame_key


class NoVisualTokens:
    """The visual tokens of a question without views. No backend is asked to read them."""

    count = 0

    def part(self, first: int, end: int) -> NoVisualTokens:
        """Returns no tokens."""
        return self


@dataclass(frozen=True, eq=False)
class ViewTokens:
    """The visual tokens of several pictures, in their order."""

    visual: VisualTokens
    rows: tuple[int, ...]
    """Number of visual tokens of each picture."""
    frames: tuple[Hashable, ...]
    """One key for each picture; two keys are equal if and only if the pictures show the same frames."""
    preprocess_ms: float
    """Time that stitching and tiling took, in milliseconds; 0 if every picture was encoded before."""
    vision_ms: float
    """Time that the vision encoder took, in milliseconds."""
    reused: int
    """Number of views whose tokens came from the store."""

    def shared(self, other: ViewTokens) -> int:
        """Returns the number of visual tokens of `other` before the first picture in which both differ."""
        same = itertools.takewhile(bool, map(operator.eq, self.frames, other.frames))
        return sum(map(operator.mul, other.rows, same))


class ViewEncoder:
    """Encodes the views of one model. A picture whose views name their frames is encoded once while it is kept."""

    def __init__(self, tiler: Tiler, vision: VisionEncoder, config: VisionConfig, frames: int) -> None:
        """Keeps the visual tokens of the last `frames` pictures. `vision` takes the tiles that `tiler` makes."""
        self._tiler = tiler
        self._vision = vision
        self._tokens_per_tile = config.tokens_per_tile
        self._stitcher = Stitcher(config.image_size)
        self._store = FrameStore(frames)

    def encode(self, pictures: Sequence[Picture]) -> ViewTokens:
        """Runs the vision encoder once, on the tiles of all pictures that are not in the store.

        Without pictures there are no tokens. Raises ImageError, which names the camera, and EngineError.
        """
        if not pictures:
            return ViewTokens(NoVisualTokens(), (), (), preprocess_ms=0.0, vision_ms=0.0, reused=0)
        keys = [frame_key(picture) for picture in pictures]
        kept = [self._store.find(key) for key in keys]
        fresh = [picture for picture, part in zip(pictures, kept, strict=True) if part is None]
        started = time.perf_counter()
        cut = self._tiler.cut([self._stitcher.view(picture) for picture in fresh]) if fresh else None
        preprocess_ms = milliseconds_since(started) if fresh else 0.0
        started = time.perf_counter()
        visual, parts = self._encode(cut, kept)
        vision_ms = milliseconds_since(started)
        for key, part in zip(keys, parts, strict=True):
            self._store.keep(key, part)
        return ViewTokens(
            visual=visual,
            rows=tuple(part.count for part in parts),
            frames=tuple(object() if key is None else key for key in keys),
            preprocess_ms=preprocess_ms,
            vision_ms=vision_ms,
            reused=sum(map(len, pictures)) - sum(map(len, fresh)),
        )

    def _encode(
        self, cut: CutViews | None, kept: Sequence[VisualTokens | None]
    ) -> tuple[VisualTokens, list[VisualTokens]]:
        """Returns all visual tokens, and those of each picture. `cut` has a view for each None in `kept`."""
        fresh: list[VisualTokens] = []
        if cut is not None:
            visual = self._vision.encode(cut.tiles)
            tokens = [count * self._tokens_per_tile for count in cut.counts]
            fresh = [
                visual.part(end - count, end) for count, end in zip(tokens, itertools.accumulate(tokens), strict=True)
            ]
            if len(fresh) == len(kept):
                return visual, fresh
        parts = [part if part is not None else fresh.pop(0) for part in kept]
        return parts[0] if len(parts) == 1 else self._vision.join(parts), parts


class FrameStore:
    """Visual tokens of the pictures that were used last, so that a further question about one need not encode it again.

    Holds at most `most` pictures and drops the one whose last use is the longest ago. Their keys are those of
    `frame_key`: a picture without a key is neither kept nor found.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._frames: OrderedDict[Hashable, VisualTokens] = OrderedDict()

    def find(self, key: Hashable | None) -> VisualTokens | None:
        """Returns the visual tokens of the picture with this key, or None if they are not kept."""
        if key not in self._frames:
            return None
        self._frames.move_to_end(key)
        return self._frames[key]

    def keep(self, key: Hashable | None, visual: VisualTokens) -> None:
        """Keeps the visual tokens of the picture with this key."""
        if key is None:
            return
        self._frames[key] = visual
        self._frames.move_to_end(key)
        while len(self._frames) > self._most:
            self._frames.popitem(last=False)
