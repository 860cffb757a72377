"""Raw images of every encoding, with noise in their pixels and in the padding of their rows."""

from __future__ import annotations

import numpy as np

from litevlm_ros.types import RawImage

_SAMPLES = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "8UC4": 4, "yuv422": 2, "uyvy": 2,
            "yuv422_yuy2": 2, "yuyv": 2, "rgb16": 6, "bgr16": 6, "16UC3": 6, "mono16": 2}  # fmt: skip
_ROWS = {"nv12": (3, 2), "nv21": (3, 2), "nv24": (3, 1)}


def noisy_image(encoding: str, width: int, height: int, padding: int = 0, seed: int = 0) -> RawImage:
    """An image that `decode_raw` takes; nv12, nv21 and yuv422 need even sizes."""
    samples = 2 if encoding.startswith("bayer") and encoding.endswith("16") else _SAMPLES.get(encoding, 1)
    times, of = _ROWS.get(encoding, (1, 1))
    step = width * samples + padding
    data = np.random.default_rng(seed).integers(0, 256, height * times // of * step, dtype=np.uint8)
    return RawImage(encoding, width, height, step, data)
