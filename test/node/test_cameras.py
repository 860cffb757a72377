# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import array
import time

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.node.cameras import Camera, CameraSource

pytestmark = pytest.mark.ros


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("camera_test", context=context)
    node.test_executor = SingleThreadedExecutor(context=context)
    node.test_executor.add_node(node)
    yield node
    node.test_executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.fixture
def warnings(node, monkeypatch):
    texts: list[str] = []
    monkeypatch.setattr(type(node.get_logger()), "warning", lambda self, text: texts.append(text))
    return texts


def image(value: int = 0, **changes: object) -> Image:
    message = Image(encoding="mono8", width=4, height=2, step=4, data=array.array("B", bytes([value]) * 8))
    for name, change in changes.items():
        setattr(message, name, change)
    return message


def make(node, topic="/front/image_raw", compressed=False, on_frame=lambda camera: None) -> Camera:
    camera = Camera(node, CameraSource("front", topic, compressed), on_frame)
    camera.open()
    return camera


def spin_until(node, condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing arrived"
        node.test_executor.spin_once(timeout_sec=0.05)


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
@pytest.mark.parametrize("durability", [DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL])
def test_frames_arrive_from_publishers_of_any_qos(node, reliability, durability):
    seen: list[Camera] = []
    camera = make(node, on_frame=seen.append)
    publisher = node.create_publisher(
        Image, "/front/image_raw", QoSProfile(depth=5, reliability=reliability, durability=durability)
    )
    spin_until(node, lambda: publisher.get_subscription_count() == 1)
    publisher.publish(image(90))
    spin_until(node, lambda: seen)
    assert seen[0] is camera
    assert camera.newest(5.0).image()[0, 0].tolist() == [90, 90, 90]


def test_a_compressed_topic(node):
    camera = make(node, "/front/image_raw/compressed", compressed=True)
    publisher = node.create_publisher(CompressedImage, "/front/image_raw/compressed", 5)
    spin_until(node, lambda: publisher.get_subscription_count() == 1)
    png = cv2.imencode(".png", np.full((3, 5, 3), 40, np.uint8))[1].tobytes()
    publisher.publish(CompressedImage(format="png", data=png))
    spin_until(node, lambda: camera.newest(5.0) is not None)
    assert camera.newest(5.0).image().shape == (3, 5, 3)


def test_only_the_newest_frame_is_kept_and_the_others_counted(node):
    camera = make(node)
    for value in (1, 2, 3):
        camera.receive(image(value))
    frame = camera.use(5.0)
    assert frame.image()[0, 0, 0] == 3
    camera.receive(image(4))
    assert (camera.counters.received, camera.counters.replaced) == (4, 2)
    assert camera.use(5.0).image()[0, 0, 0] == 4


def test_an_old_frame_is_not_given_out(node):
    camera = make(node)
    camera.receive(image(1))
    time.sleep(0.05)
    assert camera.newest(0.01) is None
    assert camera.use(0.01) is None
    assert camera.newest(5.0) is not None
    assert "0.1 s old, max_frame_age is 0.01 s" in camera.why_no_frame(0.01)


def test_malformed_images_are_counted_and_logged_once(node, warnings):
    camera = make(node)
    for message in (
        image(step=1),
        image(step=1),
        image(encoding="nonsense"),
        image(width=0, height=0),
        image(data=array.array("B", b"123")),
        image(1),
        image(data=array.array("B")),
    ):
        camera.receive(message)
    assert len(warnings) == 1
    assert "camera front on /front/image_raw: step 1 is too small" in warnings[0]
    assert camera.counters.received == 7
    assert camera.counters.dropped == {
        ImageFault.WRONG_STEP: 2,
        ImageFault.UNKNOWN_ENCODING: 1,
        ImageFault.NO_PIXELS: 1,
        ImageFault.SHORT_DATA: 2,
    }
    assert "7 images received, 0 replaced by newer ones, dropped: 2 wrong step, 1 unknown" in camera.counters.summary()


def test_a_malformed_image_neither_replaces_a_good_one_nor_is_announced(node, warnings):
    seen: list[Camera] = []
    camera = make(node, on_frame=seen.append)
    camera.receive(image(7))
    camera.receive(image(step=0))
    assert len(seen) == 1
    assert camera.newest(5.0).image()[0, 0, 0] == 7


def test_a_jpeg_that_ends_early_is_counted_as_damaged_and_not_used(node, warnings):
    camera = make(node, compressed=True)
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    camera.receive(CompressedImage(format="jpeg", data=jpeg[: len(jpeg) // 2] + b"\xff\xd9"))
    with pytest.raises(MalformedImageError, match="premature end of data"):
        camera.newest(5.0).image()
    assert camera.counters.dropped == {ImageFault.DAMAGED: 1}


def test_12_bit_images_of_a_camera_keep_their_brightness(node):
    camera = make(node)
    levels = []
    for value in (4095, 300):
        data = np.full((2, 2), value, "<u2").tobytes()
        camera.receive(Image(encoding="mono16", width=2, height=2, step=4, data=data))
        levels.append(int(camera.newest(5.0).image()[0, 0, 0]))
    assert levels == [255, 300 >> 4]


def test_damage_that_only_decoding_finds_is_counted(node, warnings):
    camera = make(node, compressed=True)
    png = bytearray(cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8))[1].tobytes())
    png[60:2000] = bytes(1940)
    camera.receive(CompressedImage(format="png", data=bytes(png)))
    for _ in range(3):
        with pytest.raises(MalformedImageError):
            camera.newest(5.0).image()
    assert camera.counters.dropped == {ImageFault.DAMAGED: 1}
    assert len(warnings) == 1


def test_a_frame_is_decoded_once(node):
    camera = make(node)
    camera.receive(image(5))
    assert camera.newest(5.0).image() is camera.newest(5.0).image()


def test_why_there_is_no_frame(node):
    camera = make(node)
    assert camera.why_no_frame(1.0).startswith("front (nobody publishes /front/image_raw; ")
    elsewhere = rclpy.Context()  # a participant of its own, as another process would be
    rclpy.init(context=elsewhere, domain_id=node.context.get_domain_id())
    driver = rclpy.create_node("driver", context=elsewhere)
    wrong = driver.create_publisher(CompressedImage, "/front/image_raw", 1)
    spin_until(node, lambda: "nobody" not in camera.why_no_frame(1.0))
    assert "carries sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image" in camera.why_no_frame(1.0)
    driver.destroy_publisher(wrong)
    driver.create_publisher(Image, "/front/image_raw", 1)
    spin_until(node, lambda: "has a publisher but has brought no frame yet" in camera.why_no_frame(1.0))
    camera.receive(image(step=2))
    assert camera.why_no_frame(1.0).startswith("front (/front/image_raw has brought only malformed images: step 2 is")
    camera.receive(image(1))
    camera.receive(image(step=3))
    time.sleep(0.02)
    assert "is 0.0 s old, max_frame_age is 0.01 s; only malformed images came after it: step 3" in camera.why_no_frame(
        0.01
    )
    camera.close()
    assert camera.why_no_frame(1.0) == "front (the node has stopped listening to /front/image_raw)"
    driver.destroy_node()
    rclpy.try_shutdown(context=elsewhere)


def stamped(node, seconds_ago: float, value: int = 0) -> Image:
    message = image(value)
    message.header.stamp = (node.get_clock().now() - Duration(seconds=seconds_ago)).to_msg()
    return message


def test_a_frame_that_waited_on_its_way_is_as_old_as_its_stamp_says(node):
    camera = make(node)
    camera.receive(stamped(node, 3.0))
    assert camera.newest(2.0) is None
    assert camera.newest(3.5).age() == pytest.approx(3.0, abs=0.4)
    assert "by its stamp it was 3.0 s old when it came" in camera.why_no_frame(2.0)
    camera.clock.counts_from = "arrival"
    assert camera.newest(2.0) is not None


def test_stamps_of_another_clock_are_said_once_and_do_not_count(node, warnings):
    camera = make(node)
    camera.receive(stamped(node, 3600.0))
    camera.receive(stamped(node, -3600.0))
    assert camera.newest(2.0) is not None
    assert len(warnings) == 1
    assert "stamps of camera front on /front/image_raw are 3600 s behind this node's clock" in warnings[0]
    camera.clock.counts_from = "stamp"
    camera.receive(stamped(node, 3600.0))
    assert camera.newest(2.0) is None


def test_simulated_time_stands_still_passes_and_begins_again(node):
    node.set_parameters([Parameter("use_sim_time", value=True)])
    publisher = node.create_publisher(Clock, "/clock", 1)

    def set_clock(seconds: int) -> None:
        def has_come() -> bool:
            publisher.publish(Clock(clock=Time(sec=seconds)))
            return node.get_clock().now().nanoseconds == seconds * 10**9

        spin_until(node, has_come)

    set_clock(100)
    camera = make(node)
    camera.receive(stamped(node, 0.5))
    time.sleep(0.05)
    assert 0.55 <= camera.newest(2.0).age() < 2.0, "a simulation that stands still does not keep its frames young"
    assert camera.newest(0.52) is None
    assert "is 0.6 s old, max_frame_age is 0.52 s" in camera.why_no_frame(0.52)
    set_clock(102)
    assert camera.newest(2.0) is None
    assert camera.newest(3.0).age() == pytest.approx(2.5, abs=0.4)
    set_clock(7)
    assert camera.newest(1000.0) is None, "a frame of a run before this one"
    assert "is from before /clock was set back by 93.0 s" in camera.why_no_frame(2.0)
    camera.receive(stamped(node, 0.5))
    assert camera.newest(2.0).age() == pytest.approx(0.5, abs=0.4)


def test_a_simulation_slower_than_real_time_is_named(node):
    node.set_parameters([Parameter("use_sim_time", value=True)])
    publisher, began = node.create_publisher(Clock, "/clock", 1), time.monotonic()

    def slow() -> None:
        nanoseconds = int(5e9 + (time.monotonic() - began) * 1e8)
        publisher.publish(Clock(clock=Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)))

    spin_until(node, lambda: slow() or node.get_clock().now().nanoseconds > 0)
    camera = make(node)
    camera.receive(image())
    spin_until(node, lambda: slow() or camera.newest(0.3) is None)
    assert "real time too; the simulation runs at 0.1" in camera.why_no_frame(0.3)
    assert "raise max_frame_age" in camera.why_no_frame(0.3)


def test_frames_are_not_used_without_the_simulated_time_that_tells_their_age(node, warnings):
    node.set_parameters([Parameter("use_sim_time", value=True)])
    camera = make(node)
    message = image(1)
    message.header.stamp = Time(sec=1_700_000_000)
    camera.receive(message)
    assert camera.newest(2.0) is None
    assert camera.use(2.0) is None
    assert camera.why_no_frame(2.0) == (
        "front (frames arrive on /front/image_raw, but nobody can tell their age: the parameter use_sim_time is true, "
        "but nobody publishes /clock; start the simulation, or `ros2 bag play` with --clock, or set use_sim_time to "
        "false; or set frame_clock to arrival)"
    )
    assert not warnings, "the stamps are not ahead, the clock is missing"
    assert camera.last() is not None
    node.create_publisher(Clock, "/clock", 1)
    spin_until(node, lambda: "/clock has brought no time above 0 yet" in camera.why_no_frame(2.0))
    camera.clock.counts_from = "arrival"
    assert camera.newest(2.0) is not None


@pytest.mark.parametrize(("seconds_ago", "used"), [(None, True), (0.5, True), (10.0, False), (3600.0, False)])
def test_an_image_that_was_published_once_before_is_fetched(node, warnings, seconds_ago, used):
    latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = node.create_publisher(Image, "/front/image_raw", latched)
    publisher.publish(image(90) if seconds_ago is None else stamped(node, seconds_ago, 90))
    camera = make(node)
    camera.look_at_publishers()
    spin_until(node, lambda: camera.counters.received == 1)
    assert (camera.newest(5.0) is not None) == used
    assert not warnings
    if not used:
        assert "(latched), so raise max_frame_age" in camera.why_no_frame(5.0)
    publisher.publish(image(91))
    spin_until(node, lambda: camera.last().header.stamp == Time() and camera.last().image()[0, 0, 0] == 91)


def test_an_old_latched_image_does_not_replace_a_newer_frame(node):
    camera = make(node)
    camera.receive(stamped(node, 0.0, 7))
    camera._receive_latched(stamped(node, 1.0, 8))
    assert camera.newest(5.0).image()[0, 0, 0] == 7


def test_the_nodes_that_publish_a_camera(node):
    camera = make(node)
    assert camera.look_at_publishers() == []
    node.create_publisher(Image, "/front/image_raw", 1)
    spin_until(node, lambda: camera.look_at_publishers() == ["/camera_test"])
    camera.close()
    assert camera.look_at_publishers() == []


def test_losses_in_the_middleware_are_counted(node):
    camera = make(node)
    assert "lost" not in camera.counters.summary()
    camera._count_lost(2)
    camera._count_lost(3)
    assert "0 images received, 5 lost by the middleware" in camera.counters.summary()


def test_lost_images_are_the_reason_if_no_other_has_come_since(node, monkeypatch):
    node.create_publisher(Image, "/front/image_raw", 1)
    camera = make(node)
    spin_until(node, lambda: "has a publisher" in camera.why_no_frame(1.0))
    camera._count_lost(5)
    assert "(5 images on /front/image_raw were lost on their way, and none came meanwhile; " in camera.why_no_frame(1.0)
    camera.receive(image())
    camera._count_lost(3)
    assert "lost" not in camera.why_no_frame(0.0), "a loss before a frame may be reported only after it"
    later = time.monotonic() + 3.0
    monkeypatch.setattr("litevlm_ros.node.cameras.time.monotonic", lambda: later)
    camera._count_lost(4)
    assert "max_frame_age is 0 s; 4 images on /front/image_raw were lost on their way" in camera.why_no_frame(0.0)


def test_of_what_has_queued_up_only_the_newest_is_used_and_nothing_that_waited_too_long(node):
    """Several messages arrive at once, as after a moment in which the executor or the network was held up."""
    camera = Camera(node, CameraSource("front", "/front/image_raw", False, "reliable", 20), lambda camera: None)
    camera.open()
    publisher = node.create_publisher(Image, "/front/image_raw", 20)
    spin_until(node, lambda: publisher.get_subscription_count() == 1 and node.count_subscribers(camera.topic) == 1)
    for seconds_ago in range(10, 2, -1):
        publisher.publish(stamped(node, seconds_ago, value=seconds_ago))
    spin_until(node, lambda: camera.counters.received == 8)
    assert camera.use(2.0) is None
    assert "by its stamp it was 3." in camera.why_no_frame(2.0)
    for value in (1, 2, 3):
        publisher.publish(stamped(node, 0.0, value))
    spin_until(node, lambda: camera.counters.received == 11)
    assert camera.use(2.0).image()[0, 0, 0] == 3
    assert camera.counters.replaced == 10


def test_stamps_are_carried_through(node):
    camera = make(node)
    camera.receive(stamped(node, 0.5))
    sent = camera._newest._message.header.stamp
    assert camera.use(2.0).header.stamp == sent


def test_closing_unsubscribes(node):
    camera = make(node)
    camera.receive(image())
    camera.close()
    assert camera.newest(5.0) is None
    assert node.count_subscribers("/front/image_raw") == 0
