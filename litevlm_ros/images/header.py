"""Reads the size of a JPEG or PNG from its header, and checks that its data does not end early.

OpenCV has no call that reads a header alone, and it decodes a truncated JPEG to a picture that is partly grey.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from litevlm_ros.errors import ImageFault, MalformedImageError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_AROUND_CHUNK = 12
"""Number of bytes of a chunk besides its data: length, name and checksum."""
_JPEG_START_OF_SCAN = 0xDA
# SOF0 to SOF15 carry the size; C4, C8 and CC in that range are other segments.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageHeader(NamedTuple):
    """The header of a compressed image. `width` and `height` are in pixels."""

    codec: str
    width: int
    height: int


def read_header(data: bytes) -> ImageHeader:
    """Reads the header of a whole JPEG or PNG.

    Raises MalformedImageError for anything else, for a size of 0 and for data that ends early.
    """
    if not data:
        raise MalformedImageError(ImageFault.SHORT_DATA, "it holds no data")
    if data.startswith(b"\xff\xd8\xff"):
        header = _jpeg(data)
    elif data.startswith(_PNG_SIGNATURE):
        header = _png(data)
    else:
        raise MalformedImageError(ImageFault.UNKNOWN_ENCODING, "it is neither a JPEG nor a PNG")
    if header.width < 1 or header.height < 1:
        raise MalformedImageError(
            ImageFault.NO_PIXELS, f"the {header.codec} has no pixels ({header.width}x{header.height})"
        )
    return header


def _jpeg(data: bytes) -> ImageHeader:
    width = height = 0
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise MalformedImageError(ImageFault.DAMAGED, f"the JPEG's header is damaged at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte before the marker
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if length < 2:
            raise MalformedImageError(ImageFault.DAMAGED, f"the JPEG's header is damaged at byte {position}")
        if marker in _JPEG_FRAMES:
            if position + 9 > len(data):
                break
            height, width = struct.unpack_from(">HH", data, position + 5)
        position += 2 + length
        if marker == _JPEG_START_OF_SCAN:
            if not (width or height):
                raise MalformedImageError(ImageFault.DAMAGED, "the JPEG has no frame header")
            # 0xFF is escaped inside the scan, so this marker can only be the end of the image.
            if data.rfind(b"\xff\xd9", position) < 0:
                raise MalformedImageError(ImageFault.SHORT_DATA, "the JPEG is truncated (no end marker)")
            return ImageHeader("JPEG", width, height)
    raise MalformedImageError(ImageFault.SHORT_DATA, "the JPEG is truncated inside its header")


def _png(data: bytes) -> ImageHeader:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise MalformedImageError(ImageFault.SHORT_DATA, "the PNG is truncated inside its header")
    width, height = struct.unpack_from(">II", data, 16)
    # Chunk by chunk, because OpenCV believes a chunk's length and allocates up to 2 GB for it.
    position, name = len(_PNG_SIGNATURE), b""
    while name != b"IEND" and position + _PNG_AROUND_CHUNK <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        position += _PNG_AROUND_CHUNK + length
    if name != b"IEND" or position > len(data):
        raise MalformedImageError(ImageFault.SHORT_DATA, "the PNG is truncated (no end chunk)")
    return ImageHeader("PNG", width, height)
