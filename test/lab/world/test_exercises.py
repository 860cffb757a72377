from __future__ import annotations

import numpy as np

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.exercises import CAPTION, held_out_exercises, training_exercises
from litevlm_ros.lab.world.scene import HELD_OUT_CONDITION, HELD_OUT_USERS
from litevlm_ros.lab.world.splits import FIRST_HELD_OUT_SEED


def test_each_scene_gives_one_view_and_all_views_and_every_second_scene_is_unseen() -> None:
    exercises = list(held_out_exercises(7, 6))
    seeds = [exercise.scene.seed - FIRST_HELD_OUT_SEED for exercise in exercises]
    assert seeds == [7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12]
    assert [exercise.unseen for exercise in exercises] == [False, False, True, True] * 3
    for exercise in exercises:
        pairs = {(user.kind, user.colour) for view in exercise.scene.views.values() for user in view.users}
        assert bool(pairs & set(HELD_OUT_USERS)) == exercise.unseen
        assert exercise.unseen or (exercise.scene.weather, exercise.scene.time) != HELD_OUT_CONDITION
    assert {len(exercise.cameras) for exercise in exercises[::2]} == {1}
    assert len({exercise.cameras for exercise in exercises[::2]}) > 1
    assert {exercise.cameras for exercise in exercises[1::2]} == {DEMO_CAMERAS}


def test_an_exercise_starts_with_one_caption_and_goes_on_with_short_questions() -> None:
    for exercise in held_out_exercises(0, 3):
        request, *questions = exercise.questions
        (described,) = request.cameras
        assert request.answer == caption(exercise.scene, described)
        assert described in exercise.cameras
        if len(exercise.cameras) > 1:
            assert described.replace("_", " ") in request.text
        assert [request.kind, len(questions)] == [CAPTION, 8 if len(exercise.cameras) == 1 else 12]
        assert all(
            question.kind != CAPTION and set(question.cameras) <= set(exercise.cameras) for question in questions
        )


def test_exercises_are_the_same_each_time_and_others_for_another_seed() -> None:
    first, again, other = (list(held_out_exercises(seed, 2)) for seed in (3, 3, 4))
    assert first == again
    assert first[0].questions != other[0].questions
    views, views_again = first[1].views(), again[1].views()
    assert tuple(view.camera for view in views) == DEMO_CAMERAS
    for view, view_again in zip(views, views_again, strict=True):
        np.testing.assert_array_equal(view.image, view_again.image)


def test_training_exercises_are_about_scenes_that_training_draws() -> None:
    exercises = list(training_exercises(3))
    assert [exercise.scene.seed for exercise in exercises] == [0, 0, 1, 1, 2, 2]
    assert not any(exercise.unseen for exercise in exercises)
