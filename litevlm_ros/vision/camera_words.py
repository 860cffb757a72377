"""The words of a question that speak for cameras: by their names, by the sides that they look at, or for all of them.

The patterns of one set of cameras are compiled once, and each question is then searched a dozen times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

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

Search = Callable[[str], object]
"""Returns something true if a text contains what is searched."""


class CameraWords:
    """The compiled words of one set of cameras."""

    def __init__(
        self,
        cameras: Sequence[str],
        phrases: Mapping[str, Sequence[str]],
        everywhere: Sequence[str] = EVERYWHERE,
        any_view: Sequence[str] = ANY_VIEW,
    ) -> None:
        """`phrases` maps camera names to further words for that camera."""
        self._cameras = tuple(cameras)
        self._everywhere, self._any_view = _compiled(everywhere).search, _compiled(any_view).search
        self._foremost = _foremost(self._cameras)
        names = ((name.casefold(), camera) for camera in self._cameras for name in _names(camera, phrases))
        # Longer names come first, so that 'front left' is not taken for 'left'.
        self._names = [
            (name, _compiled([name]), camera) for name, camera in sorted(names, key=lambda item: -len(item[0])) if name
        ]
        self._places = [*_sides(self._cameras, PLACES)]
        self._directions = [*_sides(self._cameras, DIRECTIONS)]

    def scores(self, question: str) -> dict[str, float]:
        """Returns the score of each camera, from 0 (nothing in the question speaks for it) to NAMED."""
        text = _without_options(question.casefold())
        if self._everywhere(text):
            return dict.fromkeys(self._cameras, NAMED)
        named, rest = self._named(text)
        named |= _found(rest, self._places)
        hinted = _found(rest, self._directions)
        if not named and not hinted and self._any_view(text):
            named = self._foremost
        return {camera: NAMED if camera in named else HINTED * (camera in hinted) for camera in self._cameras}

    def _named(self, text: str) -> tuple[set[str], str]:
        """Returns the cameras whose names or phrases are in the text, and the text without those."""
        named = set()
        for name, pattern, camera in self._names:
            if name in text:  # much cheaper than the pattern, and mostly false
                text, count = pattern.subn(" ", text)
                if count:
                    named.add(camera)
        return named, text


_OPTION_A, _OPTION_B = re.compile(r"\ba[.):]\s"), re.compile(r"\bb[.):]\s")


def _without_options(text: str) -> str:
    """Returns a question without the answers that it offers ("A. Turning left. B. Going ahead."): most are wrong."""
    first = _OPTION_A.search(text)
    return text[: first.start()] if first and _OPTION_B.search(text, first.end()) else text


def _compiled(phrases: Sequence[str]) -> re.Pattern[str]:
    """Returns a pattern that finds any of the phrases.

    Those in Latin script are whole words. In other scripts words run into their endings.
    """
    words = "|".join(re.escape(phrase) for phrase in phrases if phrase.isascii())
    parts = [re.escape(phrase) for phrase in phrases if not phrase.isascii()]
    if any(phrase.isascii() for phrase in phrases):
        parts.insert(0, rf"\b(?:{words})\b")
    return re.compile("|".join(parts) or "(?!)")  # the last finds nothing, where there are no phrases


def _found(text: str, sides: Sequence[tuple[Search, frozenset[str]]]) -> set[str]:
    """Returns the cameras of all sides that are in the text."""
    found: set[str] = set()
    for search, cameras in sides:
        if search(text):
            found |= cameras
    return found


def _sides(cameras: Sequence[str], words: Mapping[str, Sequence[str]]) -> Iterator[tuple[Search, frozenset[str]]]:
    """Yields a search for the words of each direction, and the cameras that look there.

    Where a camera looks in exactly that direction, those that look there among others are left out.
    """
    for direction, phrases in words.items():
        exact = frozenset(camera for camera in cameras if directions(camera) == {direction})
        there = exact or frozenset(camera for camera in cameras if direction in directions(camera))
        if there:
            yield _compiled(phrases).search, there


def _names(camera: str, phrases: Mapping[str, Sequence[str]]) -> list[str]:
    # nuScenes and DriveLM call the camera 'back' CAM_BACK, also in '<c1,CAM_BACK,1088.3,497.5>', an object of its view.
    names = [*phrases.get(camera, ()), f"cam_{camera.casefold().removeprefix('cam_')}"]
    spoken = camera.replace("_", " ")
    if len(directions(camera)) > 1:
        return [*names, spoken, spoken.replace(" ", "-"), spoken.replace("back", "rear")]
    # One direction alone is no name: 'front' and 'left' are said of places too.
    return names if directions(camera) else [*names, spoken]


def directions(camera: str) -> set[str]:
    """Returns the directions in the camera's name, such as {'front', 'left'} for front_left. They are in DIRECTIONS."""
    parts = (NAME_PARTS.get(part, part) for part in re.split(r"[^a-z]+", camera.casefold()))
    return {part for part in parts if part in DIRECTIONS}


def _foremost(cameras: Sequence[str]) -> set[str]:
    """Returns the camera that looks ahead, or the first one."""
    return {next((camera for camera in cameras if directions(camera) == {"front"}), cameras[0])} if cameras else set()
