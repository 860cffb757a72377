from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from litevlm_ros.lab.benchmarking.speculation import (
    CAMERA,
    CAPTION_PROMPT,
    DecodeRates,
    caption_course,
    follow,
    short_answer_course,
)
from litevlm_ros.types import Answer, FinishReason, Speculation, Timings, TokenCounts

_NONE = Speculation()


def answer(generated: int, decode_ms: float, speculation: Speculation = _NONE) -> Answer:
    tokens = TokenCounts(20, 4, generated)
    return Answer("", "", (), FinishReason.STOP, tokens, Timings(decode=decode_ms), speculation)


def test_rates_are_taken_over_all_answers() -> None:
    answers = [
        answer(11, 6.0, Speculation(drafted=10, accepted=6, verifications=2)),
        answer(1, 1.0),
        answer(6, 8.0, Speculation(drafted=5, accepted=0, verifications=1)),
    ]
    rates = DecodeRates.of(answers)
    assert (rates.answers, rates.tokens, rates.drafted) == (3, 18, 15)
    assert rates.ms_per_token == pytest.approx(1.0)
    assert rates.ms_per_answer == pytest.approx(5.0)
    assert rates.acceptance == pytest.approx(0.4)
    assert rates.tokens_per_verification == pytest.approx(3.0)


def test_plain_answers_and_none_have_no_rates() -> None:
    plain = DecodeRates.of([answer(5, 8.0)])
    assert (plain.ms_per_token, plain.acceptance, plain.tokens_per_verification) == (2.0, 0.0, 0.0)
    assert DecodeRates.of([]).answers == 0


def test_a_camera_sees_each_scene_for_some_frames() -> None:
    course = list(caption_course(scenes=2, frames=3))
    assert [questions for _, questions in course] == [[CAPTION_PROMPT]] * 6
    shown = [view for views, _ in course for view in views]
    assert [view.camera for view in shown] == [CAMERA] * 6
    within = [np.abs(shown[0].image.astype(int) - shown[index].image).mean() for index in (1, 2)]
    across = np.abs(shown[0].image.astype(int) - shown[3].image).mean()
    assert max(within) < across


def test_short_answers_are_about_one_view_and_about_all() -> None:
    course = list(short_answer_course(scenes=1))
    assert [(len(views), len(questions)) for views, questions in course] == [(1, 8), (6, 12)]
    assert all("Describe" not in question for _, questions in course for question in questions)


def test_each_pipeline_gets_each_question_and_other_texts_are_counted() -> None:
    class Scripted:
        def __init__(self, *texts: str) -> None:
            self.texts = list(texts)

        def encode(self, views: Any) -> Any:
            return views

        def answer(self, views: Any, question: str) -> Answer:
            return replace(answer(3, 1.0), text=self.texts.pop(0), prompt=question)

    plain: Any = Scripted("red", "two", "no")
    other: Any = Scripted("red", "one", "no")
    compared = follow({"off": plain, "head": other}, iter([([], ["a", "b"]), ([], ["c"])]))
    assert [(rates.answers, different) for rates, different in compared.values()] == [(3, 0), (3, 1)]
    assert plain.texts == other.texts == []
