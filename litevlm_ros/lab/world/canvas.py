"""The picture that a view is drawn on, with its camera model, and the air that the colours are seen through.

Points are in metres: x to the right of the camera's axis, y above the ground, z forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from litevlm_ros.lab.world.scene import FIELD_OF_VIEW_DEGREES
from litevlm_ros.types import RgbImage

Colour = tuple[float, float, float]
"""Red, green and blue, from 0 to 255."""

Points = npt.NDArray[np.float64]
"""One point a row."""

CAMERA_HEIGHT_METRES = 1.6
_HORIZON = 0.46
"""Height of the horizon as a share of the picture's height, from the top."""
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Atmosphere:
    """The colours of sky and ground, and how light and haze change the colours of what stands in the scene."""

    sky_top: Colour
    sky_horizon: Colour
    ground: Colour
    light: float
    haze: float
    """Extinction coefficient per metre: a surface keeps exp(-haze * depth) of its own colour."""

    def shade(self, colour: Colour, depth: float, brightness: float = 1.0) -> Colour:
        """Returns the colour that a surface `depth` metres away appears in."""
        keep = math.exp(-self.haze * depth)
        lit = self.light * brightness
        return tuple(  # type: ignore[return-value]
            keep * min(255.0, channel * lit) + (1 - keep) * hazy
            for channel, hazy in zip(colour, self.sky_horizon, strict=True)
        )


class Canvas:
    """A picture with a pinhole camera model, which draws shapes that are given in metres."""

    def __init__(self, width: int, height: int) -> None:
        """Starts with a black picture of `width` x `height` pixels."""
        self.pixels: RgbImage = np.zeros((height, width, 3), np.uint8)
        self.width, self.height = width, height
        self.focal = width / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEGREES / 2))
        # The vertical focal length keeps the framing of a 4:3 picture at any aspect ratio.
        self.focal_y = self.focal * (height / width) * (4 / 3)
        self.horizon = height * _HORIZON

    def project(self, points: Points) -> Points:
        """Projects points [n, 3] in metres to [n, 2] pixels (column, row). Points must be in front of the camera."""
        depth = np.maximum(points[:, 2], 0.3)
        u = self.width / 2 + self.focal * points[:, 0] / depth
        v = self.horizon + self.focal_y * (CAMERA_HEIGHT_METRES - points[:, 1]) / depth
        return np.stack([u, v], axis=1)

    def polygon(self, points: Points, colour: Colour) -> None:
        """Fills the convex polygon with corners [n, 3]."""
        cv2.fillConvexPoly(self.pixels, _fixed_point(self.project(points)), colour, cv2.LINE_AA, _SUBPIXEL_BITS)

    def polygons(self, quads: Points, colour: Colour) -> None:
        """Fills quadrilaterals [n, 4, 3] with one colour."""
        if len(quads):
            corners = _fixed_point(self.project(quads.reshape(-1, 3))).reshape(-1, 4, 2)
            cv2.fillPoly(self.pixels, list(corners), colour, cv2.LINE_AA, _SUBPIXEL_BITS)

    def disc(self, centre: tuple[float, float, float], radius: float, colour: Colour, flatten: float = 1.0) -> None:
        """Fills a disc that faces the camera, with its radius in metres; `flatten` scales its height."""
        spot = self.project(np.array([centre]))[0]
        axes = (radius * self.focal / centre[2], radius * flatten * self.focal_y / centre[2])
        scale = 1 << _SUBPIXEL_BITS
        cv2.ellipse(
            self.pixels,
            (int(spot[0] * scale), int(spot[1] * scale)),
            (max(1, int(axes[0] * scale)), max(1, int(axes[1] * scale))),
            0, 0, 360, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS,
        )  # fmt: skip


def _fixed_point(pixels: Points) -> npt.NDArray[np.int32]:
    return np.round(np.clip(pixels, -4000, 8000) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
