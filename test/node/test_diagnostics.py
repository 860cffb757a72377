"""The statuses on /diagnostics, made from snapshots and published by a running node."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_bench import Bench
from ros_process import image

from litevlm_ros.config import PipelineConfig, SpeculationConfig, TokenSelectionConfig
from litevlm_ros.errors import EngineError, ImageFault
from litevlm_ros.machine import Device
from litevlm_ros.node import diagnostics
from litevlm_ros.node.camera_topics import Diagnosis, Silence, image_qos
from litevlm_ros.node.diagnostics import ERROR, OK, STALE, WARN, ModelFacts, Report, Snapshot
from litevlm_ros.node.inference import JobKind
from litevlm_ros.node.statistics import JobStatistics, Outcome, Rate
from litevlm_ros.types import Answer, FinishReason, Speculation, Timings, TokenCounts

pytestmark = pytest.mark.ros

SETTINGS: Any = SimpleNamespace(
    max_frame_age=2.0, caption_period=1.0, caption_cameras=frozenset({"front", "back"}), max_queued_questions=4
)


def answer(total: float, queue: float = 0.0) -> Answer:
    return Answer(
        "text", "?", ("front",), FinishReason.STOP, TokenCounts(10, 4, 5), Timings(queue=queue, total=total),
        Speculation(drafted=8, accepted=6, verifications=2),
    )  # fmt: skip


def statistics(*answers: Answer, **outcomes: int) -> JobStatistics:
    figures = JobStatistics()
    for each in answers:
        figures.add(each)
    figures.outcomes.update({Outcome[name.upper()]: count for name, count in outcomes.items()})
    return figures


def watch(age: float | None = 0.1, diagnosis: Diagnosis | None = None, dropped: int = 0) -> Any:
    words = f"is {age} s old, max_frame_age is 2 s"
    frame = SimpleNamespace(age=lambda: age, kind=lambda: "640x480 rgb8", describe_age=lambda max_age: words)
    counters = SimpleNamespace(
        received=19, replaced=3, lost=1, unchanged=2, dropped=Counter([ImageFault.WRONG_STEP] * dropped)
    )
    camera = SimpleNamespace(
        name="front",
        topic="/front/image_raw",
        counters=counters,
        qos=image_qos("best_effort", depth=1),
        last=lambda: None if age is None else frame,
    )
    rate = Rate()
    rate.look(0.0, 0)
    rate.look(2.0, 60)
    return SimpleNamespace(camera=camera, diagnosis=diagnosis, rate=rate, loss="", rivals="")


def status(report: Report, name: str, **fields: Any) -> DiagnosticStatus:
    made = {item.name: item for item in report.make(Snapshot(settings=SETTINGS, **fields))}
    return made[f"litevlm: {name}"]


def values(item: DiagnosticStatus) -> dict[str, str]:
    return {value.key: value.value for value in item.values}


@pytest.fixture
def report() -> Report:
    return Report("litevlm")


@pytest.mark.parametrize(
    ("made", "level", "message"),
    [
        (watch(), OK, "images arrive"),
        (watch(None), STALE, "waiting for the first image on /front/image_raw"),
        (watch(3.0), WARN, "the newest frame is 3.0 s old, max_frame_age is 2 s"),
        (watch(None, Diagnosis(Silence.NO_PUBLISHER, "nobody publishes /x")), ERROR, "nobody publishes /x"),
        (watch(dropped=4), WARN, "4 malformed images in the last second; the log has the first one"),
    ],
)
def test_a_camera(report: Report, made: Any, level: bytes, message: str) -> None:
    item = status(report, "camera front", cameras={"front": made})
    assert (item.level, item.message) == (level, message)
    shown = values(item)
    assert shown["rate"] == "30.00 / s"
    assert shown["QoS"] == "best effort, volatile, depth 1"
    assert (shown["received"], shown["replaced by newer ones"], shown["lost by the middleware"]) == ("19", "3", "1")


def test_lost_images_and_several_publishers_are_warnings(report: Report) -> None:
    made = watch()
    made.loss, made.rivals = "6 of 25 images were lost", "2 publishers send images"
    item = status(report, "camera front", cameras={"front": made})
    assert (item.level, item.message) == (WARN, "6 of 25 images were lost; 2 publishers send images")


def test_what_is_wrong_around_the_node(report: Report) -> None:
    item = status(report, "node", surroundings=["/clock has stood still"])
    assert (item.level, item.message) == (WARN, "active; /clock has stood still")


def test_malformed_images_are_a_warning_only_while_they_come(report: Report) -> None:
    made = watch(dropped=4)
    assert status(report, "camera front", cameras={"front": made}).level == WARN
    item = status(report, "camera front", cameras={"front": made})
    assert (item.level, values(item)["dropped: wrong step"]) == (OK, "4")


def test_questions(report: Report) -> None:
    figures = statistics(answer(10.0), answer(30.0), done=2)
    item = status(report, "questions", statistics={JobKind.QUESTION: figures})
    assert (item.level, item.message) == (OK, "2 done")
    shown = values(item)
    assert shown["total p50 / p95"] == "20.0 / 29.0 ms"
    assert shown["accepted drafts"] == "75 % of 16 tokens"
    assert (shown["waiting"], shown["generated tokens"], shown["rate"]) == ("0", "10", "unknown yet")
    figures.outcomes[Outcome.BUSY] += 3
    item = status(report, "questions", statistics={JobKind.QUESTION: figures})
    assert item.level == WARN
    assert item.message == "3 questions were told busy; ask less often or raise max_queued_questions"
    figures.end(Outcome.FAILED, EngineError("layer 5 overflows; use bf16"))
    figures.outcomes[Outcome.EXPIRED] += 1
    item = status(report, "questions", statistics={JobKind.QUESTION: figures})
    assert item.level == ERROR
    assert (
        item.message == "1 questions failed, the last one: layer 5 overflows; use bf16; 1 questions passed their "
        "deadline; give them more time"
    )


def test_captions_that_cannot_keep_up(report: Report) -> None:
    slow = statistics(answer(5900.0, queue=5000.0), done=1)
    item = status(report, "captions", statistics={JobKind.CAPTION: slow})
    assert item.level == WARN
    assert item.message.startswith("captions of 2 cameras take 1.80 s, caption_period is 1 s")
    fast = statistics(answer(5400.0, queue=5000.0), done=1)
    assert status(report, "captions", statistics={JobKind.CAPTION: fast}).level == OK


def test_the_model(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "gpu_load", lambda: 37.0)
    model = ModelFacts("TensorRT 10.3, fp16", "Orin", {"text.engine": "ab12"}, lambda: {"weights": 5_000_000})
    config = PipelineConfig(
        Path("m"), speculation=SpeculationConfig("ngram"), token_selection=TokenSelectionConfig("diversity", 0.25)
    )
    item = status(report, "model", model=model, config=config)
    assert (item.level, item.message, item.hardware_id) == (OK, "TensorRT 10.3, fp16", "Orin")
    shown = values(item)
    assert shown["GPU load"] == "37 %"
    assert shown["device memory: weights"] == "5.0 MB"
    assert shown["fingerprint: text.engine"] == "ab12"
    assert (shown["token selection"], shown["speculation"]) == ("diversity, keeps 0.25", "ngram")


def test_the_node(report: Report) -> None:
    assert status(report, "node").level == OK
    assert status(report, "node", problem="it is inactive").level == WARN
    item = status(report, "node", problem="no such file", failed=True)
    assert (item.level, item.message) == (ERROR, "no such file")
    assert float(values(item)["resident memory"].removesuffix(" MB")) > 10


def test_facts_about_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "find_device", lambda: Device("Orin", (8, 7), 1, True))
    backend = SimpleNamespace(
        description="TensorRT 10",
        fingerprints={"a.engine": "12ab"},
        memory=lambda: {"cache": 5},
        raw_encodings=frozenset({"bgr8"}),
    )
    facts = ModelFacts.of_pipeline(SimpleNamespace(backend=backend))
    assert (facts.backend, facts.gpu, facts.fingerprints) == ("TensorRT 10", "Orin", {"a.engine": "12ab"})
    assert facts.device_memory() == {"cache": 5}
    assert facts.raw_encodings == {"bgr8"}


def test_facts_about_a_pipeline_without_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "find_device", lambda: None)
    facts = ModelFacts.of_pipeline(object())
    assert (facts.backend, facts.gpu, facts.fingerprints, facts.device_memory()) == ("", "", {}, {})


# --- of a running node


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(diagnostics, "PERIOD", 0.05)
    bench = Bench()
    yield bench
    bench.close()
    assert not any(thread.name == "diagnostics" for thread in threading.enumerate())


def test_a_running_node_reports_in_every_state(bench: Bench) -> None:
    arrays = bench.client.listen(DiagnosticArray, "/diagnostics")

    def newest(name: str) -> Any:
        found = [item for item in (arrays[-1].status if arrays else ()) if item.name == f"litevlm: {name}"]
        return found[0] if found else None

    def wait_for(name: str, level: bytes, text: str) -> None:
        bench.client.wait_for(lambda: (item := newest(name)) and item.level == level and text in item.message)

    bench.start(cameras=["front"], caption_period=0.01, autostart=False)
    wait_for("node", WARN, "ros2 lifecycle set /litevlm configure")
    assert newest("captions") is None
    assert bench.client.change_state("configure")
    assert bench.client.change_state("activate")
    wait_for("node", OK, "active")
    wait_for("camera front", STALE, "waiting for the first image")
    publisher = bench.publish("front", image(1))

    def captioned() -> bool:
        publisher.publish(image(1))
        item = newest("captions")
        return item is not None and "total p50 / p95" in values(item)

    bench.client.wait_for(captioned)
    assert newest("camera front").level == OK
    assert values(newest("camera front"))["image"] == "8x6 mono8"
    assert arrays[-1].header.stamp.sec > 0
    assert bench.client.change_state("deactivate")
    wait_for("node", WARN, "inactive")


def test_a_failed_load_is_an_error_with_the_reason(bench: Bench) -> None:
    def fail(config: Any) -> Any:
        raise EngineError("no engine fits; build one")

    bench.load = fail
    arrays = bench.client.listen(DiagnosticArray, "/diagnostics")
    bench.start()
    bench.client.wait_for(lambda: arrays and arrays[-1].status[0].level == ERROR)
    assert "no engine fits; build one" in arrays[-1].status[0].message
