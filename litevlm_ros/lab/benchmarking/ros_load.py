"""The node under load, in `benchmark --ros`: six cameras at full rate, and captions without a pause.

A process of its own publishes the images. The node runs here, with a model, and shows whether inference holds up its
callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor

from litevlm_ros.config import DEMO_CAMERAS, PipelineConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.benchmarking.ros_bench import captioning, publishing, seconds_of
from litevlm_ros.msg import Caption
from litevlm_ros.node.lifecycle import LiteVLMNode
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Answer, RgbImage, View, milliseconds_since

RATE = 30.0
"""Rate of each camera in Hz."""

_TOPICS = {camera: f"/benchmark/{camera}/image" for camera in DEMO_CAMERAS}
_PROBE_SECONDS = 0.01
_START_SECONDS = 30.0
_SETTLED_CAPTIONS = 12
"""Number of captions before anything is counted."""

_RACE_SECONDS = 0.001
"""A frame that arrives this shortly before the frames are taken may be either the older or the newer one."""


class _ObservedPipeline:
    """A pipeline that notes each call, and whether its frame was the newest one.

    Its answers are the numbers of their calls, so that a caption can be matched with its call.
    """

    def __init__(self, pipeline: Pipeline, node: LiteVLMNode) -> None:
        self.backend = pipeline.backend
        self.close = pipeline.close
        self._pipeline = pipeline
        self._node = node
        self.calls: list[tuple[float, float]] = []
        """The time of each call, and the arrival of a newer frame than the one it was given; infinity without one."""

    def generate(self, views: Sequence[View], *arguments: Any, **options: Any) -> Answer:
        camera = self._node.cameras.get(views[0].camera)  # there is none any more while the node is being closed
        newest = camera.newest(1.0) if camera is not None else None
        is_other = newest is not None and newest.number != views[0].frame
        self.calls.append((time.monotonic(), newest.arrival if newest is not None and is_other else float("inf")))
        number = len(self.calls) - 1
        return replace(self._pipeline.generate(views, *arguments, **options), text=str(number))


class _TimedExecutor(SingleThreadedExecutor):
    """An executor that notes the time in ms that each callback takes."""

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
        self._durations.append(milliseconds_since(started))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


def measure(encoding: str, image: RgbImage, model: Path, seconds: float) -> dict[str, Any]:
    """Runs the load for `seconds` and returns its figures, all times in ms.

    `callback`: the time of each callback of the executor. `late`: how late a timer of 10 ms was, for which the executor
    also has to be free between callbacks. `age`: of a frame from its publication to the pipeline's call. `captions` a
    second. `stale`: captions whose frame was not the newest of its camera. `cameras`: images published and received.

    Raises LiteVLMError where no image arrives or the model does not load.
    """
    pipelines: list[_ObservedPipeline] = []
    uses: list[dict[str, float]] = []

    def load(node: LiteVLMNode, config: PipelineConfig) -> _ObservedPipeline:
        pipelines.append(_ObservedPipeline(Pipeline.from_config(config), node))
        return pipelines[-1]

    def note(caption: Caption) -> None:
        called, newer_arrived = pipelines[-1].calls[int(caption.text)]
        taken = called - 1e-3 * caption.timings.decode_image
        uses.append(
            {
                "age": 1e3 * (called - seconds_of(caption.header.stamp)),
                "stale": newer_arrived < taken - _RACE_SECONDS,
            }
        )

    with publishing(encoding, image, list(_TOPICS.values()), RATE) as publisher, captioning(
        encoding, _TOPICS, load, note, _TimedExecutor, model
    ) as (node, executor):  # fmt: skip
        assert isinstance(executor, _TimedExecutor)
        deadline = time.monotonic() + _START_SECONDS
        while len(uses) < _SETTLED_CAPTIONS or any(camera.newest(1.0) is None for camera in node.cameras.values()):
            executor.spin_once(timeout_sec=0.5)
            if publisher.status is not None or time.monotonic() > deadline:
                raise LiteVLMError(
                    f"not all of {', '.join(_TOPICS.values())} arrived and were captioned: {publisher.tail()}"
                )
        before = _arrived(node)
        uses.clear()
        executor.durations.clear()
        late = _probe(node)
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            executor.spin_once(timeout_sec=0.1)
        elapsed = time.monotonic() - began
        after = _arrived(node)
    cameras = {
        name: {"published": after[name][0] - before[name][0], "received": after[name][1] - before[name][1]}
        for name in DEMO_CAMERAS
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


def _probe(node: LiteVLMNode) -> list[float]:
    """Starts a timer on the node. Returns the list that takes the ms by which each of its calls is late."""
    late: list[float] = []
    expected = time.monotonic() + _PROBE_SECONDS

    def on_probe() -> None:
        nonlocal expected
        now = time.monotonic()
        late.append(1e3 * max(0.0, now - expected))
        expected = max(expected, now - _PROBE_SECONDS) + _PROBE_SECONDS

    node.create_timer(_PROBE_SECONDS, on_probe)
    return late


def _arrived(node: LiteVLMNode) -> dict[str, tuple[int, int]]:
    """Returns by camera the number of its newest image, and how many images have arrived."""
    found = {}
    for name, camera in node.cameras.items():
        newest = camera.newest(1.0)
        if newest is None:
            raise LiteVLMError(f"{name} has sent nothing for a second; this machine is too slow for the load")
        found[name] = int(newest.header.frame_id), camera.counters.received
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        raise LiteVLMError("nothing was measured; measure for longer")
    median, p99, most = np.percentile(values, (50, 99, 100)).tolist()
    return {"median": median, "p99": p99, "most": most}


_LINES = (("callback", "executor's callbacks"), ("late", "a timer's lateness"), ("age", "age of frames used"))


def load_table(load: Mapping[str, Any]) -> str:
    """Returns the figures of `measure` as a table."""
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
