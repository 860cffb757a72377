"""Answers are checked by a second way of computing them, from the scene and the words of the question alone."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.world.question_kinds import NUMBERS
from litevlm_ros.lab.world.questions import Question, draw_caption_prompt, draw_questions, is_true_answer
from litevlm_ros.lab.world.scene import COLOURS, Kind, RoadUser, Scene, generate, spoken

KINDS = "|".join(kind.value for kind in Kind)
VEHICLES = {"car", "van", "truck", "bus"}


@cache
def _asked(single: bool, unseen: bool) -> list[tuple[Scene, tuple[str, ...], Question]]:
    asked = []
    for seed in range(150):
        scene = generate(seed, unseen=unseen)
        cameras = (DEMO_CAMERAS[seed % 6],) if single else DEMO_CAMERAS
        questions = draw_questions(scene, cameras, 8, np.random.default_rng(seed), unseen=unseen)
        assert len(questions) == 8
        asked += [(scene, cameras, question) for question in questions]
    return asked


def _users(scene: Scene, cameras: tuple[str, ...]) -> list[tuple[str, RoadUser]]:
    return [(camera, user) for camera in cameras for user in scene.views[camera].users]


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("unseen", [True, False])
def test_answers_are_true(single: bool, unseen: bool) -> None:
    checked: Counter[str] = Counter()
    for scene, _, question in _asked(single, unseen):
        users = _users(scene, question.cameras)
        text, answer = question.text, question.answer
        if question.kind == "presence":
            found = re.search(rf"\b(?:an?|any) (?:({'|'.join(COLOURS)}) )?(\w+)", text)
            assert found
            there = any(u.kind.value == found[2] and found[1] in (None, u.colour) for _, u in users)
            assert (answer == "yes") == there
        elif question.kind == "count":
            name = re.search(r"(?:How many|Count the) (road users|\w+)", text)
            assert name
            singular = {"buses": "bus"}.get(name[1], name[1].rstrip("s"))
            number = sum(
                singular == u.kind.value
                or name[1] == "road users"
                or (name[1] == "vehicles" and u.kind.value in VEHICLES)
                for _, u in users
            )
            assert NUMBERS.index(answer) == number
        elif question.kind == "colour":
            kind = re.search(rf"the ({KINDS})", text)
            assert kind
            assert [u.colour for _, u in users if u.kind.value == kind[1]] == [answer]
        elif question.kind == "camera":
            thing = re.search(rf"the (?:({'|'.join(COLOURS)}) )?({KINDS})\?", text)
            assert thing
            seen = [spoken(c) for c, u in users if u.kind.value == thing[2] and thing[1] in (None, u.colour)]
            assert seen == ([] if answer == "none" else [answer])
        elif question.kind == "crossing":
            assert (answer == "yes") == any(scene.views[camera].crossing for camera in question.cameras)
        elif question.kind == "position":
            thing = re.search(rf"the ({'|'.join(COLOURS)}) ({KINDS})", text)
            assert thing
            (user,) = (u for _, u in users if (u.colour, u.kind.value) == (thing[1], thing[2]))
            assert set(answer.split()) <= {user.distance.value, user.side.value}
        else:
            continue
        checked[question.kind] += 1
    assert min(checked.values()) > 30


def test_yes_and_no_both_come_often() -> None:
    for kind in ("presence", "crossing"):
        answers = Counter(question.answer for _, _, question in _asked(True, False) if question.kind == kind)
        assert 0.2 < answers["yes"] / answers.total() < 0.6


def test_the_cameras_that_a_question_needs_are_among_those_offered() -> None:
    for _, cameras, question in _asked(False, False):
        assert set(question.cameras) <= set(cameras)
        if question.kind in ("weather", "time"):
            assert question.cameras == ()
        elif not any(place in question.text for place in ("around", "all views", "in total")):
            assert len(question.cameras) == 1 or question.kind == "camera"


def test_the_same_seed_asks_the_same() -> None:
    scene = generate(1)
    assert draw_questions(scene, DEMO_CAMERAS, 5, np.random.default_rng(2)) == draw_questions(
        scene, DEMO_CAMERAS, 5, np.random.default_rng(2)
    )


def test_a_caption_of_one_of_several_views_is_asked_for_by_name() -> None:
    rng = np.random.default_rng(0)
    assert "back left" in draw_caption_prompt("back_left", DEMO_CAMERAS, rng)
    assert "back left" not in draw_caption_prompt("back_left", ("back_left",), rng)


def test_right_answers() -> None:
    assert is_true_answer(" A red Car ", "a red car")
    assert not is_true_answer("a red car.", "a red car")
