"""The time that ROS adds to a caption, from an image message to the call of the pipeline, in `benchmark --ros`.

A process of its own publishes camera images. The node itself runs here, on a pipeline that only reads the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.benchmarking.ros_bench import ENCODINGS, camera_message, captioning, publishing, seconds_of
from litevlm_ros.lab.benchmarking.stages import Statistics, camera_image
from litevlm_ros.machine import describe
from litevlm_ros.msg import Caption
from litevlm_ros.processes import Child
from litevlm_ros.types import Answer, FinishReason, RgbImage, Timings, TokenCounts, View, milliseconds_since

WARM_UP = 10
"""Number of frames that are not counted."""

_CAMERA = "benchmark"
_TOPIC = "/benchmark/image"
_RATE = 20.0
_CONVERSIONS = 30


def measure(encoding: str, image: RgbImage, frames: int) -> dict[str, list[float]]:
    """Returns times in ms of `frames` frames by name. Raises LiteVLMError where frames do not arrive.

    `transport`: from publication to the subscription's callback, in which rclpy's conversion of the message is.
    `conversion`: that conversion alone, measured apart. `overhead`: from the callback to the pipeline's call, in which
    `decode_image` is. `received`: conversion (its median) and overhead, that is from the message that has arrived to
    the call.
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


class _ClockPipeline:
    """Answers at once with the time of the call, in seconds on the monotonic clock."""

    def generate(self, views: Sequence[View], question: str, *arguments: Any, **options: Any) -> Answer:
        called = repr(time.monotonic())
        cameras = tuple(view.camera for view in views)
        return Answer(called, question, cameras, FinishReason.STOP, TokenCounts(0, 0, 0), Timings())

    def close(self) -> None:
        pass


def _record(encoding: str, frames: int, publisher: Child) -> list[dict[str, float]]:
    samples: list[dict[str, float]] = []

    def note(caption: Caption) -> None:
        overhead = caption.timings.queue + caption.timings.decode_image
        since_publication = 1e3 * (float(caption.text) - seconds_of(caption.header.stamp))
        samples.append(
            {
                "transport": since_publication - overhead,
                "decode_image": caption.timings.decode_image,
                "overhead": overhead,
            }
        )

    with captioning(encoding, {_CAMERA: _TOPIC}, lambda node, config: _ClockPipeline(), note) as (_, executor):
        deadline = time.monotonic() + 20.0 + 3.0 * (WARM_UP + frames) / _RATE
        while len(samples) < WARM_UP + frames:
            executor.spin_once(timeout_sec=0.5)
            if publisher.status is not None or time.monotonic() > deadline:
                raise LiteVLMError(f"only {len(samples)} images arrived on {_TOPIC}: {publisher.tail()}")
    return samples[WARM_UP : WARM_UP + frames]


def _conversion_times(message: Image | CompressedImage) -> list[float]:
    """Times turning the bytes from the network into a Python message, in ms."""
    data = serialize_message(message)
    times = []
    for _ in range(_CONVERSIONS):
        started = time.perf_counter()
        deserialize_message(data, type(message))
        times.append(milliseconds_since(started))
    return times


def report_overhead(resolution: tuple[int, int], frames: int) -> tuple[str, dict[str, Any]]:
    """Measures a camera of each encoding. Returns a table and its figures for JSON. Raises LiteVLMError."""
    width, height = resolution
    image = camera_image(0, width, height)
    results: dict[str, dict[str, Any]] = {}
    for encoding in ENCODINGS:
        times = measure(encoding, image, frames)
        results[encoding] = {name: asdict(Statistics.of(values)) for name, values in times.items()}
    report = {"machine": describe(), "work": {"resolution": [width, height], "runs": frames}, "ros": results}
    return _table(report), report


_LINES = (
    ("transport", "published to callback"),
    ("conversion", "  rclpy's conversion"),
    ("overhead", "callback to pipeline"),
    ("decode_image", "  image decoding"),
    ("received", "received to pipeline"),
)


def _table(report: Mapping[str, Any]) -> str:
    host, work = report["machine"], report["work"]
    width, height = work["resolution"]
    lines = [f"{host['cpu']}, {host['cores']} cores; {width}x{height}, {work['runs']} images from a process of its own"]
    for encoding, figures in report["ros"].items():
        lines.append(f"{encoding:24}{'median':>10}{'least':>10}{'most':>10}")
        for name, title in _LINES:
            numbers = "".join(f"{figures[name][key]:10.2f}" for key in ("median", "least", "most"))
            lines.append(f"{title:24}{numbers} ms")
    return "\n".join(lines)
