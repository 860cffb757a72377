from __future__ import annotations

import pytest

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table_questions import Pictures, six_view_questions
from litevlm_ros.lab.world.scene import CAMERAS, FIRST_HELD_OUT_SEED


def test_so_many_short_questions_about_six_views_of_held_out_scenes() -> None:
    asked = six_view_questions(0, 30)
    assert sum(one.scored for one in asked) == 30
    assert len(asked) == 30 + 3, "three captions"
    assert all(one.exercise.cameras == CAMERAS for one in asked)
    assert all(one.exercise.scene.seed >= FIRST_HELD_OUT_SEED for one in asked)
    assert {one.exercise.unseen for one in asked} == {True, False}
    assert [one.question for one in six_view_questions(0, 13)] == [one.question for one in asked[:15]]
    assert six_view_questions(7, 1)[0].question != asked[0].question


def test_pictures_are_drawn_once_an_exercise_and_say_which_frame_they_are() -> None:
    first, second, *_, other = six_view_questions(0, 13)
    pictures = Pictures()
    views = pictures.of(first)
    assert [view.camera for view in views] == list(CAMERAS)
    assert len({view.frame for view in views}) == 6
    assert pictures.of(second) is views
    assert {view.frame for view in pictures.of(other)}.isdisjoint(view.frame for view in views)


def test_none_is_too_few() -> None:
    with pytest.raises(ConfigError, match="--questions is 0; allowed: from 1"):
        six_view_questions(0, 0)
