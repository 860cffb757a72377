"""Drafts of n-grams on a simulated H100: they make captions that repeat themselves fast, and no answer slow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from timed_decoder import LISTENER, TimedText

from litevlm_ros.text.drafts import NGramDrafts
from litevlm_ros.text.speculator import Speculator

STOP = 2
PROMPT = tuple(range(10, 50))


@dataclass(frozen=True)
class Said:
    """An answer, which ends with STOP, to a question."""

    question: str
    tokens: tuple[int, ...]

    @property
    def prompt(self) -> tuple[int, ...]:
        return (*PROMPT, *(100 + ord(letter) for letter in self.question))


def decode_seconds(course: Sequence[Said], speculates: bool) -> list[float]:
    """Returns the seconds that each answer took behind its prompt."""
    text = TimedText()
    speculator = Speculator(text, NGramDrafts({STOP}), 15, text.clock) if speculates else None
    times = []
    for said in course:
        text.now += 0.02  # images are encoded
        first, position = text.answer(said.prompt, said.tokens), len(said.prompt)
        started = text.now
        if speculator is None:
            rest = text.decode_greedy(first, position, 200)
        else:
            speculator.begin(said.prompt, said.question)
            speculator.source.add(first, None)
            rest = speculator.decode(first, position, 200)
        heard = [first]
        while heard[-1] != STOP:
            text.now += LISTENER
            heard.append(next(rest))
        assert tuple(heard) == said.tokens
        if speculator is not None:
            speculator.finish(complete=True)
        times.append(text.now - started)
    return times


def speed(course: Sequence[Said], first: int = 0, end: int | None = None) -> float:
    """Returns how many times as fast as plain decoding the answers from `first` to before `end` were."""
    plain, drafted = decode_seconds(course, False), decode_seconds(course, True)
    return sum(plain[first:end]) / sum(drafted[first:end])


def words(count: int, seed: int, among: int = 200) -> tuple[int, ...]:
    numbers = random.Random(seed)
    return tuple(500 + numbers.randrange(among) for _ in range(count))


def caption(seed: int, length: int = 31) -> Said:
    return Said("Describe the scene.", (*words(length, seed), STOP))


def like_the_prompt(seed: int, question: str) -> Said:
    """An answer of 4 to 9 tokens that are in the prompt too, where others follow them: drafts are nearly always wrong.

    It begins as all answers to the question do.
    """
    numbers = random.Random(seed)
    said = numbers.choices(PROMPT, k=numbers.randrange(2, 8))
    return Said(question, (PROMPT[len(question)], *said, STOP))


QUESTIONS = ("Is it day?", "Which colour has the car?", "What is ahead?")

SHORT = {
    "one question": [like_the_prompt(seed, QUESTIONS[0]) for seed in range(400)],
    "questions in turn": [like_the_prompt(seed, QUESTIONS[seed % 3]) for seed in range(400)],
    "questions one after the other": [like_the_prompt(seed, QUESTIONS[seed // 100 % 3]) for seed in range(400)],
    "always a new question": [like_the_prompt(seed, f"{'ab'[seed % 2] * (seed % 29)}?{seed}") for seed in range(400)],
    "words that come in turn": [
        Said("?", (*(500 + (turn * place * 7) % 40 for place in range(1, 7)), STOP)) for turn in range(400)
    ],
}


@pytest.mark.parametrize("course", SHORT.values(), ids=list(SHORT))
def test_short_answers_with_wrong_drafts_take_at_most_a_hundredth_longer(course: list[Said]) -> None:
    for end in (1, 2, 5, 10, 20, 50, 100, 200, 400):
        assert speed(course, 0, end) > 0.99, f"of the first {end} answers"
    for first in (100, 200, 300):
        assert speed(course, first, first + 20) > 0.99, f"behind a change after {first} answers"


def test_short_answers_among_captions_that_pay_take_no_longer() -> None:
    course = [*[caption(0)] * 20, *SHORT["questions in turn"][:60]]
    assert speed(course, 0, 20) > 1.8
    for end in (21, 22, 25, 30, 80):
        assert speed(course, 20, end) > 0.99


@pytest.mark.parametrize("same", [1, 2, 3, 4, 5, 8, 20, 60])
def test_an_answer_that_stops_repeating_itself_soon_stops_being_drafted(same: int) -> None:
    """The first wrong drafts cost what the right ones have saved, and from then on at most a hundredth."""
    usual = Said("Is it day?", (*words(5, 0), STOP))
    others = [Said("Is it day?", (usual.tokens[0], *words(4, seed), STOP)) for seed in range(1, 201)]
    course = [*[usual] * same, *others]
    for end in (same + 1, same + 5, same + 20, len(course)):
        assert speed(course, 0, end) > 0.99
    assert speed(course, same + 100) > 0.99


@pytest.mark.parametrize("length", [16, 31, 60])
def test_captions_that_repeat_themselves_are_fast(length: int) -> None:
    course = [caption(0, length)] * 60
    assert speed(course) > 1.8, "with the first ones, which are plain"
    assert speed(course, 30) > 4


def test_captions_of_scenes_that_stay_for_some_frames_are_fast() -> None:
    course = [caption(frame // 8) for frame in range(80)]
    assert speed(course) > 1.8


def test_captions_of_several_cameras_do_not_disturb_each_other() -> None:
    course = []
    for turn in range(60):
        course += [caption(0), Said("Describe the back.", caption(100 + turn).tokens)]
    plain, drafted = decode_seconds(course, False), decode_seconds(course, True)
    assert sum(plain[0::2]) > 1.8 * sum(drafted[0::2]), "one that stays the same"
    assert sum(plain[1::2]) > 0.99 * sum(drafted[1::2]), "one that is always another"


@pytest.mark.parametrize("changes", [0.1, 0.3, 0.6, 1.0])
def test_captions_that_change_in_part_are_no_slower(changes: float) -> None:
    numbers = random.Random(0)
    now, course = list(words(31, 0)), []
    for turn in range(80):
        course.append(Said("Describe the scene.", (*now, STOP)))
        now = [words(1, 100 * turn + place)[0] if numbers.random() < changes else now[place] for place in range(31)]
    assert speed(course) > 0.99
    if changes == 0.1:
        assert speed(course) > 1.5
