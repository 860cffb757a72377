"""A run whose node and cameras are played by the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from litevlm_ros.lab.demo import run as run_module
from litevlm_ros.lab.demo.ground_truth import SceneHistory, SceneTruth, TrueAnswer
from litevlm_ros.lab.demo.run import Run
from litevlm_ros.msg import Answer, Caption, Timings
from litevlm_ros.types import RgbImage

pytestmark = pytest.mark.ros

CAPTION = "Clear day. A red car near ahead."
QUESTIONS = tuple(TrueAnswer(f"q{number}", f"a{number}", (), f"k{number}") for number in range(4))


class StandIn:
    """Takes the observer's place. What it holds in `responses` is what the node answers, in turn."""

    def __init__(self, cameras: Any, on_caption: Callable[[Any], None]) -> None:
        self.on_caption = on_caption
        self.scenes = SceneHistory()
        self.asked: list[str] = []
        self.responses: Callable[[str], Any] = lambda question: respond(f"a{question[1:]}")

    def spin(self, seconds: float) -> None:
        time.sleep(0.001)

    def close(self) -> None:
        pass

    def frame(self, camera: str, stamp: int) -> RgbImage | None:
        return np.full((48, 64, 3), 90, np.uint8)

    def ask(self, question: str) -> Any:
        self.asked.append(question)
        return SimpleNamespace(done=lambda: True, result=lambda: self.responses(question))


def respond(text: str, *seconds: int) -> Any:
    stamps = [Time(sec=second) for second in seconds or (5,)]
    answer = Answer(
        header=Header(stamp=stamps[0]), stamps=stamps, cameras=["front"], text=text, timings=Timings(total=9.0)
    )
    return SimpleNamespace(success=True, answer=answer)


def caption(text: str = CAPTION) -> Any:
    return Caption(header=Header(stamp=Time(sec=5, nanosec=12)), camera="front", text=text,
                   timings=Timings(queue=1.25, vision=2.0, total=40.0))  # fmt: skip


@pytest.fixture
def observer(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    made: list[StandIn] = []

    def make(cameras: Any, on_caption: Callable[[Any], None]) -> StandIn:
        made.append(StandIn(cameras, on_caption))
        return made[-1]

    monkeypatch.setattr(run_module, "Observer", make)
    monkeypatch.setattr(run_module, "_MOST_PAUSE_SECONDS", 0.0)
    return made


def steps(run: Run, count: int = 30) -> None:
    for _ in range(count):
        run.step(time.monotonic() + 60)


def test_a_whole_run(observer: list[StandIn], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = Run(["front", "back"], None)
    seen = observer[0]
    seen.scenes.add(SceneTruth(0, 1, {"front": "Clear day. A red car near ahead. A crossing."}, QUESTIONS))
    seen.responses = lambda question: respond("wrong" if question == "q1" else f"a{question[1:]}")
    steps(run)
    assert seen.asked == [], "asked before the node was seen to work"
    seen.on_caption(caption())
    seen.on_caption(caption("Clear night. A red car near ahead."))
    steps(run)
    assert seen.asked == ["q0", "q1", "q2"]
    assert run.complete
    run.report(tmp_path / "demo.png")
    printed = capsys.readouterr().out
    assert f"front: {CAPTION}\n" in printed
    assert "image of 5.000000012, queue 1.2, vision 2.0, total 40.0 ms, 3 of 3 statements true" in printed
    assert "2 of 3 statements true" in printed
    assert "answer: a0   truth: a0   right" in printed
    assert "answer: wrong   truth: a1   WRONG" in printed
    assert "captions: 2; 5 of 6 statements true\nanswers: 3 of 3; 2 right\n" in printed
    picture = cv2.imread(str(tmp_path / "demo.png"))
    assert (picture == 90).all(-1).sum() == 400 * 300


def test_an_answer_about_another_scene_is_not_judged(
    observer: list[StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(["front"], None)
    seen = observer[0]
    for second in (0, 10):
        seen.scenes.add(SceneTruth(second * 10**9, second, {}, QUESTIONS[second // 10 :]))
    seen.on_caption(caption())
    seen.responses = lambda question: respond("a1", 9, 10)
    steps(run)
    assert not run.complete
    assert "answer:" not in capsys.readouterr().out
    seen.responses = lambda question: respond(f"a{question[1:]}", 12)
    steps(run)
    assert run.complete
    assert "WRONG" not in capsys.readouterr().out


def test_a_refused_question_is_asked_again(observer: list[StandIn], capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(["front"], ["What?", "Where?", "When?"])
    seen = observer[0]
    seen.on_caption(caption())
    seen.responses = lambda question: SimpleNamespace(success=False, error="waiting for an image")
    steps(run)
    assert set(seen.asked) == {"What?"}
    assert not run.complete
    assert "no answer: waiting for an image" in capsys.readouterr().out
    seen.responses = lambda question: respond("text")
    steps(run)
    assert run.complete
    assert "truth" not in capsys.readouterr().out


def test_a_run_without_captions_is_not_complete(observer: list[StandIn], tmp_path: Path) -> None:
    run = Run(["front"], ["What?", "Where?", "When?"])
    steps(run)
    assert not run.complete
    run.report(tmp_path / "demo.png")
    assert (tmp_path / "demo.png").exists()
