"""What can be wrong with an image, as a short list that drops are counted by."""

from __future__ import annotations

from enum import Enum

from litevlm_ros.errors import ImageError


class ImageFault(str, Enum):
    """Why an image was refused."""

    UNKNOWN_ENCODING = "unknown encoding"
    NO_PIXELS = "no pixels"
    TOO_LARGE = "too large"
    ODD_SIZE = "size unfit for its encoding"
    WRONG_STEP = "wrong step"
    SHORT_DATA = "short data"
    DAMAGED = "damaged data"


class MalformedImageError(ImageError):
    """An ImageError with its kind."""

    def __init__(self, fault: ImageFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
