"""Decodes a JPEG whose structure was checked, and notices data that are damaged or end early.

libjpeg fills what is missing with grey and only warns. simplejpeg hands its warnings on, is faster than OpenCV, and
gives the same pixels. OpenCV decodes where simplejpeg is not installed, and the odd chroma layouts that TurboJPEG does
not know.
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from litevlm_ros.errors import first_line
from litevlm_ros.images.jpeg import JpegHeader
from litevlm_ros.images.opencv import damaged, read_rgb
from litevlm_ros.types import RgbImage

try:
    import simplejpeg  # type: ignore[import-untyped, unused-ignore]
except ImportError:
    simplejpeg = None

_UNKNOWN_LAYOUT = "Could not determine subsampling"
_STRAY_BYTES = re.compile(r"(\d+) extraneous bytes before marker 0xd([0-79])")
_MOST_STRAY_BYTES = 16
"""Many webcams leave a few bytes before a restart marker, or pad a JPEG to whole words. libjpeg warns of both."""
_GREY = 128
_MORE_DATA = b"\x55" * 64


def decode_jpeg(header: JpegHeader, jpeg: bytes) -> RgbImage:
    """Decodes a JPEG that `jpeg.rewritten` made, uint8 [height, width, 3], as it is stored.

    Raises MalformedImageError if the data are damaged, end early or are of another size.
    """
    # Of CMYK, simplejpeg would keep nothing when libjpeg warns.
    image = None if simplejpeg is None or header.components == 4 else _by_simplejpeg(header, jpeg)
    return _by_opencv(header, jpeg) if image is None else image


def _by_simplejpeg(header: JpegHeader, jpeg: bytes) -> RgbImage | None:
    """Returns None for a JPEG with a chroma layout that TurboJPEG does not know."""
    image = np.empty((header.height, header.width, 3), np.uint8)
    try:
        # It refuses a JPEG that is larger than the buffer before it decodes anything.
        decoded = simplejpeg.decode_jpeg(jpeg, "RGB", buffer=image)
    except ValueError as error:
        if _UNKNOWN_LAYOUT in str(error):
            return None
        if not _is_harmless(str(error), jpeg):
            raise damaged("JPEG", first_line(error)) from None
        # libjpeg has filled the image before it warned. A later warning would have been lost.
        if (image[-1, -1] == _GREY).all():
            _require_all_data(_as_stored(jpeg), jpeg)
        return image
    _require_size(header, decoded)
    return image


def _is_harmless(warning: str, jpeg: bytes) -> bool:
    """Returns true for the warning that there are bytes before a marker, if a camera may have put them there."""
    found = _STRAY_BYTES.search(warning)
    if found is None:
        return False
    count, at_the_end = int(found[1]), found[2] == "9"
    return count <= _MOST_STRAY_BYTES or (at_the_end and len(set(jpeg[-2 - count : -2])) == 1)


def _by_opencv(header: JpegHeader, jpeg: bytes) -> RgbImage:
    image = _as_stored(jpeg)
    _require_size(header, image)
    if header.several_scans or header.components == 4 or (image[-1, -1] == _GREY).all():
        _require_all_data(image, jpeg)
    return image


def _require_size(header: JpegHeader, image: RgbImage) -> None:
    if image.shape != (header.height, header.width, 3):
        raise damaged("JPEG", f"its header promised {header.width}x{header.height} pixels")


def _require_all_data(image: RgbImage, jpeg: bytes) -> None:
    """Raises MalformedImageError if blocks of OpenCV's `image` are missing, which are grey.

    More data change a picture only if there was a lack of them.
    """
    if not np.array_equal(image, _as_stored(jpeg[:-2] + _MORE_DATA + jpeg[-2:])):
        raise damaged("JPEG", "premature end of data")


def _as_stored(jpeg: bytes) -> RgbImage:
    return read_rgb("JPEG", jpeg, cv2.IMREAD_IGNORE_ORIENTATION)
