from __future__ import annotations

import array
from dataclasses import fields, replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.msg import Answer as AnswerMessage
from litevlm_ros.node.messages import (
    answer_message,
    caption_message,
    check_image,
    decode_image,
    take_image,
)
from litevlm_ros.types import Answer, FinishReason, Reuse, Speculation, Timings, TokenCounts

pytestmark = pytest.mark.ros

ANSWER = Answer(
    text="A red bus.",
    prompt="What is ahead?",
    cameras=("front", "back"),
    finish_reason=FinishReason.LENGTH,
    tokens=TokenCounts(prompt=40, visual=32, generated=5),
    speculation=Speculation(drafted=3, accepted=2, verifications=1, acceptance=0.7),
    reuse=Reuse(views=2, tokens=38),
    timings=Timings(1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 31.5),
)


def header(sec: int, nanosec: int = 0, frame_id: str = "camera") -> Header:
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def test_timings_keep_every_field():
    message = caption_message(ANSWER, "front", Header()).timings
    assert {field.name for field in fields(Timings)} == set(message.get_fields_and_field_types())
    assert [getattr(message, field.name) for field in fields(Timings)] == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 31.5]


def test_a_caption_carries_its_source_frames_header():
    message = caption_message(ANSWER, "front", header(12, 34, "front_optical"))
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (
        12,
        34,
        "front_optical",
    )
    assert (message.camera, message.text, message.prompt) == ("front", "A red bus.", "What is ahead?")
    assert (message.prompt_tokens, message.visual_tokens, message.generated_tokens) == (40, 32, 5)
    assert (message.drafted_tokens, message.accepted_tokens) == (3, 2)
    assert message.draft_acceptance == pytest.approx(0.7)
    assert (message.reused_views, message.reused_tokens) == (2, 38)
    assert message.finish_reason == "length"
    assert message.timings.vision == 4.5


def test_an_answer_carries_the_newest_header_and_every_stamp():
    headers = {"back": header(9, 5, "b"), "front": header(9, 4, "f"), "left": header(99)}
    message = answer_message(ANSWER, headers, Time(sec=100))
    assert list(message.cameras) == ["front", "back"]
    assert [stamp.nanosec for stamp in message.stamps] == [4, 5]
    assert message.header.frame_id == "b"


def test_an_answer_about_no_image_has_the_time_of_the_answer():
    message = answer_message(replace(ANSWER, cameras=()), {}, Time(sec=100, nanosec=7))
    assert (list(message.cameras), list(message.stamps)) == ([], [])
    assert (message.header.stamp, message.header.frame_id) == (Time(sec=100, nanosec=7), "")


def test_finish_reasons_are_the_messages_constants():
    constants = {AnswerMessage.STOP, AnswerMessage.LENGTH, AnswerMessage.CANCELLED}
    assert constants == {reason.value for reason in FinishReason}


def test_both_kinds_of_image_decode():
    rgb = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    raw = Image(encoding="rgb8", width=2, height=2, step=6, data=array.array("B", rgb.tobytes()))
    np.testing.assert_array_equal(decode_image(raw), rgb)
    raw.is_bigendian, raw.encoding, raw.step = 1, "mono16", 4
    raw.data = array.array("B", bytes([7, 0] * 3 + [255, 255]))
    assert decode_image(raw)[0, 0].tolist() == [7, 7, 7]
    with pytest.raises(MalformedImageError, match="neither a JPEG"):
        decode_image(CompressedImage(format="jpeg", data=array.array("B", b"nonsense")))


@pytest.mark.parametrize("raw_encodings", [(), ("16UC1", "32FC1", "rgb8")])
@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (Image(encoding="16UC1", width=4, height=4, step=8, data=bytes(32)), ImageFault.NOT_A_PICTURE),
        (Image(encoding="32FC1", width=4, height=4, step=16, data=bytes(64)), ImageFault.NOT_A_PICTURE),
        (Image(encoding="rgb8", width=640, height=480, step=1920, data=b"\xff\xd8\xff\xe0"), ImageFault.MIXED_UP),
        (Image(encoding="jpeg", width=640, height=480, data=b"\xff\xd8\xff\xe0"), ImageFault.MIXED_UP),
        (CompressedImage(format="16UC1; compressedDepth png", data=bytes(80)), ImageFault.NOT_A_PICTURE),
        (CompressedImage(format="rgb8", data=bytes(80)), ImageFault.MIXED_UP),
    ],
)
def test_what_is_no_picture_is_refused_on_arrival_and_on_use(message, fault, raw_encodings):
    for call in (check_image, decode_image, lambda image: take_image(image, raw_encodings)):
        with pytest.raises(MalformedImageError) as refused:
            call(message)
        assert refused.value.fault is fault
