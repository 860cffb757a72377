"""Refuses images whose numbers are measurements, such as distances: a model would describe them as if it saw them."""

from __future__ import annotations

import re

from litevlm_ros.errors import ImageFault, MalformedImageError, printable

_NUMBERS = re.compile(r"(?:8|16|32|64)[USF]C?([0-9]{0,3})", re.IGNORECASE)
"""OpenCV's names of types, as sensor_msgs uses them: bits, unsigned, signed or floating point, channels."""
_PICTURES = frozenset({"8UC1", "8UC3", "8UC4", "16UC3"})
"""Those of them that drivers use for pictures. REP 118 makes depth images 16UC1 or 32FC1."""


def refuse_measurements(encoding: str, image_format: str = "") -> None:
    """Raises MalformedImageError if an `encoding`, or a CompressedImage's `image_format`, is that of measurements."""
    if "compresseddepth" in image_format.lower():
        raise depth_image(f"format '{printable(image_format)}' is that of a depth image")
    found = _NUMBERS.fullmatch(encoding)
    if found is None or encoding in _PICTURES:
        return
    if found[1] in ("", "1") and not encoding.startswith("8"):
        raise depth_image(f"encoding '{encoding}' is that of a depth image")
    raise MalformedImageError(
        ImageFault.NOT_A_PICTURE,
        f"encoding '{encoding}' holds numbers that nothing says how to show; publish a picture, such as rgb8 or mono8",
    )


def depth_image(what: str) -> MalformedImageError:
    """Returns the error for a depth image. `what` says how it was known."""
    return MalformedImageError(
        ImageFault.NOT_A_PICTURE,
        f"{what}: distances, which a model would take for a picture; name the camera's colour or grey topic in "
        "camera_topics. A driver that sends grey pictures has to call them mono8 or mono16",
    )
