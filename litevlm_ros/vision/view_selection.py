"""View selection by words: the cameras that a question needs, from its text alone, before any image is encoded.

This is the lexical part of LiteVLM's patch selection (arXiv 2506.07416): a score for each camera and a threshold. It
needs no training. In doubt it keeps more views, and it always keeps at least one. The learned part is in
`learned_view_selection.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Protocol

from litevlm_ros.config import ViewSelectionConfig
from litevlm_ros.vision.camera_words import ANY_VIEW, EVERYWHERE, CameraWords

_CAMERA_SETS = 16
"""Sets of cameras whose words stay compiled. A robot has few: all cameras, and those left when one has no new frame."""


class ViewSelector(Protocol):
    """Chooses the views that a question needs."""

    def select(self, question: str, cameras: Sequence[str]) -> tuple[str, ...]:
        """Returns at least one of `cameras`, in their order."""

    def changed(self, config: ViewSelectionConfig) -> ViewSelector:
        """Returns a selector of the same method with the other settings of `config`."""


@dataclass(frozen=True)
class LexicalSelector:
    """Looks for words in the question. `phrases` maps camera names to further words for that camera."""

    threshold: float = 0.5
    phrases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    everywhere: Sequence[str] = EVERYWHERE
    any_view: Sequence[str] = ANY_VIEW
    _words: Callable[[tuple[str, ...]], CameraWords] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compiled = partial(CameraWords, phrases=self.phrases, everywhere=self.everywhere, any_view=self.any_view)
        object.__setattr__(self, "_words", lru_cache(_CAMERA_SETS)(compiled))

    def select(self, question: str, cameras: Sequence[str]) -> tuple[str, ...]:
        """See `ViewSelector.select`."""
        return self.pick(self.scores(question, cameras))

    def changed(self, config: ViewSelectionConfig) -> LexicalSelector:
        """See `ViewSelector.changed`."""
        return replace(self, threshold=config.threshold, phrases=config.phrases)

    def pick(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        """Returns the cameras above the threshold; if there are none, those with any score; else all."""
        return cameras_above(self.threshold, scores) or cameras_above(0.0, scores) or tuple(scores)

    def scores(self, question: str, cameras: Sequence[str]) -> dict[str, float]:
        """Returns the score of each camera, from 0 (nothing in the question speaks for it) to NAMED."""
        return self._words(tuple(cameras)).scores(question)


def cameras_above(threshold: float, scores: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the cameras with a score above `threshold`, in the order of `scores`."""
    return tuple([camera for camera, score in scores.items() if score > threshold])
