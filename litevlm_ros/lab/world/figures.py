"""Drawing of the things that stand on the street: vehicles, people, traffic lights and trees."""

from __future__ import annotations

import math

import numpy as np

from litevlm_ros.lab.world.canvas import Atmosphere, Canvas, Colour, Points
from litevlm_ros.lab.world.scene import SIZE_METRES, Kind, LightState, RoadUser, TimeOfDay

_PAINT: dict[str, tuple[float, float, float]] = {
    "red": (208, 28, 32),
    "blue": (30, 70, 205),
    "green": (24, 146, 58),
    "yellow": (244, 200, 22),
    "white": (240, 240, 240),
    "black": (26, 26, 30),
}
_GLASS = (112.0, 138.0, 160.0)
_TYRE = (20.0, 20.0, 22.0)
_SKIN = (214.0, 170.0, 140.0)
_LAMPS = {LightState.RED: (255, 36, 30), LightState.YELLOW: (255, 205, 20), LightState.GREEN: (30, 240, 90)}


def road_user(canvas: Canvas, air: Atmosphere, user: RoadUser, x: float, time: TimeOfDay) -> None:
    """Draws a road user whose centre stands `x` metres right of the camera's axis."""
    length, width, _ = SIZE_METRES[user.kind]
    shadow = tuple(channel * 0.55 for channel in air.shade(air.ground, user.depth, 1 / max(air.light, 0.1)))
    canvas.disc((x, 0.02, user.depth), 0.55 * max(length, width), shadow, flatten=0.12)  # type: ignore[arg-type]
    if user.kind is Kind.PEDESTRIAN:
        _pedestrian(canvas, air, _PAINT[user.colour], x, user.depth)
    elif user.kind is Kind.CYCLIST:
        _cyclist(canvas, air, _PAINT[user.colour], x, user.depth, facing=1.0 if user.heading < 180 else -1.0)
    else:
        _Vehicle(canvas, air, user, x, lamps=time is TimeOfDay.NIGHT).draw()


class _Vehicle:
    """One vehicle, drawn as boxes that are turned by its heading."""

    def __init__(self, canvas: Canvas, air: Atmosphere, user: RoadUser, x: float, lamps: bool) -> None:
        self.canvas, self.air, self.user, self.lamps = canvas, air, user, lamps
        turn = math.radians(user.heading)
        # Heading 0 drives away from the camera, 90 to the right.
        self.forward = np.array([math.sin(turn), 0.0, math.cos(turn)])
        self.sideways = np.array([math.cos(turn), 0.0, -math.sin(turn)])
        self.origin = np.array([x, 0.0, user.depth])
        self.near_side = 1.0 if self.sideways @ self.origin < 0 else -1.0

    def draw(self) -> None:
        colour = _PAINT[self.user.colour]
        length, width, height = SIZE_METRES[self.user.kind]
        front, half = length / 2, width / 2
        if self.user.kind is Kind.CAR:
            self._box((-front, front), half, (0.28, 0.88), colour)
            self._box((-0.36 * length, 0.2 * length), half * 0.86, (0.88, height), colour)
            self._panes(((-0.33, -0.09), (-0.05, 0.17)), 0.93, height - 0.1, half * 0.87)
        elif self.user.kind is Kind.VAN:
            self._box((-front, front * 0.94), half, (0.3, height), colour)
            self._panes(((0.22, 0.43),), 1.25, height - 0.25, half)
            self._ends_glass(front * 0.94, half, 1.25, height - 0.3)
        elif self.user.kind is Kind.BUS:
            self._box((-front, front), half, (0.35, height), colour)
            self._panes(tuple((a, a + 0.12) for a in np.arange(-0.46, 0.4, 0.155)), 1.45, height - 0.4, half)
            self._ends_glass(front, half, 1.2, height - 0.5)
        else:
            parts = [((-front, 0.62 * front - 0.9), (0.75, height)), ((0.62 * front - 0.6, front), (0.35, 2.35))]
            # The part further from the camera is drawn first.
            parts.sort(key=lambda part: -(self.origin + self.forward * sum(part[0]) / 2)[2])
            self._box((-front, front), half * 0.6, (0.4, 0.8), (60.0, 60.0, 64.0))
            for span, heights in parts:
                self._box(span, half, heights, colour)
                if heights[1] < height:
                    self._panes(((0.36, 0.47),), 1.35, 2.1, half)
                    self._ends_glass(front, half, 1.3, 2.1)
        self._wheels(length, half)
        self._lamps(front, half)

    def _point(self, along: float, side: float, up: float) -> Points:
        point: Points = self.origin + self.forward * along + self.sideways * side
        point[1] = up
        return point

    def _box(self, span: tuple[float, float], half: float, heights: tuple[float, float], colour: Colour) -> None:
        low, high = heights
        end = span[1] if self.forward @ self.origin < 0 else span[0]
        outline = 0.05
        faces = [
            ([(end, -half, low), (end, half, low), (end, half, high), (end, -half, high)], 0.74),
            ([(span[0], self.near_side * half, low), (span[1], self.near_side * half, low),
              (span[1], self.near_side * half, high), (span[0], self.near_side * half, high)], 1.0),
        ]  # fmt: skip
        if high < 1.6:
            faces.insert(
                0,
                (
                    [(a, s, high) for a, s in ((span[0], -half), (span[1], -half), (span[1], half), (span[0], half))],
                    1.12,
                ),
            )
        for corners, brightness in faces:
            points = np.array([self._point(*corner) for corner in corners])
            centre = points.mean(axis=0)
            rim = centre + (points - centre) * (1 + outline)
            self.canvas.polygon(rim, self.air.shade((48, 48, 52), self.user.depth))
            self.canvas.polygon(points, self.air.shade(colour, self.user.depth, brightness))

    def _panes(self, spans: tuple[tuple[float, float], ...], low: float, high: float, half: float) -> None:
        length = SIZE_METRES[self.user.kind][0]
        for begin, end in spans:
            side = self.near_side * half * 1.01
            corners = [
                (begin * length, side, low),
                (end * length, side, low),
                (end * length, side, high),
                (begin * length, side, high),
            ]
            self.canvas.polygon(np.array([self._point(*c) for c in corners]), self._glass())

    def _ends_glass(self, front: float, half: float, low: float, high: float) -> None:
        if self.forward @ self.origin >= 0:
            return
        corners = [
            (front * 1.01, -half * 0.85, low),
            (front * 1.01, half * 0.85, low),
            (front * 1.01, half * 0.85, high),
            (front * 1.01, -half * 0.85, high),
        ]
        self.canvas.polygon(np.array([self._point(*c) for c in corners]), self._glass())

    def _glass(self) -> Colour:
        return self.air.shade(_GLASS, self.user.depth, 0.8)

    def _wheels(self, length: float, half: float) -> None:
        radius = 0.34 if self.user.kind in (Kind.CAR, Kind.VAN) else 0.48
        squeeze = max(0.35, abs(self.forward[0]))
        for along in (-0.31 * length, 0.31 * length):
            hub = self._point(along, self.near_side * half, radius)
            turn = np.linspace(0, 2 * math.pi, 14, endpoint=False)
            for scale, colour in ((1.0, _TYRE), (0.45, (120.0, 120.0, 124.0))):
                rim = np.stack(
                    [
                        hub[0] + scale * radius * squeeze * np.cos(turn),
                        hub[1] + scale * radius * np.sin(turn),
                        np.full(14, hub[2]),
                    ],
                    axis=1,
                )
                self.canvas.polygon(rim, self.air.shade(colour, self.user.depth))

    def _lamps(self, front: float, half: float) -> None:
        if not self.lamps:
            return
        facing = self.forward @ self.origin < 0
        colour = (255.0, 250.0, 215.0) if facing else (235.0, 30.0, 25.0)
        for side in (-0.7, 0.7):
            spot = self._point(front if facing else -front, side * half, 0.75)
            self.canvas.disc((spot[0], spot[1], spot[2]), 0.1, colour)


def _pedestrian(canvas: Canvas, air: Atmosphere, colour: Colour, x: float, depth: float) -> None:
    trousers = air.shade((62, 58, 60), depth)
    coat, skin = air.shade(colour, depth), air.shade(_SKIN, depth)
    rim = air.shade((48, 48, 52), depth)
    for side in (-0.13, 0.13):
        _limb(canvas, (x + side * 0.7, 0.85), (x + side * 1.7, 0.02), 0.17, depth, trousers)
    _limb(canvas, (x, 0.76), (x, 1.46), 0.5, depth, rim)
    for side in (-1.0, 1.0):
        _limb(canvas, (x + side * 0.2, 1.4), (x + side * 0.36, 0.85), 0.14, depth, coat)
    _limb(canvas, (x, 0.8), (x, 1.42), 0.42, depth, coat)
    canvas.disc((x, 1.6, depth), 0.15, skin)
    canvas.disc((x, 1.68, depth), 0.14, air.shade((58, 44, 34), depth), flatten=0.6)


def _cyclist(canvas: Canvas, air: Atmosphere, colour: Colour, x: float, depth: float, facing: float) -> None:
    metal, jersey = air.shade((70, 70, 76), depth), air.shade(colour, depth)
    for along in (-0.55, 0.55):
        canvas.disc((x + along, 0.36, depth), 0.36, air.shade(_TYRE, depth))
        canvas.disc((x + along, 0.36, depth), 0.27, air.shade((165, 168, 172), depth))
        canvas.disc((x + along, 0.36, depth), 0.06, metal)
    for begin, end in (
        ((-0.55, 0.36), (-0.15, 0.9)),
        ((-0.15, 0.9), (0.05, 0.36)),
        ((-0.1, 0.8), (0.45, 0.85)),
        ((0.55, 0.36), (0.42, 0.98)),
    ):
        _limb(canvas, (x + facing * begin[0], begin[1]), (x + facing * end[0], end[1]), 0.07, depth, metal)
    _limb(canvas, (x - facing * 0.12, 0.95), (x + facing * 0.08, 0.42), 0.16, depth, air.shade((62, 58, 60), depth))
    _limb(canvas, (x - facing * 0.2, 0.84), (x + facing * 0.2, 1.5), 0.46, depth, air.shade((48, 48, 52), depth))
    _limb(canvas, (x + facing * 0.15, 1.36), (x + facing * 0.45, 1.0), 0.12, depth, jersey)
    _limb(canvas, (x - facing * 0.18, 0.88), (x + facing * 0.18, 1.46), 0.38, depth, jersey)
    canvas.disc((x + facing * 0.3, 1.62, depth), 0.14, air.shade(_SKIN, depth))
    canvas.disc((x + facing * 0.29, 1.7, depth), 0.15, air.shade((58, 58, 62), depth), flatten=0.6)


def _limb(
    canvas: Canvas, begin: tuple[float, float], end: tuple[float, float], width: float, depth: float, colour: Colour
) -> None:
    """Draws a bar of `width` metres between two points of the plane at `depth`."""
    a, b = np.array(begin), np.array(end)
    along = b - a
    normal = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-9) * width / 2
    flat = np.array([a - normal, a + normal, b + normal, b - normal])
    canvas.polygon(np.column_stack([flat, np.full(4, depth)]), colour)


def traffic_light(canvas: Canvas, air: Atmosphere, state: LightState, x: float, depth: float) -> None:
    """Draws a pole with three lamps, one of them lit. It is larger than life, to be seen in small pictures."""
    _limb(canvas, (x, 0.0), (x, 2.4), 0.14, depth, air.shade((58, 60, 64), depth))
    _limb(canvas, (x, 2.2), (x, 4.3), 0.86, depth, air.shade((150, 150, 152), depth))
    _limb(canvas, (x, 2.26), (x, 4.24), 0.74, depth, (18.0, 18.0, 20.0))
    for height, lamp in ((3.9, LightState.RED), (3.25, LightState.YELLOW), (2.6, LightState.GREEN)):
        lit = lamp is state
        canvas.disc((x, height, depth), 0.27, _LAMPS[lamp] if lit else (46.0, 46.0, 48.0))


def tree(canvas: Canvas, air: Atmosphere, x: float, depth: float, height: float) -> None:
    """Draws a trunk with a round crown."""
    _limb(canvas, (x, 0.0), (x, height * 0.5), 0.4, depth, air.shade((84, 66, 50), depth))
    for dx, dy, radius in ((0.0, 0.72, 0.3), (-0.2, 0.6, 0.22), (0.2, 0.6, 0.22)):
        canvas.disc((x + dx * height, dy * height, depth), radius * height, air.shade((70, 92, 62), depth, 0.85))
