"""What a model is examined on: views of one scene, and the questions asked about them with their true answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.questions import Question, ask, ask_for_caption
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import CAMERAS, FIRST_HELD_OUT_SEED, Scene, generate
from litevlm_ros.types import View

CAPTION = "caption"
"""Kind of a request for a caption. All other kinds are those of `demo.questions` and have short answers."""

MOST_SCENES = 500_000_000
"""From FIRST_HELD_OUT_SEED on. Behind them are the scenes that training's log is measured on."""

_ONE_VIEW_QUESTIONS = 8
_ALL_VIEWS_QUESTIONS = 12


@dataclass(frozen=True)
class Exercise:
    """Views of one scene and what is asked about them.

    The first question asks for a caption; its `cameras` is the one view to describe. `unseen` tells that the scene has
    combinations which training leaves out. `phase` is the moment at which the views are drawn, in seconds.
    """

    scene: Scene
    unseen: bool
    cameras: tuple[str, ...]
    questions: tuple[Question, ...]
    phase: float

    def views(self) -> list[View]:
        """The pictures, drawn anew each time."""
        return [View(camera, render(self.scene, camera, phase=self.phase)) for camera in self.cameras]


def held_out_exercises(seed: int, scenes: int) -> Iterator[Exercise]:
    """Two exercises (one view, all views) for each of `scenes` scenes, every second of them unseen.

    Scenes have the seeds from FIRST_HELD_OUT_SEED + `seed` on, which training never draws. Raises ConfigError for a
    range that is empty or reaches the scenes that training's log is measured on.
    """
    if scenes < 1:
        raise ConfigError(f"scenes is {scenes}; allowed: from 1. Use at least 100 for a figure to rely on")
    if seed < 0 or seed + scenes > MOST_SCENES:
        raise ConfigError(
            f"seed is {seed} with {scenes} scenes; allowed: from 0, with seed + scenes at most {MOST_SCENES}, as "
            "training's own validation uses the scenes behind. Use a smaller seed"
        )
    for number in range(scenes):
        yield from _exercises(FIRST_HELD_OUT_SEED + seed + number, unseen=number % 2 == 1)


def training_exercises(scenes: int) -> Iterator[Exercise]:
    """The same kind of exercises about the first scenes that training draws."""
    for seed in range(scenes):
        yield from _exercises(seed, unseen=False)


def _exercises(seed: int, *, unseen: bool) -> Iterator[Exercise]:
    scene = generate(seed, unseen=unseen)
    # Training draws its questions from (seed, 1).
    rng = np.random.default_rng((seed, 2))
    one = CAMERAS[int(rng.integers(len(CAMERAS)))]
    for cameras, count in (((one,), _ONE_VIEW_QUESTIONS), (CAMERAS, _ALL_VIEWS_QUESTIONS)):
        described = cameras[int(rng.integers(len(cameras)))]
        prompt = ask_for_caption(described, cameras, rng)
        request = Question(prompt, caption(scene, described), CAPTION, (described,))
        questions = ask(scene, cameras, count, rng, unseen=unseen)
        yield Exercise(scene, unseen, cameras, (request, *questions), float(rng.uniform(0, 20)))
