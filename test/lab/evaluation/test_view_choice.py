from __future__ import annotations

import re
from dataclasses import replace

import pytest
from package_files import DEMO_MODEL

pytest.importorskip("onnxruntime", reason="the demo model runs on ONNX Runtime")

from litevlm_ros.config import PipelineConfig
from litevlm_ros.lab.evaluation.scores import Share
from litevlm_ros.lab.evaluation.view_choice import ViewChoice, choice_table, examine_choice
from litevlm_ros.lab.world.exercises import held_out_exercises
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.vision.learned_view_selection import LearnedSelector
from litevlm_ros.vision.view_selection import LexicalSelector


class FirstOnly:
    """Keeps one view, whatever is asked."""

    def select(self, question: str, cameras: tuple[str, ...]) -> tuple[str, ...]:
        return cameras[:1]


@pytest.fixture(scope="module")
def choices() -> dict[str, ViewChoice]:
    pipeline = Pipeline.from_config(PipelineConfig(DEMO_MODEL, backend="onnxruntime", threads=1))
    selectors = {
        "lexical": LexicalSelector(),
        "learned": LearnedSelector(DEMO_MODEL / VIEW_SELECTOR_GRAPH, LexicalSelector()),
        "bad": FirstOnly(),
    }
    return examine_choice(pipeline, selectors, held_out_exercises(0, 4))


def test_both_choices_miss_nothing_and_keep_less_than_half(choices: dict[str, ViewChoice]) -> None:
    choice, learned = choices["lexical"], choices["learned"]
    assert choice.chosen.total == choice.all_views.total == learned.chosen.total == 4 * 12
    assert choice.recall.value == choice.complete.value == 1
    assert 1 <= choice.mean_views < 3
    assert choice.lost_points < 8, "at most 3 of 48"
    assert learned.recall.value == learned.complete.value == 1
    assert learned.mean_views < choice.mean_views, "it knows that 'should we stop?' is about the front"
    assert learned.lost_points < 8
    assert len(learned.select_ms) == 4 * 12
    assert min(learned.select_ms) > 0


def test_a_bad_choice_shows(choices: dict[str, ViewChoice]) -> None:
    bad = choices["bad"]
    assert bad.mean_views == 1
    assert bad.recall.value is not None
    assert bad.recall.value < 0.5
    assert bad.lost_points > 10


def test_shares_add_up_and_are_told() -> None:
    one = ViewChoice(Share(1, 6), Share(1, 1), Share(1, 1), Share(1, 1), Share(1, 1), Share(0, 1))
    other = ViewChoice(Share(5, 6), Share(1, 5), Share(1, 2), Share(0, 1), Share(0, 1), Share(1, 1))
    both = one + other
    assert (both.mean_views, both.lost_points, both.recall) == (3, 0, Share(2, 3))
    timed = choice_table({"timed": replace(both, select_ms=(1.0, 2.0, 4.0))})
    assert re.search(r"ms to choose after an answer +2\.000 \(90 %: ", timed)
    told = choice_table({"good": both, "other": one})
    assert told.startswith("2 questions about six views")
    assert re.search("views kept +3.00 +1.00", told)
    assert re.search("kept, of those needed +66.7 .* 100.0 ", told)
