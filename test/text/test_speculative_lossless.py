"""Speculation on the demonstration model gives the answers of plain decoding, token for token, on ONNX Runtime."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from litevlm_ros.config import MOST_DRAFT_TOKENS, PipelineConfig, SpeculationConfig
from litevlm_ros.lab.world.exercises import held_out_exercises
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.text.drafts import DraftSource, Offer
from litevlm_ros.text.speculator import Speculator


class Eager:
    """Drafts of a source, and guesses where there are none, so that wrong drafts of all lengths are checked too.

    No first token is told beforehand, so the policy does not wait until it has seen right ones.
    """

    def __init__(self, drafts: DraftSource, vocab_size: int) -> None:
        self.reads_hidden = drafts.reads_hidden
        self._drafts = drafts
        self._vocab_size = vocab_size
        self._random = random.Random(0)
        self.remember = drafts.remember
        self.add = drafts.add

    def begin(self, prompt: Sequence[int], topic: Hashable) -> None:
        # One topic for all questions, so that a draft is often nearly right.
        self._drafts.begin(prompt, "any")

    def offer(self) -> Offer:
        found = self._drafts.offer()
        self._guesses = not found.most
        return Offer(self._random.randint(0, 15)) if self._guesses else replace(found, guess=None)

    def draft(self, count: int) -> Sequence[int]:
        if self._guesses:
            return [self._random.randrange(self._vocab_size) for _ in range(count)]
        return self._drafts.draft(count)


def load(source: str) -> Pipeline:
    return Pipeline.from_config(
        PipelineConfig(Path(demo_model_directory()), backend="onnxruntime", threads=1,
                       speculation=SpeculationConfig(source))
    )  # fmt: skip


def speculating(source: str) -> Pipeline:
    """A pipeline that verifies every draft, because its speculator's time does not pass."""
    pipe = load(source)
    assert pipe.speculator is not None
    drafts = Eager(pipe.speculator.source, pipe.model.text.vocab_size)
    pipe.speculator = Speculator(pipe.backend.text, drafts, MOST_DRAFT_TOKENS, clock=lambda: 0.0)
    return pipe


def check(scenes: int, seed: int) -> int:
    """Asks everything about so many held-out scenes, with drafts of each source. Returns the number of answers."""
    plain, pipes = load("off"), [speculating(source) for source in ("ngram", "auto")]
    drafted, accepted, asked = Counter[int](), Counter[int](), 0
    for exercise in held_out_exercises(seed, scenes):
        encoded = plain.encode(exercise.views())
        for question in exercise.questions:
            expected = plain.answer(encoded, question.text)
            asked += 1
            for number, pipe in enumerate(pipes):
                answer = pipe.answer(encoded, question.text)
                assert (answer.text, answer.tokens) == (expected.text, expected.tokens), question.text
                drafted[number] += answer.speculation.drafted
                accepted[number] += answer.speculation.accepted
    for number in range(len(pipes)):
        assert drafted[number] > asked, "too few drafts to tell anything"
        assert accepted[number] > asked / 10
    return asked * len(pipes)


def test_hundreds_of_answers_are_those_of_plain_decoding() -> None:
    assert check(scenes=12, seed=0) > 400


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thousands_of_answers_are_those_of_plain_decoding() -> None:
    assert check(scenes=46, seed=1000) > 2000
