"""A soak: node, six cameras and a client run for a long time, and are watched for growing memory and latency."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.benchmarking.soak_record import Record, Usage, soak_table, yardstick_ms
from litevlm_ros.lab.charts import draw_soak
from litevlm_ros.machine import describe
from litevlm_ros.msg import Caption
from litevlm_ros.node.ros_start import join_ros, ros_errors_in_words
from litevlm_ros.processes import Child
from litevlm_ros.srv import Query
from litevlm_ros.types import Notify

QUESTIONS: tuple[tuple[str, list[str]], ...] = (
    ("Is there a car?", []),
    ("How many vehicles are there?", []),
    ("What is ahead?", ["front"]),
    ("Describe the scene.", ["back"]),
    ("Is it day or night?", ["front_left", "front_right"]),
)
"""Questions with the cameras that they are about; none: all."""

ANSWER_SECONDS = 20.0
"""Time after which a question counts as lost."""

_START_SECONDS = 60.0
_SAMPLE_SECONDS = 1.0
_LEAST_SAMPLES = 20


@dataclass(frozen=True)
class SoakSettings:
    """The settings of a soak. `rate` is that of each camera in Hz; `model` is None for the demo model."""

    minutes: float
    rate: float
    ask_seconds: float
    model: Path | None
    output: Path


def soak(settings: SoakSettings, notify: Notify) -> list[str]:
    """Runs a soak, and writes soak.json, soak.png and the logs of both processes to `settings.output`.

    Returns the findings, see `Record.findings`. Raises LiteVLMError if a process ends or does not start, and OSError.
    """
    output = settings.output
    output.mkdir(parents=True, exist_ok=True)
    record = Record(60 * settings.minutes)
    with ExitStack() as stack:
        start = [
            ("litevlm_ros.tools.demo_cameras", ["--rate", f"{settings.rate:g}"], "cameras.log"),
            ("litevlm_ros.node.process", _node_arguments(settings.model), "node.log"),
        ]
        cameras, node = (
            stack.enter_context(Child(module, arguments, output / log, os.environ)) for module, arguments, log in start
        )
        client = SoakClient(record, settings.ask_seconds)
        stack.callback(client.close)
        _fill(record, client, [cameras, node], node)
    record.node_log = [
        line for line in node.log.read_text(errors="replace").splitlines()
        if any(word in line for word in ("[WARN]", "[ERROR]", "Traceback", "received"))
    ]  # fmt: skip
    host = describe()
    title = (
        f"{settings.minutes:g} minutes, {len(DEMO_CAMERAS)} cameras of {settings.rate:g} Hz on {host['cores']} cores"
    )
    (output / "soak.json").write_text(json.dumps({"machine": host, **record.json()}), encoding="utf-8")
    draw_soak(
        title,
        record.seconds,
        record.warm_up,
        memory=record.memory(),
        latencies={"captions": record.captions, "answers": record.answers},
        machine=record.yardstick,
        file=output / "soak.png",
    )
    notify(f"{host['cpu']}: {title}\n{soak_table(record.figures())}")
    findings = record.findings(DEMO_CAMERAS)
    for finding in findings:
        notify(f"NOT WELL: {finding}")
    notify(f"written to {output}")
    return findings


def _fill(record: Record, client: SoakClient, children: Sequence[Child], node: Child) -> None:
    """Waits until each camera is captioned, then fills the record. Raises LiteVLMError."""
    deadline = time.monotonic() + _START_SECONDS
    while not client.ready(DEMO_CAMERAS):
        for child in children:
            child.require_running()
        lines = node.tail()
        if "Not ready: " in lines:
            raise LiteVLMError(f"the node did not become active. Its last lines:\n{lines}")
        if time.monotonic() > deadline:
            raise LiteVLMError(
                f"not every camera was captioned within {_START_SECONDS:g} s. The node's last lines:\n{lines}"
            )
    period = min(_SAMPLE_SECONDS, record.seconds / _LEAST_SAMPLES)
    began = sample_at = client.begin()
    while (now := time.monotonic()) < began + record.seconds:
        client.step()
        if now >= sample_at:
            for child in children:
                child.require_running()
            record.usage.append((now - began, Usage.of(node.process_id)))
            record.yardstick.append((now - began, yardstick_ms()))
            sample_at = now + period


def _node_arguments(model: Path | None) -> list[str]:
    # Raw images of six cameras at once do not fit into Fast DDS's shared memory.
    parameters = [f"cameras:=[{', '.join(DEMO_CAMERAS)}]", "transport:=compressed", "caption_period:=0.001"]
    if model is not None:
        parameters.append(f"model_dir:={model}")
    return ["--ros-args", *(part for parameter in parameters for part in ("-p", parameter))]


class SoakClient:
    """A client that listens to all captions and asks one question after the other, and writes into a record."""

    def __init__(self, record: Record, period: float) -> None:
        """Asks every `period` seconds, if the answer before has come."""
        self._record = record
        self._period = period
        self._began = time.monotonic()
        self._context = Context()
        join_ros(context=self._context)
        with ros_errors_in_words():
            self._node = rclpy.create_node("litevlm_soak", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(Caption, "/litevlm/caption", self._on_caption, 50)
        self._query = self._node.create_client(Query, "/litevlm/query")
        self._questions = itertools.cycle(QUESTIONS)
        self._pending: tuple[float, Any] | None = None
        self._ask_at = 0.0

    def close(self) -> None:
        """Leaves the ROS domain."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def ready(self, cameras: Sequence[str]) -> bool:
        """Waits a moment, and tells whether the node has captioned all its cameras and answers questions."""
        self._executor.spin_once(timeout_sec=0.1)
        return self._record.caption_times.keys() >= set(cameras) and bool(self._query.service_is_ready())

    def begin(self) -> float:
        """Forgets the captions so far. Returns the time of the beginning on the monotonic clock."""
        self._record.captions.clear()
        self._record.caption_times.clear()
        self._began = time.monotonic()
        return self._began

    def step(self) -> None:
        """Handles what has arrived, and asks when it is time to."""
        self._executor.spin_once(timeout_sec=0.05)
        now = time.monotonic()
        if self._pending is None:
            if now >= self._ask_at:
                question, cameras = next(self._questions)
                self._pending = now, self._query.call_async(Query.Request(question=question, cameras=cameras))
                self._ask_at = now + self._period
            return
        asked, future = self._pending
        if future.done():
            self._pending = None
            response = future.result()
            if response.success:
                self._record.answers.append((now - self._began, 1e3 * (now - asked)))
            else:
                self._record.failures[response.error] += 1
        elif now - asked > ANSWER_SECONDS:
            self._query.remove_pending_request(future)
            self._pending = None
            self._record.failures["no response came"] += 1

    def _on_caption(self, message: Any) -> None:
        now = time.monotonic() - self._began
        self._record.captions.append((now, message.timings.total))
        self._record.caption_times.setdefault(message.camera, []).append(now)
