"""The ground truth of rendered scenes: demo_cameras announces it, and the demo finds it by the stamps of images."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.questions import draw_questions
from litevlm_ros.lab.world.scene import Scene

TOPIC = "/demo_cameras/ground_truth"
"""std_msgs/String, one JSON object for each new scene:

{"stamp": {"sec": 0, "nanosec": 0}, "scene_seed": 0, "captions": {CAMERA: CAPTION},
 "questions": [{"question": "", "answer": "", "cameras": [CAMERA], "kind": ""}]}
"""

Nanoseconds = int
"""A stamp as one number."""

_QUESTIONS = 6
"""Questions that are announced with each scene."""


@dataclass(frozen=True)
class TrueAnswer:
    """A question with its one true answer, its kind, and the cameras needed to answer it."""

    question: str
    answer: str
    cameras: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class SceneTruth:
    """One scene: every image from `start` until the next scene's start shows it."""

    start: Nanoseconds
    seed: int
    captions: dict[str, str]
    questions: tuple[TrueAnswer, ...]


def scene_facts(scene: Scene, cameras: Sequence[str]) -> dict[str, Any]:
    """Returns the cameras' captions, and questions about them with their answers, as JSON values."""
    questions = draw_questions(scene, cameras, _QUESTIONS, np.random.default_rng(scene.seed))
    return {
        "scene_seed": scene.seed,
        "captions": {camera: caption(scene, camera) for camera in cameras},
        "questions": [
            {
                "question": question.text,
                "answer": question.answer,
                "cameras": list(question.cameras),
                "kind": question.kind,
            }
            for question in questions
        ],
    }


def announcement(facts: Mapping[str, Any], sec: int, nanosec: int) -> str:
    """Returns the message of TOPIC: the `scene_facts` with the stamp of the scene's first frames."""
    return json.dumps({"stamp": {"sec": sec, "nanosec": nanosec}, **facts})


def parse(text: str) -> SceneTruth:
    """Reads an announcement. Raises LiteVLMError if it does not have the form of TOPIC's messages."""
    try:
        fields = json.loads(text)
        return SceneTruth(
            start=int(fields["stamp"]["sec"]) * 10**9 + int(fields["stamp"]["nanosec"]),
            seed=int(fields["scene_seed"]),
            captions={str(camera): str(caption) for camera, caption in fields["captions"].items()},
            questions=tuple(
                TrueAnswer(question["question"], question["answer"], tuple(question["cameras"]), question["kind"])
                for question in fields["questions"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LiteVLMError(f"{TOPIC} carries something else than a scene's ground truth: {error!r}") from None


class SceneHistory:
    """The scenes that have been announced so far."""

    def __init__(self) -> None:
        self._scenes: list[SceneTruth] = []

    def add(self, scene: SceneTruth) -> None:
        """Adds a scene. Announcements may come twice and in any order."""
        if all(scene.start != known.start for known in self._scenes):
            self._scenes = sorted([*self._scenes, scene], key=lambda known: known.start)

    @property
    def newest(self) -> SceneTruth | None:
        """The scene that started last, or None."""
        return self._scenes[-1] if self._scenes else None

    def at(self, stamps: Iterable[Nanoseconds]) -> SceneTruth | None:
        """Returns the scene that images of all these stamps show; None if they show several, or one not announced."""
        starts = [scene.start for scene in self._scenes]
        found = {bisect_right(starts, stamp) - 1 for stamp in stamps}
        index = found.pop() if len(found) == 1 else -1
        return self._scenes[index] if index >= 0 else None


def next_question(scene: SceneTruth, asked: Sequence[TrueAnswer]) -> TrueAnswer | None:
    """Returns a question that was not asked yet, of the kind asked least often; None if all were asked."""
    known = {answer.question for answer in asked}
    kinds = [answer.kind for answer in asked]
    fresh = [answer for answer in scene.questions if answer.question not in known]
    return min(fresh, key=lambda answer: kinds.count(answer.kind), default=None)
