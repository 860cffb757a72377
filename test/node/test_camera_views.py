# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import time
from array import array
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_process import compressed, image

from litevlm_ros.errors import ConfigError, ImageError, ImageFault, NoFrameError
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.node.camera_views import CameraViews, take_question_images
from litevlm_ros.node.cameras import Camera, CameraSource
from litevlm_ros.types import RawImage

pytestmark = pytest.mark.ros


@pytest.fixture
def cameras() -> Any:
    """Three cameras that are not subscribed: tests hand them their messages."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("views_test", context=context)
    yield {
        name: Camera(node, CameraSource(name, f"/{name}/image", name == "png"), lambda camera: None)
        for name in ("front", "back", "png")
    }
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_without_names_all_cameras_with_a_frame_are_taken(cameras: dict[str, Camera]) -> None:
    views = CameraViews(cameras, 5.0)
    cameras["png"].receive(compressed(8, (2, 0)))
    before = time.monotonic()
    cameras["front"].receive(image(7, (1, 5)))
    taken = views.take([])
    assert [(view.camera, view.image[0, 0, 0]) for view in taken.views] == [("front", 7), ("png", 8)]
    assert taken.headers["front"].stamp.nanosec == 5
    names = [view.frame for view in taken.views]
    assert [view.frame for view in views.take([]).views] == names
    cameras["front"].receive(image(7, (1, 5)))
    assert [view.frame == name for view, name in zip(views.take([]).views, names, strict=True)] == [False, True]
    assert taken.headers["png"].frame_id == "optical"
    assert taken.arrival <= before
    assert 0 < taken.decode_ms < 5000


def test_named_cameras_come_in_the_order_of_their_names_once(cameras: dict[str, Camera]) -> None:
    for value, name in enumerate(("front", "back")):
        cameras[name].receive(image(value))
    taken = CameraViews(cameras, 5.0).take(["back", "front", "back"])
    assert [view.camera for view in taken.views] == ["back", "front"]


def test_a_named_camera_without_a_frame_is_waited_for(cameras: dict[str, Camera]) -> None:
    views = CameraViews(cameras, 5.0)
    cameras["front"].receive(image())
    views.check([])
    for call in (views.check, views.take):
        with pytest.raises(NoFrameError, match=r"^waiting for an image from back \(nobody publishes /back/image; "):
            call(["front", "back"])


def test_old_frames_are_not_used(cameras: dict[str, Camera]) -> None:
    cameras["front"].receive(image())
    time.sleep(0.02)
    with pytest.raises(
        NoFrameError, match=r"front \(the last frame on /front/image is 0\.0 s old, max_frame_age is 0.01"
    ):
        CameraViews(cameras, 0.01).check(["front"])


def test_no_frame_at_all_names_every_camera(cameras: dict[str, Camera]) -> None:
    with pytest.raises(NoFrameError, match=r"front \(.*\); back \(.*\); png \("):
        CameraViews(cameras, 5.0).check([])


def test_an_unknown_camera(cameras: dict[str, Camera]) -> None:
    with pytest.raises(ConfigError, match="unknown camera top; known are front, back, png"):
        CameraViews(cameras, 5.0).check(["top", "front"])


def test_damage_found_in_decoding(cameras: dict[str, Camera]) -> None:
    broken = compressed(8)
    broken.data[41:50] = type(broken.data)("B", bytes(9))  # of the compressed pixels
    cameras["png"].receive(broken)
    cameras["front"].receive(image(3))
    views = CameraViews(cameras, 5.0)
    assert [view.camera for view in views.take([]).views] == ["front"]
    with pytest.raises(NoFrameError, match=r"no usable image from png \(its newest image is malformed: the PNG could"):
        views.take(["png"])


def test_raw_images_stay_raw_where_the_backend_takes_them(cameras: dict[str, Camera]) -> None:
    message = image(7, encoding="bgr8", width=2, height=2, step=7, data=array("B", bytes(range(13))))
    cameras["front"].receive(message)
    cameras["back"].receive(image(9))
    cameras["png"].receive(compressed(8))
    views = CameraViews(cameras, 5.0, frozenset({"bgr8"}))
    raw, grey, png = (view.image for view in views.take(["front", "back", "png"]).views)
    assert isinstance(raw, RawImage)
    assert (raw.encoding, raw.width, raw.height, raw.step, raw.is_bigendian) == ("bgr8", 2, 2, 7, False)
    assert raw.data is message.data, "the data was copied"
    assert isinstance(grey, np.ndarray)
    assert isinstance(png, np.ndarray)
    decoded = views.take(["front"], decoded=True).views[0].image
    assert isinstance(decoded, np.ndarray)
    np.testing.assert_array_equal(decoded, as_rgb(raw))
    (view,) = CameraViews(cameras, 5.0).take(["front"]).views
    assert view.image is decoded, "a frame is decoded once"


def test_raw_images_are_checked(cameras: dict[str, Camera]) -> None:
    camera = cameras["front"]
    camera.receive(image(7))
    camera.max_pixels = 47  # as if the limit had changed after it came
    views = CameraViews(cameras, 5.0, frozenset({"mono8"}))
    for _ in range(2):
        with pytest.raises(NoFrameError, match=r"front \(its newest image is malformed: 8x6 is more than the"):
            views.take(["front"])
    assert camera.counters.dropped == {ImageFault.TOO_LARGE: 1}


def test_raw_images_of_a_query_are_checked() -> None:
    (view,) = take_question_images([image(1)], ["a"], 100, {"mono8"}).views
    assert isinstance(view.image, RawImage)
    with pytest.raises(ImageError, match=r"^b: step 1 is too small"):
        take_question_images([image(), image(step=1)], ["a", "b"], 100, {"mono8"})
    with pytest.raises(ImageError, match=r"^a: 8x6 is more than the allowed 47 pixels"):
        take_question_images([image()], ["a"], 47, {"mono8"})


def test_images_of_a_query() -> None:
    views = take_question_images([image(1, (4, 4)), image(2)], ["a", "b"], 100)
    assert [(view.camera, view.image[0, 0, 0]) for view in views.views] == [("a", 1), ("b", 2)]
    assert views.headers["a"].stamp.sec == 4
    with pytest.raises(ImageError, match=r"^b: step 1 is too small"):
        take_question_images([image(), image(step=1)], ["a", "b"], 100)
    with pytest.raises(ImageError, match=r"^a: 8x6 is more than the allowed 47 pixels"):
        take_question_images([image()], ["a"], 47)
