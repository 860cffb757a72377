"""View selection: the cameras that a question needs, from its text alone, before any image is encoded.

The lexical part of LiteVLM's patch selection (arXiv 2506.07416): a score for each camera and a threshold. It needs no
training. In doubt more views are kept, and never none. The learned part is in `learned_view_selection.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from litevlm_ros.config import ViewSelectionConfig
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH
from litevlm_ros.vision.view_words import ANY_VIEW, DIRECTIONS, EVERYWHERE, NAME_PARTS, PLACES

NAMED = 1.0
"""Score of a camera that the question names, or whose side of the robot it names."""
HINTED = 0.4
"""Score of a camera whose direction is mentioned, which may as well be a place within a picture."""


class ViewSelector(Protocol):
    """Chooses views."""

    def select(self, question: str, cameras: Sequence[str]) -> tuple[str, ...]:
        """At least one of `cameras`, in their order."""

    def changed(self, config: ViewSelectionConfig) -> ViewSelector:
        """One that differs in what `config` has beside its method."""


@dataclass(frozen=True)
class LexicalSelector:
    """Looks for words. `phrases` adds some for a camera by its name, `everywhere` and `any_view` for those."""

    threshold: float = 0.5
    phrases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    everywhere: Sequence[str] = EVERYWHERE
    any_view: Sequence[str] = ANY_VIEW

    def select(self, question: str, cameras: Sequence[str]) -> tuple[str, ...]:
        """See `ViewSelector.select`."""
        return self.pick(self.scores(question, cameras))

    def changed(self, config: ViewSelectionConfig) -> LexicalSelector:
        """See `ViewSelector.changed`."""
        return replace(self, threshold=config.threshold, phrases=config.phrases)

    def pick(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        """Those named, or else those hinted at, or else all."""
        return keep(scores, self.threshold) or keep(scores, 0.0) or tuple(scores)

    def scores(self, question: str, cameras: Sequence[str]) -> dict[str, float]:
        """From 0, nothing in the question speaks for this camera, to NAMED."""
        text = question.casefold()
        if _find(text, self.everywhere):
            return dict.fromkeys(cameras, NAMED)
        named, rest = self._named(text, cameras)
        named |= self._on_sides(rest, cameras, PLACES)
        hinted = self._on_sides(rest, cameras, DIRECTIONS)
        if not named and not hinted and _find(text, self.any_view):
            named = {_foremost(cameras)}
        return {camera: NAMED if camera in named else HINTED * (camera in hinted) for camera in cameras}

    def _named(self, text: str, cameras: Sequence[str]) -> tuple[set[str], str]:
        """Cameras whose names or phrases are in the text, and what is left of it. Longer ones first: 'front left'."""
        known = [(phrase.casefold(), camera) for camera in cameras for phrase in self._names(camera)]
        named = set()
        for phrase, camera in sorted(known, key=lambda item: -len(item[0])):
            if phrase and _find(text, (phrase,)):
                named.add(camera)
                text = re.sub(_pattern(phrase), " ", text)
        return named, text

    def _names(self, camera: str) -> list[str]:
        names = list(self.phrases.get(camera, ()))
        spoken = camera.replace("_", " ")
        if len(_directions(camera)) > 1:
            return [*names, spoken, spoken.replace(" ", "-"), spoken.replace("back", "rear")]
        # One direction alone is no name: 'front' and 'left' are said of places too.
        return names if _directions(camera) else [*names, spoken]

    @staticmethod
    def _on_sides(text: str, cameras: Sequence[str], words: Mapping[str, Sequence[str]]) -> set[str]:
        """The camera of exactly one mentioned direction where there is one, else all that look there too."""
        found: set[str] = set()
        for direction, phrases in words.items():
            if _find(text, phrases):
                exact = {camera for camera in cameras if _directions(camera) == {direction}}
                found |= exact or {camera for camera in cameras if direction in _directions(camera)}
        return found


def load_view_selector(config: ViewSelectionConfig, model_dir: Path) -> ViewSelector | None:
    """What the settings ask for; None for 'off'. Raises EngineError where 'learned' cannot run."""
    if config.method == "off":
        return None
    lexical = LexicalSelector(config.threshold, config.phrases)
    if config.method == "lexical":
        return lexical
    # Here, because it builds on this module and needs ONNX Runtime.
    from litevlm_ros.vision.learned_view_selection import LearnedSelector

    return LearnedSelector(model_dir / VIEW_SELECTOR_GRAPH, lexical)


def keep(scores: Mapping[str, float], threshold: float) -> tuple[str, ...]:
    """The cameras with a score above `threshold`, in the order of `scores`."""
    return tuple(camera for camera, score in scores.items() if score > threshold)


def _directions(camera: str) -> set[str]:
    parts = (NAME_PARTS.get(part, part) for part in re.split(r"[^a-z]+", camera.casefold()))
    return {part for part in parts if part in DIRECTIONS}


def _foremost(cameras: Sequence[str]) -> str:
    """The camera that looks ahead, or the first."""
    return next((camera for camera in cameras if _directions(camera) == {"front"}), cameras[0])


def _find(text: str, phrases: Sequence[str]) -> bool:
    return any(re.search(_pattern(phrase), text) for phrase in phrases)


def _pattern(phrase: str) -> str:
    """Whole words in Latin script; elsewhere words run into their endings."""
    escaped = re.escape(phrase)
    return rf"\b{escaped}\b" if phrase.isascii() else escaped
