"""Overlays as subscribers see them, and how they are drawn."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from lifecycle_bench import Bench
from ros_process import image
from sensor_msgs.msg import CompressedImage

from litevlm_ros.node import overlay
from litevlm_ros.node.overlay import draw_overlay, grid, topic_tokens
from litevlm_ros.types import RgbImage

pytestmark = pytest.mark.ros


def large(value: int, stamp: tuple[int, int] = (0, 0)) -> Any:
    message = image(stamp=stamp, width=320, height=240, step=320)
    message.data = type(message.data)("B", bytes([value]) * (320 * 240))
    return message


def picture(message: Any) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)


def test_captions_are_drawn_on_their_frames_for_whoever_looks(bench: Bench) -> None:
    bench.start(caption_period=0.01, caption_prompt="Describe.")
    front = bench.client.listen(CompressedImage, "/litevlm/overlay/front/compressed")
    everything = bench.client.listen(CompressedImage, "/litevlm/overlay/compressed")
    for topic in ("/litevlm/overlay/front/compressed", "/litevlm/overlay/compressed"):
        bench.client.wait_for(lambda topic=topic: bench.client.node.count_publishers(topic) == 1)
    bench.client.wait_for(lambda: bench.node._activity.overlays._is_watched("back"))
    publishers = {camera: bench.publish(camera, large(100, (3, 4))) for camera in ("front", "back")}

    def publish_until(condition: Any) -> None:
        def step() -> bool:
            for publisher in publishers.values():
                publisher.publish(large(100, (3, 4)))
            return bool(condition())

        bench.client.wait_for(step)

    publish_until(lambda: front and everything)
    assert (front[0].header.stamp.sec, front[0].header.stamp.nanosec, front[0].header.frame_id) == (3, 4, "optical")
    seen = picture(front[0])
    assert seen.shape == (240, 320, 3)
    assert abs(int(seen[120, 160, 0]) - 100) <= 3
    assert (seen[200:].min(axis=2) > 180).sum() > 50, "the caption"
    # Both cameras side by side, once both have had a caption.
    publish_until(lambda: picture(everything[-1]).shape == (360, 960, 3))
    assert (picture(everything[-1])[180, [240, 720], 0] > 80).all()


def test_frames_that_the_backend_takes_raw_are_decoded_to_be_drawn(bench: Bench) -> None:
    raw_encodings = frozenset({"uyvy"})
    backend = SimpleNamespace(description="", fingerprints={}, memory=dict, raw_encodings=raw_encodings)
    bench.pipeline.backend = backend  # type: ignore[attr-defined]
    bench.start(caption_period=0.01, caption_prompt="Describe.")
    front = bench.client.listen(CompressedImage, "/litevlm/overlay/front/compressed")
    bench.client.wait_for(lambda: bench.node._activity.overlays._is_watched("front"))
    message = image(width=320, height=240, step=640, encoding="uyvy")
    message.data = type(message.data)("B", bytes([90, 81, 240, 81]) * (160 * 240))  # red
    publisher = bench.publish("front", message)
    bench.client.wait_for(lambda: front or publisher.publish(message))
    blue, green, red = picture(front[0])[120, 160].tolist()
    assert red > 240
    assert max(blue, green) < 15
    assert bench.pipeline.calls


def test_nothing_is_drawn_while_nobody_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(overlay, "draw_overlay", lambda *arguments: drawn.append(arguments[1]))
    bench.start(caption_period=0.01)
    publisher = bench.publish("front", large(1))
    bench.client.wait_for(lambda: len(bench.pipeline.calls) > 3 or publisher.publish(large(2)))
    assert not drawn
    assert not bench.node._activity.overlays._waiting


def test_slow_drawing_holds_up_neither_captions_nor_callbacks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    draw = overlay.draw_overlay
    monkeypatch.setattr(overlay, "draw_overlay", lambda *arguments: released.wait(20) and draw(*arguments))
    bench.start(caption_period=0.01)
    seen = bench.client.listen(CompressedImage, "/litevlm/overlay/front/compressed")
    bench.client.wait_for(lambda: bench.node._activity.overlays._is_watched("front"))
    publisher = bench.publish("front", large(1))
    bench.client.wait_for(lambda: len(bench.pipeline.calls) > 5 or publisher.publish(large(2)))
    assert bench.client.state() == "active"
    assert not seen
    released.set()
    bench.client.wait_for(lambda: seen)


def test_after_a_failure_to_draw_the_next_caption_is_drawn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, failures = overlay.draw_overlay, [ValueError("no ink")]

    def fails_once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return draw(*arguments)

    monkeypatch.setattr(overlay, "draw_overlay", fails_once)
    bench.start(caption_period=0.01)
    seen = bench.client.listen(CompressedImage, "/litevlm/overlay/front/compressed")
    bench.client.wait_for(lambda: bench.node._activity.overlays._is_watched("front"))
    publisher = bench.publish("front", large(1))
    bench.client.wait_for(lambda: seen or publisher.publish(large(2)))
    assert not failures


def test_the_topics_go_with_the_cameras(bench: Bench) -> None:
    bench.start(cameras=["front left", "front-left", "3"], camera_topics=["/a", "/b", "/c"])
    node = bench.node
    topics = [f"/litevlm/overlay/{name}/compressed" for name in ("front_left", "front_left_2", "camera_3")]
    assert [node.count_publishers(topic) for topic in topics] == [1, 1, 1]
    assert bench.client.change_state("deactivate")
    assert [node.count_publishers(topic) for topic in topics] == [0, 0, 0]
    assert not any(thread.name == "overlay" for thread in threading.enumerate())


def test_names_of_topics() -> None:
    assert topic_tokens(["front", "a/b", "a b", "앞", "뒤", "7"]) == {
        "front": "front", "a/b": "a_b", "a b": "a_b_2", "앞": "camera", "뒤": "camera_2", "7": "camera_7",
    }  # fmt: skip


# --- drawing


DETAILS = "84 ms: vision 20, prefill 7, decode 18, queue 2 · 82 + 32 tokens"


def flat(width: int, height: int, value: int = 200) -> RgbImage:
    return np.full((height, width, 3), value, np.uint8)


def text_pixels(picture: RgbImage) -> int:
    """Pixels as bright as letters, on a shaded image."""
    return int((picture.min(axis=2) > 150).sum())


def test_the_caption_is_below_and_the_rest_of_the_image_is_untouched() -> None:
    image = flat(640, 480, 100)
    picture = draw_overlay(image, "front", "A yellow truck far ahead.", DETAILS, 640)
    assert picture.shape == (480, 640, 3)
    assert (image == 100).all(), "the image belongs to others"
    assert text_pixels(picture[:40]) > 100
    assert text_pixels(picture[440:]) > 100
    assert (picture[60:420] == 100).all()
    assert (picture[-2:, :3] == 35).all(), "shaded behind the text"


def test_longer_captions_take_more_lines_up_to_a_limit() -> None:
    def shaded(words: int) -> int:
        picture = draw_overlay(flat(640, 480), "front", "truck " * words, "", 640)
        return int((picture[100:, 2, 0] != 200).sum())

    assert 0 < shaded(3) < shaded(20) < shaded(130) == shaded(40_000)


@pytest.mark.parametrize("text", ["보행자 두 명이 있습니다.", "Ein Fußgänger überquert die Straße.", "🙂 x\x00\n\t"])
def test_any_text_can_be_drawn(text: str) -> None:
    assert text_pixels(draw_overlay(flat(640, 480), text[:8], text, DETAILS, 640)[430:]) > 60


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 6), (160, 120), (1920, 1080), (40, 2000), (2000, 40)])
def test_images_of_any_size_are_drawn_at_a_legible_one(width: int, height: int) -> None:
    picture = draw_overlay(flat(width, height), "front", "A truck.", DETAILS, 960)
    assert picture.shape[1] == min(960, max(160, width))
    assert picture.dtype == np.uint8


def test_an_empty_caption() -> None:
    assert draw_overlay(flat(640, 480), "front", "", "", 640).shape == (480, 640, 3)


def test_pictures_side_by_side() -> None:
    pictures = [flat(320, 240, value) for value in (10, 20, 30, 40, 50)]
    together = grid(pictures, 960)
    assert together.shape == (480, 960, 3)
    assert [together[120, 160 + 320 * column, 0] for column in range(3)] == [10, 20, 30]
    assert [together[360, 160 + 320 * column, 0] for column in range(3)] == [40, 50, 0]
    assert grid(pictures[:1], 320).shape == (240, 320, 3)


def test_other_shapes_are_letterboxed() -> None:
    together = grid([flat(320, 240, 10), flat(100, 400, 20)], 640)
    assert together.shape == (240, 640, 3)
    assert together[120, 480, 0] == 20
    assert together[120, 330, 0] == 0
