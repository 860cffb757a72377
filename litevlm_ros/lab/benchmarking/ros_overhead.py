"""What ROS adds to a caption: from an image message to the call of the pipeline, in `benchmark --ros`.

A process of its own publishes camera images; here runs the node itself, on a pipeline that only looks at the clock.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import rclpy
from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from litevlm_ros.config import SamplingConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.benchmarking.stages import Statistics, camera_image
from litevlm_ros.machine import describe
from litevlm_ros.node.lifecycle import LiteVLMNode
from litevlm_ros.node.process_tuning import tune_process
from litevlm_ros.processes import Child
from litevlm_ros.types import Answer, FinishReason, RgbImage, Timings, TokenCounts, View

ENCODINGS = ("bgr8", "jpeg")
JPEG_QUALITY = 90
WARM_UP = 10
"""Frames that are not counted."""

_TOPIC = "/benchmark/image"
_RATE = 20.0
_CONVERSIONS = 30


def measure(encoding: str, image: RgbImage, frames: int) -> dict[str, list[float]]:
    """Times in ms of `frames` frames by name.

    `transport`: from publication to the subscription's callback, in which rclpy's conversion of the message is.
    `conversion`: that conversion alone, measured apart. `overhead`: from the callback to the pipeline's call, in which
    `decode_image` is. `received`: conversion (its median) and overhead, that is from the message that has arrived to
    the call.

    Raises LiteVLMError where frames do not arrive.
    """
    message = camera_message(encoding, image)
    conversion = _conversion_times(message)
    with publishing(encoding, image, [_TOPIC], _RATE) as publisher:
        samples = _record(encoding, frames, publisher)
    overhead = [sample["overhead"] for sample in samples]
    return {
        "transport": [sample["transport"] for sample in samples],
        "conversion": conversion,
        "decode_image": [sample["decode_image"] for sample in samples],
        "overhead": overhead,
        "received": [statistics.median(conversion) + value for value in overhead],
    }


def camera_message(encoding: str, image: RgbImage) -> Image | CompressedImage:
    """An RGB image as a driver would publish it."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if encoding == "jpeg":
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        return CompressedImage(format="bgr8; jpeg compressed bgr8", data=jpeg.tobytes())
    height, width = bgr.shape[:2]
    return Image(encoding="bgr8", width=width, height=height, step=3 * width, data=bgr.tobytes())


class _ClockPipeline:
    """Answers at once and remembers when it was asked."""

    def __init__(self) -> None:
        self.called = 0.0

    def generate(
        self,
        views: Sequence[View],
        question: str,
        sampling: SamplingConfig | None = None,
        on_text: Any = None,
        cancel: threading.Event | None = None,
        *,
        all_views: bool = False,
    ) -> Answer:
        self.called = time.monotonic()
        cameras = tuple(view.camera for view in views)
        return Answer("", question, cameras, FinishReason.STOP, TokenCounts(0, 0, 0), Timings())

    def close(self) -> None:
        pass


class _RecordingNode(LiteVLMNode):
    """The node, with a note of each caption instead of its publication."""

    def __init__(self, encoding: str, context: Any) -> None:
        self.samples: list[dict[str, float]] = []
        self._clock_pipeline = _ClockPipeline()
        parameters = {
            "cameras": ["benchmark"],
            "camera_topics": [_TOPIC],
            "transport": "compressed" if encoding == "jpeg" else "raw",
            "caption_period": 1e-4,
            "frame_clock": "arrival",
            "model_dir": ".",
        }
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        super().__init__(None, lambda config: self._clock_pipeline, context=context, parameter_overrides=overrides)

    def _publish_caption(self, message: Any, image: RgbImage) -> None:
        called = self._clock_pipeline.called
        published = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        overhead = message.timings.queue + message.timings.decode_image
        self.samples.append(
            {
                "transport": 1e3 * (called - published) - overhead,
                "decode_image": message.timings.decode_image,
                "overhead": overhead,
            }
        )


N = TypeVar("N", bound=LiteVLMNode)


@contextmanager
def spinning(
    make_node: Callable[[Any], N], make_executor: Callable[..., SingleThreadedExecutor] = SingleThreadedExecutor
) -> Iterator[tuple[N, SingleThreadedExecutor]]:
    """A node that has been started, in an executor that the caller spins. `make_node` takes the rclpy context."""
    tune_process()
    context = rclpy.Context()  # type: ignore[attr-defined, unused-ignore]
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = make_node(context)
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


@contextmanager
def publishing(encoding: str, image: RgbImage, topics: Sequence[str], rate: float) -> Iterator[Child]:
    """A process that publishes the image on all topics, `rate` times a second."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "image.npy"
        np.save(pixels, image)
        arguments = ["--encoding", encoding, "--image", str(pixels), "--rate", str(rate), *topics]
        with Child(
            "litevlm_ros.lab.benchmarking.ros_overhead", arguments, Path(folder) / "log", _environment()
        ) as publisher:
            yield publisher


def _environment() -> dict[str, str]:
    """With room for large images in Fast DDS's shared memory, as the launch files give to cameras."""
    profile = str(Path(get_package_share_directory("litevlm_ros")) / "config" / "fastdds.xml")
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    return {**dict.fromkeys(variables, profile), **os.environ}


def _record(encoding: str, frames: int, publisher: Child) -> list[dict[str, float]]:
    with spinning(partial(_RecordingNode, encoding)) as (node, executor):
        deadline = time.monotonic() + 20.0 + 3.0 * (WARM_UP + frames) / _RATE
        while len(node.samples) < WARM_UP + frames:
            executor.spin_once(timeout_sec=0.5)
            if publisher.status is not None or time.monotonic() > deadline:
                raise LiteVLMError(f"only {len(node.samples)} images arrived on {_TOPIC}: {publisher.tail()}")
        return node.samples[WARM_UP : WARM_UP + frames]


def _conversion_times(message: Image | CompressedImage) -> list[float]:
    """Of turning the bytes from the network into a Python message, in ms."""
    data = serialize_message(message)
    times = []
    for _ in range(_CONVERSIONS):
        started = time.perf_counter()
        deserialize_message(data, type(message))
        times.append(1e3 * (time.perf_counter() - started))
    return times


def report(resolution: tuple[int, int], frames: int) -> dict[str, Any]:
    """Median, least and most of all times for a camera of each encoding. Raises LiteVLMError."""
    width, height = resolution
    image = camera_image(0, width, height)
    results: dict[str, dict[str, Any]] = {}
    for encoding in ENCODINGS:
        times = measure(encoding, image, frames)
        results[encoding] = {name: asdict(Statistics.of(values)) for name, values in times.items()}
    return {"describe": describe(), "work": {"resolution": [width, height], "runs": frames}, "ros": results}


def table(report: Mapping[str, Any]) -> str:
    """A report as text."""
    host, work = report["describe"], report["work"]
    width, height = work["resolution"]
    lines = [f"{host['cpu']}, {host['cores']} cores; {width}x{height}, {work['runs']} images from a process of its own"]
    for encoding, figures in report["ros"].items():
        lines.append(f"{encoding:24}{'median':>10}{'least':>10}{'most':>10}")
        for name, title in _LINES:
            numbers = "".join(f"{figures[name][key]:10.2f}" for key in ("median", "least", "most"))
            lines.append(f"{title:24}{numbers} ms")
    return "\n".join(lines)


_LINES = (
    ("transport", "published to callback"),
    ("conversion", "  rclpy's conversion"),
    ("overhead", "callback to pipeline"),
    ("decode_image", "  image decoding"),
    ("received", "received to pipeline"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The publishing process: sends the image, the monotonic clock as its stamp, until it is ended."""
    parser = argparse.ArgumentParser(prog="ros_overhead", description="Publish images for benchmark --ros.")
    parser.add_argument("--encoding", choices=ENCODINGS, required=True, help="of the images")
    parser.add_argument("--image", type=Path, required=True, help="uint8 [height, width, 3] RGB as .npy")
    parser.add_argument("--rate", type=float, required=True, help="of each topic, in Hz")
    parser.add_argument("topics", nargs="+", help="to publish on")
    options = parser.parse_args(argv)
    message = camera_message(options.encoding, np.load(options.image))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("benchmark_cameras")
    publishers = [node.create_publisher(type(message), topic, 1) for topic in options.topics]
    began = time.monotonic()
    try:
        for number in itertools.count(1):
            time.sleep(max(0.0, began + number / options.rate - time.monotonic()))
            for publisher in publishers:
                seconds, nanoseconds = divmod(time.monotonic_ns(), 10**9)
                # The number, so that the receiver knows how many there were.
                message.header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=str(number))
                publisher.publish(message)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
