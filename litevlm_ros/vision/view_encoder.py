"""From views to visual tokens: tiling, the vision encoder, and a store of the frames that were encoded lately."""

from __future__ import annotations

import itertools
import operator
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from litevlm_ros.backend import CutViews, Tiler, VisionEncoder, VisualTokens
from litevlm_ros.types import View, milliseconds_since


@dataclass(frozen=True, eq=False)
class ViewTokens:
    """The visual tokens of several views, in the order of the views."""

    visual: VisualTokens
    rows: tuple[int, ...]
    """Number of visual tokens of each view."""
    frames: tuple[Hashable, ...]
    """One key for each view; two keys are equal if and only if the views show the same picture."""
    preprocess_ms: float
    """Time that tiling took, in milliseconds; 0 if every view was encoded before."""
    vision_ms: float
    """Time that the vision encoder took, in milliseconds."""
    reused: int
    """Number of views whose tokens came from the store."""

    def shared(self, other: ViewTokens) -> int:
        """Returns the number of visual tokens of `other` before the first picture in which both differ."""
        same = itertools.takewhile(bool, map(operator.eq, self.frames, other.frames))
        return sum(map(operator.mul, other.rows, same))


class ViewEncoder:
    """Encodes the views of one model. A view that names its frame is encoded once, as long as the frame is kept."""

    def __init__(self, tiler: Tiler, vision: VisionEncoder, tokens_per_tile: int, frames: int) -> None:
        """Keeps the visual tokens of the last `frames` frames. `vision` takes the tiles that `tiler` makes."""
        self._tiler = tiler
        self._vision = vision
        self._tokens_per_tile = tokens_per_tile
        self._store = FrameStore(frames)

    def encode(self, views: Sequence[View]) -> ViewTokens:
        """Runs the vision encoder once, on the tiles of all views that are not in the store.

        `views` must not be empty. Raises ImageError, which names the camera, and EngineError.
        """
        kept = [self._store.find(view) for view in views]
        fresh = [view for view, part in zip(views, kept, strict=True) if part is None]
        started = time.perf_counter()
        cut = self._tiler.cut(fresh) if fresh else None
        preprocess_ms = milliseconds_since(started) if fresh else 0.0
        started = time.perf_counter()
        visual, parts = self._encode(cut, kept)
        vision_ms = milliseconds_since(started)
        for view, part in zip(views, parts, strict=True):
            self._store.keep(view, part)
        return ViewTokens(
            visual=visual,
            rows=tuple(part.count for part in parts),
            frames=tuple(self._store.key(view) for view in views),
            preprocess_ms=preprocess_ms,
            vision_ms=vision_ms,
            reused=len(views) - len(fresh),
        )

    def _encode(
        self, cut: CutViews | None, kept: Sequence[VisualTokens | None]
    ) -> tuple[VisualTokens, list[VisualTokens]]:
        """Returns all visual tokens, and those of each view. `cut` has one view for each None in `kept`."""
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
    """Visual tokens of the frames that were used last, so that a further question about one need not encode it again.

    Holds at most `most` frames and drops the one whose last use is the longest ago.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._frames: OrderedDict[Hashable, VisualTokens] = OrderedDict()

    @staticmethod
    def key(view: View) -> Hashable:
        """Returns equal keys for views of the same picture. The key of a view without a frame equals no other key."""
        return object() if view.frame is None else (view.camera, view.frame)

    def find(self, view: View) -> VisualTokens | None:
        """Returns the visual tokens of the view's frame, or None if they are not kept or the view names no frame."""
        key = self.key(view)
        if key not in self._frames:
            return None
        self._frames.move_to_end(key)
        return self._frames[key]

    def keep(self, view: View, visual: VisualTokens) -> None:
        """Keeps the visual tokens of the view's frame. Does nothing for a view that names no frame."""
        if view.frame is None:
            return
        key = self.key(view)
        self._frames[key] = visual
        self._frames.move_to_end(key)
        while len(self._frames) > self._most:
            self._frames.popitem(last=False)
