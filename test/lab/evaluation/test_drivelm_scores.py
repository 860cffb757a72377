"""The cases are worked out by hand from the rules of DriveLM's challenge."""

from __future__ import annotations

import pytest

from litevlm_ros.lab.evaluation.drivelm_file import DriveLMQuestion, KeyFrame
from litevlm_ros.lab.evaluation.drivelm_scores import match, points, score

CAR, BUS, LIGHT = "<c1,CAM_BACK,1088.3,497.5>", "<c2,CAM_BACK,864.2,468.3>", "<c3,CAM_FRONT,1043.2,82.2>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CAR, [(1088.3, 497.5)]),
        (f"First {CAR}, then {BUS}.", [(1088.3, 497.5), (864.2, 468.3)]),
        ("<c1,CAM_BACK,1088,497>", []),  # without a decimal point nothing is a coordinate
        ("<c1,CAM_BACK,1088.3,497>", []),
        ("at 3.5 m/s, 7.0, and 2.5", [(3.5, 7.0)]),
        ("No.", []),
        ("", []),
    ],
)
def test_points_are_pairs_of_numbers_with_a_decimal_point(text: str, expected: list[tuple[float, float]]) -> None:
    assert points(text) == expected


@pytest.mark.parametrize(
    ("answer", "truth", "f1", "found"),
    [
        (f"{CAR} {BUS}", f"{BUS} and {CAR}", 1.0, 2),
        (CAR, f"{CAR} {BUS} {LIGHT}", 0.5, 1),  # precision 1, recall 1/3
        (f"{CAR} {BUS} {LIGHT}", CAR, 0.5, 1),  # precision 1/3, recall 1
        (f"{CAR} {CAR}", f"{CAR} {BUS}", 0.5, 1),  # the second one finds nothing: precision 1/2, recall 1/2
        (f"{CAR} {CAR}", CAR, 2 / 3, 1),  # nothing is left to find: precision 1/2, recall 1
        ("<c1,CAM_FRONT,1088.3,497.5>", CAR, 1.0, 1),  # cameras are not compared
        ("<c1,CAM_BACK,1080.4,489.6>", CAR, 1.0, 1),  # 7.9 + 7.9 = 15.8 pixels
        ("<c1,CAM_BACK,1080.3,489.4>", CAR, 0.0, 0),  # 8.0 + 8.1 = 16.1 pixels
        ("<c1,CAM_BACK,116.0,100.0>", "<c1,CAM_BACK,100.0,100.0>", 0.0, 0),  # exactly 16 pixels are too far
        ("10.0,10.0 20.0,10.0", "18.0,10.0 2.0,10.0", 0.5, 1),  # a tie goes to the first, which is then taken
        ("10.0,10.0 20.0,10.0", "2.0,10.0 18.0,10.0", 1.0, 2),
        ("nothing", CAR, 0.0, 0),
        ("nothing", "nothing", 0.0, 0),
        (CAR, "nothing", 0.0, 0),
        (f"{CAR} 5.0", CAR, 1.0, 1),  # a number without a partner is dropped
        (f"5.0 {CAR}", CAR, 0.0, 0),  # and one too early shifts all others
        ("9" * 400 + ".0,1.0", CAR, 0.0, 0),
    ],
)
def test_match(answer: str, truth: str, f1: float, found: int) -> None:
    matched = match(answer, truth)
    assert matched.f1 == pytest.approx(f1)
    assert len(matched.found) == found
    assert matched.found <= set(points(truth))


def asked(number: int, text: str, answer: str, *tags: int) -> DriveLMQuestion:
    return DriveLMQuestion(str(number), text, answer, frozenset(tags), first=number == 0)


FRAME = KeyFrame(
    "f",
    {},
    (
        asked(0, "Which objects?", f"{CAR} {BUS}", 2),
        asked(1, f"How does {CAR} move?", "A", 0),
        asked(2, f"How does {BUS} move?", "B", 0),
        asked(3, "Who first?", f"{BUS}, then {CAR}", 3),
        asked(4, f"Who is near {CAR} and {BUS}?", BUS, 3),
        asked(5, "What next?", "No.", 0),
    ),
)


def test_questions_about_objects_count_if_the_first_answer_found_them() -> None:
    near = "<c1,CAM_BACK,1090.0,500.0>"
    given = {"0": near, "1": "A", "2": "A", "3": f"{BUS} {LIGHT}", "4": BUS, "5": "No."}
    scores = score([FRAME], given)
    assert scores.accuracy == [True, True]
    assert scores.all_accuracy == [True, False, True]
    assert scores.f1 == [pytest.approx(0.5)]
    assert scores.all_f1 == [pytest.approx(0.5), pytest.approx(1.0)]


def test_each_key_frame_begins_with_nothing_found() -> None:
    given = {"0": f"{CAR} {BUS}", "1": "A"}
    other = KeyFrame("g", {}, (asked(7, f"How does {CAR} move?", "A", 0),))
    scores = score([FRAME, other], {**given, "7": "A"})
    assert scores.accuracy == [True, False, False]
    assert scores.all_accuracy == [True, False, False, True]


@pytest.mark.parametrize("text", ["A.", "a", " A", "A. Going ahead.", "", "B"])
def test_an_answer_is_right_to_the_letter_only(text: str) -> None:
    frame = KeyFrame("f", {}, (asked(0, "Which one?", "A", 0),))
    assert score([frame], {"0": text}).accuracy == [False]
    assert score([frame], {"0": "A"}).accuracy == [True]
    assert score([frame], {}).accuracy == [False]


def test_the_first_question_counts_for_its_own_tags_too() -> None:
    frame = KeyFrame("f", {}, (asked(0, f"Is {CAR} alone?", CAR, 0, 3),))
    scores = score([frame], {"0": CAR})
    assert (scores.accuracy, scores.f1) == ([True], [1.0])


def test_without_questions_there_are_no_figures() -> None:
    figures = score([], {}).json()
    assert figures["accuracy"]["share"] is None
    assert figures["match"] == {"f1": None, "of": 0}
