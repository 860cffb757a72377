"""Words by which people mean a camera's direction, all cameras, or any: defaults in English and Korean."""

from __future__ import annotations

from collections.abc import Mapping

DIRECTIONS: Mapping[str, tuple[str, ...]] = {
    "front": ("front", "ahead", "forward", "in front", "앞", "전방", "정면"),
    "back": ("back", "behind", "rear", "rearward", "뒤", "후방"),
    "left": ("left", "왼쪽", "좌측"),
    "right": ("right", "오른쪽", "우측"),
    "top": ("top", "above", "up", "위"),
    "bottom": ("bottom", "below", "down", "아래"),
}
"""By what may be a part of a camera's name."""

NAME_PARTS: Mapping[str, str] = {
    "rear": "back",
    "forward": "front",
    "behind": "back",
    "centre": "front",
    "center": "front",
    "l": "left",
    "r": "right",
}
"""Other parts of names → the direction they stand for."""

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
