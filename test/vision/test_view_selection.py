from __future__ import annotations

import pytest

from litevlm_ros.vision.view_selection import LexicalSelector

SIX = ("front", "front_left", "front_right", "back", "back_left", "back_right")


@pytest.mark.parametrize(
    ("question", "cameras"),
    [
        ("Is there a car in the back left view?", ["back_left"]),
        ("What does the front-right camera see?", ["front_right"]),
        ("Is anything in front of us?", ["front"]),
        ("How many people are behind us?", ["back"]),
        ("Is the way ahead clear?", ["front"]),
        ("What is in the rear left view?", ["back_left"]),
        ("What colour is the bus in the front left view, and the one in the back view?", ["front_left", "back"]),
        ("Is a truck on the left?", ["front_left", "back_left"]),
        ("Is the red car behind us on the left or on the right?", ["back"]),
        ("Is the van to the back right on the left, ahead or on the right?", ["back_right"]),
        ("How many vehicles are around us?", list(SIX)),
        ("Which camera sees the blue van?", list(SIX)),
        ("Is the van in the front left view in all views?", list(SIX)),
        ("Should we stop?", list(SIX)),
        ("Is <c1,CAM_BACK,1088.3,497.5> a road barrier?", ["back"]),
        ("Is <c2,CAM_FRONT_LEFT,10.0,20.0> nearer than <c3,CAM_FRONT,864.2,468.3>?", ["front", "front_left"]),
        ("How does <c1,CAM_BACK,1.0,2.0> move? Options: A. Turn left. B. Going ahead.", ["back"]),
        ("What will our car do? Options: A. Steer to the left. B. Stop. C. Back up.", list(SIX)),
        ("What will our car do? (a) it turns left (b) it stops", list(SIX)),
        ("Is there a pedestrian on side A. on the left?", ["front_left", "back_left"]),
        ("What is the weather like?", ["front"]),
        ("왼쪽에 자동차가 있습니까?", ["front_left", "back_left"]),
        ("뒤에 사람이 있나요?", ["back"]),
        ("주변에 자동차가 몇 대 있나요?", list(SIX)),
    ],
)
def test_questions_keep_the_views_that_they_speak_of(question: str, cameras: list[str]) -> None:
    assert LexicalSelector().select(question, SIX) == tuple(cameras)


def test_the_order_is_that_of_the_cameras_and_none_is_invented() -> None:
    assert LexicalSelector().select("Is a car on the left?", ("back_left", "front_left")) == ("back_left", "front_left")
    assert LexicalSelector().select("Is a car on the right?", ("back_left", "front_left")) == (
        "back_left",
        "front_left",
    )


def test_other_names_work_as_their_parts_say() -> None:
    cameras = ("cam_rear", "cam_forward", "cam_side_l", "gripper")
    select = LexicalSelector().select
    assert select("What is behind us?", cameras) == ("cam_rear",)
    assert select("What is ahead of us?", cameras) == ("cam_forward",)
    assert select("Is someone on the left?", cameras) == ("cam_side_l",)
    assert select("What does the gripper hold?", cameras) == ("gripper",)
    assert select("Is it dark?", cameras) == ("cam_forward",)


def test_cameras_are_known_by_the_names_that_nuscenes_gives_them() -> None:
    cameras = ("CAM_FRONT", "CAM_BACK", "CAM_BACK_LEFT")
    assert LexicalSelector().select("Is <c1,CAM_BACK,1088.3,497.5> a bus?", cameras) == ("CAM_BACK",)
    assert LexicalSelector().select("What does CAM_BACK_LEFT see?", cameras) == ("CAM_BACK_LEFT",)


def test_phrases_of_ones_own_name_a_camera_in_any_language() -> None:
    selector = LexicalSelector(phrases={"front": ("stop", "weiter"), "gripper": ("greifer",)})
    assert selector.select("Should we stop?", SIX) == ("front",)
    assert selector.select("Was hält der Greifer?", (*SIX, "gripper")) == ("gripper",)


def test_own_words_for_everywhere_and_anywhere() -> None:
    selector = LexicalSelector(everywhere=("überall",), any_view=("wetter",))
    assert selector.select("Ist überall Platz, auch front left?", SIX) == SIX
    assert selector.select("Wie ist das Wetter?", SIX) == ("front",)
    assert selector.select("Wie ist das Wetter?", ("port", "starboard")) == ("port",)


def test_a_lower_threshold_keeps_hints_beside_names() -> None:
    question = "Is the red car behind us on the left?"
    assert LexicalSelector().select(question, SIX) == ("back",)
    assert LexicalSelector(threshold=0.3).select(question, SIX) == ("front_left", "back", "back_left")


def test_parts_of_words_are_no_directions() -> None:
    assert LexicalSelector().select("Is the light bright?", SIX) == SIX
    assert LexicalSelector().select("Is the backpack red?", SIX) == SIX


@pytest.mark.parametrize("question", ["", "???", "the", "\n" * 9, "left" * 500])
def test_something_is_always_kept(question: str) -> None:
    assert LexicalSelector().select(question, ("front",)) == ("front",)
    assert LexicalSelector().select(question, SIX)
