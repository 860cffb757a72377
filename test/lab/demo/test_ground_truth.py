from __future__ import annotations

import json
from typing import Any

import pytest

from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.demo.ground_truth import (
    SceneHistory,
    SceneTruth,
    TrueAnswer,
    announcement,
    next_question,
    parse,
    scene_facts,
)
from litevlm_ros.lab.world.scene import generate

COUNT = TrueAnswer("How many cars?", "two", ("front",), "count")
MORE = TrueAnswer("How many buses?", "one", ("front",), "count")
RAIN = TrueAnswer("Is it raining?", "no", (), "weather")


def written(**changes: Any) -> str:
    fields = {
        "stamp": {"sec": 3, "nanosec": 7},
        "scene_seed": 11,
        "captions": {"front": "Clear day. The road is empty."},
        "questions": [{"question": "How many cars?", "answer": "two", "cameras": ["front"], "kind": "count"}],
    }
    return json.dumps({**fields, **changes})


def scene(start: int, *questions: TrueAnswer) -> SceneTruth:
    return SceneTruth(start, start, {}, questions)


def test_an_announcement_is_json_with_the_stamp_of_the_frames() -> None:
    message = announcement(scene_facts(generate(4), ["front"]), 12, 34)
    fields = json.loads(message)
    assert fields["stamp"] == {"sec": 12, "nanosec": 34}
    assert list(fields["captions"]) == ["front"]
    assert set(fields["questions"][0]) == {"question", "answer", "cameras", "kind"}
    assert parse(message).start == 12_000_000_034
    assert len(parse(message).questions) == 6


def test_an_announcement_is_read() -> None:
    assert parse(written()) == SceneTruth(3_000_000_007, 11, {"front": "Clear day. The road is empty."}, (COUNT,))


@pytest.mark.parametrize("text", ["", "[]", "null", written(stamp=None), written(questions=[{}]), written(captions=[])])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(LiteVLMError, match="/demo_cameras/ground_truth carries something else"):
        parse(text)


def test_the_scene_that_images_show() -> None:
    history = SceneHistory()
    assert history.newest is None
    assert history.at([5]) is None
    for start in (20, 10, 30, 20):
        history.add(scene(start))
    assert history.newest == scene(30)
    assert history.at([10, 19]) == scene(10)
    assert history.at([20]) == scene(20)
    assert history.at([99]) == scene(30)
    assert history.at([9]) is None
    assert history.at([19, 20]) is None
    assert history.at([]) is None


def test_questions_of_other_kinds_come_first() -> None:
    now = scene(0, COUNT, MORE, RAIN)
    assert next_question(now, []) == COUNT
    assert next_question(now, [COUNT]) == RAIN
    assert next_question(now, [COUNT, RAIN]) == MORE
    assert next_question(now, [COUNT, RAIN, MORE]) is None
