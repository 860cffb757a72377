"""Decodes the bytes of a sensor_msgs image to an RGB array. This module needs no ROS types.

Encoding names are those of sensor_msgs/image_encodings.hpp. Every row may be padded (`step` larger than the pixels
need). 16-bit values are scaled by the bits that are used (`images/sample_range.py`). YUV is read as BT.601 with limited
range, as OpenCV does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from litevlm_ros.errors import ImageFault, MalformedImageError, printable
from litevlm_ros.images import via_cv_bridge
from litevlm_ros.images.containers import JPEG_SIGNATURE, LONGEST_SIGNATURE, PNG_SIGNATURE, format_of
from litevlm_ros.images.measurements import refuse_measurements
from litevlm_ros.images.sample_range import SampleRange
from litevlm_ros.types import AnyImage, RawImage, RgbImage

Buffer = Any
"""Anything with the buffer protocol and a length: bytes, array.array (as in rclpy's messages), a numpy array."""

Plane = npt.NDArray[np.uint8]
"""uint8 [rows, bytes of a row], possibly a strided view of the message."""

MAX_PIXELS = 64_000_000
"""The most pixels of an image. No robot camera makes larger ones, and a broken header would ask for gigabytes."""


def _packed(plane: Plane, width: int, height: int, *, channels: int, code: int | None) -> RgbImage:
    pixels = plane if channels == 1 else plane.reshape(height, width, channels)
    return pixels if code is None else _convert(pixels, code)


def _semi_planar(plane: Plane, width: int, height: int, *, code: int) -> RgbImage:
    return _convert(plane, code)


def _convert(pixels: Plane, code: int) -> RgbImage:
    return cast(RgbImage, cv2.cvtColor(pixels, code))  # OpenCV's stubs allow any dtype


def _nv24(plane: Plane, width: int, height: int) -> RgbImage:
    """Converts NV24, which OpenCV lacks: with each luma doubled both ways it is NV12 of an image of twice the size."""
    doubled = np.empty((3 * height, 2 * width), np.uint8)
    doubled[: 2 * height] = plane[:height].repeat(2, axis=0).repeat(2, axis=1)
    doubled[2 * height :] = plane[height:].reshape(height, 2 * width)
    return np.ascontiguousarray(_convert(doubled, cv2.COLOR_YUV2RGB_NV12)[::2, ::2])


@dataclass(frozen=True)
class _Layout:
    """The memory layout of one encoding, and its conversion to RGB."""

    samples: int
    """Number of samples in a row for each pixel."""
    convert: Callable[[Plane, int, int], RgbImage]
    """Converts (8-bit plane [height * rows, width * samples], width, height) to RGB."""
    wide: bool = False
    """True for 16-bit samples."""
    rows: float = 1.0
    """Number of rows in memory for each row of the image, luma and chroma together."""
    multiple: tuple[int, int] = (1, 1)
    """Width and height must be multiples of these, because pixels share chroma."""
    minimum: int = 1
    """Smallest width and height in pixels."""


def _layouts() -> dict[str, _Layout]:
    colours = {
        "rgb8": (3, None), "bgr8": (3, cv2.COLOR_BGR2RGB), "8UC3": (3, cv2.COLOR_BGR2RGB),
        "rgba8": (4, cv2.COLOR_RGBA2RGB), "bgra8": (4, cv2.COLOR_BGRA2RGB), "8UC4": (4, cv2.COLOR_BGRA2RGB),
        "mono8": (1, cv2.COLOR_GRAY2RGB), "8UC1": (1, cv2.COLOR_GRAY2RGB),
        "rgb16": (3, None), "bgr16": (3, cv2.COLOR_BGR2RGB),
        "16UC3": (3, cv2.COLOR_BGR2RGB), "mono16": (1, cv2.COLOR_GRAY2RGB),
    }  # fmt: skip
    layouts = {
        name: _Layout(channels, partial(_packed, channels=channels, code=code), wide="16" in name)
        for name, (channels, code) in colours.items()
    }
    for name, code in {
        "yuv422": cv2.COLOR_YUV2RGB_UYVY, "uyvy": cv2.COLOR_YUV2RGB_UYVY,
        "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2, "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    }.items():  # fmt: skip
        layouts[name] = _Layout(2, partial(_packed, channels=2, code=code), multiple=(2, 1))
    for name, code in {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}.items():
        layouts[name] = _Layout(1, partial(_semi_planar, code=code), rows=1.5, multiple=(2, 2))
    layouts["nv24"] = _Layout(1, _nv24, rows=3.0)
    # OpenCV names a Bayer pattern by the second and third pixel of its second row, ROS by the first row.
    for pattern, code in {
        "rggb": cv2.COLOR_BayerBG2RGB, "bggr": cv2.COLOR_BayerRG2RGB,
        "gbrg": cv2.COLOR_BayerGR2RGB, "grbg": cv2.COLOR_BayerGB2RGB,
    }.items():  # fmt: skip
        for bits in (8, 16):
            convert = partial(_packed, channels=1, code=code)
            layouts[f"bayer_{pattern}{bits}"] = _Layout(1, convert, wide=bits == 16, minimum=3)
    return layouts


_LAYOUTS = _layouts()
ENCODINGS = tuple(_LAYOUTS)
"""The encodings that `decode_raw` knows."""

_COMPRESSED_NAMES = re.compile(r"(?i)m?jpe?g|png|webp|h\.?26[45]|hevc|av1|compressed.*")
"""Encodings that drivers give to compressed data by mistake."""


def decode_raw(
    encoding: str,
    width: int,
    height: int,
    step: int,
    data: Buffer,
    is_bigendian: bool = False,
    *,
    max_pixels: int = MAX_PIXELS,
    samples: SampleRange | None = None,
) -> RgbImage:
    """Decodes the fields of a sensor_msgs/Image.

    `data` is never copied first: an rgb8 image is returned as a view of it. `samples` is the camera's range of 16-bit
    values; without it, it is that of the image.

    Raises MalformedImageError for an unknown encoding, measurements such as depth, no pixels, too many pixels, a step
    too small, data too short, or compressed data.
    """
    plane = _rows(encoding, width, height, step, data, max_pixels)
    if step == plane.shape[1]:
        bridged = via_cv_bridge.decode(encoding, width, height, plane.reshape(-1), is_bigendian)
        if bridged is not None:
            return bridged
    layout = _LAYOUTS[encoding]
    if layout.wide:
        plane = (samples or SampleRange()).scaled(plane, is_bigendian)
    return layout.convert(plane, width, height)


def as_rgb(image: AnyImage) -> RgbImage:
    """Returns the image as RGB, decoded if it is raw. Raises MalformedImageError.

    A raw image may have any size: whoever made it has checked that.
    """
    if not isinstance(image, RawImage):
        return image
    return decode_raw(
        image.encoding,
        image.width,
        image.height,
        image.step,
        image.data,
        image.is_bigendian,
        max_pixels=image.width * image.height,
    )


def raw_rows(image: RawImage) -> Plane:
    """Returns the rows of a raw image of any size, without their padding.

    They are uint8 [rows, bytes of a row], a view of the image's data. Raises MalformedImageError as `decode_raw` does.
    """
    most = image.width * image.height
    return _rows(image.encoding, image.width, image.height, image.step, image.data, most)


def _rows(encoding: str, width: int, height: int, step: int, data: Buffer, max_pixels: int) -> Plane:
    buffer = _as_array(data)
    rows, row_bytes = _shape(encoding, width, height, step, buffer, max_pixels)
    return np.ndarray((rows, row_bytes), np.uint8, buffer, strides=(step, 1))


def check_raw(encoding: str, width: int, height: int, step: int, data: Buffer, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raises what `decode_raw` would raise. Takes microseconds."""
    _shape(encoding, width, height, step, data, max_pixels)


def _shape(encoding: str, width: int, height: int, step: int, data: Buffer, max_pixels: int) -> tuple[int, int]:
    """Returns the number of rows in memory and the bytes of a row without padding.

    Raises MalformedImageError.
    """
    try:
        return _shape_of(encoding, width, height, step, len(data), max_pixels)
    except MalformedImageError:
        _refuse_compressed(encoding, data)
        raise


def _shape_of(encoding: str, width: int, height: int, step: int, data_bytes: int, max_pixels: int) -> tuple[int, int]:
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        refuse_measurements(encoding)
        raise MalformedImageError(
            ImageFault.UNKNOWN_ENCODING, f"unknown encoding '{printable(encoding)}'; known are {', '.join(ENCODINGS)}"
        )
    _check_size(encoding, layout, width, height, max_pixels)
    row_bytes = width * layout.samples * (2 if layout.wide else 1)
    if step < row_bytes:
        raise MalformedImageError(
            ImageFault.WRONG_STEP,
            f"step {step} is too small: a row of {width} {encoding} pixels takes {row_bytes} bytes",
        )
    rows = int(height * layout.rows)
    needed = step * (rows - 1) + row_bytes  # drivers may leave out the padding after the last row
    if data_bytes < needed:
        raise MalformedImageError(
            ImageFault.SHORT_DATA,
            f"data is too short: {data_bytes} bytes, but {width}x{height} {encoding} with step {step} takes {needed}",
        )
    return rows, row_bytes


def _refuse_compressed(encoding: str, data: Buffer) -> None:
    """Raises MalformedImageError if an image that is malformed as a raw one holds compressed data."""
    start = bytes(data[:LONGEST_SIGNATURE])
    if start.startswith((JPEG_SIGNATURE, PNG_SIGNATURE)):
        what = f"its data are a {format_of(start)}, although sensor_msgs/Image holds raw pixels"
    elif _COMPRESSED_NAMES.fullmatch(encoding):
        what = (
            f"encoding '{printable(encoding)}' is that of compressed data, although sensor_msgs/Image holds raw pixels"
        )
    else:
        return
    raise MalformedImageError(
        ImageFault.MIXED_UP,
        f"{what}; have the driver publish it as sensor_msgs/CompressedImage, and set transport: compressed",
    )


def _check_size(encoding: str, layout: _Layout, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise MalformedImageError(ImageFault.NO_PIXELS, f"the image has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise MalformedImageError(
            ImageFault.TOO_LARGE,
            f"{width}x{height} is more than the allowed {max_pixels} pixels; scale the image down first",
        )
    if min(width, height) < layout.minimum:
        raise MalformedImageError(
            ImageFault.ODD_SIZE,
            f"{encoding} needs at least {layout.minimum}x{layout.minimum} pixels, not {width}x{height}",
        )
    across, down = layout.multiple
    if width % across or height % down:
        raise MalformedImageError(
            ImageFault.ODD_SIZE,
            f"{encoding} needs a width divisible by {across} and a height divisible by {down}, not {width}x{height}",
        )


def _as_array(data: Buffer) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
