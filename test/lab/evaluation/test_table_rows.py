from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from litevlm_ros.config import PipelineConfig, SpeculationConfig, TokenSelectionConfig, ViewSelectionConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table_rows import Parts, table_rows

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
