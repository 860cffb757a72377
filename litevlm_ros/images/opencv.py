"""Has OpenCV decode a JPEG or PNG to RGB, with its errors as ours."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from litevlm_ros.errors import ImageFault, MalformedImageError, first_line

_READ_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)
"""The flag that makes imdecode() return RGB; None before OpenCV 4.11."""


def read_rgb(codec: str, data: bytes, flags: int = 0) -> npt.NDArray[Any]:
    """Decodes a picture whose header was checked, to [height, width, 3].

    It is uint8, and with cv2.IMREAD_ANYDEPTH among the `flags` uint16 where the picture is. `codec` is the format's
    name. Raises MalformedImageError.
    """
    try:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8), flags | (cv2.IMREAD_COLOR if _READ_RGB is None else _READ_RGB)
        )
    except cv2.error as error:
        raise damaged(codec, first_line(error)) from None
    if image is None:
        raise damaged(codec, "its data are damaged")
    return cast("npt.NDArray[Any]", image if _READ_RGB is not None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def damaged(codec: str, reason: str) -> MalformedImageError:
    """Returns the error for a picture that a decoder refuses, for a `reason` in its words."""
    return MalformedImageError(ImageFault.DAMAGED, f"the {codec} could not be decoded: {reason}")
