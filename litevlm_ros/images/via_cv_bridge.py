"""Decodes raw images with cv_bridge, if it is installed and works.

A cv_bridge that was built for numpy 1 fails under numpy 2 in many ways, from an ImportError to a crash of the process.
So it is tried once, in a process of its own if numpy is 2 or later, and is not used again after its first failure.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.types import RgbImage

ENCODINGS = frozenset({
    "bgr8", "rgba8", "bgra8", "mono8", "yuv422", "yuv422_yuy2",
    "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8",
})  # fmt: skip
"""The encodings that cv_bridge decodes as `decoding` does. rgb8 needs no conversion at all."""
_PROBE = "from litevlm_ros.images.via_cv_bridge import probe; probe()"
_PROBE_SECONDS = 20.0
_log = logging.getLogger(__name__)


def decode(encoding: str, width: int, height: int, data: npt.NDArray[np.uint8], is_bigendian: bool) -> RgbImage | None:
    """Decodes checked data without row padding. Returns None if cv_bridge cannot be used."""
    if encoding not in ENCODINGS:
        return None
    bridges = _find()
    if not bridges:
        return None
    try:
        return _convert(bridges[0], encoding, width, height, data, is_bigendian)
    except Exception as error:
        _log.warning("cv_bridge failed on %s (%s); using OpenCV instead from now on", encoding, error)
        bridges.clear()
        return None


def probe() -> None:
    """Converts one pixel with cv_bridge. Raises an exception of any kind if that does not work."""
    from cv_bridge import CvBridge  # type: ignore[import-not-found, unused-ignore]

    rgb = _convert(CvBridge(), "bgr8", 1, 1, np.array([1, 2, 3], np.uint8), False)
    if rgb.tolist() != [[[3, 2, 1]]]:
        raise RuntimeError(f"cv_bridge turned the BGR pixel 1 2 3 into the RGB pixel {rgb.ravel().tolist()}")


@lru_cache(maxsize=1)
def _find() -> list[Any]:
    """Returns a list that holds the bridge, or an empty list if there is none that works."""
    if find_spec("cv_bridge") is None:
        return []
    try:
        if int(np.__version__.split(".")[0]) >= 2:
            subprocess.run([sys.executable, "-c", _PROBE], check=True, capture_output=True, timeout=_PROBE_SECONDS)
        probe()
        from cv_bridge import CvBridge
    except Exception as error:
        _log.warning("cv_bridge is installed but does not work (%s); using OpenCV instead", error)
        return []
    return [CvBridge()]


def _convert(
    bridge: Any, encoding: str, width: int, height: int, data: npt.NDArray[np.uint8], is_bigendian: bool
) -> RgbImage:
    message = SimpleNamespace(
        encoding=encoding, width=width, height=height, step=data.size // height, data=data, is_bigendian=is_bigendian
    )
    image: RgbImage = bridge.imgmsg_to_cv2(message, desired_encoding="rgb8")
    return image
