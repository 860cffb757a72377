"""Questions with the views that they need, for training the view selector.

The demo world's questions about all six cameras have their ground truth, and so have two of them in one. Others keep
what the lexical selector keeps, which in doubt is more: questions without a place, with words left out, and words in
disorder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.world.questions import ask, ask_for_caption
from litevlm_ros.lab.world.scene import CAMERAS, FIRST_HELD_OUT_SEED, generate
from litevlm_ros.vision.learned_view_selection import split_words
from litevlm_ros.vision.view_selection import LexicalSelector

_QUESTIONS = 12
_UNPLACED_QUESTIONS = 3
_SHORTENED = 0.3
"""Share of questions that are asked again with words left out."""


@dataclass(frozen=True)
class Choice:
    """A question and the cameras, of all six, from which it is to be answered."""

    question: str
    cameras: tuple[str, ...]


def true_choices(seed: int, *, unseen: bool = False) -> Iterator[Choice]:
    """Questions about the scene of `seed` with their ground truth. What any view answers is asked of the front."""
    scene = generate(seed, unseen=unseen)
    rng = np.random.default_rng((seed, 3))
    for question in ask(scene, CAMERAS, _QUESTIONS, rng, unseen=unseen):
        yield Choice(question.text, question.cameras or CAMERAS[:1])
    camera = CAMERAS[int(rng.integers(len(CAMERAS)))]
    yield Choice(ask_for_caption(camera, CAMERAS, rng), (camera,))


def training_choices(scenes: int, seed: int) -> list[Choice]:
    """Of `scenes` scenes that no evaluation uses. Raises ConfigError where there are not so many."""
    first = seed * scenes
    if not 0 <= first < first + scenes <= FIRST_HELD_OUT_SEED:
        raise ConfigError(
            f"--scenes is {scenes} and --seed {seed}; allowed: from 1 and 0, as long as (seed + 1) x scenes is at most "
            f"{FIRST_HELD_OUT_SEED}, where held-out scenes begin. Use fewer scenes"
        )
    rng = np.random.default_rng(seed)
    placed = [choice for number in range(first, first + scenes) for choice in true_choices(number)]
    unplaced = [_as_lexical(text) for number in range(first, first + scenes) for text in _unplaced(number, rng)]
    shortened = [_shortened(choice, rng) for choice in placed + unplaced if rng.random() < _SHORTENED]
    words = sorted({word for choice in placed + unplaced for word in split_words(choice.question)})
    disorder = [_as_lexical(" ".join(rng.choice(words, int(rng.integers(1, 10))))) for _ in range(scenes)]
    pairs = [_joined(*(placed[int(index)] for index in rng.integers(len(placed), size=2))) for _ in range(2 * scenes)]
    return placed + unplaced + shortened + disorder + pairs


def _unplaced(seed: int, rng: np.random.Generator) -> Iterator[str]:
    """What is asked where only one camera is offered."""
    camera = CAMERAS[int(rng.integers(len(CAMERAS)))]
    for question in ask(generate(seed), (camera,), _UNPLACED_QUESTIONS, rng):
        if question.kind != "way_ahead":  # which is about the front, whatever is offered
            yield question.text


def _joined(first: Choice, second: Choice) -> Choice:
    needed = {*first.cameras, *second.cameras}
    return Choice(f"{first.question} {second.question}", tuple(camera for camera in CAMERAS if camera in needed))


def _as_lexical(text: str) -> Choice:
    return Choice(text, LexicalSelector().select(text, CAMERAS))


def _shortened(choice: Choice, rng: np.random.Generator) -> Choice:
    """Without up to three of its words."""
    words = split_words(choice.question)
    left_out = rng.permutation(len(words))[: int(rng.integers(1, 4))]
    return _as_lexical(" ".join(word for index, word in enumerate(words) if index not in left_out))
