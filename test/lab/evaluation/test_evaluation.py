from __future__ import annotations

import pytest
from scripted_answers import ScriptedPipeline

from litevlm_ros.lab.evaluation import evaluation
from litevlm_ros.lab.evaluation.evaluation import evaluate
from litevlm_ros.lab.evaluation.exercises import held_out_exercises


def oracle(scenes: int) -> ScriptedPipeline:
    return ScriptedPipeline(held_out_exercises(0, scenes), lambda exercise, question: question.answer)


def test_model_and_baselines_get_the_same_questions() -> None:
    result = evaluate(oracle(4), 0, 4, notify=print)
    assert set(result.baselines) == {"majority", "blind"}
    asked = [(reply.exercise, reply.question) for reply in result.replies]
    assert len(asked) == 4 * 22
    for replies in result.baselines.values():
        assert [(reply.exercise, reply.question) for reply in replies] == asked
    assert all(reply.text == reply.question.answer for reply in result.replies)
    assert {reply.text for reply in result.baselines["blind"]} == {"?"}
    assert len({reply.text for reply in result.baselines["majority"] if reply.question.kind == "count"}) == 1


def test_times_are_those_of_the_model() -> None:
    result = evaluate(oracle(1), 0, 1, notify=print)
    assert result.mean_ms() == {
        "encoding_one_view": 30.0,
        "encoding_six_views": 30.0,
        "caption": 7.0,
        "short_answer": 7.0,
    }
    assert result.seconds > 0


def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(evaluation, "_SECONDS_BETWEEN_NOTES", 0.0)
    evaluate(oracle(2), 0, 2, notify=lines.append)
    assert any(line.startswith("model: 1 of 4 exercises") for line in lines)
    assert any(line.startswith("model shown black: 3 of 4 exercises") for line in lines)
