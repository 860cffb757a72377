from __future__ import annotations

import re
from dataclasses import replace

import pytest

from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.scores import SPLITS, Score, Share, concerns_held_out, is_right, paired_loss, score
from litevlm_ros.lab.world.captions import caption, describe_user, in_reading_order
from litevlm_ros.lab.world.exercises import CAPTION, Exercise, held_out_exercises
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.lab.world.scene import Distance, Kind, RoadUser, Scene, Side, TimeOfDay, ViewContent, Weather, generate
from litevlm_ros.lab.world.splits import FIRST_HELD_OUT_SEED
from litevlm_ros.types import Timings

EXERCISES = tuple(held_out_exercises(0, 16))


def replies_of(say) -> list[Reply]:
    return [Reply(e, question, say(question), Timings()) for e in EXERCISES for question in e.questions]


def short_reply(text: str, answer: str, kind: str = "colour") -> Reply:
    question = Question("What colour is the car?", answer, kind, ("front",))
    return Reply(Exercise(generate(5), False, ("front",), (question,), 0.0), question, text, Timings())


def street(*users: RoadUser, weather: Weather = Weather.CLEAR, time: TimeOfDay = TimeOfDay.DAY) -> Scene:
    return Scene(FIRST_HELD_OUT_SEED, weather, time, {"front": ViewContent(users, None, False)})


def caption_score(scene: Scene, text: str) -> Score:
    question = Question("Describe the view.", caption(scene, "front"), CAPTION, ("front",))
    return score([Reply(Exercise(scene, True, ("front",), (question,), 0.0), question, text, Timings())])


YELLOW_CAR = RoadUser(Kind.CAR, "yellow", Side.LEFT, Distance.NEAR, 15.0, 8.0, 90.0)
RED_VAN = RoadUser(Kind.VAN, "red", Side.RIGHT, Distance.FAR, -15.0, 20.0, 90.0)


def test_the_truth_scores_everything() -> None:
    result = score(replies_of(lambda question: f" {question.answer.upper()}\n"))
    assert result.answers == Share(16 * 20, 16 * 20)
    assert all(share.value == 1 for share in result.kinds.values())
    assert sum(result.kinds.values(), Share(0, 0)) == result.answers
    captions = result.captions
    assert captions.exact == Share(32, 32)
    assert captions.truth == captions.coverage
    assert captions.truth.value == 1
    held_out = result.held_out
    assert all(share.value == 1 for share in (held_out.answers, held_out.truth, held_out.coverage, held_out.condition))


def test_a_liar_scores_nothing() -> None:
    result = score(
        replies_of(lambda question: "Purple dusk. A pink tank near ahead." if question.kind == CAPTION else "?")
    )
    assert result.answers == Share(0, 16 * 20)
    assert result.captions.exact == Share(0, 32)
    assert result.captions.truth == Share(0, 3 * 32)
    assert result.captions.coverage.hits == result.held_out.coverage.hits == result.held_out.condition.hits == 0
    assert result.held_out.answers.hits == 0
    assert result.held_out.truth.value is None


@pytest.mark.parametrize(
    ("text", "right"), [("red", True), (" Red ", True), ("red.", False), ("a red car", False), ("", False)]
)
def test_a_short_answer_is_right_only_as_a_whole(text: str, right: bool) -> None:
    assert is_right(short_reply(text, "red")) == right


def test_kinds_are_counted_apart() -> None:
    replies = [short_reply("red", "red"), short_reply("blue", "red"), short_reply("yes", "yes", "presence")]
    result = score(replies)
    assert result.kinds == {"colour": Share(1, 2), "presence": Share(1, 1)}
    assert result.answers == Share(2, 3)


def test_caption_statements_are_judged_one_by_one() -> None:
    result = caption_score(
        street(YELLOW_CAR, RED_VAN), "Clear day. A yellow car near on the left, a red van near ahead."
    )
    assert result.captions.truth == Share(3, 4)
    assert result.captions.coverage == Share(3, 4)
    assert result.captions.exact == Share(0, 1)
    assert result.answers.value is None


@pytest.mark.parametrize(
    ("text", "truth", "coverage"),
    [
        ("Clear day. A yellow car near on the left, a red van far on the right.", Share(1, 1), Share(1, 1)),
        ("Clear day. A yellow car near on the right, a red van far on the right.", Share(0, 1), Share(0, 1)),
        ("Clear day. A white car near on the left, a red bus far on the right.", Share(0, 1), Share(0, 1)),
        ("Clear day. A red van far on the right.", Share(0, 0), Share(0, 1)),
        ("Clear day. A yellow car near on the left, a yellow car near on the left.", Share(1, 2), Share(1, 1)),
    ],
)
def test_statements_about_held_out_combinations(text: str, truth: Share, coverage: Share) -> None:
    held_out = caption_score(street(YELLOW_CAR, RED_VAN), text).held_out
    assert (held_out.truth, held_out.coverage) == (truth, coverage)


def test_the_held_out_condition_needs_the_right_opening() -> None:
    scene = street(RED_VAN, weather=Weather.SNOW, time=TimeOfDay.NIGHT)
    assert caption_score(scene, "Snowy night. The road is empty.").held_out.condition == Share(1, 1)
    assert caption_score(scene, "Snowy day. A red van far on the right.").held_out.condition == Share(0, 1)
    assert caption_score(street(RED_VAN), "Snowy night.").held_out.condition == Share(0, 0)


@pytest.mark.parametrize(
    ("text", "answer", "concerns"),
    [
        ("Is there a yellow car?", "no", True),
        ("What colour is the bus behind us?", "red", True),
        ("What colour is the bus behind us?", "blue", False),
        ("What is near on the left?", "a blue truck", True),
        ("Which camera sees the red car?", "front", False),
        ("How many vans do you see?", "two", False),
    ],
)
def test_questions_that_concern_held_out_combinations(text: str, answer: str, concerns: bool) -> None:
    assert concerns_held_out(Question(text, answer, "any", ())) == concerns


def test_splits_cut_the_replies_in_two_ways() -> None:
    replies = replies_of(lambda question: question.answer)
    parts = {name: list(filter(belongs, replies)) for name, belongs in SPLITS.items()}
    assert len(parts["seen"]) + len(parts["unseen"]) == len(parts["one_view"]) + len(parts["six_views"]) == len(replies)
    assert {reply.exercise.unseen for reply in parts["unseen"]} == {True}
    assert {len(reply.exercise.cameras) for reply in parts["one_view"]} == {1}


def test_a_forgotten_road_user_costs_coverage_but_not_truth() -> None:
    exercise = next(e for e in EXERCISES if len(e.scene.views[e.questions[0].cameras[0]].users) > 1)
    question = exercise.questions[0]
    first = describe_user(in_reading_order(exercise.scene.views[question.cameras[0]])[0])
    text = re.sub(re.escape(first) + ", a", "A", question.answer, flags=re.IGNORECASE)
    assert text != question.answer
    truthful = Reply(exercise, question, text, Timings())
    captions = score([truthful]).captions
    assert captions.truth.value == 1
    assert captions.coverage == replace(captions.coverage, hits=captions.coverage.total - 1)
    assert not is_right(truthful)


@pytest.mark.parametrize(
    ("hits", "total", "interval"),
    [
        # Published example: Newcombe, Statistics in Medicine 17 (1998), table I, score method without correction.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (1 - 0.1611, 1.0)),
    ],
)
def test_interval(hits: int, total: int, interval: tuple[float, float]) -> None:
    share = Share(hits, total)
    assert share.interval == pytest.approx(interval, abs=5e-5)
    assert share.interval[0] <= share.value <= share.interval[1]


def test_of_outcomes_and_sums() -> None:
    assert Share.of(iter([True, False, True])) == Share(2, 3)
    assert Share(2, 3) + Share(1, 1) == Share(3, 4)
    assert Share(3, 4).value == 0.75


def test_without_cases_nothing_is_known() -> None:
    assert Share.of([]).value is None
    assert Share.of([]).interval == (0.0, 1.0)


def test_a_loss_counts_only_what_one_of_both_gets_right() -> None:
    reference, other = [True] * 7 + [False] * 3, [True] * 5 + [False] * 4 + [True]
    points, low, high = paired_loss(reference, other)
    assert points == pytest.approx(10)
    assert low < 0 < high
    assert paired_loss([True, False], [True, False]) == (0, 0, 0)
