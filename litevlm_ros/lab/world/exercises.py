"""Exercises that a model is examined on: views of one scene, and questions about them with their true answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.questions import Question, draw_caption_prompt, draw_questions
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import Scene, generate
from litevlm_ros.lab.world.splits import evaluation_seeds
from litevlm_ros.types import View

CAPTION = "caption"
"""Kind of a `Question` that asks for a caption. All other kinds are those of `question_kinds`, with short answers."""

_ONE_VIEW_QUESTIONS = 8
_ALL_VIEWS_QUESTIONS = 12


@dataclass(frozen=True)
class Exercise:
    """Views of one scene and the questions to ask about them.

    The first question asks for a caption; its `cameras` is the one view to describe. `unseen` is set where the scene
    has combinations that training leaves out. `phase` is the moment at which the views are drawn, in seconds.
    """

    scene: Scene
    unseen: bool
    cameras: tuple[str, ...]
    questions: tuple[Question, ...]
    phase: float

    def views(self) -> list[View]:
        """Renders the views, anew each time."""
        return [View(camera, render(self.scene, camera, phase=self.phase)) for camera in self.cameras]


def held_out_exercises(seed: int, scenes: int) -> Iterator[Exercise]:
    """Yields two exercises (one view, all views) for each of `scenes` scenes, every second of them unseen.

    The scenes are those of `splits.evaluation_seeds`, whose ConfigError it raises.
    """
    for number, scene_seed in enumerate(evaluation_seeds(scenes, seed)):
        yield from _exercises(scene_seed, unseen=number % 2 == 1)


def training_exercises(scenes: int) -> Iterator[Exercise]:
    """Yields the same kind of exercises about the first scenes that training draws."""
    for seed in range(scenes):
        yield from _exercises(seed, unseen=False)


def _exercises(seed: int, *, unseen: bool) -> Iterator[Exercise]:
    scene = generate(seed, unseen=unseen)
    # Training draws its questions from (seed, 1).
    rng = np.random.default_rng((seed, 2))
    one = DEMO_CAMERAS[int(rng.integers(len(DEMO_CAMERAS)))]
    for cameras, count in (((one,), _ONE_VIEW_QUESTIONS), (DEMO_CAMERAS, _ALL_VIEWS_QUESTIONS)):
        described = cameras[int(rng.integers(len(cameras)))]
        prompt = draw_caption_prompt(described, cameras, rng)
        request = Question(prompt, caption(scene, described), CAPTION, (described,))
        questions = draw_questions(scene, cameras, count, rng, unseen=unseen)
        yield Exercise(scene, unseen, cameras, (request, *questions), float(rng.uniform(0, 20)))
