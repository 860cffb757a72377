"""The bench of `benchmark --ros`: a process that publishes camera images, and the node in an executor of the caller.

Run as a module, this file is the publishing process.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from litevlm_ros.config import PipelineConfig
from litevlm_ros.msg import Caption
from litevlm_ros.node.lifecycle import LiteVLMNode
from litevlm_ros.node.process_tuning import tune_process
from litevlm_ros.node.ros_start import join_ros, ros_errors_in_words
from litevlm_ros.processes import Child, StopRequest, stop_on_signals
from litevlm_ros.types import RgbImage

ENCODINGS = ("bgr8", "jpeg")
JPEG_QUALITY = 90

_QUEUE_DEPTH = 50


def camera_message(encoding: str, image: RgbImage) -> Image | CompressedImage:
    """Makes the message that a camera driver would publish of an RGB image."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if encoding == "jpeg":
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        return CompressedImage(format="bgr8; jpeg compressed bgr8", data=jpeg.tobytes())
    height, width = bgr.shape[:2]
    return Image(encoding="bgr8", width=width, height=height, step=3 * width, data=bgr.tobytes())


def seconds_of(stamp: Time) -> float:
    """Returns a stamp of the publishing process as seconds on the monotonic clock."""
    return float(stamp.sec + 1e-9 * stamp.nanosec)


@contextmanager
def publishing(encoding: str, image: RgbImage, topics: Sequence[str], rate: float) -> Iterator[Child]:
    """Runs a process that publishes the image on all topics, `rate` times a second."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "image.npy"
        np.save(pixels, image)
        arguments = ["--encoding", encoding, "--image", str(pixels), "--rate", str(rate), *topics]
        with Child(
            "litevlm_ros.lab.benchmarking.ros_bench", arguments, Path(folder) / "log", _environment()
        ) as publisher:
            yield publisher


def _environment() -> dict[str, str]:
    """Gives large images room in Fast DDS's shared memory, as the launch files do for cameras."""
    profile = str(Path(get_package_share_directory("litevlm_ros")) / "config" / "fastdds.xml")
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    return {**dict.fromkeys(variables, profile), **os.environ}


@contextmanager
def captioning(
    encoding: str,
    topics: Mapping[str, str],
    load: Callable[[LiteVLMNode, PipelineConfig], Any],
    on_caption: Callable[[Caption], None],
    make_executor: Callable[..., SingleThreadedExecutor] = SingleThreadedExecutor,
    model: Path = Path("."),
) -> Iterator[tuple[LiteVLMNode, SingleThreadedExecutor]]:
    """Starts the node, which captions without a pause, in an executor that the caller spins.

    `topics` has the image topic of each camera. `load` returns the pipeline for a node and a configuration with the
    model directory `model`. `on_caption` is called in the executor with each caption that the node publishes.
    """
    tune_process()
    context = rclpy.Context()  # type: ignore[attr-defined, unused-ignore]
    join_ros(context=context)
    parameters = {
        "cameras": list(topics),
        "camera_topics": list(topics.values()),
        "transport": "compressed" if encoding == "jpeg" else "raw",
        "caption_period": 1e-4,
        "frame_clock": "arrival",
        "model_dir": str(model),
    }
    node = LiteVLMNode(
        None,
        lambda config: load(node, config),
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()],
    )
    node.create_subscription(Caption, "~/caption", on_caption, _QUEUE_DEPTH)
    executor = make_executor(context=context)
    executor.add_node(node)
    try:
        node.start()
        yield node, executor
    finally:
        node.close()
        executor.shutdown(timeout_sec=0.0)
        node.destroy_node()
        context.try_shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Publishes the image until the process is interrupted, with the monotonic clock as its stamp."""
    with stop_on_signals() as stop:
        _publish(_parser().parse_args(argv), stop)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros_bench", description="Publish images for benchmark --ros.")
    parser.add_argument("--encoding", choices=ENCODINGS, required=True, help="encoding of the images")
    parser.add_argument("--image", type=Path, required=True, help="uint8 [height, width, 3] RGB as .npy")
    parser.add_argument("--rate", type=float, required=True, help="rate of each topic in Hz")
    parser.add_argument("topics", nargs="+", help="topics to publish on")
    return parser


def _publish(options: argparse.Namespace, stop: StopRequest) -> None:
    message = camera_message(options.encoding, np.load(options.image))
    join_ros()
    with ros_errors_in_words():
        node = rclpy.create_node("benchmark_cameras")
    publishers = [node.create_publisher(type(message), topic, 1) for topic in options.topics]
    began = time.monotonic()
    for number in itertools.count(1):
        if stop.wait(began + number / options.rate - time.monotonic()):
            break
        for publisher in publishers:
            seconds, nanoseconds = divmod(time.monotonic_ns(), 10**9)
            # The number tells the receiver how many images there were.
            message.header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=str(number))
            publisher.publish(message)
    node.destroy_node()
    try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
