"""The topic /diagnostics: once a second the state of node, model, jobs and cameras, with the fix for what is wrong."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from litevlm_ros.config import PipelineConfig
from litevlm_ros.machine import find_device, gpu_load, resident_bytes
from litevlm_ros.node.camera_topics import describe_qos
from litevlm_ros.node.camera_watch import CameraWatch
from litevlm_ros.node.inference import JobKind
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.node.statistics import JobStatistics, Outcome, Rate
from litevlm_ros.node.surroundings import Surroundings

PERIOD = 1.0
"""Seconds between two messages."""

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE

_STOP_SECONDS = 0.5
_SLACK = 1.25
"""Captions may take this many times their period without a warning."""

Finding = tuple[bytes, str]
"""A level and its message."""


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a loaded pipeline, for other threads than its own, which may not touch it."""

    backend: str
    """Versions, device and precisions in words."""
    gpu: str
    """Name of the GPU; '' without one."""
    fingerprints: Mapping[str, str]
    """SHA-256 of each engine file, from its sidecar, by the file's name."""
    device_memory: Callable[[], Mapping[str, int]]
    """Returns the bytes of device memory in use, by purpose. Any thread may call it."""
    raw_encodings: frozenset[str] = frozenset()
    """The encodings of images that the pipeline takes without decoding."""

    @classmethod
    def of_pipeline(cls, pipeline: Any) -> ModelFacts:
        """Returns the facts about a Pipeline, or about a stand-in without a backend.

        Asks the GPU's driver, which may take a while.
        """
        backend, device = getattr(pipeline, "backend", None), find_device()
        gpu = "" if device is None else device.name
        if backend is None:
            return cls("", gpu, {}, dict)
        return cls(backend.description, gpu, backend.fingerprints, backend.memory, backend.raw_encodings)


@dataclass(frozen=True)
class Snapshot:
    """The node at one moment."""

    problem: str = ""
    """Reason why the node is not active, with the fix; '' if it is active."""
    failed: bool = False
    """True if the problem is a failure, not a state that somebody chose."""
    surroundings: Sequence[str] = ()
    """Faults around the node, such as a clock that stands still, with the fixes."""
    cameras: Mapping[str, CameraWatch] = field(default_factory=dict)
    statistics: Mapping[JobKind, JobStatistics] = field(default_factory=dict)
    settings: NodeSettings | None = None
    config: PipelineConfig | None = None
    model: ModelFacts | None = None


class Diagnostics:
    """Publishes the node's state from a thread of its own, so that the executor has time for cameras and questions."""

    def __init__(self, node: Node, snapshot: Callable[[], Snapshot]) -> None:
        """Begins at once. `snapshot` returns the state to publish and is called in the thread."""
        self._node = node
        self._snapshot = snapshot
        self._surroundings = Surroundings(node)
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._report = Report(node.get_fully_qualified_name().strip("/"))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="diagnostics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def _loop(self) -> None:
        while not self._stopped.wait(PERIOD):
            try:
                snapshot = replace(self._snapshot(), surroundings=self._surroundings.look())
                message = DiagnosticArray(status=self._report.make(snapshot))
                message.header.stamp = self._node.get_clock().now().to_msg()
                self._publisher.publish(message)
            except Exception as error:
                if not self._stopped.is_set():  # otherwise the node is being destroyed
                    self._node.get_logger().error(f"No diagnostics: {error!r}", throttle_duration_sec=60.0)


class Report:
    """Turns snapshots into statuses. Their warnings concern the time since the snapshot before."""

    def __init__(self, node: str) -> None:
        """`node` is the node's name. The name of each status begins with it."""
        self._node = node
        self._rates: defaultdict[str, Rate] = defaultdict(Rate)
        self._seen: dict[str, Counter[Any]] = {}

    def make(self, snapshot: Snapshot) -> list[DiagnosticStatus]:
        """Returns one status for the node, the model, the questions, the captions, and each camera."""
        hardware = "" if snapshot.model is None else snapshot.model.gpu
        statuses = [self._node_status(snapshot)]
        if snapshot.model is not None and snapshot.config is not None:
            statuses.append(self._model_status(snapshot.model, snapshot.config))
        if snapshot.settings is not None:
            for kind, statistics in snapshot.statistics.items():
                statuses.append(self._job_status(kind, statistics, snapshot.settings))
            statuses += [self._camera_status(watch, snapshot.settings) for watch in snapshot.cameras.values()]
        for status in statuses:
            status.hardware_id = hardware
        return statuses

    def _node_status(self, snapshot: Snapshot) -> DiagnosticStatus:
        finding = (OK, "active") if not snapshot.problem else (ERROR if snapshot.failed else WARN, snapshot.problem)
        findings = [finding, *((WARN, warning) for warning in snapshot.surroundings)]
        return self._status("node", findings, {"resident memory": _megabytes(resident_bytes())})

    def _model_status(self, model: ModelFacts, config: PipelineConfig) -> DiagnosticStatus:
        load = gpu_load() if model.gpu else None
        values = {
            "model_dir": str(config.model_dir),
            "backend": model.backend,
            "GPU": model.gpu or "none",
            **({} if load is None else {"GPU load": f"{load:.0f} %"}),
            **{f"device memory: {purpose}": _megabytes(size) for purpose, size in model.device_memory().items()},
            **{f"fingerprint: {file}": digest for file, digest in model.fingerprints.items()},
            "view selection": config.view_selection.method,
            "token selection": _token_selection(config),
            "speculation": config.speculation.source,
        }
        return self._status("model", [(OK, model.backend or "loaded")], values)

    def _job_status(self, kind: JobKind, statistics: JobStatistics, settings: NodeSettings) -> DiagnosticStatus:
        name = "questions" if kind is JobKind.QUESTION else "captions"
        outcomes = statistics.outcomes.copy()
        new = self._new(name, outcomes)
        self._rates[name].look(time.monotonic(), outcomes[Outcome.DONE])
        findings: list[Finding] = []
        if new[Outcome.FAILED]:
            findings.append((ERROR, f"{new[Outcome.FAILED]} {name} failed, the last one: {statistics.last_failure}"))
        if new[Outcome.BUSY]:
            findings.append(
                (WARN, f"{new[Outcome.BUSY]} questions were told busy; ask less often or raise max_queued_questions")
            )
        if new[Outcome.EXPIRED]:
            findings.append((WARN, f"{new[Outcome.EXPIRED]} questions passed their deadline; give them more time"))
        median = statistics.timings["total"].percentile(50)
        if kind is JobKind.CAPTION and (late := _too_slow(median, statistics, settings)):
            findings.append((WARN, late))
        values = {
            "rate": _per_second(self._rates[name].per_second),
            "waiting": str(statistics.waiting),
            **{outcome.value: str(count) for outcome, count in outcomes.items()},
            **{
                f"{stage} p50 / p95": f"{recent.percentile(50):.1f} / {recent.percentile(95):.1f} ms"
                for stage, recent in statistics.timings.items()
                if len(recent)
            },
            "generated tokens": str(statistics.generated_tokens),
        }
        if statistics.drafted_tokens:
            share = 100 * statistics.accepted_tokens / statistics.drafted_tokens
            values["accepted drafts"] = f"{share:.0f} % of {statistics.drafted_tokens} tokens"
        return self._status(name, findings or [(OK, f"{outcomes[Outcome.DONE]} done")], values)

    def _camera_status(self, watch: CameraWatch, settings: NodeSettings) -> DiagnosticStatus:
        camera, counters = watch.camera, watch.camera.counters
        frame, dropped = camera.last(), counters.dropped.copy()
        malformed = self._new(f"camera {camera.name}", dropped).total()
        findings: list[Finding] = []
        if watch.diagnosis is not None:
            findings.append((ERROR, watch.diagnosis.text))
        elif frame is None:
            findings.append((STALE, f"waiting for the first image on {camera.topic}"))
        elif frame.age() > settings.max_frame_age:
            findings.append((WARN, f"the newest frame {frame.describe_age(settings.max_frame_age)}"))
        findings += [(WARN, warning) for warning in (watch.loss, watch.rivals) if warning]
        if malformed:
            findings.append((WARN, f"{malformed} malformed images in the last second; the log has the first one"))
        values = {
            "topic": camera.topic,
            "image": "none" if frame is None else frame.kind(),
            "rate": _per_second(watch.rate.per_second),
            "age of the newest frame": "none" if frame is None else f"{frame.age():.2f} s",
            "QoS": f"{describe_qos(camera.qos)}, depth {camera.qos.depth}",
            "received": str(counters.received),
            "replaced by newer ones": str(counters.replaced),
            "lost by the middleware": str(counters.lost),
            **{f"dropped: {fault.value}": str(count) for fault, count in dropped.items()},
            "captions left out, unchanged": str(counters.unchanged),
        }
        return self._status(f"camera {camera.name}", findings or [(OK, "images arrive")], values)

    def _status(self, name: str, findings: list[Finding], values: Mapping[str, str]) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=max(level for level, _ in findings),
            name=f"{self._node}: {name}",
            message="; ".join(message for _, message in findings),
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )

    def _new(self, name: str, counts: Counter[Any]) -> Counter[Any]:
        """Returns the increase since the last call for this name. Counts that have started again count from zero."""
        before = self._seen.get(name, Counter())
        self._seen[name] = counts
        return counts - before if not before - counts else counts


def _too_slow(median: float, statistics: JobStatistics, settings: NodeSettings) -> str:
    """Returns a warning if all cameras' captions together take longer than their period; else ''."""
    work = median - statistics.timings["queue"].percentile(50)
    needed = len(settings.caption_cameras) * work / 1e3
    if not settings.caption_period or not needed > _SLACK * settings.caption_period:
        return ""
    return (
        f"captions of {len(settings.caption_cameras)} cameras take {needed:.2f} s, caption_period is "
        f"{settings.caption_period:g} s, so each camera waits its turn; raise caption_period or name fewer "
        "caption_cameras"
    )


def _token_selection(config: PipelineConfig) -> str:
    selection = config.token_selection
    return selection.method if selection.method == "off" else f"{selection.method}, keeps {selection.keep:g}"


def _per_second(rate: float) -> str:
    return "unknown yet" if math.isnan(rate) else f"{rate:.2f} / s"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
