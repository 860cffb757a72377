"""What was really there: the scenes that demo_cameras announces, found again by the stamps of images."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from litevlm_ros.errors import LiteVLMError

TOPIC = "/demo_cameras/ground_truth"
"""std_msgs/String, one JSON object for each new scene:

{"stamp": {"sec": 0, "nanosec": 0}, "scene_seed": 0, "captions": {CAMERA: CAPTION},
 "questions": [{"question": "", "answer": "", "cameras": [CAMERA], "kind": ""}]}
"""

Nanoseconds = int


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


def parse(text: str) -> SceneTruth:
    """Reads an announcement. Raises LiteVLMError where it is not of the form that TOPIC has."""
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
    """All scenes announced so far."""

    def __init__(self) -> None:
        self._scenes: list[SceneTruth] = []

    def add(self, scene: SceneTruth) -> None:
        """Announcements may come twice and in any order."""
        if all(scene.start != known.start for known in self._scenes):
            self._scenes = sorted([*self._scenes, scene], key=lambda known: known.start)

    @property
    def newest(self) -> SceneTruth | None:
        """The scene that started last."""
        return self._scenes[-1] if self._scenes else None

    def at(self, stamps: Iterable[Nanoseconds]) -> SceneTruth | None:
        """The one scene that images of all these stamps show; None if they show several, or one not announced."""
        starts = [scene.start for scene in self._scenes]
        found = {bisect_right(starts, stamp) - 1 for stamp in stamps}
        index = found.pop() if len(found) == 1 else -1
        return self._scenes[index] if index >= 0 else None


def next_question(scene: SceneTruth, asked: Sequence[TrueAnswer]) -> TrueAnswer | None:
    """A question about the scene that was not asked yet, of a kind asked as rarely as possible."""
    known = {answer.question for answer in asked}
    kinds = [answer.kind for answer in asked]
    fresh = [answer for answer in scene.questions if answer.question not in known]
    return min(fresh, key=lambda answer: kinds.count(answer.kind), default=None)


def is_right(answer: str, truth: str) -> bool:
    """Whether a short answer is the true one, upper and lower case alike."""
    return answer.strip().casefold() == truth.strip().casefold()
