from __future__ import annotations

import json

import pytest
from scripted_answers import ScriptedPipeline

from litevlm_ros.lab.evaluation import evaluation
from litevlm_ros.lab.evaluation.evaluation import Evaluation, evaluate
from litevlm_ros.lab.world.exercises import CAPTION, Exercise, held_out_exercises
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.lab.world.splits import FIRST_HELD_OUT_SEED


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


SCENES = 4


def evaluated(say) -> Evaluation:
    return evaluate(ScriptedPipeline(held_out_exercises(0, SCENES), say), 0, SCENES, notify=print)


def truth(exercise: Exercise, question: Question) -> str:
    return question.answer


def truth_in_seen_scenes(exercise: Exercise, question: Question) -> str:
    return "no idea" if exercise.unseen else question.answer


@pytest.fixture(scope="module")
def perfect() -> Evaluation:
    return evaluated(truth)


@pytest.fixture(scope="module")
def halved() -> Evaluation:
    return evaluated(truth_in_seen_scenes)


def test_an_oracle_has_all_and_its_blind_twin_nothing(perfect: Evaluation) -> None:
    report = perfect.json()
    assert (report["answer_accuracy"], report["questions"]) == (1.0, SCENES * 20)
    assert (report["caption_truth"], report["caption_coverage"], report["captions_exact"]) == (1.0, 1.0, 1.0)
    assert report["captions"] == SCENES * 2
    assert report["mistakes"] == []
    blind = report["baselines"]["blind"]
    assert (blind["answer_accuracy"], blind["caption_truth"], blind["captions_exact"]) == (0.0, 0.0, 0.0)
    assert 0 < report["baselines"]["majority"]["answer_accuracy"] < 0.7
    assert report["seeds"] == {"evaluated": [FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + 3], "majority": [0, 399]}
    assert report["scenes"] == SCENES


def test_the_parts_add_up(halved: Evaluation) -> None:
    report = halved.json()
    splits = report["splits"]
    assert splits["seen"]["answer_accuracy"] == splits["seen"]["caption_truth"] == 1.0
    assert splits["unseen"]["answer_accuracy"] == splits["unseen"]["caption_truth"] == 0.0
    assert report["answer_accuracy"] == 0.5
    low, high = report["answer_accuracy_interval"]
    assert low < 0.5 < high
    assert {splits["one_view"]["questions"], splits["six_views"]["questions"]} == {SCENES * 8, SCENES * 12}
    assert sum(kind["of"] for kind in report["kinds"].values()) == report["questions"]
    assert sum(kind["right"] for kind in report["kinds"].values()) == report["questions"] // 2
    assert report["held_out"]["short_answers"]["right"] == 0 < report["held_out"]["short_answers"]["of"]


def test_each_wrong_reply_is_listed(halved: Evaluation) -> None:
    mistakes = halved.json()["mistakes"]
    assert len(mistakes) == SCENES // 2 * 22
    assert all(mistake["unseen"] and mistake["given"] == "no idea" for mistake in mistakes)
    assert sum(mistake["kind"] == CAPTION for mistake in mistakes) == SCENES
    asked = {(reply.question.text, reply.question.answer) for reply in halved.replies}
    assert all((mistake["question"], mistake["answer"]) in asked for mistake in mistakes)


def test_a_model_that_says_nothing_makes_no_statements() -> None:
    report = evaluated(lambda exercise, question: "").json()
    assert (report["answer_accuracy"], report["caption_coverage"], report["caption_truth"]) == (0.0, 0.0, None)
    assert json.loads(json.dumps(report, allow_nan=False))["caption_statements"] == 0


def test_the_table_shows_the_same_figures(halved: Evaluation) -> None:
    head, *rows = halved.table().splitlines()
    columns = ["seen", "unseen", "one view", "six views", "majority", "blind"]
    assert [head.index(name) for name in columns] == sorted(head.index(name) for name in columns)
    cells = {row[:32].strip(): row[32:].split() for row in reversed(rows)}
    report = halved.json()
    low, high = (f"{100 * bound:.1f}" for bound in report["answer_accuracy_interval"])
    assert cells["short answers"][:7] == ["80", "50.0", low, "to", high, "100.0", "0.0"]
    majority = report["baselines"]["majority"]
    assert cells["short answers"][-2:] == [f"{100 * majority['answer_accuracy']:.1f}", "0.0"]
    for kind, figures in report["kinds"].items():
        assert cells[kind.replace("_", " ")][:2] == [str(figures["of"]), f"{100 * figures['share']:.1f}"]
    assert cells["camera"][7] == "-", "questions about one view do not ask for the camera"
    assert cells["captions: statements made, true"][0] == str(report["caption_statements"])
    assert {len(row) for row in rows} == {len(head)}
