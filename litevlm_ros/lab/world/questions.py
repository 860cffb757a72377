"""Questions about a scene, drawn at random with their one true answer, and prompts that ask for a caption.

A question is about one view ("in the front left view", "behind us") or about all views offered. `cameras` names the
views that are needed to answer it: the ground truth for choosing views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from litevlm_ros.config import CAPTION_PROMPT
from litevlm_ros.lab.world.question_kinds import WRITERS, Scope
from litevlm_ros.lab.world.scene import Scene, pick, spoken

CAPTION_PROMPTS = (
    "Describe the view.",
    CAPTION_PROMPT,
    "What do you see?",
    "Describe what the camera sees.",
    "Write a caption.",
    "What is in this image?",
)
"""Ways to ask for a caption where only one view is offered."""


@dataclass(frozen=True)
class Question:
    """A question, its short answer, its kind (for counting), and the cameras needed to answer it.

    `cameras` is empty where any one view will do, as for the weather.
    """

    text: str
    answer: str
    kind: str
    cameras: tuple[str, ...]


_DIRECTIONS = {
    "front": ("in the front view", "in front of us", "ahead of us"),
    "back": ("in the back view", "behind us", "at the back"),
    "front_left": ("in the front left view", "to the front left"),
    "front_right": ("in the front right view", "to the front right"),
    "back_left": ("in the back left view", "to the back left"),
    "back_right": ("in the back right view", "to the back right"),
}
_ANY_VIEW = ("weather", "time")
_ALL_AROUND = ("around us", "in all views", "around the car", "in total")


def draw_questions(
    scene: Scene, cameras: Sequence[str], count: int, rng: np.random.Generator, *, unseen: bool = False
) -> list[Question]:
    """Draws `count` questions about the views of `cameras`.

    Kinds come in turn, and the answers of each kind are balanced as far as the scene allows. With `unseen`, things are
    asked about that no training question names.
    """
    kinds = list(WRITERS)
    if len(cameras) == 1:
        kinds.remove("camera")
    questions: list[Question] = []
    while len(questions) < count:
        for index in rng.permutation(len(kinds)):
            kind = kinds[int(index)]
            scope = _scope(scene, cameras, rng, kind)
            written = WRITERS[kind](rng, scope, unseen)
            if written and len(questions) < count:
                text, answer = written
                questions.append(Question(text, answer, kind, () if kind in _ANY_VIEW else scope.cameras))
    return questions


def draw_caption_prompt(camera: str, among: Sequence[str], rng: np.random.Generator) -> str:
    """Draws a prompt for a caption of `camera`, which is named where `among` has several cameras."""
    if len(among) == 1:
        return pick(rng, CAPTION_PROMPTS)
    return pick(rng, (f"Describe the {spoken(camera)} view.", f"What does the {spoken(camera)} camera see?"))


def is_true_answer(answer: str, truth: str) -> bool:
    """Returns True if a short answer is the true one, in upper or lower case."""
    return answer.strip().casefold() == truth.strip().casefold()


def _scope(scene: Scene, cameras: Sequence[str], rng: np.random.Generator, kind: str) -> Scope:
    """Draws what a question of that kind is about: one view, or all views of `cameras` together."""
    chosen, phrase = tuple(cameras), ""
    # "on the left to the back right" would be hard to follow: places are asked about "in the back right view".
    phrases = 1 if kind in ("kind", "position") else 3
    if len(cameras) > 1:
        if kind == "camera" or (kind not in ("kind", "position", "way_ahead") and rng.random() < 0.3):
            phrase = " " + pick(rng, _ALL_AROUND)
        else:
            chosen = ("front",) if kind == "way_ahead" and "front" in cameras else (pick(rng, cameras),)
            phrase = " " + pick(rng, _DIRECTIONS[chosen[0]][:phrases])
    elif cameras[0] in _DIRECTIONS and rng.random() < 0.25:
        phrase = " " + pick(rng, _DIRECTIONS[cameras[0]][:phrases])
    users = tuple((camera, user) for camera in chosen for user in scene.views[camera].users)
    return Scope(users, chosen, phrase, scene)
