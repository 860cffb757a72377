"""Builds JPEG and PNG files of given parts, good and bad ones."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

START, END = b"\xff\xd8", b"\xff\xd9"


def scene(width: int = 80, height: int = 64, seed: int = 0) -> np.ndarray:
    """A smooth picture without exact grey, RGB."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return np.maximum(cv2.blur(noise, (5, 5)), 1) & 0xFE | 1


def jpeg(width: int = 80, height: int = 64, *options: int) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(scene(width, height), cv2.COLOR_RGB2BGR), options)[1].tobytes()


def progressive(width: int = 80, height: int = 64) -> bytes:
    return jpeg(width, height, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def restarting(width: int = 80, height: int = 64) -> bytes:
    return jpeg(width, height, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)


def segment(marker: int, body: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def frame_at(data: bytes) -> int:
    """The place of the frame header."""
    return max(data.find(bytes([0xFF, marker])) for marker in (0xC0, 0xC2))


def frame(width: int, height: int, marker: int = 0xC0, bits: int = 8, sampling: tuple[int, ...] = (0x22, 0x11, 0x11)):
    parts = b"".join(bytes([number + 1, factor, min(number, 1)]) for number, factor in enumerate(sampling))
    return segment(marker, struct.pack(">BHHB", bits, height, width, len(sampling)) + parts)


def with_frame(data: bytes, new: bytes) -> bytes:
    """The JPEG with another frame header."""
    at = frame_at(data)
    (length,) = struct.unpack_from(">H", data, at + 2)
    return data[:at] + new + data[at + 2 + length :]


def before_frame(data: bytes, more: bytes) -> bytes:
    at = frame_at(data)
    return data[:at] + more + data[at:]


def after_start(data: bytes, more: bytes) -> bytes:
    return data[:2] + more + data[2:]


def before_scan(data: bytes, more: bytes) -> bytes:
    at = data.index(b"\xff\xda")
    return data[:at] + more + data[at:]


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF segment with an orientation behind another entry."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = [
        struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 80, 0),
        struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0),
    ]
    tiff = head + struct.pack(f"{order}IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return segment(0xE1, b"Exif\0\0" + tiff)


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int, bits: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def png_of(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND")


def png_pixels(width: int, height: int, pixel_bytes: int = 3) -> bytes:
    """An IDAT chunk."""
    return chunk(b"IDAT", zlib.compress(bytes(height * (1 + width * pixel_bytes))))


def png(width: int = 80, height: int = 64) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(scene(width, height), cv2.COLOR_RGB2BGR))[1].tobytes()
