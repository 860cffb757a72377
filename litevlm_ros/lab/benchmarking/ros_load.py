"""The node under load, in `benchmark --ros`: whether inference holds up its callbacks, and six cameras at full rate.

A process of its own publishes what six cameras would; here runs the node, whose model captions without a pause.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.benchmarking.ros_overhead import publishing, spinning
from litevlm_ros.lab.benchmarking.stages import CAMERAS
from litevlm_ros.node.lifecycle import LiteVLMNode, load_pipeline
from litevlm_ros.types import RgbImage

RATE = 30.0
"""Of each camera, in Hz."""

_PROBE_SECONDS = 0.01
_TOPICS = tuple(f"/benchmark/{camera}/image" for camera in CAMERAS)
_START_SECONDS = 30.0
_SETTLED_CAPTIONS = 12
"""Before anything is counted."""

_RACE_SECONDS = 0.001
"""A frame that arrives this shortly before the frames are taken may be either the older or the newer one."""


def measure(encoding: str, image: RgbImage, model: Path, seconds: float) -> dict[str, Any]:
    """Runs for `seconds`. All times in ms.

    `callback`: what each callback of the executor took. `late`: how late a timer of 10 ms was, for which the executor
    also has to be free between callbacks. `age`: of a frame from its publication to the pipeline's call. `captions` a
    second. `stale`: captions whose frame was not the newest of its camera. `cameras`: images published and received.

    Raises LiteVLMError where no image arrives or the model does not load.
    """
    with publishing(encoding, image, _TOPICS, RATE) as publisher, spinning(
        partial(_LoadedNode, encoding, model), _TimedExecutor
    ) as (node, executor):  # fmt: skip
        assert isinstance(executor, _TimedExecutor)
        deadline = time.monotonic() + _START_SECONDS
        while len(node.uses) < _SETTLED_CAPTIONS or any(camera.newest(1.0) is None for camera in node.cameras.values()):
            executor.spin_once(timeout_sec=0.5)
            if publisher.status is not None or time.monotonic() > deadline:
                raise LiteVLMError(f"not all of {', '.join(_TOPICS)} arrived and were captioned: {publisher.tail()}")
        before = _arrived(node)
        node.uses.clear()
        executor.durations.clear()
        node.begin_probe()
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            executor.spin_once(timeout_sec=0.1)
        elapsed = time.monotonic() - began
        after = _arrived(node)
        uses, late = list(node.uses), list(node.late)
    cameras = {
        name: {"published": after[name][0] - before[name][0], "received": after[name][1] - before[name][1]}
        for name in CAMERAS
    }
    return {
        "encoding": encoding,
        "seconds": elapsed,
        "rate": RATE,
        "cameras": cameras,
        "received_share": min(counts["received"] / max(1, counts["published"]) for counts in cameras.values()),
        "captions": len(uses) / elapsed,
        "stale": sum(use["stale"] for use in uses),
        "age": _spread([use["age"] for use in uses]),
        "callback": _spread(executor.durations),
        "late": _spread(late),
    }


class _TimedExecutor(SingleThreadedExecutor):
    """Notes in ms what each callback takes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.durations: list[float] = []

    def wait_for_ready_callbacks(self, *arguments: Any, **options: Any) -> Any:
        handler, *others = super().wait_for_ready_callbacks(*arguments, **options)
        return (_Timed(handler, self.durations), *others)


class _Timed:
    """A handler that notes how long it runs; everything else is the handler's own."""

    def __init__(self, handler: Any, durations: list[float]) -> None:
        self._handler = handler
        self._durations = durations

    def __call__(self) -> None:
        started = time.perf_counter()
        self._handler()
        self._durations.append(1e3 * (time.perf_counter() - started))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


class _LoadedNode(LiteVLMNode):
    """The node with six cameras, which notes what frame each caption used and how late a timer is."""

    def __init__(self, encoding: str, model: Path, context: Any) -> None:
        self.uses: list[dict[str, float]] = []
        self.late: list[float] = []
        self._expected = 0.0
        self._called: tuple[float, float] = (0.0, 0.0)
        parameters = {
            "cameras": list(CAMERAS),
            "camera_topics": list(_TOPICS),
            "transport": "compressed" if encoding == "jpeg" else "raw",
            "caption_period": 1e-4,
            "frame_clock": "arrival",
            "model_dir": str(model),
        }
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        super().__init__(None, self._load, context=context, parameter_overrides=overrides)

    def begin_probe(self) -> None:
        """Starts the timer."""
        self._expected = time.monotonic() + _PROBE_SECONDS
        self.create_timer(_PROBE_SECONDS, self._on_probe)

    def _on_probe(self) -> None:
        now = time.monotonic()
        self.late.append(1e3 * max(0.0, now - self._expected))
        self._expected = max(self._expected, now - _PROBE_SECONDS) + _PROBE_SECONDS

    def _load(self, config: PipelineConfig) -> Any:
        pipeline = load_pipeline(config)
        generate = pipeline.generate

        def noted(views: Sequence[Any], *arguments: Any, **options: Any) -> Any:
            camera = self.cameras.get(views[0].camera)  # there is none any more while the node is being closed
            newest = camera.newest(1.0) if camera is not None else None
            is_other = newest is not None and newest.number != views[0].frame
            self._called = time.monotonic(), newest.arrival if newest is not None and is_other else float("inf")
            return generate(views, *arguments, **options)

        pipeline.generate = noted
        return pipeline

    def _publish_caption(self, message: Any, image: RgbImage) -> None:
        called, newer_arrived = self._called
        published = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        taken = called - 1e-3 * message.timings.decode_image
        self.uses.append({"age": 1e3 * (called - published), "stale": newer_arrived < taken - _RACE_SECONDS})


def _arrived(node: LiteVLMNode) -> dict[str, tuple[int, int]]:
    """By camera the number of the newest image that arrived, and how many did."""
    found = {}
    for name, camera in node.cameras.items():
        newest = camera.newest(1.0)
        if newest is None:
            raise LiteVLMError(f"{name} has sent nothing for a second; this machine is too slow for the load")
        found[name] = int(newest.header.frame_id), camera.counters.received
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        raise LiteVLMError("nothing was measured; measure for longer")
    return {
        "median": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "most": ordered[-1],
    }


def table(load: Mapping[str, Any]) -> str:
    """A measurement as text."""
    counts = load["cameras"].values()
    received, published = sum(count["received"] for count in counts), sum(count["published"] for count in counts)
    lines = [
        f"{len(load['cameras'])} cameras of {load['rate']:g} Hz ({load['encoding']}), captions without a pause, "
        f"{load['seconds']:.0f} s",
        f"images received         {received} of {published} ({received / max(1, published):.1%}; "
        f"of the worst camera {load['received_share']:.1%})",
        f"captions a second       {load['captions']:.1f}; {load['stale']} of a frame that was not the newest",
        f"{'':24}{'median':>10}{'99 %':>10}{'most':>10}",
    ]
    for name, title in _LINES:
        numbers = "".join(f"{load[name][key]:10.2f}" for key in ("median", "p99", "most"))
        lines.append(f"{title:24}{numbers} ms")
    return "\n".join(lines)


_LINES = (("callback", "executor's callbacks"), ("late", "a timer's lateness"), ("age", "age of frames used"))
