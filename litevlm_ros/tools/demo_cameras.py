"""Publish camera images without cameras: rendered street views, a video file, or a folder of photos.

Each camera NAME has NAME/image_raw (sensor_msgs/Image) and NAME/image_raw/compressed (sensor_msgs/CompressedImage), in
the namespace of this node. What is true of rendered views goes to demo_cameras/ground_truth there, as JSON in a
std_msgs/String, once per scene.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litevlm_ros.errors import ConfigError, LiteVLMError
from litevlm_ros.lab.demo.ground_truth import TOPIC

if TYPE_CHECKING:
    from litevlm_ros.lab.demo.sources import Shot, Source

_DEFAULT_CAMERA = "front"
_JPEG_QUALITY = 90
_MOST_PIXELS = 64_000_000


def main(argv: list[str] | None = None) -> int:
    """Publishes until SIGINT or SIGTERM. Returns 0, or 2 for settings that cannot work."""
    options, ros_arguments = _parser().parse_known_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        _check(options)
        source = _source(options)
    except LiteVLMError as error:
        print(f"demo_cameras: {error}", file=sys.stderr)
        return 2
    try:
        _run(source, options.rate, ros_arguments, stop)
    except LiteVLMError as error:
        print(f"demo_cameras: {error}", file=sys.stderr)
        return 2
    finally:
        source.close()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # launch repeats them while Python ends
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo_cameras", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--video", type=Path, metavar="FILE", help="play this video in a loop")
    pictures.add_argument("--photos", type=Path, metavar="DIR", help="show the photos of this folder in turn")
    parser.add_argument(
        "--cameras", default="", metavar="A,B", help="camera names (default: all six of the street world; else front)"
    )
    parser.add_argument("--rate", type=float, default=5.0, metavar="HZ", help="images a second of each camera (5)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="number of the first rendered scene (0)")
    parser.add_argument(
        "--scene-seconds", type=float, default=10.0, metavar="S", help="seconds of each scene or photo (10)"
    )
    parser.add_argument("--width", type=int, default=640, metavar="W", help="of rendered images, in pixels (640)")
    parser.add_argument("--height", type=int, default=480, metavar="H", help="of rendered images, in pixels (480)")
    return parser


def _check(options: argparse.Namespace) -> None:
    for flag, value in (("--rate", options.rate), ("--scene-seconds", options.scene_seconds)):
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{flag} must be above 0, not {value:g}")
    if min(options.width, options.height) < 16 or options.width * options.height > _MOST_PIXELS:
        raise ConfigError(
            f"--width and --height must be at least 16, and at most {_MOST_PIXELS} pixels together, "
            f"not {options.width}x{options.height}"
        )


def _source(options: argparse.Namespace) -> Source:
    # Here, so that --help works without OpenCV and Pillow.
    from litevlm_ros.lab.demo.sources import PhotoFolder, RenderedStreets, VideoFile
    from litevlm_ros.lab.world.scene import CAMERAS

    rendered = options.video is None and options.photos is None
    cameras = [name.strip() for name in options.cameras.split(",") if name.strip()]
    cameras = cameras or (list(CAMERAS) if rendered else [_DEFAULT_CAMERA])
    if len(set(cameras)) != len(cameras):
        raise ConfigError(f"--cameras has a name twice: {', '.join(cameras)}")
    if options.video is not None:
        return VideoFile(options.video, cameras)
    if options.photos is not None:
        return PhotoFolder(options.photos, cameras, options.scene_seconds)
    return RenderedStreets(cameras, options.seed, options.scene_seconds, options.width, options.height)


def _run(source: Source, rate: float, ros_arguments: list[str], stop: threading.Event) -> None:
    import rclpy
    from rclpy.exceptions import InvalidTopicNameException
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import try_shutdown

    rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("demo_cameras")
    try:
        publishers = _Publishers(node, source.cameras)
        node.get_logger().info(f"{rate:g} images a second from each of {', '.join(source.cameras)}")
        start = time.monotonic()
        tick = 0
        while not stop.wait(max(0.0, start + tick / rate - time.monotonic())):
            publishers.publish(source.next(time.monotonic() - start))
            # A tick that was missed is missed: frames must not pile up.
            tick = max(tick + 1, int((time.monotonic() - start) * rate))
    except InvalidTopicNameException as error:
        raise ConfigError(f"--cameras: a name does not make a topic: {error}") from None
    finally:
        node.destroy_node()
        try_shutdown()


class _Publishers:
    """The topics of all cameras, and the ground truth."""

    def __init__(self, node: Any, cameras: tuple[str, ...]) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CompressedImage, Image
        from std_msgs.msg import String

        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        # Whoever comes later still learns about the scene that shows.
        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._clock = node.get_clock()
        self._raw = {name: node.create_publisher(Image, f"{name}/image_raw", newest) for name in cameras}
        self._compressed = {
            name: node.create_publisher(CompressedImage, f"{name}/image_raw/compressed", newest) for name in cameras
        }
        self._truth = node.create_publisher(String, TOPIC.lstrip("/"), kept)

    def publish(self, shot: Shot) -> None:
        """Publishes a shot under one stamp. A topic that nobody subscribes to costs nothing."""
        import cv2
        import numpy as np
        from sensor_msgs.msg import CompressedImage, Image
        from std_msgs.msg import Header, String

        from litevlm_ros.lab.demo.sources import truth_message

        stamp = self._clock.now().to_msg()
        if shot.truth is not None:
            self._truth.publish(String(data=truth_message(shot.truth, stamp.sec, stamp.nanosec)))
        for name, image in shot.images.items():
            header = Header(stamp=stamp, frame_id=name)
            height, width = image.shape[:2]
            if self._raw[name].get_subscription_count():
                message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
                # rclpy takes an array as it is, and checks bytes one by one.
                message.data.frombytes(np.ascontiguousarray(image).data)
                self._raw[name].publish(message)
            if self._compressed[name].get_subscription_count():
                quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
                _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
                jpeg = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
                jpeg.data.frombytes(data.tobytes())
                self._compressed[name].publish(jpeg)


if __name__ == "__main__":
    sys.exit(main())
