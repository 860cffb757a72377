from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litevlm_ros.evaluation.speculation import CAMERA, CAPTION_PROMPT, DecodeRates, caption_course
from litevlm_ros.types import Answer, FinishReason, Speculation, Timings, TokenCounts, View

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
    assert rates.acceptance == pytest.approx(0.4)
    assert rates.tokens_per_verification == pytest.approx(3.0)


def test_plain_answers_and_none_have_no_rates() -> None:
    plain = DecodeRates.of([answer(5, 8.0)])
    assert (plain.ms_per_token, plain.acceptance, plain.tokens_per_verification) == (2.0, 0.0, 0.0)
    assert DecodeRates.of([]).answers == 0


def test_a_camera_sees_each_scene_for_some_frames() -> None:
    shown: list[View] = []

    class Recorder:
        def generate(self, views: list[View], question: str) -> Answer:
            assert question == CAPTION_PROMPT
            shown.extend(views)
            return answer(3, 1.0)

    pipeline: Any = Recorder()
    assert len(list(caption_course(pipeline, scenes=2, frames=3))) == 6
    assert {view.camera for view in shown} == {CAMERA}
    within = [np.abs(shown[0].image.astype(int) - shown[index].image).mean() for index in (1, 2)]
    across = np.abs(shown[0].image.astype(int) - shown[3].image).mean()
    assert max(within) < across
