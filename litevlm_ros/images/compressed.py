"""Decodes the bytes of a sensor_msgs/CompressedImage, or of a picture's file: JPEG or PNG. It needs no ROS types.

No other format reaches a decoder, whatever OpenCV could read, and of these two only the parts that were checked do.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

from litevlm_ros.errors import ImageFault, MalformedImageError, printable
from litevlm_ros.images import jpeg, png
from litevlm_ros.images.containers import JPEG_SIGNATURE, LONGEST_SIGNATURE, PNG_SIGNATURE, format_of
from litevlm_ros.images.decoding import ENCODINGS, MAX_PIXELS, Buffer
from litevlm_ros.images.exif import turned
from litevlm_ros.images.jpeg_decoder import decode_jpeg
from litevlm_ros.images.measurements import depth_image, refuse_measurements
from litevlm_ros.images.opencv import damaged, read_rgb
from litevlm_ros.images.sample_range import SampleRange
from litevlm_ros.types import RgbImage

_DEPTH_HEADER_BYTES = 12
"""compressed_depth_image_transport puts so many bytes before its PNG."""


def decode_compressed(
    image_format: str, data: Buffer, *, max_pixels: int = MAX_PIXELS, samples: SampleRange | None = None
) -> RgbImage:
    """Decodes the fields of a sensor_msgs/CompressedImage, uint8 [height, width, 3], turned as EXIF data ask for.

    `samples` is the camera's range of 16-bit values; without it, it is that of the image.

    Raises MalformedImageError for another format, a depth image, damaged data, too many pixels or data that ends early.
    """
    packed = _bytes(data)
    header = check_compressed(image_format, packed, max_pixels=max_pixels)
    if isinstance(header, jpeg.JpegHeader):
        image = decode_jpeg(header, jpeg.rewritten(header, packed))
        return image if header.orientation == 1 else turned(image, header.orientation)
    return _decode_png(header, png.rewritten(header, packed), samples or SampleRange())


def check_compressed(
    image_format: str, data: Buffer, *, max_pixels: int = MAX_PIXELS
) -> jpeg.JpegHeader | png.PngHeader:
    """Reads the header only, in microseconds.

    Raises what `decode_compressed` would raise, except for damage behind the header.
    """
    packed = _bytes(data)
    refuse_measurements(image_format.partition(";")[0].strip(), image_format)
    try:
        header = _header(image_format, packed)
    except MalformedImageError as error:
        raise MalformedImageError(
            error.fault, f"compressed image (format '{printable(image_format)}'): {error}"
        ) from None
    if header.width < 1 or header.height < 1:
        raise MalformedImageError(
            ImageFault.NO_PIXELS, f"the {header.codec} has no pixels ({header.width}x{header.height})"
        )
    if header.width * header.height > max_pixels:
        raise MalformedImageError(
            ImageFault.TOO_LARGE,
            f"the {header.codec} is {header.width}x{header.height}, more than the allowed {max_pixels} pixels; "
            "scale the image down first",
        )
    if len(packed) < header.least_bytes:
        raise MalformedImageError(
            ImageFault.SHORT_DATA,
            f"the {header.codec} is truncated: it has {len(packed)} bytes, and {header.width}x{header.height} pixels "
            f"take {header.least_bytes} at least",
        )
    return header


def _header(image_format: str, data: bytes) -> jpeg.JpegHeader | png.PngHeader:
    if not data:
        raise MalformedImageError(ImageFault.SHORT_DATA, "it holds no data")
    if data.startswith(JPEG_SIGNATURE):
        return jpeg.read_jpeg_header(data)
    if data.startswith(PNG_SIGNATURE):
        return png.read_png_header(data)
    if data.startswith(PNG_SIGNATURE, _DEPTH_HEADER_BYTES):
        raise depth_image("it is a PNG behind the header of a compressed depth image")
    found = format_of(data[:LONGEST_SIGNATURE])
    if found:
        raise MalformedImageError(
            ImageFault.UNKNOWN_ENCODING, f"it is a file of the format {found}; only JPEG and PNG are read"
        )
    if image_format in ENCODINGS:
        raise MalformedImageError(
            ImageFault.MIXED_UP,
            "it is neither a JPEG nor a PNG, and the format names raw pixels; publish these as sensor_msgs/Image, "
            "which the node takes with transport: raw",
        )
    raise MalformedImageError(ImageFault.UNKNOWN_ENCODING, "it is neither a JPEG nor a PNG")


def _decode_png(header: png.PngHeader, data: bytes, samples: SampleRange) -> RgbImage:
    image = read_rgb("PNG", data, cv2.IMREAD_ANYDEPTH if header.bits == 16 else 0)
    # An orientation in the PNG may have swapped width and height.
    if image.shape not in ((header.height, header.width, 3), (header.width, header.height, 3)):
        raise damaged("PNG", f"its header promised {header.width}x{header.height} pixels")
    if image.dtype != np.uint16:
        return image
    rows = image.view(np.uint8).reshape(len(image), -1)
    return samples.scaled(rows, sys.byteorder == "big").reshape(image.shape)


def _bytes(data: Buffer) -> bytes:
    return data if isinstance(data, bytes) else bytes(memoryview(data))
