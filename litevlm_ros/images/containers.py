"""Names of the formats that a message's bytes may be in, by their first bytes: for errors about the wrong one."""

from __future__ import annotations

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, JPEG_SIGNATURE, "JPEG"),
    (0, PNG_SIGNATURE, "PNG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBP", "WebP"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif", "HEIF"),
    (4, b"ftyp", "MP4"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"\0\0\0\x01", "H.264 or H.265"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    *((0, b"P%d" % number, "PNM") for number in range(1, 8)),
    (0, b"Pf", "PFM"),
    (0, b"PF", "PFM"),
)
"""Offset, bytes and name, the most telling ones first."""
LONGEST_SIGNATURE = 16
"""The number of first bytes that `format_of` wants."""


def format_of(start: bytes) -> str:
    """Returns the name of the format that begins with these bytes, or an empty string for none that is known."""
    return next((name for offset, magic, name in _SIGNATURES if start.startswith(magic, offset)), "")
