from __future__ import annotations

import re

import pytest

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.training import view_choices
from litevlm_ros.lab.training.view_choices import Choice, training_choices, true_choices
from litevlm_ros.lab.world.question_kinds import UNSEEN_ABSENT_THINGS


@pytest.fixture(scope="module")
def choices() -> list[Choice]:
    return training_choices(scenes=60, seed=0)


def test_a_question_of_the_demo_world_has_its_true_views() -> None:
    choices = [choice for seed in range(40) for choice in true_choices(seed)]
    for phrase, cameras in (
        ("behind us", ("back",)),
        ("to the front left", ("front_left",)),
        ("around us", DEMO_CAMERAS),
        ("Which camera", DEMO_CAMERAS),
        ("weather", ("front",)),
        ("Should we stop", ("front",)),
        ("Describe the back right view", ("back_right",)),
    ):
        found = {choice.cameras for choice in choices if phrase in choice.question}
        assert found == {cameras}, phrase


def test_every_choice_keeps_something_in_the_cameras_order(choices: list[Choice]) -> None:
    for choice in choices:
        assert choice.cameras == tuple(camera for camera in DEMO_CAMERAS if camera in choice.cameras)
        assert choice.cameras


def test_doubt_and_two_questions_in_one_are_among_them(choices: list[Choice]) -> None:
    doubtful = [
        choice for choice in choices if not re.search("around|in all views|in total|camera|view", choice.question)
    ]
    assert any(choice.cameras == DEMO_CAMERAS for choice in doubtful)
    assert any(choice.cameras == ("front_left", "back_left") for choice in doubtful)
    assert any(1 < len(choice.cameras) < 6 and choice.question.count("?") == 2 for choice in choices)


def test_only_scenes_that_no_evaluation_uses_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    generate = view_choices.generate
    monkeypatch.setattr(view_choices, "generate", lambda seed, **how: drawn.append(seed) or generate(seed, **how))
    texts = " ".join(choice.question for choice in training_choices(scenes=20, seed=3))
    assert set(drawn) == set(range(60, 80))
    assert not any(thing in texts for thing in UNSEEN_ABSENT_THINGS)
