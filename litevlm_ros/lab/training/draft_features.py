"""Training data of a draft head: the model's own greedy answers about training scenes, with their hidden states."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from litevlm_ros.backend import HiddenState
from litevlm_ros.config import DEMO_CAMERAS, PipelineConfig
from litevlm_ros.lab.world.questions import draw_caption_prompt, draw_questions
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import Scene, generate
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.text.drafts import Offer
from litevlm_ros.types import View

_SHORT_QUESTIONS = 2
"""Short questions about each group of views, besides a caption. Answers of one or two words teach little."""


@dataclass(frozen=True)
class AnswerStates:
    """One answer: tokens int64 [n], up to the one that ended it, and the hidden states fp16 [n, H] they came from."""

    tokens: Tensor
    hidden: Tensor


class Recorder:
    """A draft source that never drafts, and records the tokens and hidden states that it is given."""

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
        """See `DraftSource.draft`. It is never called, as there is no offer."""
        return ()

    def remember(self) -> None:
        """See `DraftSource.remember`."""

    def last(self) -> AnswerStates:
        """Returns the last answer."""
        return AnswerStates(torch.tensor(self._tokens), torch.from_numpy(np.stack(self._hidden)))


def record_answers(model: Path, seeds: Sequence[int], threads: int) -> Iterator[AnswerStates]:
    """Yields the answers of the model in directory `model` about the scenes of these seeds.

    They are captions and short answers about each view alone and about all views together. Raises what
    `Pipeline.from_config` and `Pipeline.answer` raise.
    """
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
    """Yields groups of the scene's views with the questions to ask about them."""
    phase = float(rng.uniform(0, 20))
    views = [View(camera, render(scene, camera, phase=phase), frame=phase) for camera in DEMO_CAMERAS]
    for group in (*([view] for view in views), views):
        cameras = tuple(view.camera for view in group)
        described = cameras[int(rng.integers(len(cameras)))]
        short = draw_questions(scene, cameras, _SHORT_QUESTIONS, rng)
        yield group, [draw_caption_prompt(described, cameras, rng), *(question.text for question in short)]
