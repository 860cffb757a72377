"""One run as a client sees it: prints captions as they arrive, asks questions, and draws a picture of it all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from litevlm_ros.errors import LiteVLMError, visible
from litevlm_ros.lab.demo.ground_truth import TrueAnswer, next_question
from litevlm_ros.lab.demo.node_state import NodeState
from litevlm_ros.lab.demo.observer import Observer, nanoseconds
from litevlm_ros.lab.demo.panel import Answered, Captioned, draw
from litevlm_ros.lab.demo.record import STAGES, Record, stages
from litevlm_ros.lab.world.captions import judge_against
from litevlm_ros.lab.world.questions import is_true_answer

QUESTIONS = 3
"""Questions that a run asks."""
_MOST_PAUSE_SECONDS = 4.0
"""The longest pause between two questions; a short run has shorter ones."""


class Run:
    """The captions, questions and answers of one run so far."""

    def __init__(self, cameras: Sequence[str], questions: Sequence[str] | None, record: Record | None = None) -> None:
        """Joins the ROS domain. `questions` are those to ask; None takes them from the ground truth of the scenes.

        Only with None, captions and answers are judged. `record` gets all of them.
        """
        self._cameras = cameras
        self._fixed = questions
        self._count = QUESTIONS if questions is None else len(questions)
        self._record = record
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
        return bool(self._captioned) and len(self._answered) == self._count

    @property
    def has_begun(self) -> bool:
        """True if a caption has arrived."""
        return self._captions > 0

    @property
    def node(self) -> NodeState:
        """The state of the node, as it tells it itself."""
        return self._observer.state

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
        elif len(self._answered) < self._count and time.monotonic() >= self._ask_after and self._captioned:
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
        print(f"answers: {len(self._answered)} of {self._count}{right}")
        tiles = [self._captioned[camera] for camera in self._cameras if camera in self._captioned]
        image = draw("litevlm_ros: captions and answers over ROS 2", tiles, self._answered)
        if not cv2.imwrite(str(picture), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
            raise LiteVLMError(f"the picture could not be written to {picture}")
        print(f"picture: {picture}")

    def _on_caption(self, message: Any) -> None:
        self._captions += 1
        stamp = nanoseconds(message.header.stamp)
        print(f"[{self._clock()}] {message.camera}: {visible(message.text)}")
        if self._record is not None:
            self._record.caption(message)
        scene = self._observer.scenes.at([stamp]) if self._fixed is None else None
        verdict = ""
        if scene is not None and message.camera in scene.captions:
            judged = judge_against(message.text, scene.captions[message.camera])
            self._true += judged.true
            self._stated += judged.statements
            verdict = f", {judged.true} of {judged.statements} statements true"
        print(f"{'':10}image of {_stamp(message.header.stamp)}, {_stages(message)}{verdict}", flush=True)
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
            self._ask_after = time.monotonic() + min(_MOST_PAUSE_SECONDS, left / (self._count + 1))

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
        if self._record is not None:
            self._record.answer(question, answer)
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
        print(f"[{self._clock()}] ? {question}\n{'':10}answer: {visible(answer.text)}{beside}")
        print(f"{'':10}image of {_stamp(answer.header.stamp)}, {_stages(answer)}", flush=True)

    def _truth(self, question: str, stamps: Sequence[int]) -> TrueAnswer | None:
        scene = self._observer.scenes.at(stamps)
        questions = scene.questions if scene is not None else ()
        return next((known for known in questions if known.question == question), None)

    def _clock(self) -> str:
        return f"{time.monotonic() - self._started:5.1f} s"


def _stamp(stamp: Any) -> str:
    return f"{stamp.sec}.{stamp.nanosec:09d}"


def _stages(message: Any) -> str:
    return stages({stage: getattr(message.timings, stage) for stage in STAGES})
