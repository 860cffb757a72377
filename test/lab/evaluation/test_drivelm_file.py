from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from drivelm_example import qa

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.drivelm_file import DriveLMQuestion, LeftOut, read_key_frames

IMAGES = {"CAM_FRONT": "../nuscenes/samples/CAM_FRONT/a.jpg", "CAM_BACK_LEFT": "b.jpg"}
RIGHT = qa("Is it dark?", "No.", 0)


def frame(*perception: Any, **others: Any) -> dict[str, Any]:
    parts = {"perception": list(perception), "prediction": [], "planning": [], "behavior": []}
    return {"QA": {**parts, **others}, "image_paths": IMAGES}


def written(folder: Path, content: Any) -> Path:
    file = folder / "questions.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def one_scene(**frames: Any) -> dict[str, Any]:
    return {"s": {"key_frames": frames}}


def test_questions_keep_their_numbers_and_only_those_to_score_and_the_first_are_asked(tmp_path: Path) -> None:
    entry = frame(qa("Which objects?", "<c1,CAM_BACK,1.0,2.0>", 2), qa("Why?", "So.", 1))
    entry["QA"]["prediction"] = [qa("Who first?", "<c1,CAM_BACK,1.0,2.0>", 3)]
    entry["QA"]["behavior"] = [qa("Where to?", "A", 1, 0)]
    left_out = LeftOut()
    (found,) = read_key_frames(written(tmp_path, one_scene(f=entry)), left_out)
    assert found.id == "s_f"
    assert found.images == {"front": IMAGES["CAM_FRONT"], "back_left": "b.jpg"}
    assert found.questions == (
        DriveLMQuestion("s_f_0", "Which objects?", "<c1,CAM_BACK,1.0,2.0>", frozenset({2}), first=True),
        DriveLMQuestion("s_f_2", "Who first?", "<c1,CAM_BACK,1.0,2.0>", frozenset({3}), first=False),
        DriveLMQuestion("s_f_3", "Where to?", "A", frozenset({0, 1}), first=False),
    )
    assert left_out.lines() == []


def test_few_questions_come_from_many_scenes(tmp_path: Path) -> None:
    content = {scene: {"key_frames": {"1": frame(RIGHT), "2": frame(RIGHT)}} for scene in ("a", "b")}
    found = read_key_frames(written(tmp_path, content), LeftOut())
    assert [one.id for one in found] == ["a_1", "b_1", "a_2", "b_2"]


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (frame(RIGHT, "no question"), "questions without a text: 1 (the first: s_bad_1)"),
        (frame(RIGHT, {"A": "No.", "tag": [0]}), "questions without a text: 1"),
        (frame(RIGHT, qa(" ", "No.", 0)), "questions without a text: 1"),
        (frame(RIGHT, qa("\ud800?", "No.", 0)), "questions without a text: 1"),
        (frame(RIGHT, {"Q": "Why?", "A": "So."}, {"Q": "Why?", "A": "So.", "tag": ["0", True, None]}), "a tag: 2"),
        (frame(RIGHT, qa("Is it?", "", 0)), "questions without an answer: 1"),
        (frame(RIGHT, {"Q": "Is it?", "A": 7, "tag": [0]}), "questions without an answer: 1"),
        (frame(RIGHT, prediction="none"), "parts of QA that are no lists: 1 (the first: prediction of s_bad)"),
        ([], "key frames without QA: 1 (the first: s_bad)"),
        ({"QA": [RIGHT]}, "key frames without QA: 1"),
        ({"QA": {"behavior": [RIGHT]}}, "key frames without image_paths: 1"),
        ({"QA": {"behavior": [RIGHT]}, "image_paths": {"CAM_FRONT": None}}, "key frames without image_paths: 1"),
    ],
)
def test_a_bad_entry_is_counted_and_the_others_are_kept(bad: Any, line: str, tmp_path: Path) -> None:
    left_out = LeftOut()
    found = read_key_frames(written(tmp_path, one_scene(bad=bad, good=frame(RIGHT))), left_out)
    assert found[-1].id == "s_good"
    assert all(one.questions[0].text == "Is it dark?" and len(one.questions) == 1 for one in found)
    assert len(left_out.lines()) == 1
    assert line in left_out.lines()[0]


def test_a_scene_without_key_frames_is_counted_and_its_name_cannot_steer_a_terminal(tmp_path: Path) -> None:
    left_out = LeftOut()
    read_key_frames(written(tmp_path, {"\x1b[2J": [], "t": {}, **one_scene(f=frame(RIGHT))}), left_out)
    assert left_out.lines() == ["Left out, scenes without key_frames: 2 (the first: \\x1b[2J)"]


def test_a_single_tag_need_not_be_a_list_and_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    entry = frame({"Q": "Is it dark?", "A": "No.", "tag": 0})
    found = read_key_frames(written(tmp_path, "\ufeff" + json.dumps(one_scene(f=entry))), LeftOut())
    assert found[0].questions[0].tags == {0}


def test_after_a_bad_first_question_no_other_counts_as_the_first(tmp_path: Path) -> None:
    (found,) = read_key_frames(written(tmp_path, one_scene(f=frame("bad", RIGHT))), LeftOut())
    assert [question.first for question in found.questions] == [False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON (Expecting property name"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"s": ' + "9" * 6000 + "}", "cannot be read as JSON"),
        ([{"id": "s_f_0", "conversations": []}], "is a list, as convert2llama.py writes one"),
        ("7", "has no scenes"),
        ({}, "has no scenes"),
        ({"s": {}}, "has no question with the tag 0 (accuracy) or 3 (match) (Left out, scenes without key_frames: 1"),
        (one_scene(f=frame(qa("Why?", "So.", 1))), "has no question with the tag 0 (accuracy) or 3 (match). DriveLM's"),
        (one_scene(f=frame({"Q": "Why?", "A": "So."})), "have no tags, which say how each is scored. Training files"),
        (one_scene(f=frame(qa("Is it?", "", 0))), "have no answers, as in the challenge's own test file"),
    ],
)
def test_a_file_with_nothing_to_score_is_explained(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_key_frames(written(tmp_path, content), LeftOut())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--drivelm: cannot read .*nowhere.json \(No such file"):
        read_key_frames(tmp_path / "nowhere.json", LeftOut())
    with pytest.raises(ConfigError, match=r"cannot read .*Is a directory"):
        read_key_frames(tmp_path, LeftOut())
    (tmp_path / "zip").write_bytes(b"PK\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        read_key_frames(tmp_path / "zip", LeftOut())
