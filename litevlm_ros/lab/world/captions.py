"""Captions of a view: written from the ground truth, and judged against it statement by statement.

A caption reads: "Rainy night. A red car near on the left, a blue bus far ahead. The light is green. A crossing."
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from litevlm_ros.lab.world.scene import (
    COLOURS,
    Distance,
    Kind,
    RoadUser,
    Scene,
    Side,
    ViewContent,
    Weather,
)

PLACES = {Side.LEFT: "on the left", Side.AHEAD: "ahead", Side.RIGHT: "on the right"}
_CONDITIONS = {Weather.CLEAR: "Clear", Weather.RAIN: "Rainy", Weather.FOG: "Foggy", Weather.SNOW: "Snowy"}
_EMPTY = "The road is empty"
_CROSSING = "A crossing"
_USER = re.compile(
    rf"an? ({'|'.join(COLOURS)}) ({'|'.join(kind.value for kind in Kind)})"
    rf" ({'|'.join(distance.value for distance in Distance)}) ({'|'.join(PLACES.values())})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CaptionVerdict:
    """Numbers of statements that a caption makes, of those that are true, and of those that it should make.

    `present` counts what a complete caption states; `covered` how many of those the caption states.
    """

    statements: int
    true: int
    present: int
    covered: int


def describe_user(user: RoadUser) -> str:
    """Describes a road user, such as "a red car near on the left"."""
    return f"a {user.colour} {user.kind.value} {user.distance.value} {PLACES[user.side]}"


def in_reading_order(view: ViewContent) -> list[RoadUser]:
    """Sorts the road users of a view: near before far, then from left to right."""
    return sorted(view.users, key=lambda user: (user.distance is Distance.FAR, -user.azimuth))


def caption(scene: Scene, camera: str) -> str:
    """Writes the reference caption of one view."""
    return " ".join(f"{sentence}." for sentence in _sentences(scene, camera))


def _sentences(scene: Scene, camera: str) -> list[str]:
    view = scene.views[camera]
    sentences = [f"{_CONDITIONS[scene.weather]} {scene.time.value}"]
    if view.users:
        listed = ", ".join(describe_user(user) for user in in_reading_order(view))
        sentences.append(listed[0].upper() + listed[1:])
    else:
        sentences.append(_EMPTY)
    if view.light:
        sentences.append(f"The light is {view.light.state.value}")
    if view.crossing:
        sentences.append(_CROSSING)
    return sentences


def judge(text: str, scene: Scene, camera: str) -> CaptionVerdict:
    """Judges each statement of a caption; a statement that cannot be understood counts as false.

    The opening makes two statements, weather and time; each road user is one, true only if colour, kind, distance and
    side all fit one road user that no earlier statement has taken.
    """
    return judge_against(text, caption(scene, camera))


def judge_against(text: str, reference: str) -> CaptionVerdict:
    """Judges a caption against the reference caption of the same view, as `judge` does."""
    stated = _statements(text)
    truth = _statements(reference)
    remaining = list(truth)
    true = 0
    for statement in stated:
        if statement in remaining:
            remaining.remove(statement)
            true += 1
    return CaptionVerdict(len(stated), true, len(truth), len(truth) - len(remaining))


def _statements(text: str) -> list[str]:
    statements = []
    for index, sentence in enumerate(part.strip() for part in text.split(".") if part.strip()):
        if index == 0:
            # "Rainy night" states the weather and the time of day.
            statements += [f"opening: {word.lower()}" for word in sentence.split()]
            continue
        for clause in (part.strip() for part in sentence.split(",")):
            user = _USER.fullmatch(clause)
            statements.append(" ".join(user.groups()).lower() if user else clause.lower())
    return statements
