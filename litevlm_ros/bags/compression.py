"""Decompression of recordings: of whole files, of chunks, also cut ones, and of single messages."""

from __future__ import annotations

import sys
from pathlib import Path

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD = b"\x28\xb5\x2f\xfd"
"""The first bytes of what zstd has compressed. No message of ROS 2 begins so: it begins with the kind of its CDR."""

_PIECE = 1 << 20


def unpacked_start(data: bytes, compression: str, most: int) -> bytes:
    """Returns what a chunk unpacks to, at most `most` bytes, or the beginning of it if the chunk is cut off.

    `compression` is 'zstd', 'lz4' or ''. Raises ValueError for another one, and the library's errors for damaged data.
    """
    if compression == "zstd":
        return zstd.ZstdDecompressor().decompress(data, most)
    if compression == "lz4":
        return bytes(LZ4FrameDecompressor().decompress(data, most))
    if compression:
        raise ValueError(f"unknown compression '{compression}'")
    return data


def unpack_file(packed: Path, unpacked: Path) -> None:
    """Unpacks a file that zstd has compressed, as far as it is sound. Raises OSError."""
    decompressor = zstd.ZstdDecompressor()
    with packed.open("rb") as source, unpacked.open("wb") as target:
        while not decompressor.eof and (piece := source.read(_PIECE)):
            try:
                target.write(decompressor.decompress(piece))
            except zstd.ZstdError:
                return


def unpacked_message(data: bytes) -> bytes:
    """Returns a message that zstd has compressed by itself, or no bytes if it is damaged."""
    try:
        return zstd.decompress(data)
    except zstd.ZstdError:
        return b""
