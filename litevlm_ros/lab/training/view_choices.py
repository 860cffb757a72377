"""Questions with the views that they need, for training the view selector.

For the demo world's questions about all six cameras, alone or two in one, the views are the ground truth. For questions
without a place, with words left out, or with words in disorder they are those of the lexical selector, which keeps more
views in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.world.questions import draw_caption_prompt, draw_questions
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.lab.world.splits import view_selector_seeds
from litevlm_ros.vision.learned_view_selection import split_words
from litevlm_ros.vision.view_selection import LexicalSelector

_QUESTIONS = 12
_UNPLACED_QUESTIONS = 3
_SHORTENED = 0.3
"""Share of questions that are asked again with words left out."""


@dataclass(frozen=True)
class Choice:
    """A question and the cameras, among all six, whose views are needed to answer it."""

    question: str
    cameras: tuple[str, ...]


def true_choices(seed: int) -> Iterator[Choice]:
    """Yields questions about the scene of `seed` with the views that they need: the front where any will do."""
    scene = generate(seed)
    rng = np.random.default_rng((seed, 3))
    for question in draw_questions(scene, DEMO_CAMERAS, _QUESTIONS, rng):
        yield Choice(question.text, question.cameras or DEMO_CAMERAS[:1])
    camera = DEMO_CAMERAS[int(rng.integers(len(DEMO_CAMERAS)))]
    yield Choice(draw_caption_prompt(camera, DEMO_CAMERAS, rng), (camera,))


def training_choices(scenes: int, seed: int) -> list[Choice]:
    """Returns choices of all kinds about the scenes of `view_selector_seeds`, whose ConfigError it raises."""
    seeds = view_selector_seeds(scenes, seed)
    rng = np.random.default_rng(seed)
    placed = [choice for number in seeds for choice in true_choices(number)]
    unplaced = [_as_lexical(text) for number in seeds for text in _unplaced(number, rng)]
    shortened = [_shortened(choice, rng) for choice in placed + unplaced if rng.random() < _SHORTENED]
    words = sorted({word for choice in placed + unplaced for word in split_words(choice.question)})
    disorder = [_as_lexical(" ".join(rng.choice(words, int(rng.integers(1, 10))))) for _ in range(scenes)]
    pairs = [_joined(*(placed[int(index)] for index in rng.integers(len(placed), size=2))) for _ in range(2 * scenes)]
    return placed + unplaced + shortened + disorder + pairs


def _unplaced(seed: int, rng: np.random.Generator) -> Iterator[str]:
    """Yields questions as they are asked where only one camera is offered."""
    camera = DEMO_CAMERAS[int(rng.integers(len(DEMO_CAMERAS)))]
    for question in draw_questions(generate(seed), (camera,), _UNPLACED_QUESTIONS, rng):
        if question.kind != "way_ahead":  # which is about the front, whatever is offered
            yield question.text


def _joined(first: Choice, second: Choice) -> Choice:
    needed = {*first.cameras, *second.cameras}
    return Choice(f"{first.question} {second.question}", tuple(camera for camera in DEMO_CAMERAS if camera in needed))


def _as_lexical(text: str) -> Choice:
    return Choice(text, LexicalSelector().select(text, DEMO_CAMERAS))


def _shortened(choice: Choice, rng: np.random.Generator) -> Choice:
    """Leaves out up to three words of the question."""
    words = split_words(choice.question)
    left_out = rng.permutation(len(words))[: int(rng.integers(1, 4))]
    return _as_lexical(" ".join(word for index, word in enumerate(words) if index not in left_out))
