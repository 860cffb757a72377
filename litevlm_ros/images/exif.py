"""Reads from EXIF data how a picture has to be turned, and turns it."""

from __future__ import annotations

import struct
from typing import cast

import cv2
import numpy as np

from litevlm_ros.types import RgbImage

_ORIENTATION = 0x0112
_ENTRY_BYTES = 12


def orientation_of(tiff: bytes) -> int:
    """Returns the orientation, 1 to 8, that TIFF data of an EXIF segment give; 1 if they give none or are damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for place in range(directory + 2, min(directory + 2 + count * _ENTRY_BYTES, len(tiff) - 9), _ENTRY_BYTES):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, place)
        if tag == _ORIENTATION:
            return value if 1 <= value <= 8 else 1
    return 1


def turned(image: RgbImage, orientation: int) -> RgbImage:
    """Returns a stored picture as it is to be seen. Orientations from 5 on swap width and height."""
    if orientation >= 5:
        image = cast(RgbImage, cv2.transpose(image))
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
