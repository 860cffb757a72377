from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from package_files import DEMO_MODEL

from litevlm_ros.config import ViewSelectionConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH
from litevlm_ros.vision.learned_view_selection import load_view_selector
from litevlm_ros.vision.view_selection import LexicalSelector

pytest.importorskip("onnxruntime", reason="the selector's graph runs on ONNX Runtime")

from litevlm_ros.vision.learned_view_selection import MOST_WORDS, LearnedSelector
from litevlm_ros.vision.view_selector_graph import ViewSelectorGraph

GRAPH = DEMO_MODEL / VIEW_SELECTOR_GRAPH
SIX = ("front", "front_left", "front_right", "back", "back_left", "back_right")


@pytest.fixture(scope="module")
def selector() -> LearnedSelector:
    return LearnedSelector(GRAPH, LexicalSelector())


@pytest.mark.parametrize(
    ("question", "cameras"),
    [
        ("Should we stop?", ["front"]),
        ("Is the way ahead clear?", ["front"]),
        ("What is the weather like?", ["front"]),
        ("Is there a red car behind us?", ["back"]),
        ("Do you see an elephant to the front left?", ["front_left"]),
        ("Is the white van to the back right on the left, ahead or on the right?", ["back_right"]),
        ("Describe the back left view.", ["back_left"]),
        ("Is there a car behind us? Should we stop?", ["front", "back"]),
        ("How many vehicles are around us?", list(SIX)),
        ("Which camera sees the yellow bus?", list(SIX)),
    ],
)
def test_it_knows_the_questions_of_the_demo_world(selector: LearnedSelector, question: str, cameras: list[str]) -> None:
    assert selector.select(question, SIX) == tuple(cameras)


@pytest.mark.parametrize(
    "question",
    [
        "Should we stop for lunch?",
        "Where is Anna?",
        "How many cars?",
        "Should we stop and look in all views?",
        "",
        "???",
        "car " * (MOST_WORDS + 1),
    ],
)
def test_in_doubt_it_keeps_all(selector: LearnedSelector, question: str) -> None:
    assert selector.select(question, SIX) == SIX


def test_words_that_it_never_read_leave_the_choice_to_the_lexical_score(selector: LearnedSelector) -> None:
    assert selector.select("뒤에 사람이 있나요?", SIX) == ("back",)
    assert selector.select("Is there a unicorn behind us?", SIX) == ("back",)


def test_of_the_cameras_offered_some_are_kept_in_their_order(selector: LearnedSelector) -> None:
    offered = ("back_right", "front", "back_left")
    assert selector.select("How many vehicles are around us?", offered) == offered
    assert selector.select("Is there a bus behind us?", offered) == ("back_right", "back_left")
    assert selector.select("Is it dark?", ("back_left", "back_right")) == ("back_left",)
    assert selector.select("Should we stop?", ("back",)) == ("back",)


def test_a_camera_that_it_does_not_know_is_kept_unless_others_are_named(selector: LearnedSelector) -> None:
    cameras = (*SIX, "gripper")
    assert selector.select("Should we stop?", cameras) == ("front", "gripper")
    assert selector.select("Is there a red car behind us?", cameras) == ("back",)
    assert selector.select("What does the gripper see?", cameras) == ("gripper",)
    assert selector.select("Is there a red car around us?", cameras) == cameras


def test_other_cameras_are_chosen_by_words_and_the_log_says_so_once(
    selector: LearnedSelector, caplog: pytest.LogCaptureFixture
) -> None:
    cameras = ("cam_rear", "cam_forward")
    fresh = LearnedSelector(GRAPH, LexicalSelector())
    assert fresh.select("Should we stop?", cameras) == cameras
    assert fresh.select("What is behind us?", cameras) == ("cam_rear",)
    assert caplog.text.count("trained for the cameras front, front_left") == 1
    assert "set view_selection to lexical" in caplog.text


def test_logits_are_added_to_the_lexical_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ViewSelectorGraph, "logits", lambda graph, words: (0.6, 0.2, -9, -0.4, -0.6, 0.4))
    selector = LearnedSelector(GRAPH, LexicalSelector(threshold=0.5))
    # Lexically 'back' has 1, the left ones 0.4, the others nothing.
    assert selector.select("Is the red car behind us on the left?", SIX) == ("front", "front_left", "back")
    monkeypatch.setattr(ViewSelectorGraph, "logits", lambda graph, words: (-5.0,) * 6)
    strict = LearnedSelector(GRAPH, LexicalSelector(threshold=0.7))
    assert strict.select("Is the red car behind us?", SIX) == ("back",), "none is kept: as the words say"


def test_threshold_and_phrases_can_change(selector: LearnedSelector) -> None:
    changed = selector.changed(ViewSelectionConfig("learned", phrases={"back": ("luggage",)}))
    assert changed.cameras == SIX
    assert changed.select("Is the luggage safe?", SIX) == ("back",)
    assert selector.select("Is the luggage safe?", SIX) == SIX
    assert changed.select("Should we stop?", SIX) == ("front",)


def test_a_question_that_is_asked_again_runs_the_graph_once_whatever_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Sequence[int]] = []

    def logits(graph: ViewSelectorGraph, words: Sequence[int]) -> tuple[float, ...]:
        runs.append(words)
        return (1.0, 0.3, -0.3, -0.3, -0.3, -0.3)

    monkeypatch.setattr(ViewSelectorGraph, "logits", logits)
    selector = LearnedSelector(GRAPH, LexicalSelector())
    assert selector.select("Should we stop?", SIX) == ("front",)
    assert selector.select("should we STOP", SIX[::-1]) == ("front",)
    named = selector.changed(ViewSelectionConfig("learned", phrases={"back": ("stop",)}))
    assert named.select("Should we stop?", SIX) == ("front", "back")
    lower = named.changed(ViewSelectionConfig("learned", threshold=0.2))
    assert lower.select("Should we stop?", SIX) == ("front", "front_left")
    assert selector.select("Should we stop?", SIX) == ("front",)
    assert len(runs) == 1
    selector.select("Is the way clear?", SIX)
    assert len(runs) == 2


def test_the_settings_choose_the_selector() -> None:
    assert load_view_selector(ViewSelectionConfig(), DEMO_MODEL) is None
    assert isinstance(load_view_selector(ViewSelectionConfig("lexical"), DEMO_MODEL), LexicalSelector)
    learned = load_view_selector(ViewSelectionConfig("learned", phrases={"back": ("elephant",)}), DEMO_MODEL)
    assert isinstance(learned, LearnedSelector)
    assert learned.cameras == SIX


def test_a_missing_graph_is_explained(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"there is no .*view_selector\.onnx: train one with .* or set"):
        load_view_selector(ViewSelectionConfig("learned"), tmp_path)
