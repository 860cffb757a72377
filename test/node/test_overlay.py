"""What subscribers to the overlays see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
from litevlm_ros.node.overlay import topic_tokens

pytestmark = pytest.mark.ros


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


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
    bench.client.wait_for(lambda: bench.node._overlays._is_watched("back"))
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


def test_nothing_is_drawn_while_nobody_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(overlay, "draw_overlay", lambda *arguments: drawn.append(arguments[1]))
    bench.start(caption_period=0.01)
    publisher = bench.publish("front", large(1))
    bench.client.wait_for(lambda: len(bench.pipeline.calls) > 3 or publisher.publish(large(2)))
    assert not drawn
    assert not bench.node._overlays._waiting


def test_slow_drawing_holds_up_neither_captions_nor_callbacks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    draw = overlay.draw_overlay
    monkeypatch.setattr(overlay, "draw_overlay", lambda *arguments: released.wait(20) and draw(*arguments))
    bench.start(caption_period=0.01)
    seen = bench.client.listen(CompressedImage, "/litevlm/overlay/front/compressed")
    bench.client.wait_for(lambda: bench.node._overlays._is_watched("front"))
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
    bench.client.wait_for(lambda: bench.node._overlays._is_watched("front"))
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
