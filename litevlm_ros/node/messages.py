"""Conversions between ROS messages and the types of the pipeline."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from litevlm_ros import types
from litevlm_ros.images.compressed import check_compressed
from litevlm_ros.images.decoding import MAX_PIXELS, check_raw
from litevlm_ros.images.message import decode_message
from litevlm_ros.images.sample_range import SampleRange
from litevlm_ros.msg import Answer, Caption, Timings


def check_image(message: Image | CompressedImage, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raises the MalformedImageErrors of decode_image() that can be found without decoding, in microseconds."""
    if isinstance(message, CompressedImage):
        check_compressed(message.format, message.data, max_pixels=max_pixels)
    else:
        check_raw(message.encoding, message.width, message.height, message.step, message.data, max_pixels=max_pixels)


def decode_image(
    message: Image | CompressedImage, *, max_pixels: int = MAX_PIXELS, samples: SampleRange | None = None
) -> types.RgbImage:
    """Decodes an image message, uint8 [height, width, 3]. Raises MalformedImageError.

    `samples` is the camera's range of 16-bit values; without it, it is that of the image.
    """
    return decode_message(
        message, compressed=isinstance(message, CompressedImage), max_pixels=max_pixels, samples=samples
    )


def take_image(
    message: Image | CompressedImage,
    raw_encodings: Collection[str],
    *,
    max_pixels: int = MAX_PIXELS,
    samples: SampleRange | None = None,
) -> types.AnyImage:
    """Returns the image of a message, which stays raw if its encoding is one of `raw_encodings`.

    Raises the MalformedImageErrors of decode_image().
    """
    if isinstance(message, CompressedImage) or message.encoding not in raw_encodings:
        return decode_image(message, max_pixels=max_pixels, samples=samples)
    check_image(message, max_pixels=max_pixels)
    return types.RawImage(
        message.encoding, message.width, message.height, message.step, message.data, bool(message.is_bigendian)
    )


def caption_message(answer: types.Answer, camera: str, header: Header) -> Any:
    """Returns a litevlm_ros/Caption about one frame, with the frame's header."""
    return Caption(header=header, camera=camera, **_common(answer))


def answer_message(answer: types.Answer, headers: Mapping[str, Header], now: Time) -> Any:
    """Returns a litevlm_ros/Answer. `headers` holds the source frame's header of every camera in the answer.

    `now` is the stamp of an answer that is about no image.
    """
    sources = [headers[camera] for camera in answer.cameras]
    newest = max(sources, key=lambda header: (header.stamp.sec, header.stamp.nanosec), default=Header(stamp=now))
    return Answer(
        header=newest,
        cameras=list(answer.cameras),
        stamps=[header.stamp for header in sources],
        **_common(answer),
    )


def _common(answer: types.Answer) -> dict[str, Any]:
    fields = answer.message_fields()
    return {**fields, "timings": Timings(**fields["timings"])}
