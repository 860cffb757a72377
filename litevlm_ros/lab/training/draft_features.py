"""What a draft head learns from: the model's own greedy answers about training scenes, with their hidden states."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litevlm_ros.backend import HiddenState
from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.exercises import MOST_SCENES
from litevlm_ros.lab.world.questions import ask, ask_for_caption
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import CAMERAS, FIRST_HELD_OUT_SEED, Scene, generate
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.text.drafts import Offer
from litevlm_ros.types import View

_FIRST_SEED = 900_000_000
"""Training's last seeds, which the demo model's own training does not come to."""
_SEEDS_OF_A_RUN = 1_000_000
_MOST_VALIDATION_SCENES = 20

_SHORT_QUESTIONS = 2
"""Of each group of views, besides a caption. Their answers have one or two words, of which there is little to learn."""


@dataclass(frozen=True)
class AnswerStates:
    """One answer: tokens int64 [n], up to the one that ended it, and the hidden states fp16 [n, H] they came from."""

    tokens: Tensor
    hidden: Tensor


class Recorder:
    """A source of drafts that drafts nothing and keeps what it is told."""

    reads_hidden = True

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._hidden: list[HiddenState] = []

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        """See `DraftSource.begin`."""
        self._tokens, self._hidden = [], []

    def add(self, token: int, hidden: HiddenState | None) -> None:
        """See `DraftSource.add`."""
        if hidden is not None:
            self._tokens.append(token)
            self._hidden.append(hidden.astype(np.float16))

    def offer(self) -> Offer:
        """See `DraftSource.offer`."""
        return Offer()

    def draft(self, count: int) -> Sequence[int]:
        """See `DraftSource.draft`. Never called, as there is no offer."""
        return ()

    def remember(self) -> None:
        """See `DraftSource.remember`."""

    def last(self) -> AnswerStates:
        """The answer that was given last."""
        return AnswerStates(torch.tensor(self._tokens), torch.from_numpy(np.stack(self._hidden)))


def training_seeds(seed: int, scenes: int) -> range:
    """Of `scenes` scenes; other ones for each `seed`. Raises ConfigError if there are none."""
    first = _FIRST_SEED + seed * _SEEDS_OF_A_RUN
    if seed < 0 or scenes > _SEEDS_OF_A_RUN or first + scenes > FIRST_HELD_OUT_SEED:
        raise ConfigError(
            f"seed is {seed} with {scenes} scenes; allowed: 0 to 99, with at most {_SEEDS_OF_A_RUN} scenes"
        )
    return range(first, first + scenes)


def validation_seeds(scenes: int) -> range:
    """Of `scenes` scenes, or fewer, that neither training nor `evaluate` draws."""
    first = FIRST_HELD_OUT_SEED + MOST_SCENES
    return range(first, first + min(scenes, _MOST_VALIDATION_SCENES))


def record_answers(model: Path, seeds: Sequence[int], threads: int) -> Iterator[AnswerStates]:
    """Answers of the model in `model` about the scenes of these seeds: captions of each view and of one among all, and
    short answers. Raises what `Pipeline.from_config` and `Pipeline.answer` raise."""
    recorder = Recorder()
    config = PipelineConfig(model, backend="onnxruntime", threads=threads)
    pipeline = Pipeline.from_config(config, drafts=recorder)
    for seed in seeds:
        for views, questions in _exercises(generate(seed), np.random.default_rng((seed, 3))):
            encoded = pipeline.encode(views)
            for question in questions:
                pipeline.answer(encoded, question)
                yield recorder.last()


def _exercises(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[list[View], list[str]]]:
    """Views of the scene, and what to ask about them."""
    phase = float(rng.uniform(0, 20))
    views = [View(camera, render(scene, camera, phase=phase), frame=phase) for camera in CAMERAS]
    for group in (*([view] for view in views), views):
        cameras = tuple(view.camera for view in group)
        described = cameras[int(rng.integers(len(cameras)))]
        short = ask(scene, cameras, _SHORT_QUESTIONS, rng)
        yield group, [ask_for_caption(described, cameras, rng), *(question.text for question in short)]
