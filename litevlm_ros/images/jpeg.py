"""Reads the structure of a JPEG, and writes it anew from the parts that a decoder needs.

A decoder is given nothing that was not read here: no further frame headers, no profiles, thumbnails or comments, no
bytes between segments, and a bounded number of scans. So what is checked is what is decoded. The numbers of markers
are those of ITU-T T.81, table B.1.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.images.exif import orientation_of

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
"""TEM and RST0 to RST7, which have no length behind them."""
_TABLES = frozenset({0xC4, 0xDB, 0xDD})
"""Huffman tables, quantization tables, and the restart interval."""
_READ_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FRAME_KINDS = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "lossless", 0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded", 0xCB: "lossless", 0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "lossless",
}  # fmt: skip
_JFIF, _EXIF, _ADOBE = 0xE0, 0xE1, 0xEE
_PLAIN_JFIF = b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
_FILL = re.compile(rb"\xff+")
_MOST_SEGMENTS = 1000
"""Cameras write about ten. A megabyte of empty ones would take half a second to read."""
_MOST_SCANS = 32
"""Progressive JPEGs have about ten. Each further one costs time for all pixels, and takes a few bytes."""


@dataclass(frozen=True)
class JpegHeader:
    """The facts that stand before the first scan of a JPEG."""

    width: int
    """In pixels as they are stored, before the picture is turned."""
    height: int
    least_bytes: int
    """The number of bytes that so many pixels take at least."""
    orientation: int
    """The EXIF orientation, 1 to 8; 1 if there is none."""
    components: int
    """1 for grey, 3 for colour, 4 for CMYK."""
    progressive: bool
    several_scans: bool
    """True if the first scan does not hold the whole picture."""
    kept: tuple[bytes, ...]
    """The segments that a decoder needs."""
    scan: int
    """The place of the first scan's marker in bytes."""
    segments: int
    """The number of markers so far."""

    @property
    def codec(self) -> str:
        """The format's name in messages."""
        return "JPEG"


@dataclass(frozen=True)
class _Segment:
    marker: int
    start: int
    """The place of the marker in bytes."""
    end: int

    @property
    def body(self) -> int:
        """The place behind marker and length in bytes."""
        return self.start + 4


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Reads all that stands before the first scan, and makes sure that the end marker is there.

    Raises MalformedImageError for a damaged header, data that ends early, and kinds of JPEG that are not decoded.
    """
    width = height = blocks = components = 0
    frame_marker = 0
    orientation = 1
    kept, seen = [b"\xff\xd8"], set[int]()
    position, segments = 2, 0
    while True:
        segment = _next_segment(data, position)
        segments += 1
        if segments > _MOST_SEGMENTS:
            raise _damaged(f"the JPEG has more than {_MOST_SEGMENTS} segments")
        marker, position = segment.marker, segment.end
        if marker == _SCAN:
            break
        if marker in (_START, _END):
            raise _damaged(f"the JPEG's header is damaged at byte {segment.start}")
        if marker in _FRAMES:
            if frame_marker:
                raise _damaged("the JPEG has two frame headers")
            frame_marker = marker
            width, height, components, blocks = _frame(data, segment)
            kept.append(data[segment.start : segment.end])
        elif marker in _TABLES:
            kept.append(data[segment.start : segment.end])
        elif marker not in seen:
            body = data[segment.body : segment.end]
            if marker == _JFIF and body.startswith(b"JFIF\0"):
                kept.append(_PLAIN_JFIF)
            elif marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
                kept.append(data[segment.start : segment.end])
            elif marker == _EXIF and body.startswith(b"Exif\0\0"):
                orientation = orientation_of(body[6:])
            else:
                continue
            seen.add(marker)
    if not frame_marker:
        raise _damaged("the JPEG has no frame header")
    # 0xFF is escaped inside scans, so this marker can only be the end of the image.
    if not data.endswith(b"\xff\xd9") and data.rfind(b"\xff\xd9", position) < 0:
        raise MalformedImageError(ImageFault.SHORT_DATA, "the JPEG is truncated (no end marker)")
    progressive = frame_marker == 0xC2
    first_scan = data[segment.body : position]
    several_scans = progressive or not first_scan or first_scan[0] < components
    # A block of 8x8 samples takes two codes at least, of which progressive scans may share one.
    least_bytes = blocks // (8 if progressive else 4)
    return JpegHeader(
        width,
        height,
        least_bytes,
        orientation,
        components,
        progressive,
        several_scans,
        tuple(kept),
        segment.start,
        segments,
    )


def rewritten(header: JpegHeader, data: bytes) -> bytes:
    """Returns the JPEG with the checked parts alone: `header.kept` and the scans with their tables.

    Raises MalformedImageError for damage between the scans, or too many of them.
    """
    parts: list[bytes | memoryview] = list(header.kept)
    view = memoryview(data)
    ends = _ends_of_scans(data, header.scan)
    position, scans, segments = header.scan, 0, header.segments
    while True:
        segment = _next_segment(data, position)
        marker, position = segment.marker, segment.end
        segments += 1
        if segments > _MOST_SEGMENTS:
            raise _damaged(f"the JPEG has more than {_MOST_SEGMENTS} segments")
        if marker == _END:
            return b"".join([*parts, b"\xff\xd9"])
        if marker == _START or marker in _FRAMES:
            raise _damaged("the JPEG has two frame headers")
        if marker == _SCAN:
            scans += 1
            if scans > _MOST_SCANS:
                raise _damaged(f"the JPEG has more than {_MOST_SCANS} scans")
            parts.append(_scan_header(data, segment, header.progressive))
            place = int(np.searchsorted(ends, position))
            if place == len(ends):
                raise MalformedImageError(ImageFault.SHORT_DATA, "the JPEG is truncated (no end marker)")
            parts.append(view[position : ends[place]])
            position = int(ends[place])
        elif marker in _TABLES:
            parts.append(view[segment.start : segment.end])


def _next_segment(data: bytes, position: int) -> _Segment:
    """Returns the segment that begins at `position`, or behind fill bytes there."""
    fill = _FILL.match(data, position)
    if fill is None and position < len(data):
        raise _damaged(f"the JPEG's header is damaged at byte {position}")
    position = fill.end() - 1 if fill else position
    if position + 2 > len(data):
        raise MalformedImageError(ImageFault.SHORT_DATA, "the JPEG is truncated inside its header")
    marker = data[position + 1]
    if marker in _BARE or marker in (_START, _END):
        return _Segment(marker, position, position + 2)
    if position + 4 > len(data):
        raise MalformedImageError(ImageFault.SHORT_DATA, "the JPEG is truncated inside its header")
    end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    if marker == 0 or end < position + 4:
        raise _damaged(f"the JPEG's header is damaged at byte {position}")
    if end > len(data):
        raise MalformedImageError(ImageFault.SHORT_DATA, "the JPEG is truncated inside its header")
    return _Segment(marker, position, end)


def _frame(data: bytes, segment: _Segment) -> tuple[int, int, int, int]:
    """Returns width, height, number of components, and number of blocks of 8x8 samples."""
    if segment.marker not in _READ_FRAMES:
        kind = _FRAME_KINDS[segment.marker]
        raise MalformedImageError(
            ImageFault.UNKNOWN_ENCODING, f"it is a JPEG of a kind that is not decoded ({kind}); send a baseline JPEG"
        )
    body = data[segment.body : segment.end]
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise _damaged("the JPEG's frame header is damaged")
    bits, height, width, components = struct.unpack_from(">BHHB", body)
    if bits != 8:
        raise MalformedImageError(
            ImageFault.UNKNOWN_ENCODING, f"it is a JPEG of {bits} bits for each sample; send one of 8 bits"
        )
    if components not in (1, 3, 4):
        raise _damaged(f"the JPEG has {components} components, not 1, 3 or 4")
    factors = [(body[place] >> 4, body[place] & 15) for place in range(7, len(body), 3)]
    if not all(1 <= factor <= 4 for pair in factors for factor in pair):
        raise _damaged("the JPEG's frame header is damaged")
    if components == 1:
        factors = [(1, 1)]
    most_across, most_down = (max(pair[axis] for pair in factors) for axis in (0, 1))
    blocks = sum(-(-width * across // (8 * most_across)) * -(-height * down // (8 * most_down))
                 for across, down in factors)  # fmt: skip
    return width, height, components, blocks


def _scan_header(data: bytes, segment: _Segment, progressive: bool) -> bytes:
    """Returns a scan's header. Some cameras give a sequential scan the numbers of another kind, which mean nothing."""
    header = data[segment.start : segment.end]
    return header if progressive or len(header) < 8 else header[:-3] + b"\0\x3f\0"


def _ends_of_scans(data: bytes, start: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Returns the places of all markers from `start` on that end a scan's data: all but restart markers."""
    tail = np.frombuffer(data, np.uint8, offset=start)
    places = np.flatnonzero(tail[:-1] == 0xFF)
    codes = tail[places + 1]
    return places[(codes != 0) & (codes != 0xFF) & ((codes & 0xF8) != 0xD0)] + start


def _damaged(message: str) -> MalformedImageError:
    return MalformedImageError(ImageFault.DAMAGED, message)
