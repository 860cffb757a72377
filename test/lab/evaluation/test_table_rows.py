from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from litevlm_ros.config import (
    DEMO_CAMERAS,
    PipelineConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table_rows import Parts, RenderedViews, table_questions, table_rows
from litevlm_ros.lab.world.splits import FIRST_HELD_OUT_SEED

BASE = PipelineConfig(Path("models"), threads=3)


def test_each_row_is_the_base_with_a_switch_turned() -> None:
    rows = {row.name: row.config for row in table_rows(BASE, Parts("lexical", "similarity", 0.25, "ngram"))}
    views, drafts = ViewSelectionConfig("lexical"), SpeculationConfig("ngram")
    tokens = TokenSelectionConfig("similarity", 0.25)
    everything = replace(BASE, view_selection=views, token_selection=tokens, speculation=drafts)
    assert rows == {
        "base": BASE,
        "view_selection": replace(BASE, view_selection=views),
        "token_selection": replace(BASE, token_selection=tokens),
        "random_tokens": replace(BASE, token_selection=TokenSelectionConfig("random", 0.25)),
        "speculation": replace(BASE, speculation=drafts),
        "all": everything,
        "all_fp8": replace(everything, vision_precision="fp8", text_precision="fp8"),
    }


def test_titles_say_what_is_in_a_row() -> None:
    titles = [row.title for row in table_rows(BASE, Parts(keep=0.3, precisions=("fp16", "int4")))]
    assert "+ random tokens (30 %)" in titles
    assert titles[-1] == "all + FP8 (vision fp16, text int4)"


def test_a_part_that_does_not_exist_is_explained() -> None:
    with pytest.raises(ConfigError, match="token_selection_keep is"):
        table_rows(BASE, Parts(keep=1.5))


def test_so_many_short_questions_about_six_views_of_held_out_scenes() -> None:
    asked = table_questions(0, 30)
    assert sum(one.scored for one in asked) == 30
    assert len(asked) == 30 + 3, "three captions"
    assert all(one.exercise.cameras == DEMO_CAMERAS for one in asked)
    assert all(one.exercise.scene.seed >= FIRST_HELD_OUT_SEED for one in asked)
    assert {one.exercise.unseen for one in asked} == {True, False}
    assert [one.question for one in table_questions(0, 13)] == [one.question for one in asked[:15]]
    assert table_questions(7, 1)[0].question != asked[0].question


def test_pictures_are_drawn_once_an_exercise_and_say_which_frame_they_are() -> None:
    first, second, *_, other = table_questions(0, 13)
    pictures = RenderedViews()
    views = pictures.of(first)
    assert [view.camera for view in views] == list(DEMO_CAMERAS)
    assert len({view.frame for view in views}) == 6
    assert pictures.of(second) is views
    assert {view.frame for view in pictures.of(other)}.isdisjoint(view.frame for view in views)
    assert pictures.of(first) is not views, "only the last exercise is kept"


def test_pictures_of_several_exercises_are_kept_for_the_next_row() -> None:
    questions = {one.number: one for one in table_questions(0, 30)}
    first, second, third = list(questions.values())[:3]
    pictures = RenderedViews(2)
    views = [pictures.of(one) for one in (first, second)]
    assert [pictures.of(one) for one in (first, second)] == views
    pictures.of(third)
    assert pictures.of(second) is views[1]
    assert pictures.of(first) is not views[0], "the oldest one made room"


def test_none_is_too_few() -> None:
    with pytest.raises(ConfigError, match="--questions is 0; allowed: from 1"):
        table_questions(0, 0)
