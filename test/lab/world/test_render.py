from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import Distance, Kind, RoadUser, Scene, Side, TimeOfDay, ViewContent, Weather

HUES = {"red": (0, (1, 2)), "green": (1, (0, 2)), "blue": (2, (0, 1))}


def _scene(*users: RoadUser, weather: Weather = Weather.CLEAR, time: TimeOfDay = TimeOfDay.DAY) -> Scene:
    return Scene(5, weather, time, {"front": ViewContent(users, None, False)})


def _car(colour: str, side: Side = Side.AHEAD, azimuth: float = 0.0) -> RoadUser:
    return RoadUser(Kind.CAR, colour, side, Distance.NEAR, azimuth, 8.0, 90.0)


def test_size_and_type() -> None:
    image = render(_scene(_car("red")), "front", 320, 240, phase=0.0)
    assert image.shape == (240, 320, 3)
    assert image.dtype == np.uint8


def test_the_same_scene_and_phase_give_the_same_picture() -> None:
    scene = _scene(_car("red"), weather=Weather.RAIN)
    first = render(scene, "front", 160, 120, phase=1.0)
    assert np.array_equal(first, render(scene, "front", 160, 120, phase=1.0))
    assert not np.array_equal(first, render(scene, "front", 160, 120, phase=2.0))


@pytest.mark.parametrize("colour", sorted(HUES))
@pytest.mark.parametrize(("side", "azimuth"), [(Side.LEFT, 15.0), (Side.AHEAD, 0.0), (Side.RIGHT, -15.0)])
def test_a_car_of_a_colour_is_where_it_should_be(colour: str, side: Side, azimuth: float) -> None:
    empty = render(_scene(), "front", 320, 240, phase=0.0).astype(int)
    image = render(_scene(_car(colour, side, azimuth)), "front", 320, 240, phase=0.0).astype(int)
    strong, weak = HUES[colour]
    changed = np.abs(image - empty).sum(-1) > 30
    coloured = changed & np.all([image[..., strong] > image[..., other] + 40 for other in weak], axis=0)
    assert coloured.sum() > 200
    column = np.nonzero(coloured)[1].mean() / 320
    expected = 0.5 - np.tan(np.radians(azimuth)) / np.tan(np.radians(30)) / 2
    assert abs(column - expected) < 0.06


def test_night_is_dark_and_weather_shows() -> None:
    scene = _scene(_car("white"))
    day = render(scene, "front", 160, 120, phase=0.0)
    night = render(replace(scene, time=TimeOfDay.NIGHT), "front", 160, 120, phase=0.0)
    assert night.mean() < 0.6 * day.mean()
    for weather in (Weather.RAIN, Weather.FOG, Weather.SNOW):
        other = render(replace(scene, weather=weather), "front", 160, 120, phase=0.0)
        assert np.abs(other.astype(int) - day.astype(int)).mean() > 4
