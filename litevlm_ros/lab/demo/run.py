"""The demo: starts cameras and node, prints captions as they arrive, asks questions, and draws a picture of it all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.demo.ground_truth import TrueAnswer, next_question
from litevlm_ros.lab.demo.observer import Observer, nanoseconds
from litevlm_ros.lab.demo.panel import Answered, Captioned, draw
from litevlm_ros.lab.world.captions import judge_against
from litevlm_ros.lab.world.questions import is_true_answer
from litevlm_ros.processes import Child

QUESTIONS = 3
"""Questions that a run asks."""
_MOST_PAUSE_SECONDS = 4.0
"""The longest pause between two questions; a short run has shorter ones."""

_NODE_PARAMETERS = ("transport:=compressed", "caption_period:=2.0")
"""Raw images of six cameras at once do not fit into Fast DDS's shared memory. The period, in seconds, leaves half of a
small machine to the cameras."""
_VIDEO_CAMERA = "front"
_VIDEO_QUESTIONS = ("What do you see?", "Is there a car?", "Is it day or night?")
"""The questions about a video, whose true answers nobody knows."""

_STAGES = ("queue", "decode_image", "preprocess", "vision", "select", "prefill", "decode", "total")


def run_demo(seconds: float, video: Path | None, output: Path) -> bool:
    """Runs cameras and node for `seconds`, with the picture and the logs in the directory `output`.

    The cameras show `video`, or rendered streets. Returns True if captions and all answers arrived; otherwise it prints
    the end of the logs. Raises LiteVLMError for a video that is not there and for a process that ends early.
    """
    if video is not None and not video.is_file():
        raise LiteVLMError(f"--video {video}: there is no such file")
    if not seconds > 0:
        raise LiteVLMError(f"--seconds is {seconds:g}; give how long to run, such as 20")
    output.mkdir(parents=True, exist_ok=True)
    cameras = DEMO_CAMERAS if video is None else (_VIDEO_CAMERA,)
    source = ["--cameras", ",".join(cameras)]
    if video is not None:
        source += ["--video", str(video.resolve())]
    names = f"cameras:=[{', '.join(cameras)}]"
    parameters = [part for parameter in (names, *_NODE_PARAMETERS) for part in ("-p", parameter)]
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        children = [
            stack.enter_context(Child(module, arguments, output / log, os.environ))
            for module, arguments, log in (
                ("litevlm_ros.tools.demo_cameras", source, "cameras.log"),
                ("litevlm_ros.node.process", ["--ros-args", *parameters], "node.log"),
            )
        ]
        run = Run(cameras, _VIDEO_QUESTIONS if video is not None else None)
        stack.callback(run.close)
        while time.monotonic() < deadline:
            run.step(deadline)
            for child in children:
                child.require_running()
    run.report(output / "demo.png")
    if not run.complete:
        for child in children:
            print(f"--- last lines of {child.log}\n{child.tail()}", file=sys.stderr)
    return run.complete


class Run:
    """The captions, questions and answers of one run so far."""

    def __init__(self, cameras: Sequence[str], questions: Sequence[str] | None) -> None:
        """Joins the ROS domain. `questions` are those to ask; None takes them from the ground truth of the scenes."""
        self._cameras = cameras
        self._fixed = questions
        self._observer = Observer(cameras, self._on_caption)
        self._started = time.monotonic()
        self._ask_after = self._started
        self._captions = 0
        self._captioned: dict[str, Captioned] = {}
        self._answered: list[Answered] = []
        self._asked: list[TrueAnswer] = []
        self._pending: tuple[str, Any] | None = None
        self._true = self._stated = 0

    def close(self) -> None:
        """Leaves the ROS domain."""
        self._observer.close()

    @property
    def complete(self) -> bool:
        """True if captions and all answers have arrived."""
        return bool(self._captioned) and len(self._answered) == QUESTIONS

    def step(self, deadline: float) -> None:
        """Handles one message, and asks the next question when its time has come.

        `deadline` is the end of the run on the monotonic clock.
        """
        self._observer.spin(0.05)
        if self._pending is not None:
            question, future = self._pending
            if future.done():
                self._pending = None
                self._on_response(question, future.result())
        elif len(self._answered) < QUESTIONS and time.monotonic() >= self._ask_after and self._captioned:
            self._ask(deadline)

    def report(self, picture: Path) -> None:
        """Prints a summary and draws the picture. Raises LiteVLMError where it cannot be written."""
        print()
        if self._stated:
            print(f"captions: {self._captions}; {self._true} of {self._stated} statements true")
        else:
            print(f"captions: {self._captions}")
        judged = [answer for answer in self._answered if answer.truth is not None]
        right = f"; {sum(answer.right for answer in judged)} right" if judged else ""
        print(f"answers: {len(self._answered)} of {QUESTIONS}{right}")
        tiles = [self._captioned[camera] for camera in self._cameras if camera in self._captioned]
        image = draw("litevlm_ros: captions and answers over ROS 2", tiles, self._answered)
        if not cv2.imwrite(str(picture), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
            raise LiteVLMError(f"the picture could not be written to {picture}")
        print(f"picture: {picture}")

    def _on_caption(self, message: Any) -> None:
        self._captions += 1
        stamp = nanoseconds(message.header.stamp)
        print(f"[{self._clock()}] {message.camera}: {message.text}")
        scene = self._observer.scenes.at([stamp])
        verdict = ""
        if scene is not None and message.camera in scene.captions:
            judged = judge_against(message.text, scene.captions[message.camera])
            self._true += judged.true
            self._stated += judged.statements
            verdict = f", {judged.true} of {judged.statements} statements true"
        print(f"{'':10}image of {_stamp(message.header.stamp)}, {_stages(message.timings)}{verdict}", flush=True)
        frame = self._observer.frame(message.camera, stamp)
        if frame is not None:
            detail = f"{message.timings.total:.0f} ms"
            self._captioned[message.camera] = Captioned(message.camera, frame, message.text, detail)

    def _ask(self, deadline: float) -> None:
        question = self._next_question()
        future = self._observer.ask(question) if question else None
        if question and future is not None:
            self._pending = (question, future)
            left = max(0.0, deadline - time.monotonic())
            self._ask_after = time.monotonic() + min(_MOST_PAUSE_SECONDS, left / (QUESTIONS + 1))

    def _next_question(self) -> str | None:
        if self._fixed is not None:
            return self._fixed[len(self._answered)]
        scene = self._observer.scenes.newest
        chosen = next_question(scene, self._asked) if scene is not None else None
        return chosen.question if chosen is not None else None

    def _on_response(self, question: str, response: Any) -> None:
        if not response.success:
            print(f"[{self._clock()}] ? {question}\n{'':10}no answer: {response.error}", flush=True)
            return
        answer = response.answer
        truth = None
        if self._fixed is None:
            found = self._truth(question, [nanoseconds(stamp) for stamp in answer.stamps])
            if found is None:
                # The scene changed between question and answer, so that the true answer is unknown.
                return
            self._asked.append(found)
            truth = found.answer
        right = truth is not None and is_true_answer(answer.text, truth)
        detail = f"{answer.timings.total:.0f} ms, {len(answer.cameras)} views"
        self._answered.append(Answered(question, answer.text, truth, right, detail))
        beside = "" if truth is None else f"   truth: {truth}   {'right' if right else 'WRONG'}"
        print(f"[{self._clock()}] ? {question}\n{'':10}answer: {answer.text}{beside}")
        print(f"{'':10}image of {_stamp(answer.header.stamp)}, {_stages(answer.timings)}", flush=True)

    def _truth(self, question: str, stamps: Sequence[int]) -> TrueAnswer | None:
        scene = self._observer.scenes.at(stamps)
        questions = scene.questions if scene is not None else ()
        return next((known for known in questions if known.question == question), None)

    def _clock(self) -> str:
        return f"{time.monotonic() - self._started:5.1f} s"


def _stamp(stamp: Any) -> str:
    return f"{stamp.sec}.{stamp.nanosec:09d}"


def _stages(timings: Any) -> str:
    """Lists the stages that took time, such as "vision 12.1, prefill 9.3, total 40.2 ms"."""
    stages = ((stage, getattr(timings, stage)) for stage in _STAGES)
    return ", ".join(f"{stage.replace('_', ' ')} {value:.1f}" for stage, value in stages if value) + " ms"
