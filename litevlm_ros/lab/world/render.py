"""Draws one camera's view of a scene.

A pinhole camera 1.6 m above flat ground. Vehicles are boxes in perspective, people flat figures; surroundings, weather
and light differ from scene to scene. Everything scales with the picture, so one scene can be drawn at any size.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from litevlm_ros.lab.world import figures
from litevlm_ros.lab.world.canvas import CAMERA_HEIGHT_METRES, Atmosphere, Canvas, Colour, Points
from litevlm_ros.lab.world.scene import (
    CAMERA_YAW_DEGREES,
    RoadUser,
    Scene,
    TimeOfDay,
    TrafficLight,
    Weather,
)
from litevlm_ros.types import RgbImage


def render(scene: Scene, camera: str, width: int = 640, height: int = 480, phase: float = 0.0) -> RgbImage:
    """Draws what `camera` sees. Returns uint8 [height, width, 3], RGB.

    `phase`, in seconds, moves rain and snow and lets road users sway, so that successive frames differ.
    """
    view = scene.views[camera]
    # Surroundings must not change with the phase, and differ between cameras.
    rng = np.random.default_rng((scene.seed, CAMERA_YAW_DEGREES[camera] + 360))
    air = _atmosphere(scene.weather, scene.time, rng)
    canvas = Canvas(width, height)
    _sky(canvas, air, scene, rng)
    _buildings(canvas, air, scene.time, rng)
    _ground(canvas, air, scene.weather, CAMERA_YAW_DEGREES[camera], rng)
    if view.crossing:
        _crossing(canvas, air, float(rng.uniform(6.0, 9.0)))
    things: list[RoadUser | TrafficLight] = [*view.users, *([view.light] if view.light else [])]
    for thing in sorted(things, key=lambda item: -item.depth):
        sway = 0.4 * math.sin(1.7 * phase + thing.azimuth)
        x = -math.tan(math.radians(thing.azimuth + (sway if isinstance(thing, RoadUser) else 0.0))) * thing.depth
        if isinstance(thing, TrafficLight):
            figures.traffic_light(canvas, air, thing.state, x, thing.depth)
        else:
            figures.road_user(canvas, air, thing, x, scene.time)
    _precipitation(canvas, scene.weather, phase, rng)
    return canvas.pixels


def _atmosphere(weather: Weather, time: TimeOfDay, rng: np.random.Generator) -> Atmosphere:
    """Returns the atmosphere of that weather and time of day; `rng` varies the light."""
    if time is TimeOfDay.DAY:
        top, horizon = {
            Weather.CLEAR: ((70, 130, 215), (175, 205, 235)),
            Weather.RAIN: ((95, 105, 120), (145, 152, 162)),
            Weather.FOG: ((195, 198, 202), (205, 208, 211)),
            Weather.SNOW: ((170, 178, 190), (215, 220, 228)),
        }[weather]
        light = {Weather.CLEAR: 1.0, Weather.RAIN: 0.8, Weather.FOG: 0.92, Weather.SNOW: 0.95}[weather]
    else:
        top, horizon = {
            Weather.CLEAR: ((8, 10, 30), (28, 32, 62)),
            Weather.RAIN: ((14, 16, 24), (34, 38, 50)),
            Weather.FOG: ((48, 50, 56), (66, 68, 74)),
            Weather.SNOW: ((30, 34, 48), (62, 68, 86)),
        }[weather]
        light = 0.68
    ground: Colour = {
        Weather.CLEAR: (98.0, 98.0, 102.0),
        Weather.RAIN: (74.0, 78.0, 86.0),
        Weather.FOG: (104.0, 105.0, 108.0),
        Weather.SNOW: (206.0, 210.0, 218.0),
    }[weather]
    vary = float(rng.uniform(0.92, 1.08))
    darkness = 1.0 if time is TimeOfDay.DAY else 0.5
    haze = {Weather.CLEAR: 0.004, Weather.RAIN: 0.010, Weather.FOG: 0.040, Weather.SNOW: 0.016}[weather]
    return Atmosphere(top, horizon, tuple(c * vary * darkness for c in ground), light * vary, haze)  # type: ignore[arg-type]


def _sky(canvas: Canvas, air: Atmosphere, scene: Scene, rng: np.random.Generator) -> None:
    rows = int(canvas.horizon) + 1
    blend = np.linspace(0, 1, rows)[:, None]
    column = (1 - blend) * np.array(air.sky_top) + blend * np.array(air.sky_horizon)
    canvas.pixels[:rows] = column[:, None, :].astype(np.uint8)
    if scene.weather is not Weather.CLEAR:
        return
    if scene.time is TimeOfDay.NIGHT:
        for _ in range(30):
            column_index, row_index = int(rng.uniform(0, canvas.width)), int(rng.uniform(0, canvas.horizon * 0.8))
            canvas.pixels[row_index, column_index] = int(rng.uniform(120, 230))
        return
    for _ in range(int(rng.integers(1, 5))):
        u, v = rng.uniform(0, canvas.width), rng.uniform(0.05, 0.5) * canvas.horizon
        for _ in range(4):
            centre = (int(u + rng.normal(0, 0.05) * canvas.width), int(v + rng.normal(0, 0.01) * canvas.height))
            axes = (int(canvas.width * rng.uniform(0.03, 0.08)), int(canvas.height * rng.uniform(0.012, 0.03)))
            cv2.ellipse(canvas.pixels, centre, axes, 0, 0, 360, (238, 242, 248), -1, cv2.LINE_AA)


def _buildings(canvas: Canvas, air: Atmosphere, time: TimeOfDay, rng: np.random.Generator) -> None:
    x = -34.0
    panes = []
    while x < 34.0:
        width, height, depth = rng.uniform(5, 11), rng.uniform(5, 15), rng.uniform(36, 44)
        tone = rng.uniform(105, 165)
        # Muted on purpose: the surroundings must not look like a coloured vehicle.
        wall = (tone + rng.uniform(-4, 14), tone + rng.uniform(-6, 6), tone + rng.uniform(-14, 4))
        canvas.polygon(_upright(x, 0.0, width - 0.4, height, depth), air.shade(wall, depth, 0.9))
        columns = np.arange(x + 0.5, x + width - 1.4, 1.7)
        rows = np.arange(height - 2.0, 0.5, -2.4)
        corners = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        panes.append(np.column_stack([corners, np.full(len(corners), depth - 0.1)]))
        x += width
    corner = np.concatenate(panes)[:, None, :] + np.array([[0, 0, 0], [0.9, 0, 0], [0.9, 1.2, 0], [0, 1.2, 0]])
    lit = (rng.random(len(corner)) < 0.3) & (time is TimeOfDay.NIGHT)
    canvas.polygons(corner[~lit], air.shade((70, 80, 95), 40.0, 0.85))
    canvas.polygons(corner[lit], air.shade((250, 225, 150), 40.0, 1.25))
    for _ in range(int(rng.integers(0, 5))):
        figures.tree(canvas, air, float(rng.uniform(-19, 19)), float(rng.uniform(28, 34)), float(rng.uniform(3.0, 5.5)))


def _upright(x: float, y: float, width: float, height: float, depth: float) -> Points:
    return np.array([[x, y, depth], [x + width, y, depth], [x + width, y + height, depth], [x, y + height, depth]])


def _ground(canvas: Canvas, air: Atmosphere, weather: Weather, yaw: int, rng: np.random.Generator) -> None:
    start = int(canvas.horizon)
    rows = canvas.height - start
    depth = CAMERA_HEIGHT_METRES * canvas.focal_y / np.maximum(np.arange(rows) + 0.5, 0.5)
    keep = np.exp(-air.haze * np.minimum(depth, 60))[:, None]
    shades = keep * np.array(air.ground) + (1 - keep) * np.array(air.sky_horizon)
    canvas.pixels[start:] = shades[:, None, :].astype(np.uint8)

    # Lane marks run along the car's axis; each camera sees them turned by its yaw.
    begins, lanes = np.meshgrid(np.arange(-40.0 + float(rng.uniform(0, 6)), 40.0, 6.0), (-5.4, -1.8, 1.8, 5.4))
    along = begins.reshape(-1, 1) + np.array([0.0, 3.0, 3.0, 0.0])
    across = lanes.reshape(-1, 1) + np.array([-0.07, -0.07, 0.07, 0.07])
    turn = math.radians(yaw)
    forward = along * math.cos(turn) + across * math.sin(turn)
    left = -along * math.sin(turn) + across * math.cos(turn)
    dashes = np.stack([-left, np.zeros_like(left), forward], axis=-1)
    dashes = dashes[(forward.min(axis=1) > 2.0) & (forward.max(axis=1) < 34.0)]
    paint = (176.0, 176.0, 172.0) if weather is Weather.SNOW else (208.0, 208.0, 200.0)
    close = dashes[:, :, 2].mean(axis=1) < 12.0
    canvas.polygons(dashes[close], air.shade(paint, 8.0, 0.8))
    canvas.polygons(dashes[~close], air.shade(paint, 20.0, 0.8))


def _crossing(canvas: Canvas, air: Atmosphere, depth: float) -> None:
    x = np.arange(-4.6, 4.6, 1.1)[:, None, None]
    stripes = np.array([[0, 0, depth], [0.62, 0, depth], [0.62, 0, depth + 3.2], [0, 0, depth + 3.2]]) + x * [1, 0, 0]
    # A dark rim keeps the stripes visible on snow.
    rims = stripes + np.array([[-0.12, 0, -0.1], [0.12, 0, -0.1], [0.12, 0, 0.1], [-0.12, 0, 0.1]])
    canvas.polygons(rims, air.shade((70, 70, 74), depth))
    canvas.polygons(stripes, air.shade((242, 242, 238), depth))


def _precipitation(canvas: Canvas, weather: Weather, phase: float, rng: np.random.Generator) -> None:
    if weather not in (Weather.RAIN, Weather.SNOW):
        return
    count = 110 if weather is Weather.RAIN else 170
    u = rng.uniform(0, 1, count)
    fall = rng.uniform(0.8, 1.4, count) * (1.6 if weather is Weather.RAIN else 0.35)
    v = (rng.uniform(0, 1, count) + phase * fall) % 1.0
    size = rng.uniform(0.6, 1.0, count)
    unit = canvas.height / 240
    if weather is Weather.RAIN:
        for x, y, s in zip(u * canvas.width, v * canvas.height, size * 13 * unit, strict=True):
            end = (int(x - 0.18 * s), int(y + s))
            cv2.line(canvas.pixels, (int(x), int(y)), end, (188, 196, 208), max(1, int(unit * 0.8)), cv2.LINE_AA)
    else:
        for x, y, s in zip(u * canvas.width, v * canvas.height, size * 1.7 * unit, strict=True):
            cv2.circle(canvas.pixels, (int(x), int(y)), max(1, int(s)), (248, 249, 252), -1, cv2.LINE_AA)
