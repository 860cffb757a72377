"""View selection by words: the cameras that a question needs, from its text alone, before any image is encoded.

This is the lexical part of LiteVLM's patch selection (arXiv 2506.07416): a score for each camera and a threshold. It
needs no training. In doubt it keeps more views, and it always keeps at least one. The learned part is in
`learned_view_selection.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from litevlm_ros.config import ViewSelectionConfig

NAMED = 1.0
"""Score of a camera if the question names it, or names the side of the robot that it looks at."""
HINTED = 0.4
"""Score of a camera if the question mentions its direction, which may as well be a place within a picture."""

# The words by which people mean a direction, all cameras or any camera: defaults in English and Korean.

DIRECTIONS: Mapping[str, tuple[str, ...]] = {
    "front": ("front", "ahead", "forward", "in front", "앞", "전방", "정면"),
    "back": ("back", "behind", "rear", "rearward", "뒤", "후방"),
    "left": ("left", "왼쪽", "좌측"),
    "right": ("right", "오른쪽", "우측"),
    "top": ("top", "above", "up", "위"),
    "bottom": ("bottom", "below", "down", "아래"),
}
"""Words for each direction. A camera looks in a direction if the direction is a part of the camera's name."""

NAME_PARTS: Mapping[str, str] = {
    "rear": "back",
    "forward": "front",
    "behind": "back",
    "centre": "front",
    "center": "front",
    "l": "left",
    "r": "right",
}
"""Other parts of camera names, and the direction that each stands for."""

PLACES: Mapping[str, tuple[str, ...]] = {
    "front": ("in front of", "ahead of", "way ahead", "road ahead", "front view", "front camera"),
    "back": ("behind", "at the back", "to the back", "rear view", "rear camera", "back view", "back camera"),
    "left": ("left view", "left camera", "left side of the car", "to our left"),
    "right": ("right view", "right camera", "right side of the car", "to our right"),
}
"""Phrases that name a side of the robot, where a direction alone may be a place within a picture."""

EVERYWHERE = (
    "around", "all views", "all cameras", "every view", "every camera", "each camera", "in total", "altogether",
    "anywhere", "which camera", "what camera", "which view", "what view",
    "주변", "전체", "모든", "어느 카메라", "어떤 카메라",
)  # fmt: skip
"""Phrases of questions that need all views."""

ANY_VIEW = (
    "weather", "raining", "snowing", "foggy", "day or night", "time of day", "daytime", "dark",
    "날씨", "낮인가", "밤인가",
)  # fmt: skip
"""Phrases of questions that any one view answers."""


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
        """Returns the cameras whose names or phrases are in the text, and the text without those.

        Looks for longer names first, so that 'front left' is not taken for 'left'.
        """
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
        """Returns the cameras that look in a direction whose words are in the text.

        Where a camera looks in exactly that direction, those that look there among others are left out.
        """
        found: set[str] = set()
        for direction, phrases in words.items():
            if _find(text, phrases):
                exact = {camera for camera in cameras if _directions(camera) == {direction}}
                found |= exact or {camera for camera in cameras if direction in _directions(camera)}
        return found


def cameras_above(threshold: float, scores: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the cameras with a score above `threshold`, in the order of `scores`."""
    return tuple(camera for camera, score in scores.items() if score > threshold)


def _directions(camera: str) -> set[str]:
    parts = (NAME_PARTS.get(part, part) for part in re.split(r"[^a-z]+", camera.casefold()))
    return {part for part in parts if part in DIRECTIONS}


def _foremost(cameras: Sequence[str]) -> str:
    """Returns the camera that looks ahead, or the first one."""
    return next((camera for camera in cameras if _directions(camera) == {"front"}), cameras[0])


def _find(text: str, phrases: Sequence[str]) -> bool:
    return any(re.search(_pattern(phrase), text) for phrase in phrases)


def _pattern(phrase: str) -> str:
    """Returns a pattern for whole words in Latin script. In other scripts words run into their endings."""
    escaped = re.escape(phrase)
    return rf"\b{escaped}\b" if phrase.isascii() else escaped
