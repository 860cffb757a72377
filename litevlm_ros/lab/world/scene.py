"""Street scenes around a car, generated from a seed: weather, time of day, and what stands where.

Six cameras of 60 degrees each look around the car without overlap, so every object belongs to exactly one view. Scenes
keep clear of borderline cases (an object is either near or far, and clearly left, ahead or right), so that each has
one true description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import numpy as np

from litevlm_ros.config import DEMO_CAMERAS

T = TypeVar("T")

CAMERA_YAW_DEGREES = {
    "front": 0,
    "front_left": 60,
    "front_right": -60,
    "back": 180,
    "back_left": 120,
    "back_right": -120,
}
"""Direction of each camera's axis: 0 is straight ahead, positive to the left."""
FIELD_OF_VIEW_DEGREES = 60.0
"""Horizontal field of view of each camera."""

COLOURS = ("red", "blue", "green", "yellow", "white", "black")


class Kind(str, Enum):
    """The kinds of road users. Every road user has a colour."""

    CAR = "car"
    VAN = "van"
    TRUCK = "truck"
    BUS = "bus"
    CYCLIST = "cyclist"
    PEDESTRIAN = "pedestrian"

    @property
    def is_vehicle(self) -> bool:
        return self in (Kind.CAR, Kind.VAN, Kind.TRUCK, Kind.BUS)


class Weather(str, Enum):
    CLEAR = "clear"
    RAIN = "rain"
    FOG = "fog"
    SNOW = "snow"


class TimeOfDay(str, Enum):
    DAY = "day"
    NIGHT = "night"


class Side(str, Enum):
    LEFT = "left"
    AHEAD = "ahead"
    RIGHT = "right"


class Distance(str, Enum):
    NEAR = "near"
    FAR = "far"


class LightState(str, Enum):
    RED = "red"
    YELLOW = "yellow"
    GREEN = "green"


# Training never shows these; each kind and each colour is held out exactly once. A model that answers about them right
# has learned kinds and colours apart from each other.
HELD_OUT_USERS = (
    (Kind.CAR, "yellow"),
    (Kind.VAN, "green"),
    (Kind.TRUCK, "blue"),
    (Kind.BUS, "red"),
    (Kind.CYCLIST, "black"),
    (Kind.PEDESTRIAN, "white"),
)
_SEEN_USERS = tuple((kind, colour) for kind in Kind for colour in COLOURS if (kind, colour) not in HELD_OUT_USERS)
HELD_OUT_CONDITION = (Weather.SNOW, TimeOfDay.NIGHT)

SIZE_METRES = {
    Kind.CAR: (4.2, 1.8, 1.5),
    Kind.VAN: (4.6, 1.9, 2.2),
    Kind.TRUCK: (6.6, 2.2, 3.1),
    Kind.BUS: (7.6, 2.3, 2.9),
    Kind.CYCLIST: (1.8, 0.5, 1.75),
    Kind.PEDESTRIAN: (0.7, 0.5, 1.75),
}
"""Length, width and height of each kind."""

_NEAR_METRES = (6.5, 11.0)
_LARGE_NEAR_METRES = (10.0, 12.0)
_FAR_METRES = (17.0, 25.0)
_SIDE_DEGREES = {Side.LEFT: (10.0, 22.0), Side.AHEAD: (-4.5, 4.5), Side.RIGHT: (-22.0, -10.0)}
_LIGHT_DEGREES = {Side.LEFT: (9.0, 24.0), Side.RIGHT: (-24.0, -9.0)}


@dataclass(frozen=True)
class RoadUser:
    """One vehicle, cyclist or pedestrian of a view.

    `azimuth` is in degrees from the camera's axis, positive to the left; `depth` in metres along the axis; `heading` in
    degrees from the viewing direction, 90 when seen exactly from the side.
    """

    kind: Kind
    colour: str
    side: Side
    distance: Distance
    azimuth: float
    depth: float
    heading: float

    def half_width_degrees(self) -> float:
        """Returns half of the angle that the object spans as seen from the camera."""
        length, width, _ = SIZE_METRES[self.kind]
        turn = math.radians(self.heading)
        seen = abs(length * math.sin(turn)) + abs(width * math.cos(turn))
        return math.degrees(math.atan2(seen / 2, self.depth))


@dataclass(frozen=True)
class TrafficLight:
    """A light on a pole beside the road; azimuth in degrees, depth in metres."""

    state: LightState
    side: Side
    azimuth: float
    depth: float


@dataclass(frozen=True)
class ViewContent:
    """Everything that one camera sees apart from the surroundings."""

    users: tuple[RoadUser, ...]
    light: TrafficLight | None
    crossing: bool


@dataclass(frozen=True)
class Scene:
    """One moment on the street, as seen by all six cameras."""

    seed: int
    weather: Weather
    time: TimeOfDay
    views: dict[str, ViewContent]


def generate(seed: int, *, unseen: bool = False) -> Scene:
    """Generates the scene of `seed`, the same each time.

    With `unseen`, the first road user of each view is of a kind-and-colour combination that training leaves out (unless
    there is no room for it), and the held-out weather may occur; without it, neither occurs.
    """
    rng = np.random.default_rng(seed)
    condition = (pick(rng, tuple(Weather)), pick(rng, tuple(TimeOfDay)))
    while condition == HELD_OUT_CONDITION and not unseen:
        condition = (pick(rng, tuple(Weather)), pick(rng, tuple(TimeOfDay)))
    views = {camera: _view(rng, unseen) for camera in DEMO_CAMERAS}
    return Scene(seed, condition[0], condition[1], views)


def spoken(camera: str) -> str:
    """Returns a camera's name as people say it, such as "front left"."""
    return camera.replace("_", " ")


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Returns one of the options, all with the same probability."""
    return options[int(rng.integers(len(options)))]


def _view(rng: np.random.Generator, unseen: bool) -> ViewContent:
    wanted = int(rng.choice(5, p=(0.12, 0.25, 0.3, 0.22, 0.11)))
    light = _light(rng) if rng.random() < 0.4 else None
    taken = [] if light is None else [(light.azimuth - 2.5, light.azimuth + 2.5)]
    users: list[RoadUser] = []
    for index in range(wanted):
        kind, colour = pick(rng, HELD_OUT_USERS if unseen and index == 0 else _SEEN_USERS)
        for _ in range(20):
            user = _place(rng, kind, colour)
            reach = user.half_width_degrees()
            low, high = user.azimuth - reach, user.azimuth + reach
            if low > -32.0 and high < 32.0 and all(high < a or b < low for a, b in taken):
                users.append(user)
                taken.append((low, high))
                break
    return ViewContent(tuple(users), light, bool(rng.random() < 0.3))


def _light(rng: np.random.Generator) -> TrafficLight:
    side = pick(rng, (Side.LEFT, Side.RIGHT))
    state = pick(rng, tuple(LightState))
    return TrafficLight(state, side, float(rng.uniform(*_LIGHT_DEGREES[side])), float(rng.uniform(8.0, 14.0)))


def _place(rng: np.random.Generator, kind: Kind, colour: str) -> RoadUser:
    side = pick(rng, tuple(Side))
    distance = pick(rng, tuple(Distance))
    large = kind in (Kind.TRUCK, Kind.BUS)
    near = _LARGE_NEAR_METRES if large else _NEAR_METRES
    depth = float(rng.uniform(*(near if distance is Distance.NEAR else _FAR_METRES)))
    # Seen mostly from the side: end on, a far bus and a far van are the same picture.
    heading = float(rng.uniform(50.0, 130.0) + 180.0 * rng.integers(2))
    return RoadUser(kind, colour, side, distance, float(rng.uniform(*_SIDE_DEGREES[side])), depth, heading)
