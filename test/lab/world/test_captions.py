from __future__ import annotations

import pytest

from litevlm_ros.lab.world.captions import CaptionVerdict, caption, judge
from litevlm_ros.lab.world.scene import (
    Distance,
    Kind,
    LightState,
    RoadUser,
    Scene,
    Side,
    TimeOfDay,
    TrafficLight,
    ViewContent,
    Weather,
)


def _user(kind: Kind, colour: str, side: Side, distance: Distance, azimuth: float) -> RoadUser:
    return RoadUser(kind, colour, side, distance, azimuth, 8.0 if distance is Distance.NEAR else 20.0, 90.0)


@pytest.fixture
def scene() -> Scene:
    users = (
        _user(Kind.BUS, "blue", Side.AHEAD, Distance.FAR, 0.0),
        _user(Kind.CAR, "red", Side.RIGHT, Distance.NEAR, -15.0),
        _user(Kind.CAR, "red", Side.LEFT, Distance.NEAR, 15.0),
    )
    light = TrafficLight(LightState.GREEN, Side.RIGHT, -20.0, 10.0)
    views = {"front": ViewContent(users, light, True), "back": ViewContent((), None, False)}
    return Scene(1, Weather.RAIN, TimeOfDay.NIGHT, views)


FULL = (
    "Rainy night. A red car near on the left, a red car near on the right, a blue bus far ahead. The light is green. "
    "A crossing."
)


def test_captions_go_from_near_to_far_and_from_left_to_right(scene: Scene) -> None:
    assert caption(scene, "front") == FULL
    assert caption(scene, "back") == "Rainy night. The road is empty."


def test_the_reference_is_true_and_complete(scene: Scene) -> None:
    assert judge(FULL, scene, "front") == CaptionVerdict(statements=7, true=7, present=7, covered=7)
    assert judge(FULL.replace("A red", "a RED"), scene, "front").true == 7


@pytest.mark.parametrize(
    ("text", "statements", "true"),
    [
        ("Rainy day.", 2, 1),
        ("Rainy night. A blue car near on the left.", 3, 2),
        ("Rainy night. A red car far on the left.", 3, 2),
        # Two red cars near on the left are one too many.
        ("Rainy night. A red car near on the left, a red car near on the left.", 4, 3),
        ("Rainy night. The road is empty.", 3, 2),
        ("Rainy night. The light is red.", 3, 2),
        ("Rainy night. Something else entirely.", 3, 2),
        ("", 0, 0),
    ],
)
def test_each_false_statement_counts(scene: Scene, text: str, statements: int, true: int) -> None:
    verdict = judge(text, scene, "front")
    assert (verdict.statements, verdict.true, verdict.covered) == (statements, true, true)
    assert verdict.present == 7
