from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

import pytest

from litevlm_ros.vision import camera_words
from litevlm_ros.vision.camera_words import ANY_VIEW, DIRECTIONS, EVERYWHERE, HINTED, NAMED, PLACES, CameraWords

SIX = ("front", "front_left", "front_right", "back", "back_left", "back_right")
CAMERAS = [SIX, SIX[::-1], SIX[3:5], (*SIX, "gripper"), ("cam_rear", "CAM_FRONT", "cam-l"), ("port", "왼쪽")]
OWN_PHRASES = {"front": ("stop", "Front Left"), "gripper": ("greifer", "왼"), "back": ("a.b", "?", "the back")}
SETTINGS: list[tuple[Mapping[str, Sequence[str]], Sequence[str], Sequence[str]]] = [
    ({}, EVERYWHERE, ANY_VIEW),
    (OWN_PHRASES, EVERYWHERE, ANY_VIEW),
    (OWN_PHRASES, (), ("überall",)),
    ({}, ("überall", "car", "?"), ()),
]
WORDS = [
    *(phrase for table in (DIRECTIONS, PLACES) for phrases in table.values() for phrase in phrases),
    *(camera.replace("_", " ") for camera in SIX),
    *("rear left", "Front-Right", "back_left", "gripper", "GREIFER", "überall", "port", "a.b", "stop", "?", "İ", "ß"),
    *("CAM_FRONT", "<c1,CAM_BACK,1088.3,497.5>", "cam_back_left", "A. Left. B. Right."),
    *("is", "the", "car", "camera", "side", "_", *EVERYWHERE[:4], *ANY_VIEW[:4], *ANY_VIEW[-2:]),
]


def questions(count: int) -> list[str]:
    """Draws texts of known words in any order, joined in ways that move the ends of words."""
    rng = random.Random(0)
    joints = (" ", " ", " ", ", ", "-", "_", "", "\n")
    return [
        "".join(word + rng.choice(joints) for word in rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(count)
    ]


def plain_scores(
    question: str,
    cameras: Sequence[str],
    phrases: Mapping[str, Sequence[str]],
    everywhere: Sequence[str],
    any_view: Sequence[str],
) -> dict[str, float]:
    """Searches for one phrase after the other: what `CameraWords` does, without anything compiled beforehand."""

    def pattern(phrase: str) -> str:
        return rf"\b{re.escape(phrase)}\b" if phrase.isascii() else re.escape(phrase)

    def contains(text: str, some: Sequence[str]) -> bool:
        return any(re.search(pattern(phrase), text) for phrase in some)

    def directions(camera: str) -> set[str]:
        parts = re.split(r"[^a-z]+", camera.casefold())
        return {camera_words.NAME_PARTS.get(part, part) for part in parts}.intersection(DIRECTIONS)

    def names(camera: str) -> list[str]:
        own, spoken = [*phrases.get(camera, ())], camera.replace("_", " ")
        own.append(camera if camera.casefold().startswith("cam_") else f"cam_{camera}")
        if len(directions(camera)) > 1:
            return [*own, spoken, spoken.replace(" ", "-"), spoken.replace("back", "rear")]
        return own if directions(camera) else [*own, spoken]

    def there(direction: str) -> set[str]:
        exact = {camera for camera in cameras if directions(camera) == {direction}}
        return exact or {camera for camera in cameras if direction in directions(camera)}

    text = re.split(r"(?s)\ba[.):]\s(?=.*\bb[.):]\s)", question.casefold())[0]
    if contains(text, everywhere):
        return dict.fromkeys(cameras, NAMED)
    named, rest = set(), text
    known = [(name.casefold(), camera) for camera in cameras for name in names(camera)]
    for name, camera in sorted(known, key=lambda item: -len(item[0])):
        if contains(rest, [name]):
            named.add(camera)
            rest = re.sub(pattern(name), " ", rest)
    named.update(*(there(direction) for direction, some in PLACES.items() if contains(rest, some)))
    hinted = set().union(*(there(direction) for direction, some in DIRECTIONS.items() if contains(rest, some)))
    if not named and not hinted and contains(rest, any_view):
        named = {next((camera for camera in cameras if directions(camera) == {"front"}), cameras[0])}
    return {camera: NAMED if camera in named else HINTED * (camera in hinted) for camera in cameras}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("cameras", CAMERAS)
def test_scores_are_those_of_a_search_for_each_phrase(
    cameras: tuple[str, ...], settings: tuple[Mapping[str, Sequence[str]], Sequence[str], Sequence[str]]
) -> None:
    words = CameraWords(cameras, *settings)
    kinds = set()
    for question in questions(400):
        expected = plain_scores(question, cameras, *settings)
        assert words.scores(question) == expected, question
        assert list(words.scores(question)) == list(cameras)
        kinds |= set(expected.values())
    assert kinds >= {0.0, NAMED}


def test_a_name_is_taken_out_before_sides_are_searched() -> None:
    words = CameraWords(SIX, {})
    assert words.scores("the front left one")["front_left"] == NAMED
    assert set(words.scores("the front left one").values()) == {0.0, NAMED}
    assert words.scores("left of the front left one") == {
        "front": 0.0, "front_left": NAMED, "front_right": 0.0, "back": 0.0, "back_left": HINTED, "back_right": 0.0,
    }  # fmt: skip


def test_without_cameras_there_are_no_scores() -> None:
    assert CameraWords((), {}).scores("Is it dark?") == {}
