"""Reads the chunks of a PNG, and writes it anew from those that a decoder needs.

A decoder is given nothing that was not read here: one header, no texts, profiles or animation, which could unpack to
gigabytes, and no chunk that is longer than the data. The numbers are those of the PNG specification, third edition.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.images.containers import PNG_SIGNATURE

_AROUND = 12
"""Number of bytes of a chunk besides its data: length, name and checksum."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type → number of samples of a pixel."""
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Colour type → numbers of bits that a sample may have."""
_ONCE = frozenset({b"PLTE", b"tRNS", b"eXIf"})
"""Chunks beside the pixels that a decoder needs; eXIf says how the picture has to be turned."""
_MOST_EXPANSION = 1040
"""Deflate makes at most 1032 bytes of one."""
_LEAST_CHUNK = 256
"""Encoders write chunks of 8192 bytes or more. A megabyte of empty ones would take long to read."""
_MOST_SMALL_CHUNKS = 1000


@dataclass(frozen=True)
class PngHeader:
    """The size of a PNG, and the places of the chunks that a decoder needs."""

    width: int
    height: int
    least_bytes: int
    """The number of bytes that so many pixels take at least."""
    bits: int
    """The number of bits of a sample: 1, 2, 4, 8 or 16."""
    kept: tuple[tuple[int, int], ...]
    """Start and end of each chunk, in bytes, from IHDR to IEND."""

    @property
    def codec(self) -> str:
        """The format's name in messages."""
        return "PNG"


def read_png_header(data: bytes) -> PngHeader:
    """Reads header and chunks, but not the pixels.

    Raises MalformedImageError for chunks that are damaged, come twice or in a wrong place, and for data that ends
    early.
    """
    if len(data) < 33 or data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\x0d":
        raise MalformedImageError(ImageFault.SHORT_DATA, "the PNG is truncated inside its header")
    width, height, bits, colour, compression, filters, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if bits not in _BITS.get(colour, ()) or compression or filters or interlaced > 1:
        raise _damaged("the PNG's header is damaged")
    row_bytes = (width * _CHANNELS[colour] * bits + 7) // 8
    return PngHeader(width, height, height * row_bytes // _MOST_EXPANSION, bits, tuple(_chunks(data)))


def rewritten(header: PngHeader, data: bytes) -> bytes:
    """Returns the PNG with the chunks of `header.kept` alone. Raises MalformedImageError for a wrong checksum."""
    view = memoryview(data)
    for start, end in header.kept:
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise _damaged(f"the PNG could not be decoded: the chunk at byte {start} does not fit its checksum")
    return b"".join([PNG_SIGNATURE, *(view[start:end] for start, end in header.kept)])


def _chunks(data: bytes) -> list[tuple[int, int]]:
    """Returns the places of the chunks that are kept."""
    kept: list[tuple[int, int]] = []
    seen = set[bytes]()
    count = 0
    last, position = b"", len(PNG_SIGNATURE)
    most = _MOST_SMALL_CHUNKS + len(data) // _LEAST_CHUNK
    while last != b"IEND":
        if position + _AROUND > len(data):
            raise MalformedImageError(ImageFault.SHORT_DATA, "the PNG is truncated (no end chunk)")
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + _AROUND + length
        if end > len(data):
            raise MalformedImageError(ImageFault.SHORT_DATA, "the PNG is truncated (no end chunk)")
        count += 1
        if count > most:
            raise _damaged(f"the PNG has more than {most} chunks in {len(data)} bytes")
        if name == b"IDAT":
            if b"IDAT" in seen and last != b"IDAT":
                raise _damaged("the PNG's pixels are not in one piece")
            kept.append((position, end))
        elif name in (b"IHDR", b"IEND") or name in _ONCE:
            if name in seen:
                raise _damaged(f"the PNG has two {name.decode()} chunks")
            kept.append((position, end))
        elif not name[0] & 0x20:  # an upper-case letter: a decoder may not go on without knowing the chunk
            raise _damaged(f"the PNG has an unknown chunk at byte {position}")
        seen.add(name)
        last, position = name, end
    return kept


def _damaged(message: str) -> MalformedImageError:
    return MalformedImageError(ImageFault.DAMAGED, message)
