from __future__ import annotations

import numpy as np
from scripted_answers import ScriptedPipeline

from litevlm_ros.lab.evaluation.answering import answer, answer_by_kind, blind, commonest_answers, seeing
from litevlm_ros.lab.world.exercises import CAPTION, held_out_exercises, training_exercises

EXERCISES = tuple(held_out_exercises(0, 3))


def test_views_are_encoded_once_an_exercise_and_the_first_reply_pays() -> None:
    pipeline = ScriptedPipeline(EXERCISES, lambda exercise, question: question.answer)
    replies = list(answer(pipeline, EXERCISES, seeing(pipeline)))
    assert pipeline.encoded == len(EXERCISES)
    assert [reply.question for reply in replies] == [
        question for exercise in EXERCISES for question in exercise.questions
    ]
    assert all(reply.text == reply.question.answer for reply in replies)
    assert all(reply.question in reply.exercise.questions for reply in replies)
    for reply in replies:
        first = reply.question.kind == CAPTION
        assert (reply.timings.preprocess, reply.timings.vision) == ((10, 20) if first else (0, 0))
        assert (reply.timings.prefill, reply.timings.decode) == (3, 4)


def test_the_blind_model_is_shown_black_views_of_the_same_cameras() -> None:
    shown = []

    class Recorder(ScriptedPipeline):
        def encode(self, views):
            shown.append(views)
            return super().encode(views)

    pipeline = Recorder(EXERCISES, lambda exercise, question: question.answer)
    replies = list(answer(pipeline, EXERCISES, blind(pipeline)))
    assert {reply.text for reply in replies} == {"?"}
    assert {tuple(view.camera for view in views) for views in shown} == {exercise.cameras for exercise in EXERCISES}
    sizes = {view.image.shape for exercise in EXERCISES for view in exercise.views()}
    assert {view.image.shape for views in shown for view in views} == sizes
    assert not any(np.any(view.image) for views in shown for view in views)


def test_the_commonest_answer_of_each_kind() -> None:
    exercises = list(training_exercises(20))
    answers = commonest_answers(exercises)
    weathers = [q.answer for exercise in exercises for q in exercise.questions if q.kind == "weather"]
    assert weathers.count(answers["weather"]) == max(weathers.count(word) for word in weathers)
    assert answers["presence"] in ("yes", "no")
    assert answers[CAPTION].endswith(".")


def test_the_majority_baseline_gives_one_answer_to_a_kind() -> None:
    replies = list(answer_by_kind({"weather": "fog"}, EXERCISES))
    assert len(replies) == sum(len(exercise.questions) for exercise in EXERCISES)
    assert {reply.text for reply in replies if reply.question.kind == "weather"} == {"fog"}
    assert {reply.text for reply in replies if reply.question.kind != "weather"} == {""}
